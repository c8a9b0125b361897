"""LUMix Table 11: DeiT-S under softmax and under binary cross entropy, with and without LUMix."""

from functools import partial
from pathlib import Path
from typing import Any

from experiments.claims import Claim, Greater
from experiments.methods import binary, lumix, same, sigmoid_scores
from experiments.scale import Scale
from experiments.table import TOP1, Column, Method, Table, top1_row
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
    (
        "bce_lumix_sigmoid",
        "BCE",
        "yes",
        _bce_lumix_sigmoid,
        "λs and R from sigmoid scores",
        True,
    ),
    ("bce_lumix_class_sum", "BCE", "yes", partial(_bce_lumix, reduction="class_sum"), "summed over classes", True),
)
SCE, SCE_LUMIX, BCE, BCE_LUMIX = ((row[0], "top1") for row in ROWS if not row[5])


def build(scale: Scale) -> Table:
    return Table(
        id="lumix_table11_losses",
        title="Softmax and binary cross entropy, DeiT-S",
        paper_table="Table 11",
        folder=Path(__file__).parent,
        label_columns=(Column("loss", "Loss"), Column("lumix", "LUMix")),
        value_columns=(TOP1,),
        rows=tuple(
            top1_row(scale, id, {"loss": loss, "lumix": with_lumix}, method, ours=ours, note=note)
            for id, loss, with_lumix, method, note, ours in ROWS
        ),
        claims=CLAIMS,
        baseline=SCE,
    )


CLAIMS = (
    Claim(
        "losses-sce",
        "LUMix helps under softmax cross entropy (79.8 to 80.6)",
        "Table 11",
        ("I-21",),
        Greater((SCE_LUMIX,), (SCE,)),
    ),
    Claim(
        "losses-bce",
        "LUMix hurts under binary cross entropy, whose positive targets it lowers (79.9 to 79.6)",
        "Table 11 and its discussion",
        ("I-17",),
        Greater((BCE,), (BCE_LUMIX,)),
    ),
    Claim(
        "losses-best",
        "Softmax cross entropy with LUMix beats binary cross entropy without (80.6 against 79.9)",
        "Table 11",
        ("I-17",),
        Greater((SCE_LUMIX,), (BCE,)),
    ),
)
