"""The base of frozen records that are written as JSON: strict types, no unknown keys, nothing that equals a default."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self, get_origin, get_type_hints

from lumix.inputs import Checked
from lumix.registry import default_of, from_dict, to_dict


@dataclass(frozen=True)
class Config(Checked):
    """Base of the configuration records: their fields are checked by type, and written where they are no default."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check()

    def check(self) -> None:
        """Raise ValueError, naming field and value, where fields make no sense together."""

    def to_dict(self) -> dict[str, Any]:
        """What differs from the defaults, as JSON knows it."""
        values = ((entry, getattr(self, entry.name)) for entry in dataclasses.fields(self))
        return {entry.name: _encoded(value) for entry, value in values if value != default_of(entry)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The record that `to_dict` wrote; ValueError for a key that the record does not have."""
        hints = get_type_hints(cls)
        unknown = sorted(set(values) - set(hints))
        if unknown:
            raise ValueError(f"{cls.__name__} has no field {unknown[0]!r}; it has {', '.join(hints)}")
        return cls(**{name: _decoded(value, hints[name]) for name, value in values.items()})

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)


def _encoded(value: Any) -> Any:
    if isinstance(value, Config):
        return value.to_dict()
    if isinstance(value, tuple):
        return [_encoded(entry) for entry in value]
    return to_dict(value) if dataclasses.is_dataclass(value) else value


def _decoded(value: Any, hint: Any = None) -> Any:
    """A JSON value as its field has it: records by the field's type, other dictionaries as parts; tuples for lists."""
    if isinstance(value, list):
        return tuple(map(_decoded, value))
    if not isinstance(value, Mapping) or get_origin(hint) is dict:
        return value
    is_record = isinstance(hint, type) and issubclass(hint, Config)
    return hint.from_dict(value) if is_record else from_dict(value)
