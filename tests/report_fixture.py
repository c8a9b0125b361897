"""A repository with made-up results of real tables, for the tests of report and figures. No number here is a result."""

import random
import shutil
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path
from typing import Any

from experiments import results
from experiments.registry import get_table, owners
from experiments.scale import get_scale
from training.run_directory import code_fingerprint

ROOT = Path(__file__).parent.parent
NASTY = '<b>"bold" & </td>'
# A table of ours with four seeds, but for a row; one of a paper with a single seed; one that was not run; photographs.
MANY, ONE, MISSING, TOGETHER = "lumix_controls", "lumix_table02_components", "lumix_table10_laws", "dm_with_lumix"
LACKING, OLDER = "and", "lam_s_r"  # rows of the first


def fake_seed(name: str, seed: int) -> dict[str, Any]:
    draw = random.Random(f"{name}{seed}")
    top1 = 50.0 + draw.random()  # far below any real result, so that the fixture is taken for nothing else
    curve = [
        {"epoch": e, "loss": 2.0 / e, "top1": 10.0 * e + draw.random(), "lam_0": 0.5, "lam": 0.5, "perturbation": 0.1}
        for e in range(1, 5)
    ]
    return {
        "top1": {"last": top1, "best": top1, "best_epoch": 4, "median_last": top1},
        "top5": {"last": 90.0}, "loss": {"last": 1.0}, "n_samples": 1297, "epochs": 4, "steps": 60, "seconds": 1.5,
        "images_per_second": 900.0, "parameters": 18000, "checksum": f"{seed:064x}", "fingerprint": code_fingerprint(),
        "commit": "c" * 40, "dirty": seed == 0, "curve": curve,
        "hardware": {"device": "cpu", "cpu": NASTY, "cores": 2, "torch": "2.0", "timm": "1.0", "torchvision": "0.1"},
    }  # fmt: skip


def write_table(
    root: Path,
    table: str,
    seeds: int,
    scale: str = "mini",
    change: Callable[[str, dict[str, Any]], Any] = lambda row, outcome: None,
) -> None:
    """The files of a table with made-up outcomes, as `collect` leaves them; `change` alters them by row."""
    size = get_scale(scale)
    built, runs = get_table(table, size), results.read_runs(root, scale)
    for (row, _), run in built.cells.items():
        found = runs.setdefault(run.key, {"config": run, "owner": owners(size)[run.key], "seeds": {}})
        for seed in range(seeds) if row != LACKING else ():
            found["seeds"][str(seed)] = fake_seed(run.key, seed)
            change(row, found["seeds"][str(seed)])
    root.mkdir(parents=True, exist_ok=True)
    with chdir(root):
        results._write(size, built, runs, seeds)


def write_parameters(root: Path, *tables: str) -> None:
    (root / "params.yaml").write_text(f"scale: mini\nseeds: null\nlauncher: local\ntables: [{', '.join(tables)}]\n")


def fake_repository(root: Path) -> Path:
    """Three tables of mini: one of 4 seeds, one of a single seed, one not run; and photographs where LUMix gains 3."""

    def change(row: str, found: dict[str, Any]) -> None:
        if row == OLDER:
            found["fingerprint"] = "f" * 16
        if row == "lumix":  # of photographs the table shows the median, of digits the last epoch
            found["top1"]["median_last"] += 3

    (root / "docs").mkdir(parents=True)
    shutil.copy(ROOT / "docs" / "deviations.md", root / "docs")
    write_parameters(root, MANY, ONE, MISSING, TOGETHER)
    write_table(root, ONE, 1)
    write_table(root, MANY, 4, change=change)
    write_table(root, TOGETHER, 8, scale="small_earlier", change=change)
    return root
