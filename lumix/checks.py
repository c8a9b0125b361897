"""Checks of arguments: each raises ValueError in one sentence with the name, the offending value and the remedy.

They are made once, when a mixer, a rule, a loss or a configuration is built: by `check_fields` from the types of a
dataclass's fields, as in `alpha: Positive = 0.8` or `mode: Literal["batch", "elem"] = "batch"`.
"""

import dataclasses
from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from numbers import Integral, Real
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

LARGEST = 3.4028234663852886e38  # of float32, in which weights and losses are computed


@dataclasses.dataclass(frozen=True)
class Range:
    """Of a number in a field, as in Annotated[float, Range(0, 1)]: from `low`, or above it, to `high`."""

    low: float = -LARGEST
    high: float = LARGEST
    open_low: bool = False


Positive = Annotated[float, Range(0, open_low=True)]
NotNegative = Annotated[float, Range(0)]
Share = Annotated[float, Range(0, 1)]
Count = Annotated[int, Range(1)]
CountOrNone = Annotated[int, Range(0)]  # where 0 stands for none, or for all


class Checked:
    """Base of dataclasses whose fields are checked when one is made."""

    def __post_init__(self) -> None:
        check_fields(self)


def check_fields(record: Any) -> None:
    """Check the fields of a dataclass by their types; ValueError in one sentence for a wrong one.

    Numbers of NumPy and whole numbers in place of floats become Python's own of the field's type, lists tuples.
    """
    for name, hint in _hints(type(record)).items():  # type: ignore[arg-type]
        value = getattr(record, name)
        found = _checked(f"{type(record).__name__}.{name}", value, hint)
        if found is not value:
            object.__setattr__(record, name, found)


@cache
def _hints(cls: Any) -> dict[str, Any]:
    hints = get_type_hints(cls, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def _checked(name: str, value: Any, hint: Any) -> Any:
    """The value as its field has it."""
    limits: Any = Range()
    origin = get_origin(hint)
    if origin is Annotated:
        hint, limits = get_args(hint)
        origin = get_origin(hint)
    if hint in (float, int):
        check_number(name, value, limits.low, limits.high, open_low=limits.open_low, whole=hint is int)
        return value if type(value) is hint else hint(value)
    if hint is bool:
        check_flag(name, value)
    elif origin is Literal or isinstance(limits, tuple):
        check_choice(name, value, limits if isinstance(limits, tuple) else get_args(hint))
    elif hint is str and not isinstance(value, str):
        raise ValueError(f"{name} must be text, not {shown(value)}")
    elif origin is tuple:
        return _checked_tuple(name, value, get_args(hint))
    elif origin in (Union, UnionType):  # None and tensors as they are, all else by the first
        first, *others = get_args(hint)
        return value if isinstance(value, tuple(others)) else _checked(name, value, first)
    return value


def _checked_tuple(name: str, value: Any, entries: tuple[Any, ...]) -> tuple[Any, ...]:
    what = "numbers" if entries[0] in (float, int) or get_origin(entries[0]) is Annotated else "values"
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise ValueError(f"{name} must be a tuple of {what}, not {shown(value)}")
    if entries[-1] is not Ellipsis and len(value) != len(entries):
        raise ValueError(f"{name} must be a tuple of {len(entries)} {what}, not {shown(value)}")
    hints = entries if entries[-1] is not Ellipsis else entries[:1] * len(value)
    found = tuple(
        _checked(f"{name}[{i}]", entry, hint) for i, (entry, hint) in enumerate(zip(value, hints, strict=True))
    )
    return value if isinstance(value, tuple) and found == value else found


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
