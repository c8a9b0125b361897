"""Question 1 of scale small: LUMix over CutMix on photographs, over its own mean and over label smoothing."""

from functools import partial

from experiments.decoupled import on
from experiments.methods import constant_control, lumix, smoothed
from experiments.photographs import Arm, question
from experiments.scale import Scale
from experiments.table import Table

ARMS: tuple[Arm, ...] = (
    ("cutmix", "CutMix", on("cutmix"), ""),
    ("lumix", "LUMix", on("cutmix", lumix), "cutmix"),
    ("constant", "LUMix with λr = 1/2", on("cutmix", constant_control), "cutmix"),
    ("smoothing", "CutMix, smoothing 0.1", on("cutmix", partial(smoothed, smoothing=0.1)), "cutmix"),
)


def build(scale: Scale) -> Table:
    return question(scale, 1, "Photographs, question 1: LUMix on CutMix", ARMS, blocks=12)
