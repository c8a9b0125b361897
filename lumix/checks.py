"""Checks of arguments: each raises ValueError in one sentence with the name, the offending value and the remedy.

They are made once, when a mixer, a rule, a loss or a configuration is built. Imports no torch.
"""

from collections.abc import Sequence
from fractions import Fraction
from numbers import Integral, Real
from typing import Any

LARGEST = 3.4028234663852886e38  # of float32, in which weights and losses are computed


def shown(value: Any) -> str:
    """A value as an error message has it: on one line, and cut where it is long."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 100 else f"{text[:97]}..."


def check_number(
    name: str, value: Any, low: float = -LARGEST, high: float = LARGEST, *, open_low: bool = False, whole: bool = False
) -> None:
    """Refuse what is no finite number from `low` (itself not where `open_low`) to `high`, or no `whole` one.

    Scalars of NumPy are numbers; text, None, bool and tensors are not.
    """
    try:
        number = float(value) if isinstance(value, Real) and not isinstance(value, bool | Fraction) else float("nan")
    except OverflowError:
        number = float("inf")
    if not abs(number) <= LARGEST or (whole and not isinstance(value, Integral)):
        remedy = ""
        if isinstance(value, str):
            remedy = f": convert the text with {'int' if whole else 'float'}()"
        elif type(value).__name__ == "Tensor":
            remedy = ": use .item()"
        raise ValueError(f"{name} must be a {'whole' if whole else 'finite'} number, not {shown(value)}{remedy}")
    if number < low or number > high or (open_low and number == low):
        limit = f"be at most {high:g}" if number > high else f"be {'above' if open_low else 'at least'} {low:g}"
        if (low, high) == (0, 1):
            limit = "lie between 0 and 1"
        raise ValueError(f"{name} must {limit}, not {shown(value)}")


def check_positive(name: str, value: Any, *, whole: bool = False) -> None:
    check_number(name, value, 0, open_low=True, whole=whole)


def check_probability(name: str, value: Any) -> None:
    check_number(name, value, 0, 1)


def check_numbers(
    name: str, values: Any, low: float = -LARGEST, *, open_low: bool = False, whole: bool = False
) -> None:
    """Refuse what is no tuple or list of one or more numbers, each as for `check_number`."""
    if not isinstance(values, Sequence) or isinstance(values, str) or not values:
        raise ValueError(f"{name} must be a tuple of numbers, not {shown(values)}")
    for place, value in enumerate(values):
        check_number(f"{name}[{place}]", value, low, open_low=open_low, whole=whole)


def check_choice(name: str, value: Any, allowed: tuple[str, ...]) -> None:
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, not {shown(value)}")


def check_flag(name: str, value: Any) -> None:
    """Refuse what is not True or False; the text "False" would count as true."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False, not {shown(value)}")


def check_part(name: str, value: Any, methods: tuple[str, ...], what: str) -> None:
    """Refuse what lacks one of the methods that make it `what`, and a class in place of an object of it."""
    if isinstance(value, type):
        raise ValueError(f"{name} must be {what}, not the class itself: use {value.__name__}()")
    if not all(callable(getattr(value, method, None)) for method in methods):
        raise ValueError(f"{name} must be {what}, not {shown(value)}")
