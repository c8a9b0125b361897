"""Image space: one mixing method per file, each called as (images, labels, generator, model=None) -> MixedBatch."""

from lumix.mixers.attentive import AttentiveCutMix
from lumix.mixers.base import Mixer
from lumix.mixers.cutmix import CutMix
from lumix.mixers.fmix import FMix
from lumix.mixers.manifold import ManifoldMix, hidden_mixing
from lumix.mixers.mixup import Mixup
from lumix.mixers.none import NoMix
from lumix.mixers.plan import MixPlan
from lumix.mixers.puzzle import PuzzleMix
from lumix.mixers.random_lambda import RandomLambda
from lumix.mixers.resizemix import ResizeMix
from lumix.mixers.saliencymix import SaliencyMix
from lumix.mixers.shuffle import RandomShuffle

__all__ = [
    "AttentiveCutMix",
    "CutMix",
    "FMix",
    "ManifoldMix",
    "MixPlan",
    "Mixer",
    "Mixup",
    "NoMix",
    "PuzzleMix",
    "RandomLambda",
    "RandomShuffle",
    "ResizeMix",
    "SaliencyMix",
    "hidden_mixing",
]
