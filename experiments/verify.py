"""Compares results/<scale> of this working tree with a committed one: equal, equal within a tolerance, or what differs.

On one kind of machine equal code and seeds give equal bits. Another CPU rounds otherwise, and training amplifies that
until it is like another draw of the seed. There numbers may differ, of all seeds of a cell together and of each:

    mean        within the 95 % interval of the difference between two means of so many seeds with their deviation
    each seed   within `REACH` deviations over seeds; of weights with the checksum they had, a hundredth of the least

but by `POINTS` of accuracy, or `SHARE` of a loss or the like, in any case, and by `MOST` points at most. Most are far
closer: with generic kernels for AVX-512's 34 trainings of the digits changed their checksums, kept every accuracy, and
moved recorded losses by at most 1e-4. Of an array, which figures draw, the mean is compared. All else must be the same.
"""

import math
import re
import shutil
import statistics
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from scipy import stats

from experiments.results import read
from experiments.scale import Scale

POINTS, SHARE, REACH, MOST = 1.0, 0.1, 6.0, 20.0
SHOWN = 50  # differences
ACCURACY = re.compile(r"/top\d|/values/")
FREE = re.compile(r".*(/checksum|/best_epoch)")  # what may change with the rounding beside numbers
SEED = re.compile(r"(?<=^seeds/)\d+")
ARRAY = re.compile(r"(?<=/)arrays/([^/]+)/.*")


@dataclass
class Comparison:
    """Files on both sides, what differs that must not, and the largest difference of each kind of number."""

    files: int = 0
    equal: bool = True
    wrong: list[str] = field(default_factory=list)
    within: list[str] = field(default_factory=list)  # what differs by no more than the tolerance
    largest: dict[str, float] = field(default_factory=dict)


def verify(scale: Scale, against: Path | None = None) -> tuple[str, bool]:
    """What to print, and whether all is well. `against` is a project's root; None is the last commit of this one."""
    what, name = f"results/{scale.name}", str(against or "the last commit")
    if against and against.resolve() == Path().resolve():
        raise ValueError(f"--against {name!r} is this very folder: name another one")
    with tempfile.TemporaryDirectory() as folder:
        root = against or _committed(Path(folder))
        found = compare(root, Path(), scale.name)
        same = _machines(root, scale.name) == _machines(Path(), scale.name)
    if not found.files:
        raise ValueError(f"{what} and {name} have no file in common: name a folder with such results with --against")
    if found.equal:
        return f"equal: the {found.files} files of {what} are those of {name}", True
    sizes = "largest differences: " + (", ".join(f"{k} {v:.3g}" for k, v in sorted(found.largest.items())) or "none")
    if same or found.wrong:
        reason = "though the recorded machine is the same" if same else "by more than another CPU explains"
        differing = [*found.wrong, *found.within] if same else found.wrong
        more = [f"and {len(differing) - SHOWN} more"] if len(differing) > SHOWN else []
        return "\n  ".join([f"differs: {what} from {name}, {reason}; {sizes}", *differing[:SHOWN], *more]), False
    bound = f"every seed, and the mean of every cell, as near to {name} as another draw of the seeds"
    return f"equal within tolerance (another CPU or other packages): {what}, {bound}; {sizes}", True


def compare(root: Path, other: Path, scale: str) -> Comparison:
    """Every file of results/<scale> below `root` with its twin below `other`."""
    found, place = Comparison(), Path("results", scale)
    for name in sorted({path.relative_to(top) for top in (root, other) for path in (top / place).rglob("*.json")}):
        both = (root / name).exists() and (other / name).exists()
        found.files += both
        if not both:
            found.equal = False
            found.wrong.append(f"{name} is {'missing' if (root / name).exists() else 'new'}")
        elif (was := read(root / name)) != (now := read(other / name)):
            found.equal = False
            _compare(found, name, was, now)
    return found


def _compare(found: Comparison, name: Path, was: dict[str, Any], now: dict[str, Any]) -> None:
    before, after = dict(_leaves(was)), dict(_leaves(now))
    of_seeds: dict[str, dict[str, tuple[float, float]]] = defaultdict(dict)  # a place, whichever the seed -> its places
    for place in before | after:
        old, new = before.get(place), after.get(place)
        kinds = {type(old), type(new)}
        if kinds == {float} or (kinds <= {int, float} and ARRAY.search(place)):
            of_seeds[ARRAY.sub(r"array \1", SEED.sub("*", place))][place] = float(before[place]), float(after[place])
        elif old != new and (None in (old, new) or not FREE.fullmatch(place)):
            found.wrong.append(f"{name}: {place} was {old!r}, is {new!r}")
    for place, numbers in of_seeds.items():
        olds, news = zip(*numbers.values(), strict=True)
        if olds == news:
            continue
        kind = "value" if "values" in place else place.rpartition("/")[2]
        found.largest[kind] = max(found.largest.get(kind, 0.0), *(abs(old - new) for old, new in numbers.values()))
        least = POINTS if ACCURACY.search(place) else SHARE * max(abs(old) for old in olds)
        most = MOST if ACCURACY.search(place) else math.inf
        spread, n = (statistics.stdev(olds), len(olds)) if len(olds) > 1 else (0.0, 1)
        limits = {f"mean of {place}": max(least, min(_quantile(n), REACH) * spread * math.sqrt(2 / n))}
        mean = {f"mean of {place}": (statistics.fmean(olds), statistics.fmean(news))}
        for one, (old, new) in (mean if " " in place else numbers | mean).items():
            checksum = "/".join((*one.split("/")[:2], "checksum"))
            same_weights = checksum in before and before[checksum] == after.get(checksum)
            limit = min(most, limits.get(one, least / 100 if same_weights else max(least, REACH * spread)))
            if old != new:
                differing = found.within if abs(old - new) <= limit else found.wrong
                differing.append(f"{name}: {one} was {old:.9g}, is {new:.9g}, tolerance {limit:.2g}")


@cache
def _quantile(n: int) -> float:
    return float(stats.t.ppf(0.975, n - 1)) if n > 1 else 0.0


def _leaves(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Every value that holds no other, and the names and places that lead to it."""
    if isinstance(value, dict | list) and value:
        for name, entry in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _leaves(entry, f"{place}/{name}" if place else str(name))
    else:
        yield place, value


def _committed(folder: Path) -> Path:
    """The last commit, unpacked into `folder`."""
    try:
        subprocess.run(["git", "archive", "-o", folder / "commit.tar", "HEAD"], capture_output=True, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise ValueError("there is no commit here to compare with: name a folder with --against") from error
    shutil.unpack_archive(folder / "commit.tar", folder, filter="data")
    return folder


def _machines(root: Path, scale: str) -> set[str]:
    """The processors and packages that runs were made with."""
    measured = (read(path) for path in sorted((root / "measured" / scale).glob("*.json")))
    seeds = (seed for table in measured for run in table["runs"].values() for seed in run["seeds"].values())
    return {str({**seed["hardware"], "cores": 0}) for seed in seeds if "hardware" in seed}
