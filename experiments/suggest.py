"""The one sentence for a name that does not exist: what it might have meant."""

import difflib
from collections.abc import Iterable


def _likeness(name: str, known: str) -> float:
    """Of a misspelt or cut name to a known one, 0 to 1; the start of a long name counts as much as the whole."""
    matcher = difflib.SequenceMatcher
    return max(matcher(None, name, known).ratio(), matcher(None, name, known[: len(name)]).ratio())


def choose(kind: str, name: str, known: Iterable[str]) -> str:
    """`name` itself if it is known.

    Raises:
        ValueError: otherwise, with near matches, or with every known name where none is near.
    """
    names = list(known)
    if name in names:
        return name
    near = [n for n in sorted(names, key=lambda n: -_likeness(name, n)) if _likeness(name, n) >= 0.6][:3]
    if near:
        raise ValueError(f"unknown {kind} {name!r}: did you mean {' or '.join(near)}?")
    raise ValueError(f"unknown {kind} {name!r}: choose from {', '.join(names)}")
