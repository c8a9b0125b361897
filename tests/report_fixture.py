"""A repository with made-up results for the tests of report and figures. No number here is a result."""

import random
import shutil
import statistics
from pathlib import Path
from typing import Any

import yaml

from experiments import records
from experiments.methods import SWITCH, constant_control, lumix
from experiments.scale import get_scale
from report import formatting, headline
from training.config import Data, Mix, Model, Optim, Run

ROOT = Path(__file__).parent.parent
NASTY = '<b>"bold" & </td>'


def fake_run(role: str = "deit_s") -> Run:
    return Run(
        data=Data("digits", 8, train_size=500),
        model=Model(role, "fixture_net"),
        optim=Optim(lr=0.005),
        mix=Mix(choices=SWITCH),
        epochs=4,
        batch_size=32,
    )


RUNS = {
    "cutmix": fake_run(),
    "lumix": lumix(fake_run()),
    "constant": constant_control(fake_run()),
    "swin": fake_run("swin_t"),
}


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
        "images_per_second": 900.0, "parameters": 18000, "checksum": f"{seed:064x}", "fingerprint": "f" * 16,
        "commit": "c" * 40, "dirty": seed == 0, "curve": curve,
        "hardware": {"device": "cpu", "cpu": "fixture cpu", "cores": 2, "torch": "2.0", "timm": "1.0",
                     "torchvision": "0.1", "python": "3.11"},
    }  # fmt: skip


def fake_seeds(name: str, n: int) -> dict[str, Any]:
    return {str(seed): fake_seed(name, seed) for seed in range(n)}


def cell(name: str | None, n: int, paper: float | None, base: str | None = None, **more: Any) -> dict[str, Any]:
    values = {seed: run["top1"]["last"] for seed, run in fake_seeds(name, n).items()} if name else {}
    gap = None
    if name and base:
        found = headline.paired_difference({"seeds": fake_seeds(name, n)}, {"seeds": fake_seeds(base, n)})
        assert found is not None
        gap = {"to": ["none", "top1"], "mean": found.mean, "low": found.low, "high": found.high, "n": n, "paper": 0.8}
    return {
        "status": "done" if name else "not run", "reason": "", "paper": paper, "values": values, "n": n,
        "mean": statistics.mean(values.values()) if name else None, "std": statistics.stdev(values.values()) if n > 1
        else None, "run": RUNS[name].key if name else None, "n_samples": 1297, "older_code": False, "difference": gap,
        **more,
    }  # fmt: skip


def row(name: str, cells: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"id": name, "labels": {"law": f"law {name}"}, "ours": False, "note": "", "cells": cells, **more}


def fake_claim(verdict: str, n: int) -> dict[str, Any]:
    done = verdict != "not run"
    return {
        "id": f"claim-{verdict}", "text": f"A claim that is {verdict}.", "source": "Table 2", "register": ["I-19"],
        "verdict": verdict, "estimate": 0.1 if done else None, "low": -0.2 if done else None,
        "high": 0.4 if done else None, "n": n, "test": "paired t" if done else "", "explanation": NASTY,
    }  # fmt: skip


def fake_record(table: str, seeds: int) -> dict[str, Any]:
    names = [name for name in RUNS if name != "swin"]
    rows = [
        row("none", {"top1": cell("cutmix", seeds, 79.8)}),
        row("lumix", {"top1": cell("lumix", seeds, 80.6, "cutmix", older_code=True)}),
        row("constant", {"top1": cell("constant", seeds, None, "cutmix")}, ours=True, note=NASTY),
        row("later", {"top1": cell(None, 0, 80.4, reason="its data are missing")}),
        row("never", {"top1": {**cell(None, 0, 80.3), "status": "not at this scale", "reason": NASTY}}),
    ]
    runs = {
        RUNS[name].key: {"config": RUNS[name], "owner": "fixture_many", "seeds": fake_seeds(name, seeds)}
        for name in names
    }
    return {
        "schema": records.SCHEMA, "table": table, "title": f"Fixture {table} & {NASTY}", "paper_table": "Table 2",
        "scale": "mini", "setting": f"A fixture, no result: {NASTY}", "statistic": "last",
        "metric": "top-1 accuracy, %",
        "label_columns": [{"id": "law", "title": "λr"}], "value_columns": [{"id": "top1", "title": "Top-1"}],
        "baseline": {"row": "none", "column": "top1"}, "rows": rows, "runs": runs, "evaluations": {},
        "claims": [fake_claim(verdict, seeds) for verdict in formatting.VERDICTS],
    }  # fmt: skip


def fake_repository(root: Path) -> Path:
    """Three tables: one of 4 seeds, one of a single seed, one not run."""
    (root / "docs").mkdir(parents=True)
    shutil.copy(ROOT / "docs" / "deviations.md", root / "docs")
    ids = ["fixture_many", "fixture_one", "fixture_missing"]
    (root / "params.yaml").write_text(yaml.safe_dump({"scale": "mini", "seeds": None, "tables": ids}))
    for table, seeds in (("fixture_many", 4), ("fixture_one", 1)):
        write_record(root, fake_record(table, seeds))
    return root


def write_record(root: Path, record: dict[str, Any]) -> None:
    """The files of a record below `root`, as `records.write` leaves them in the working directory."""
    for path, content in records.files(get_scale(record["scale"]), record).items():
        old = records.read(root / path) if (root / path).exists() else {}
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(records.as_text(records.merged(old, content)))
