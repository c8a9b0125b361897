"""Parts by name: what the catalogue holds of each, and how a run names one. Imports no torch.

A `Spec` names a part and the arguments that differ from its defaults: it can be written to JSON, compared and hashed
before anything is built. Part names are unique over all kinds. Use them through `lumix.catalogue`, which holds the
entries.
"""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from lumix.checks import check_number

KINDS = ("mixer", "step", "rule", "law", "term", "network", "task")


@dataclass(frozen=True)
class Argument:
    """One argument of a part: its type, its default, whether it must be given, and whether it may be None."""

    type: type
    default: Any = None
    required: bool = False
    optional: bool = False


@dataclass(frozen=True)
class Part:
    """One entry.

    Attributes:
        kind: one of `KINDS`. A step changes a mixed batch further.
        name: as in a `Spec`.
        home: "module:Class".
        title: for people.
        arguments: what a Spec may set, by name.
        given: arguments of the class that the builder supplies: mode, pairing, prob, mean, std, network, inner ...
        pixels: of a mixer: "blend", "cut" or "" for neither.
        dynamic: of a mixer: whether it looks at the images to decide what shows (Decoupled Mixup treats it otherwise).
        labelled, unlabelled: of a task: "weak" or "strong" for each view of an image that it trains on; () are images
            as they come, and no unlabelled ones.
        needs: "nothing", "the network" in training, "a frozen network", or "networks of its own".
    """

    kind: str
    name: str
    home: str
    title: str
    arguments: Mapping[str, Argument] = field(default_factory=dict)
    given: tuple[str, ...] = ()
    pixels: str = ""
    dynamic: bool = False
    needs: str = "nothing"
    labelled: tuple[str, ...] = ()
    unlabelled: tuple[str, ...] = ()

    @property
    def module(self) -> str:
        return self.home.partition(":")[0]

    @property
    def class_name(self) -> str:
        return self.home.partition(":")[2]

    def load(self) -> Any:
        """The class or function itself."""
        return getattr(importlib.import_module(self.module), self.class_name)


PARTS: dict[str, Part] = {}


def register(part: Part) -> None:
    """Add a part, for instance from another package.

    Raises:
        ValueError: for an unknown kind or a name that is taken.
    """
    if part.kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, not {part.kind!r}")
    if part.name in PARTS:
        raise ValueError(f"there is a {PARTS[part.name].kind} called {part.name!r} already: choose another name")
    PARTS[part.name] = part


def get_part(name: str, kind: str | None = None) -> Part:
    """The part of that name.

    Raises:
        ValueError: for an unknown name, with near matches, or one of another kind.
    """
    known = [part.name for part in PARTS.values() if kind in (None, part.kind)]
    if name not in known:
        near = get_close_matches(str(name), known, 3, 0.5)
        hint = f"did you mean {', '.join(near)}?" if near else f"there are {', '.join(sorted(known))}"
        raise ValueError(f"no {kind or 'part'} is called {name!r}; {hint}")
    return PARTS[name]


class Spec:
    """A part by name, with the arguments that differ from its defaults; immutable, equal where these are.

    Spec("cutmix", alpha=1.0) == Spec("cutmix")

    Raises:
        ValueError: for an unknown part or argument, a missing one, or one of another type.
    """

    __slots__ = ("arguments", "name")
    name: str
    arguments: Mapping[str, Any]

    def __init__(self, name: str, /, **arguments: Any) -> None:
        part = get_part(name)
        for argument in arguments:
            if argument not in part.arguments:
                has = ", ".join(part.arguments) or "no arguments"
                raise ValueError(f"{name} has no argument {argument!r}; it has {has}")
        for argument, known in part.arguments.items():
            if known.required and argument not in arguments:
                raise ValueError(f"{name} needs the argument {argument!r}")
        values = {a: _typed(f"{name}.{a}", part.arguments[a], value) for a, value in sorted(arguments.items())}
        changed = {a: v for a, v in values.items() if part.arguments[a].required or v != part.arguments[a].default}
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "arguments", changed)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"a Spec is immutable: use replace({name}=...)")

    def __getitem__(self, argument: str) -> Any:
        """The value of an argument, its default where none was given."""
        return self.arguments.get(argument, get_part(self.name).arguments[argument].default)

    def replace(self, **arguments: Any) -> "Spec":
        """A copy with some arguments changed."""
        return Spec(self.name, **{**self.arguments, **arguments})

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.name, **{a: _plain(value) for a, value in self.arguments.items()}}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Spec":
        """The Spec that `to_dict` wrote."""
        found = {a: cls.from_dict(v) if isinstance(v, Mapping) else v for a, v in values.items() if a != "name"}
        return cls(values["name"], **found)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Spec) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash(repr(self))

    def __repr__(self) -> str:
        return f"Spec({', '.join([repr(self.name), *(f'{a}={v!r}' for a, v in self.arguments.items())])})"

    def __str__(self) -> str:
        """As people write it: cutmix, lumix(r_r=0.5, r_s=0)."""
        text = ", ".join(f"{a}={v:g}" if isinstance(v, float) else f"{a}={v}" for a, v in self.arguments.items())
        return f"{self.name}({text})" if text else self.name

    def __reduce__(self) -> Any:
        return Spec.from_dict, (self.to_dict(),)


def _typed(name: str, argument: Argument, value: Any) -> Any:
    if value is None and argument.optional:
        return None
    if argument.type is float and type(value) in (int, float):
        check_number(name, value)
        return float(value)
    if argument.type is tuple and isinstance(value, list):
        return tuple(value)
    if type(value) is not argument.type:
        raise ValueError(f"{name} must be {argument.type.__name__}, not {value!r}")
    return value


def _plain(value: Any) -> Any:
    return value.to_dict() if isinstance(value, Spec) else list(value) if isinstance(value, tuple) else value


def create(spec: Spec, **given: Any) -> Any:
    """The object that a Spec describes.

    Args:
        given: what the entry's `given` arguments may ask for; what it does not ask for is left out.

    Raises:
        ValueError: where the class finds an argument out of range.
        TypeError: where something that the entry asks for is not given.
    """
    part = get_part(spec.name)
    missing = [name for name in part.given if name not in given]
    if missing:
        raise TypeError(f"{spec.name} needs {missing[0]!r} from its builder")
    arguments = {a: create(v) if isinstance(v, Spec) else v for a, v in spec.arguments.items() if a not in part.given}
    return part.load()(**arguments, **{name: given[name] for name in part.given})
