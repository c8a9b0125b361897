"""Question 2 of scale small, positive controls: does this regime see the gains that are known of mixing methods?"""

from dataclasses import replace
from functools import partial

from experiments.decoupled import on
from experiments.learning import learning
from experiments.methods import same
from experiments.photographs import Arm, question
from experiments.scale import Scale
from experiments.table import Table
from lumix import ResizeMix
from training.config import Mix, Run
from training.parts import MixedAndClean

# Of features of 8x8, as large as those that the published masks on CIFAR are made of.
LEARNED = partial(learning, stage=2)


def _resizemix(run: Run) -> Run:
    """ResizeMix, whose ratio has no alpha."""
    return run.replace(mix=Mix(choices=((ResizeMix(), 1.0),), pairing="permutation"))


def _with_clean(run: Run) -> Run:
    """The run with the cross entropy of clean images beside its own loss."""
    return run.replace(task=MixedAndClean())


ARMS: tuple[Arm, ...] = (
    ("plain", "plain", same, ""),
    ("mixup", "Mixup", on("mixup"), "plain"),
    ("cutmix", "CutMix", on("cutmix"), "plain"),
    ("saliencymix", "SaliencyMix", on("saliencymix"), "plain"),
    ("resizemix", "ResizeMix", _resizemix, "plain"),
    ("fmix", "FMix", on("fmix"), "plain"),
    ("manifoldmix", "ManifoldMix", on("manifoldmix", alpha=2.0), "plain"),
    ("puzzlemix", "Puzzle-Mix", on("puzzlemix"), "plain"),
    ("automix", "AutoMix", partial(LEARNED, name="automix"), "plain"),
    ("samix", "SAMix", partial(LEARNED, name="samix"), "plain"),
    ("mixup_clean", "Mixup and a clean loss", on("mixup", _with_clean), "plain"),
    ("cutmix_clean", "CutMix and a clean loss", on("cutmix", _with_clean), "plain"),
)


def build(scale: Scale) -> Table:
    table = question(scale, 2, "Photographs, question 2: what is known of mixing methods", ARMS, blocks=5)
    rows = tuple(replace(row, ours=row.id.endswith("_clean")) for row in table.rows)
    return replace(table, rows=rows, paper_table="OpenMixup")  # its benchmark: CIFAR-100, ResNet-18, 200 epochs
