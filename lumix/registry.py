"""Parts by name: what a run's JSON calls a mixer, step, rule, law, loss term, task or frozen network.

A part is a frozen dataclass of its arguments. Its dictionary holds its name and the fields that differ from their
defaults, so a new field with a default changes no dictionary. To add one, register its class:

    @register("mixer", "gridmix", "GridMix", pixels="cut")
    @dataclass(frozen=True)
    class GridMix(PlannedMixer): ...
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, TypeVar

from lumix.inputs import shown

KINDS = ("mixer", "step", "rule", "law", "term", "network", "task")
# Fields of mixers and steps that whoever builds a run fills in: from the whole Mix, from the data, the mixer of a step.
GIVEN = ("mode", "pairing", "prob", "inplace", "mean", "std", "mixer")
Class = TypeVar("Class", bound=type)


@dataclass(frozen=True)
class Part:
    """What is known of a registered class, beside what the class itself says.

    Attributes:
        kind: one of `KINDS`. A step changes a mixed batch further; a law is the distribution of lambda_r.
        name: in JSON, in run keys and on the command line; unique over all kinds.
        title: for people.
        cls: the class.
        pixels: of a mixer: "blend", "cut" or "" for neither.
        dynamic: of a mixer: whether it looks at the images to decide what shows (Decoupled Mixup treats it otherwise).
        needs: "nothing", "the network" in training, "a frozen network", or "networks of its own".
        labelled, unlabelled: of a task: "weak" or "strong" for each view of an image that it trains on; () are images
            as they come, and no unlabelled ones.
    """

    kind: str
    name: str
    title: str
    cls: Any
    pixels: str = ""
    dynamic: bool = False
    needs: str = "nothing"
    labelled: tuple[str, ...] = ()
    unlabelled: tuple[str, ...] = ()

    @property
    def arguments(self) -> dict[str, "dataclasses.Field[Any]"]:
        """The fields that a run may set, by name."""
        given = GIVEN if self.kind in ("mixer", "step") else ()
        return {field.name: field for field in dataclasses.fields(self.cls) if field.name not in given}


PARTS: dict[str, Part] = {}


def register(kind: str, name: str, title: str, **facts: Any) -> Callable[[Class], Class]:
    """Class decorator that makes a frozen dataclass known by `name`; `facts` are further attributes of `Part`."""
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, not {kind!r}")
    if name in PARTS:
        raise ValueError(f"there is a {PARTS[name].kind} called {name!r} already: choose another name")

    def add(cls: Class) -> Class:
        PARTS[name] = Part(kind, name, title, cls, **facts)
        return cls

    return add


def get_part(name: str, kind: str | None = None) -> Part:
    """The part of that name; ValueError with near matches for an unknown name, or one of another kind."""
    known = [part.name for part in PARTS.values() if kind in (None, part.kind)]
    if name not in known:
        near = get_close_matches(str(name), known, 3, 0.5)
        hint = f"did you mean {', '.join(near)}?" if near else f"there are {', '.join(sorted(known))}"
        raise ValueError(f"no {kind or 'part'} is called {name!r}; {hint}")
    return PARTS[name]


def part_of(value: object, kind: str | None = None) -> Part:
    """What is registered of the class of an object; ValueError for any other class, or one of another kind."""
    for part in PARTS.values():
        if part.cls is type(value) and kind in (None, part.kind):
            return part
    raise ValueError(f"{shown(value)} is no registered {kind or 'part'}: see lumix.registry.register")


def name_of(value: object) -> str:
    return part_of(value).name


def default_of(field: "dataclasses.Field[Any]") -> Any:
    """The default of a field; `dataclasses.MISSING`, which equals nothing else, where there is none."""
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def arguments_of(value: object) -> dict[str, Any]:
    """The arguments of a part that differ from their defaults, in alphabetical order."""
    found = {}
    for name, field in sorted(part_of(value).arguments.items()):
        argument, default = getattr(value, name), default_of(field)
        if argument != default:
            found[name] = float(argument) if isinstance(default, float) else argument
    return found


def to_dict(value: object) -> dict[str, Any]:
    """A part as JSON holds it: its name, and the arguments that differ from their defaults."""
    return {"name": name_of(value), **{name: _plain(argument) for name, argument in arguments_of(value).items()}}


def from_dict(values: Mapping[str, Any]) -> Any:
    """The part that `to_dict` wrote; ValueError for an unknown name, an unknown argument or a missing one."""
    part = get_part(values["name"])
    for name in values:
        if name != "name" and name not in part.arguments:
            raise ValueError(f"{part.name} has no argument {name!r}; it has {', '.join(part.arguments) or 'none'}")
    arguments = {name: _read(value) for name, value in values.items() if name != "name"}
    try:
        return part.cls(**arguments)
    except TypeError as error:
        raise ValueError(f"{part.name}: {error}") from error


def describe(value: object) -> str:
    """A part as people write it: cutmix, lumix(r_r=0.5, r_s=0)."""

    def text(argument: Any) -> str:
        if isinstance(argument, float):
            return f"{argument:g}"
        return describe(argument) if dataclasses.is_dataclass(argument) else str(argument)

    found = ", ".join(f"{name}={text(argument)}" for name, argument in arguments_of(value).items())
    return f"{name_of(value)}({found})" if found else name_of(value)


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return value if isinstance(value, str | bool | int | float | None) else to_dict(value)


def _read(value: Any) -> Any:
    if isinstance(value, Mapping):
        return from_dict(value)
    return tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
