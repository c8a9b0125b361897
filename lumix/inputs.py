"""What enters is checked here: arguments by the types of their fields, images and labels by layout and dtype.

Each refusal is a ValueError of one sentence with the name, the offending value and the remedy. A dataclass that is
`Checked` says in its types what its fields may be, as in `alpha: Positive = 0.8` or `mode: Literal["batch", "elem"]`.
Nothing here looks at the values of a tensor, which would wait for its device.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from functools import cache
from numbers import Integral, Real
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import torch
from torch import Tensor

LARGEST = 3.4028234663852886e38  # of float32, in which weights and losses are computed


@dataclasses.dataclass(frozen=True)
class Range:
    """Of a number, as in Annotated[float, Range(0, 1)]: from `low`, or above it, to `high`."""

    low: float = -LARGEST
    high: float = LARGEST
    open_low: bool = False


Positive = Annotated[float, Range(0, open_low=True)]
NotNegative = Annotated[float, Range(0)]
Share = Annotated[float, Range(0, 1)]
# A number of at least 0 or a tensor, which may be learnt. Any, as OmegaConf knows no union of these.
Learnable = Annotated[Any, Range(0)]
Count = Annotated[int, Range(1)]
CountOrNone = Annotated[int, Range(0)]  # where 0 stands for none, or for all


def shown(value: Any) -> str:
    """A value as an error message has it: on one line, and cut where it is long."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 100 else f"{text[:97]}..."


class Checked:
    """Base of dataclasses whose fields are checked by their types when one is made."""

    def __post_init__(self) -> None:
        # Dataclasses that are frozen refuse every assignment, which keeps Lightning from copying hyper-parameters.
        if type(self).__setattr__ is not _unchanged:
            type(self).__setattr__ = _unchanged  # type: ignore[method-assign]
        for name, hint in _hints(type(self)).items():  # type: ignore[arg-type]
            value = getattr(self, name)
            found = checked(f"{type(self).__name__}.{name}", value, hint)
            if found is not value:
                object.__setattr__(self, name, found)

    def refuse(self, by: str, *names: str) -> None:
        """Refuse values of these fields other than their defaults, as the field `by` turns them off."""
        for name, value in ((name, getattr(self, name)) for name in names):
            if value != type(self).__dataclass_fields__[name].default:  # type: ignore[attr-defined]
                found = f"{type(self).__name__}.{name}={value!r} has no use with {by}={getattr(self, by)!r}"
                raise ValueError(f"{found}: leave one of the two out")


def _unchanged(part: Any, name: str, value: Any) -> None:
    """Of frozen dataclasses: an attribute may be set to what it is."""
    old = getattr(part, name)
    if value is not old and (isinstance(value, Tensor) or value != old):
        raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}: make another by dataclasses.replace")


@cache
def _hints(cls: Any) -> dict[str, Any]:
    hints = get_type_hints(cls, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def checked(name: str, value: Any, hint: Any) -> Any:
    """The value as an argument of type `hint` has it; ValueError for one of another type or out of range.

    The type may be annotated with a `Range` or a tuple of choices. Numbers of NumPy and whole numbers in place of
    floats become Python's own, lists tuples. Types that are not known here take anything.
    """
    limits: Any = None
    if get_origin(hint) is Annotated:
        hint, limits = get_args(hint)
    origin, entries = get_origin(hint), get_args(hint)
    choices = limits if isinstance(limits, tuple) else entries if origin is Literal else ()
    if hint is Any and limits is not None:  # a number or a tensor of one
        if not isinstance(value, Tensor):
            return _number(name, value, float, limits)
        if value.numel() != 1 or not value.is_floating_point():
            raise ValueError(f"{name} must be a number or a float tensor of one, not {shown(value)}")
        if (number := known(value)) is not None:
            _number(name, number, float, limits)
        return value
    if hint in (float, int):
        return _number(name, value, hint, limits or Range())
    if choices and (not isinstance(value, str) or value not in choices):
        raise ValueError(f"{name} must be one of {', '.join(choices)}, not {shown(value)}")
    if (hint is bool and not isinstance(value, bool)) or (hint is str and not isinstance(value, str)):
        raise ValueError(f"{name} must be {'True or False' if hint is bool else 'text'}, not {shown(value)}")
    if origin is tuple:
        if not isinstance(value, Sequence) or isinstance(value, str) or (entries[0] in (float, int) and not value):
            raise ValueError(f"{name} must be a tuple, not {shown(value)}")
        hints = entries[:1] * len(value) if entries[-1] is Ellipsis else entries
        if len(hints) != len(value):
            raise ValueError(f"{name} must have {len(hints)} entries, not {shown(value)}")
        return tuple(checked(f"{name}[{i}]", *entry) for i, entry in enumerate(zip(value, hints, strict=True)))
    if origin in (Union, UnionType):  # None as it is, all else by the first
        return value if isinstance(value, entries[1:]) else checked(name, value, entries[0])
    return value


def is_transformed() -> bool:
    """Whether torch.compile or a transform of torch.func looks on, under which tensors have no values to ask for."""
    return torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()


def known(value: float | Tensor) -> float | None:
    """A number, also of a tensor of one; None where that has no value, on the meta device or under a transform."""
    if not isinstance(value, Tensor):
        return value
    return None if value.is_meta or is_transformed() else value.detach().item()


def _number(name: str, value: Any, kind: type, limits: Range) -> Any:
    try:
        number = float(value) if isinstance(value, Real) and not isinstance(value, bool) else float("nan")
    except OverflowError:
        number = float("inf")
    if not abs(number) <= LARGEST or (kind is int and not isinstance(value, Integral)):
        raise ValueError(f"{name} must be a {'whole' if kind is int else 'finite'} number, not {shown(value)}")
    if number < limits.low or number > limits.high or (limits.open_low and number == limits.low):
        limit = f"be at most {limits.high:g}" if number > limits.high else f"be at least {limits.low:g}"
        if (limits.low, limits.high, limits.open_low) == (0, 1, False):
            limit = "lie between 0 and 1"
        raise ValueError(f"{name} must {f'be above {limits.low:g}' if limits.open_low else limit}, not {shown(value)}")
    return value if type(value) is kind else kind(value)


def check_part(name: str, value: Any, methods: tuple[str, ...], what: str) -> None:
    """Refuse what lacks one of the methods that make it `what`, and a class in place of an object of it."""
    if isinstance(value, type):
        raise ValueError(f"{name} must be {what}, not the class itself: use {value.__name__}()")
    if not all(callable(getattr(value, method, None)) for method in methods):
        raise ValueError(f"{name} must be {what}, not {shown(value)}")


LAYOUTS = {3: "signals [B, C, L]", 4: "images [B, C, H, W]", 5: "videos [B, C, T, H, W]"}
INTEGERS = {torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64}
PIXELS = {torch.float32, torch.float64, torch.float16, torch.bfloat16} | INTEGERS
INDICES = {torch.uint16, torch.uint32, torch.uint64} | INTEGERS  # torch can convert the former, and do little else
MIX_LOSS = ("per_sample", "weights")  # what an object needs to be a loss of mixed batches
IGNORED = -100  # the label that torch's cross entropy passes over


def check_shape(shape: Any, taker: str = "a mixer", ndims: tuple[int, ...] = tuple(LAYOUTS)) -> None:
    """Refuse a shape whose number of dimensions is not among `ndims`, or without pixels; `taker` is who asks."""
    if not isinstance(shape, tuple | list):
        raise ValueError(f"{taker} draws for a shape (B, C, H, W), not for {shown(shape)}: use images.shape")
    if len(shape) not in ndims:
        takes = " or ".join(LAYOUTS[count] for count in ndims)
        remedy = "" if len(ndims) > 1 or len(shape) not in LAYOUTS else ": Mixup and CutMix take signals and videos too"
        raise ValueError(f"{taker} mixes {takes}, not a batch of shape {list(shape)}{remedy}")
    if 0 in shape:
        raise ValueError(f"a batch of shape {list(shape)} is empty: a mixer needs at least one image, of one pixel")


def check_batch(images: Any, labels: Any, drawn: int | None = None) -> Tensor:
    """The labels of a batch that can be mixed, as int64 [B]; the caller's stay as they are.

    They are [B] or [B, 1] of any integer dtype, images of floats or of integers from uint8 to int64, on one device.
    `drawn` is the number of images for which draws were made.
    """
    if not isinstance(images, Tensor):
        remedy = "torch.stack(images)" if isinstance(images, list | tuple) else "torch.as_tensor(images)"
        raise ValueError(f"images must be a tensor [B, C, H, W], not {type(images).__name__}: use {remedy}")
    check_shape(images.shape)
    if images.dtype not in PIXELS or images.layout != torch.strided:
        what = images.dtype if images.layout == torch.strided else images.layout
        raise ValueError(f"images must be dense, of floats or integers (uint8, int8 to int64), not {what}: convert")
    indices = class_indices(labels, len(images))
    if indices.device != images.device:
        raise ValueError(f"labels are on {indices.device} and images on {images.device}: move the labels there")
    if drawn is not None and drawn != len(images):
        raise ValueError(f"the draws are for {drawn} images, the batch has {len(images)}: draw with images.shape")
    return indices


def class_indices(labels: Any, size: int) -> Tensor:
    """Labels [B] or [B, 1] of an integer dtype as int64 [B]; int64 [B] are returned themselves."""
    if not isinstance(labels, Tensor):
        raise ValueError(f"labels must be a tensor [B], not {type(labels).__name__}: use torch.as_tensor(labels)")
    single = labels.shape in ((size,), (size, 1))
    if single and labels.dtype in INDICES:
        return labels.to(torch.int64).view(size)
    if not single and (labels.ndim != 2 or len(labels) != size):
        raise ValueError(f"labels must be [B] with B = {size} images, not of shape {list(labels.shape)}: one each")
    dense = "labels.view(-1, 1)" if single else "labels"
    simple = "whole numbers become labels.to(torch.int64)" if single else "one-hot labels become labels.argmax(1)"
    raise ValueError(
        f"labels must be class indices [B] of an integer dtype, not {labels.dtype} of shape {list(labels.shape)}: "
        f"{simple}; for multi-hot or soft targets give the mixer torch.full(({size},), {IGNORED}) as labels and mix "
        f"them with batch.mix_targets({dense})"
    )


def sides(shape: tuple[int, ...]) -> tuple[int, int]:
    """Height and width of what is cut in images or videos of a shape; a signal of length L is 1 high and L wide."""
    return (1, shape[2]) if len(shape) == 3 else (shape[-2], shape[-1])


def logits_of(output: Any) -> Tensor:
    """The logits in what a network returned: a tensor, or an object or mapping with `logits`, as of transformers."""
    found = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", output)
    if isinstance(output, tuple | list) and len(output) == 1:
        found = output[0]
    if isinstance(found, Tensor):
        return found
    what = f"a {type(output).__name__}" + (f" of {len(output)}" if isinstance(output, tuple | list) else "")
    raise ValueError(
        f"the network returned {what}, not logits [B, C]: pass the tensor itself, as output[0]; a distilled DeiT of "
        "timm returns one (of two heads) after model.set_distilled_training(False)"
    )
