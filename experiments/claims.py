"""Claims: the sentences of a table's claims.csv and the words of their comparisons; `experiments.verdicts` judges them.

beta_2 > beta_0.8                         a cell above another; in a table of one column its row says it all
each of a, b > none                       every cell above that one; of two lists, each above its own
mean of */lumix > /base                   averages seed by seed; of every row of this scale, and the same rows
mixup/eta_0.1 > each of /eta_*            above every other cell of its row
eta_0.5 = lumix = eta_2 within 0.4        all pairs differ by less than so many points
a/lumix - a/base = paper within 0.4       ours against the paper's own number, at paper scale only
a > b; {c,d}_15 > e                       all of them must hold; {c,d} stands for both names
a/x - a/y > b/x - b/y                     a gain above another; each of the four may be a mean
"""

import csv
import itertools
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

Cell = tuple[str, str]  # (row id, value column id) within one table


@dataclass(frozen=True)
class Comparison:
    """The mean of the cells `above` exceeds that of `below`; with `within` it differs by less than so many points.

    Against the paper it is the number, or with `below` the difference, that differs from the paper's by less. `times`
    makes of a difference of means that of two gains.
    """

    above: tuple[Cell, ...]
    below: tuple[Cell, ...]
    within: float | None = None
    paper: bool = False
    times: int = 1


@dataclass(frozen=True)
class Claim:
    """One sentence of the paper, or of ours, and the comparisons that stand for it."""

    id: str
    source: str
    register: tuple[str, ...]
    sentence: str
    comparisons: tuple[Comparison, ...]

    @property
    def cells(self) -> set[Cell]:
        """The cells that the claim speaks of."""
        return {cell for one in self.comparisons for cell in (*one.above, *one.below)}


def read_claims(path: Path, cells: Collection[Cell], column: str) -> tuple[Claim, ...]:
    """The claims in a file on a table of these cells; `column` is that of names without one, "" where there are more.

    A claim with a * that stands for no cell is one on rows that this scale does not have, and is left out.
    """
    found = []
    with path.open(newline="", encoding="utf-8") as file:
        for line in csv.DictReader(file):
            try:
                parts = [one for part in line["comparison"].split(";") for one in _parse(part.strip(), cells, column)]
            except ValueError as error:
                raise ValueError(f"{path}, {line['id']}: {error}; see experiments/claims.py") from None
            register = tuple(line["register"].split())
            found.append(Claim(line["id"], line["source"], register, line["sentence"], tuple(parts)))
    return tuple(claim for claim in found if claim.comparisons)


def _parse(text: str, cells: Collection[Cell], column: str) -> list[Comparison]:
    if match := re.fullmatch(r"(.+) within (\d+(?:\.\d+)?)", text):
        sides, limit = match[1].split(" = "), float(match[2])
        if sides[-1] == "paper":
            first, *rest = (_named(side, cells, column)[0] for side in sides[0].split(" - "))
            return [Comparison((first,), tuple(rest), limit, paper=True)]
        every = [cell for side in sides for cell in _named(side, cells, column)]
        return [Comparison((a,), (b,), limit) for a, b in itertools.combinations(every, 2)]
    left, sign, right = text.partition(" > ")
    if not sign:
        raise ValueError(f"{text!r} compares nothing")
    if " - " in left:  # a - b > c - d is a + d above b + c
        (a, b), (c, d) = ([_named(one, cells, column) for one in side.split(" - ")] for side in (left, right))
        return [Comparison((*a, *d), (*b, *c), times=2)] if a and b and c and d else []
    above = _named(left, cells, column)
    below = [cell for cell in _named(right, cells, column, above) if [cell] != above]  # others, not the cell itself
    if not above or not below:
        return []
    if "mean of " in text or len(above) == len(below) == 1:
        return [Comparison(tuple(above), tuple(below))]
    if 1 not in (len(above), len(below)) and len(above) != len(below):
        raise ValueError(f"{text!r} compares {len(above)} cells with {len(below)}, of which each needs its own")
    size = max(len(above), len(below))
    both = (side * size if len(side) == 1 else side for side in (above, below))
    return [Comparison((a,), (b,)) for a, b in zip(*both, strict=True)]


def _named(text: str, cells: Collection[Cell], column: str, beside: Sequence[Cell] = ()) -> list[Cell]:
    """The cells of one side of a comparison; a name that begins with "/" is of the rows of the cells `beside`."""
    names = re.split(r",\s*(?![^{]*\})", re.sub(r"^(each|mean) of ", "", text))
    found: list[Cell] = []
    for name in itertools.chain.from_iterable(map(_alternatives, names)):
        row, _, of = name.partition("/")
        for wanted in [row] if row else dict.fromkeys(row for row, _ in beside):
            one = (wanted, of or column)
            if not one[1]:
                raise ValueError(f"{name!r} does not say which column")
            matches = [cell for cell in cells if fnmatchcase(cell[0], one[0]) and fnmatchcase(cell[1], one[1])]
            found += matches if "*" in name else [one]
    if len(found) > 1 and not text.startswith(("each of ", "mean of ", "/")):
        raise ValueError(f"{text!r} is {len(found)} cells: say each of or mean of")
    return found


def _alternatives(name: str) -> list[str]:
    """A name with {a,b} as the names that it stands for."""
    head, brace, rest = name.partition("{")
    if not brace:
        return [name]
    inside, _, tail = rest.partition("}")
    return [head + one + end for one in inside.split(",") for end in _alternatives(tail)]
