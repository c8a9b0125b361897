"""Decoupled Mixup Table A4: one network under softmax and sigmoid losses, ordinary and decoupled, recipe RSB A3."""

from pathlib import Path

from experiments import decoupled
from experiments.claims import Cell, Claim, EachGreater, Greater
from experiments.decoupled import DM_ALPHA, DM_BCE, DM_CE, MBCE_ONE, MBCE_TWO, MCE, LossColumn
from experiments.scale import Scale
from experiments.table import Column, Table

LOSSES = (MCE, DM_CE, MBCE_ONE, MBCE_TWO, DM_BCE, DM_ALPHA)
THEIRS, OURS = ("saliencymix", "puzzlemix", *decoupled.LEARNING), ("mixup", "cutmix")


def build(scale: Scale) -> Table:
    return Table(
        id="dm_table04_losses",
        title="Softmax and sigmoid losses, ordinary and decoupled, ResNet-50",
        paper_table="Table A4",
        folder=Path(__file__).parent,
        label_columns=(Column("method", "Method"),),
        value_columns=decoupled.columns(LOSSES),
        rows=(
            *(decoupled.row(scale, name, "rsb_a3", "resnet50", LOSSES) for name in THEIRS),
            *(decoupled.row(scale, name, "rsb_a3", "resnet50", LOSSES, ours=True) for name in OURS),
        ),
        claims=CLAIMS,
        setting=scale.setting("rsb_a3").text,
    )


def _cells(loss: LossColumn) -> tuple[Cell, ...]:
    return tuple((name, loss.id) for name in THEIRS)


def _pairs(above: LossColumn, below: LossColumn) -> EachGreater:
    return EachGreater(tuple(zip(_cells(above), _cells(below), strict=True)))


CLAIMS = (
    Claim(
        "dm-losses-ce",
        "DM(CE) improves each method over MCE",
        "Table A4",
        (),
        _pairs(DM_CE, MCE),
    ),
    Claim(
        "dm-losses-ce-average",
        "DM(CE) gains 0.30 on average",
        "Table A4",
        ("D-4",),
        Greater(_cells(DM_CE), _cells(MCE)),
    ),
    Claim(
        "dm-losses-ce-alpha",
        "The gain of DM(CE) is the loss's and not that of the other alpha: it remains over MCE with DM's alpha (ours)",
        "appendix B.3",
        ("D-10",),
        Greater(_cells(DM_CE), _cells(DM_ALPHA)),
    ),
    Claim("dm-losses-bce", "DM(BCE) improves each method over MBCE (one)", "Table A4", (), _pairs(DM_BCE, MBCE_ONE)),
    Claim(
        "dm-losses-bce-average",
        "DM(BCE) gains over MBCE (one) on average (printed: 0.04; the cells give 0.21)",
        "Table A4",
        ("D-1",),
        Greater(_cells(DM_BCE), _cells(MBCE_ONE)),
    ),
    Claim(
        "dm-losses-two",
        "Targets of 1 for both classes lose to the mixed target (1.99 on average, most of it SaliencyMix's)",
        "Table A4",
        ("D-17",),
        Greater(_cells(MBCE_ONE), _cells(MBCE_TWO)),
    ),
)
