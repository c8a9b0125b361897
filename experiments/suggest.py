"""The one sentence for a name that does not exist: what it might have meant."""

import difflib
from collections.abc import Iterable


def choose(kind: str, name: str, known: Iterable[str]) -> str:
    """`name` itself if it is known."""
    names = list(known)
    if name in names:
        return name
    if near := difflib.get_close_matches(name, names, 3, 0.5):
        raise ValueError(f"unknown {kind} {name!r}: did you mean {' or '.join(near)}?")
    raise ValueError(f"unknown {kind} {name!r}: choose from {', '.join(names)}")
