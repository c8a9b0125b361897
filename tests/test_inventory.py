"""Every run of the papers' inventory is a run of ours at paper scale: a matching of the one onto the other."""

import csv
import re
from pathlib import Path
from typing import Any

import numpy
import pytest
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

from experiments.registry import TABLES, get_table
from experiments.scale import get_scale
from lumix.registry import name_of
from training.config import Run

INVENTORY = Path(__file__).resolve().parents[2] / "shared" / "design" / "run_inventory.csv"
MODELS = {"r18": "resnet18", "r34": "resnet34", "r50": "resnet50", "rx50": "resnext50_32x4d", "wrn28_8": "resnetv2_18"}
LOSSES = {
    "DMCE": {"cross_entropy", "decoupled"},
    "SCE+R": {"cross_entropy", "regulariser"},
    "BCE": {"binary_cross_entropy"},
    "BCE+R": {"binary_cross_entropy", "regulariser"},
    **{name: {"rescaled_binary_cross_entropy"} for name in ("MBCEone", "MBCEtwo", "DMBCE")},
}
MIXERS = {
    "vanilla": set(),
    "nocutmix": set(),
    "transmix": {"cutmix"},
    "lumix": {"cutmix"},
    "mixup+cutmix": {"mixup", "cutmix"},
    "mixup+cutmix+RandomLambda": {"random_lambda"},
}
BATCH = {
    "rsb_a3": 2048,
    "pytorch100": 256,
    "finegrained": 16,
    "cifar100-sgd": 100,
    "cifar100-wrn": 100,
    "tiny-sgd": 100,
}
RESCALED = {"MBCEone": (1.0, 1.0), "MBCEtwo": (1.0, 0.0)}  # t and xi
BLENDS = {"mixup", "manifoldmix"}


def inventory() -> list[dict[str, str]]:
    """The lines that are trainings of a table or a curve: no segmentation, which is an evaluation, and no Figure A1."""
    if not INVENTORY.exists():
        pytest.skip("the inventory of runs is not beside the project")
    with INVENTORY.open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 334
    return [line for line in lines if line["dataset"] != "pascal_context" and line["used_by"] != "FigA1"]


def wanted(line: dict[str, str]) -> dict[str, Any]:
    """What a line says of its run."""
    data, _, share = line["dataset"].partition("[")
    method, lumix = re.subn(r"\+LUMix$|^lumix$", "", line["method"])
    mixers = MIXERS.get(method.removesuffix("+RandomShuffle") or "lumix", {method})
    found = {key: float(text) for key, text in re.findall(r"\b(ep|eta|t|xi|r1|r2)=?(\d*\.?\d+)", line["extra"])}
    if lumix:
        found.pop("eta", None)  # of the regulariser
    if line["loss"] in RESCALED:
        found["t"], found["xi"] = RESCALED[line["loss"]]
    return found | {
        "data": {"tiny": "tiny_imagenet"}.get(data, data),
        "share": float(share.rstrip("%]")) / 100 if share else 1.0,
        "model": MODELS.get(line["model"], line["model"]),
        # As the register reads Table 6: each method takes the place of CutMix beside Mixup (I-7).
        "mixers": mixers | {"mixup"} if line["used_by"].startswith("L6") else mixers,
        "transforms": {"shuffle"} if "RandomShuffle" in method else set(),
        "terms": LOSSES.get(line["loss"], {"cross_entropy"}),
        "rule": "lumix" if lumix else method if method == "transmix" else "area",
        "batch": BATCH.get(line["recipe"], 1024),
    }


def facts(run: Run) -> dict[str, Any]:
    """What a run is, in the words of the inventory."""
    mixers = set(run.mix.names)
    terms = {term.name: vars(term) for term in run.loss.terms}
    rescaled = terms.get("rescaled_binary_cross_entropy", {})
    kind, t, xi = ("blend", 0.5, 1.0) if mixers & BLENDS else ("cut", 1.0, 0.8)
    rule = vars(run.loss.rule)
    return {
        "data": run.data.name,
        "share": run.data.share,
        "model": run.model.name.partition(".")[0],
        "mixers": mixers | {name_of(run.task)} - {"mix"},  # a task that learns to mix is named as one
        "transforms": {name_of(step) for step in run.mix.then},
        "terms": set(terms),
        "rule": name_of(run.loss.rule),
        "ep": run.epochs,
        "batch": run.batch_size,
        "eta": terms.get("decoupled", {}).get("eta", 1.0),
        "t": rescaled.get(f"{kind}_t", t),
        "xi": rescaled.get(f"{kind}_xi", xi),
        "r1": rule.get("r_r", 0.4),
        "r2": rule.get("r_s", 0.1),
    }


def test_every_training_of_the_inventory_is_one_of_ours() -> None:
    lines = inventory()
    tables = [get_table(name, get_scale("paper")) for name in TABLES]
    runs = list({run.key: facts(run) for table in tables for row in table.rows for run in row.runs.values()}.values())
    fits = [[all(run[key] == value for key, value in wanted(line).items()) for run in runs] for line in lines]
    matched = maximum_bipartite_matching(csr_array(numpy.array(fits, dtype=numpy.int8)), perm_type="column")
    missing = [line["id"] for line, run in zip(lines, matched, strict=True) if run < 0]
    assert not missing
