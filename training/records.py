"""The base of frozen records that are written as JSON: strict types, no unknown keys, nothing that equals a default.

Imports no torch, as whatever lists tables must start at once.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self, get_type_hints

from lumix.catalogue import Spec
from lumix.checks import LARGEST, check_choice, check_number


def one_of(owner: object, name: str, allowed: tuple[str, ...]) -> None:
    """Raise ValueError, naming record, field and value, unless the field is one of `allowed`."""
    check_choice(f"{type(owner).__name__}.{name}", getattr(owner, name), allowed)


def within(owner: object, name: str, low: float, high: float = LARGEST) -> None:
    """Raise ValueError, naming record, field and value, unless the field lies in [low, high]."""
    check_number(f"{type(owner).__name__}.{name}", getattr(owner, name), low, high)


@dataclass(frozen=True)
class Config:
    """Base of the configuration records: strict types, no unknown keys, JSON."""

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(type(self)).items():
            value = getattr(self, name)
            if kind is float and type(value) is int:
                object.__setattr__(self, name, float(value))
            elif kind in (bool, int, float, str) and type(value) is not kind:
                raise ValueError(f"{type(self).__name__}.{name} must be {kind.__name__}, not {value!r}")
            if kind is float:
                check_number(f"{type(self).__name__}.{name}", value)
        self.check()

    def check(self) -> None:
        """Raise ValueError, naming field and value, where the record makes no sense."""

    def to_dict(self) -> dict[str, Any]:
        """What differs from the defaults, as JSON knows it."""
        values = ((entry, getattr(self, entry.name)) for entry in dataclasses.fields(self))
        return {entry.name: _encoded(value) for entry, value in values if value != _default(entry)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The record that `to_dict` wrote.

        Raises:
            ValueError: for a key that the record does not have, naming those it has.
        """
        hints = get_type_hints(cls)
        unknown = sorted(set(values) - set(hints))
        if unknown:
            raise ValueError(f"{cls.__name__} has no field {unknown[0]!r}; it has {', '.join(hints)}")
        return cls(**{name: _decoded(value, hints[name]) for name, value in values.items()})

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)


def _default(entry: "dataclasses.Field[Any]") -> Any:
    """The default of a field; `MISSING`, which equals nothing else, where there is none."""
    return entry.default if entry.default_factory is dataclasses.MISSING else entry.default_factory()


def _encoded(value: Any) -> Any:
    if isinstance(value, Config | Spec):
        return value.to_dict()
    return [_encoded(entry) for entry in value] if isinstance(value, tuple) else value


def _decoded(value: Any, hint: Any = None) -> Any:
    """A JSON value as its field has it: records by their type, Specs, and tuples of such."""
    if isinstance(hint, type) and issubclass(hint, Config | Spec) and isinstance(value, Mapping):
        return hint.from_dict(value)
    if isinstance(value, list):
        return tuple(_decoded(entry, Spec if isinstance(entry, Mapping) else None) for entry in value)
    return value
