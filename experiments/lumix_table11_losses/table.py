"""LUMix Table 11: DeiT-S under softmax and under binary cross entropy, with and without LUMix."""

from functools import partial
from typing import Any

from experiments.methods import binary, lumix, same, sigmoid_scores
from experiments.scale import Scale
from experiments.table import Table, Top1Row, top1_table
from training.config import Run


def _bce_lumix(run: Run, **changes: Any) -> Run:
    return binary(lumix(run), **changes)


ROWS: tuple[Top1Row, ...] = (
    ("sce", ("SCE", ""), same, "", False),
    ("sce_lumix", ("SCE", "yes"), lumix, "", False),
    ("bce", ("BCE", ""), binary, "target 1 for both classes", False),
    ("bce_lumix", ("BCE", "yes"), _bce_lumix, "soft targets where LUMix acts", False),
    ("bce_threshold", ("BCE", ""), partial(binary, target="threshold"), "target 1 above 0.2, as RSB does", True),
    ("bce_soft", ("BCE", ""), partial(binary, target="soft"), "target is the area", True),
    (
        "bce_lumix_sigmoid",
        ("BCE", "yes"),
        lambda run: sigmoid_scores(_bce_lumix(run)),
        "λs and R from sigmoid scores",
        True,
    ),
    ("bce_lumix_class_sum", ("BCE", "yes"), partial(_bce_lumix, reduction="class_sum"), "summed over classes", True),
)


def build(scale: Scale) -> Table:
    labels = {"loss": "Loss", "lumix": "LUMix"}
    return top1_table(scale, "Softmax and binary cross entropy, DeiT-S", "Table 11", labels, ROWS, "sce")
