"""Decoupled Mixup Table A4: one network under softmax and sigmoid losses, ordinary and decoupled, recipe RSB A3."""

from experiments import decoupled
from experiments.decoupled import DM_ALPHA, DM_BCE, DM_CE, MBCE_ONE, MBCE_TWO, MCE
from experiments.scale import Scale
from experiments.table import Column, Table

LOSSES = (MCE, DM_CE, MBCE_ONE, MBCE_TWO, DM_BCE, DM_ALPHA)
GAINS = {"dm_ce": "dm-losses-ce-average", "mbce_two": "-dm-losses-two", "dm_bce": "dm-losses-bce-average"}


def build(scale: Scale) -> Table:
    return Table(
        title="Softmax and sigmoid losses, ordinary and decoupled, ResNet-50",
        paper_table="Table A4",
        label_columns=(Column("method", "Method"),),
        value_columns=decoupled.columns(LOSSES),
        rows=(
            *(decoupled.row(scale, name, "rsb_a3", "resnet50", LOSSES) for name in decoupled.FOUR),
            decoupled.gain_row("average", GAINS),
            *(decoupled.row(scale, name, "rsb_a3", "resnet50", LOSSES, ours=True) for name in ("mixup", "cutmix")),
        ),
        statistic="median_last",
        setting=scale.setting("rsb_a3").text,
    )
