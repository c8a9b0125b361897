"""Image space: one mixing method per file, each called as (images, labels, generator, model=None) -> MixedBatch."""

from lumix.mixers.cutmix import CutMix
from lumix.mixers.mixup import Mixup
from lumix.mixers.plan import Mixer, MixPlan
from lumix.mixers.random_lambda import RandomLambda
from lumix.mixers.shuffle import RandomShuffle
from lumix.mixers.switch import Switch

__all__ = ["CutMix", "MixPlan", "Mixer", "Mixup", "RandomLambda", "RandomShuffle", "Switch"]
