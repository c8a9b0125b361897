"""Question 2 of scale small, positive controls: does this regime see the gains that are known of mixing methods?"""

from dataclasses import replace
from functools import partial

from evaluation.evaluation import Evaluation
from experiments.decoupled import on
from experiments.learning import learning
from experiments.methods import same
from experiments.photographs import Arm, question
from experiments.scale import Scale
from experiments.table import Column, Table
from lumix import ResizeMix
from training.config import Mix, Run
from training.parts import MixedAndClean

TURNS = {"batch": 100, "warmup": 2, "rounds": 9, "steps": 2}


def _learned(run: Run, name: str) -> Run:
    """Masks from features of 8x8, as published on CIFAR; decay as published, by trials: with 5e-4 masks stay flat."""
    run = learning(run, name, stage=2)
    return run.replace(optim=run.optim.replace(weight_decay=1e-4))


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
    ("automix", "AutoMix, decay 1e-4", partial(_learned, name="automix"), "plain"),
    ("samix", "SAMix, decay 1e-4", partial(_learned, name="samix"), "plain"),
    ("mixup_clean", "Mixup and a clean loss", on("mixup", _with_clean), "plain"),
    ("cutmix_clean", "CutMix and a clean loss", on("cutmix", _with_clean), "plain"),
)


def build(scale: Scale) -> Table:
    table = question(scale, 2, "Photographs, question 2: what is known of mixing methods", ARMS, blocks=5)
    plain = {"key": table.rows[0].runs["top1"].key, "seed": 0}  # whose steps take turns with an arm's
    timed = Evaluation("throughput", {"baseline": plain, "every_batch": True, "precision": "bfloat16", **TURNS})
    speed = Column("speed", "Speed of a step, % of plain training's", timed, "speed", compared=False)
    rows = tuple(
        replace(row, runs={**row.runs, "speed": row.runs["top1"]}, ours=row.id.endswith("_clean")) for row in table.rows
    )
    columns = (*table.value_columns, speed)
    # Its benchmark: CIFAR-100, ResNet-18, 200 epochs.
    return replace(table, rows=rows, value_columns=columns, paper_table="OpenMixup")
