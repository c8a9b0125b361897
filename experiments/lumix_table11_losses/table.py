"""LUMix Table 11: DeiT-S under softmax and under binary cross entropy, with and without LUMix."""

from functools import partial
from typing import Any

from experiments.methods import binary, lumix, same, sigmoid_scores
from experiments.scale import Scale
from experiments.table import Column, Method, Table, top1_row
from training.config import Run


def _bce_lumix(run: Run, **changes: Any) -> Run:
    return binary(lumix(run), **changes)


def _bce_lumix_sigmoid(run: Run) -> Run:
    return sigmoid_scores(_bce_lumix(run))


# id, loss, LUMix, method, note, ours
ROWS: tuple[tuple[str, str, str, Method, str, bool], ...] = (
    ("sce", "SCE", "", same, "", False),
    ("sce_lumix", "SCE", "yes", lumix, "", False),
    ("bce", "BCE", "", binary, "target 1 for both classes", False),
    ("bce_lumix", "BCE", "yes", _bce_lumix, "soft targets where LUMix acts", False),
    ("bce_threshold", "BCE", "", partial(binary, target="threshold"), "target 1 above 0.2, as RSB does", True),
    ("bce_soft", "BCE", "", partial(binary, target="soft"), "target is the area", True),
    ("bce_lumix_sigmoid", "BCE", "yes", _bce_lumix_sigmoid, "λs and R from sigmoid scores", True),
    ("bce_lumix_class_sum", "BCE", "yes", partial(_bce_lumix, reduction="class_sum"), "summed over classes", True),
)


def build(scale: Scale) -> Table:
    return Table(
        title="Softmax and binary cross entropy, DeiT-S",
        paper_table="Table 11",
        label_columns=(Column("loss", "Loss"), Column("lumix", "LUMix")),
        rows=tuple(
            top1_row(scale, id, {"loss": loss, "lumix": with_lumix}, method, ours=ours, note=note)
            for id, loss, with_lumix, method, note, ours in ROWS
        ),
        baseline=("sce", "top1"),
    )
