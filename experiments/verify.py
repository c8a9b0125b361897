"""Compares results/<scale> of this working tree with a committed one: equal, equal within a tolerance, or what differs.

On one kind of machine equal code and seeds give equal bits. Another CPU rounds otherwise, and training amplifies that
until it is like another draw of the seed. There a cell counts as equal if its mean is within the 95 % interval of the
difference between two means of so many seeds with the cell's standard deviation, or within `LEAST` points. Most are
far closer: with generic kernels for AVX-512's (torch, oneDNN, MKL told so), 34 trainings of the digits changed their
checksums, kept every accuracy, and moved recorded losses by at most 1e-4.
"""

import math
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.records import read
from experiments.scale import Scale

LEAST = 1.0  # points: a few images of a small test set, for cells whose seeds happen to agree
# What may change with the rounding beside floats; every other text, count and name must be the same.
FREE = {"checksum", "verdict", "explanation", "test", "low", "high", "p", "detectable", "best_epoch", "n_samples"}
FREE |= {"arrays"}


@dataclass
class Comparison:
    """Files on both sides, what differs that must not, and the largest difference of each kind of number."""

    files: int = 0
    equal: bool = True
    wrong: list[str] = field(default_factory=list)
    largest: dict[str, float] = field(default_factory=dict)


def verify(scale: Scale, against: Path | None = None) -> tuple[str, bool]:
    """What to print, and whether all is well. `against` is a project's root; None is the last commit of this one.

    Raises:
        ValueError: where there is nothing to compare with, or a file is damaged.
    """
    what, name = f"results/{scale.name}", str(against or "the last commit")
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
        return "\n  ".join([f"differs: {what} from {name}, {reason}; {sizes}", *found.wrong]), False
    bound = f"each cell within the 95 % interval of its seeds or {LEAST:g} point of that in {name}"
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
    for leaf in before | after:
        old, new = before.get(leaf), after.get(leaf)
        if old == new or not FREE.isdisjoint(leaf):
            continue
        if isinstance(old, float) and isinstance(new, float):
            kind = "value" if "values" in leaf else leaf[-1]
            found.largest[kind] = max(found.largest.get(kind, 0.0), abs(old - new))
        else:
            found.wrong.append(f"{name}: {'/'.join(leaf)} was {old!r}, is {new!r}")
    for row, again in zip(was.get("rows", ()), now.get("rows", ()), strict=False):
        for column in row["cells"].keys() & again["cells"].keys():
            cell, mean = row["cells"][column], again["cells"][column]["mean"]
            if None not in (cell["mean"], mean) and abs(mean - cell["mean"]) > (limit := tolerance(cell)):
                found.wrong.append(f"{name}: {row['id']}/{column} was {cell['mean']}, is {mean}, tolerance {limit:.2f}")


def tolerance(cell: dict[str, Any]) -> float:
    """Points by which the mean of a cell may differ on another CPU."""
    if cell["n"] < 2:
        return LEAST
    from scipy import stats  # late: --help must not wait for it

    return max(LEAST, float(stats.t.ppf(0.975, cell["n"] - 1)) * cell["std"] * math.sqrt(2 / cell["n"]))


def _leaves(value: Any, place: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every value that holds no other, and the names and places that lead to it."""
    if isinstance(value, dict | list) and value:
        for name, entry in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _leaves(entry, (*place, str(name)))
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
    seeds = (seed for table in measured for run in table.get("runs", {}).values() for seed in run["seeds"].values())
    return {str({**seed["hardware"], "cores": 0}) for seed in seeds if "hardware" in seed}
