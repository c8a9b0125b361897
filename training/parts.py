"""Tasks and frozen networks as a run names them: their arguments, which what trains takes as its `options`.

That is imported when it is built: it needs timm, which takes longer to import than a list of tables may take.
"""

import importlib
from dataclasses import dataclass
from typing import Any

from lumix.automix import AutoMixOptions, SAMixOptions
from lumix.inputs import Checked, Count, NotNegative, Positive, Share
from lumix.registry import register
from lumix.semi import SelfTuningOptions

# ------------------------------------------------------------------------------------------------- tasks


class TaskOptions(Checked):
    """Base of the arguments of tasks; `home` is the module and the class of what trains."""

    home = ("training.tasks.mixed", "MixTask")

    def build(self, setup: Any) -> Any:
        """The task for a `training.build.Setup`."""
        module, name = self.home
        return getattr(importlib.import_module(module), name)(self, setup)


@register("task", "mix", "one network on mixed images")
@dataclass(frozen=True)
class Mixed(TaskOptions):
    """One network trains on images mixed as the run says."""


@register("task", "mix_and_clean", "one network on mixed and on clean images")
@dataclass(frozen=True)
class MixedAndClean(TaskOptions):
    """As AutoMix trains without its generator: clean images add their cross entropy, by a head of their own."""

    home = ("training.tasks.mixed", "CleanTask")


OWN: dict[str, Any] = {"needs": "networks of its own", "dynamic": True, "pixels": "cut"}


@register("task", "automix", "AutoMix", **OWN)
@dataclass(frozen=True)
class AutoMix(AutoMixOptions, TaskOptions):
    """AutoMix, with learning rates of the mask generator's own."""

    home = ("training.tasks.learners", "AutoMixTask")

    block_lr: Positive | None = None  # at its peak; None is the run's
    block_min_lr: NotNegative | None = None  # at the end


@register("task", "samix", "SAMix", **OWN)
@dataclass(frozen=True)
class SAMix(SAMixOptions, AutoMix):
    """SAMix, with learning rates of the mask generator's own as `AutoMix`."""


@register(
    "task",
    "self_tuning",
    "Self-Tuning",
    needs="networks of its own",
    labelled=("weak", "weak"),
    unlabelled=("weak", "weak"),
)
@dataclass(frozen=True)
class SelfTuning(SelfTuningOptions, TaskOptions):
    """Self-Tuning, or with the run's mixing its variant of Decoupled Mixup."""

    home = ("training.tasks.learners", "SelfTuningTask")


@register("task", "fixmatch", "FixMatch", labelled=("weak",), unlabelled=("weak", "strong"))
@dataclass(frozen=True)
class FixMatch(TaskOptions):
    """Weak views give pseudo-labels, strong views learn those that are trusted (Sohn et al. 2020)."""

    home = ("training.tasks.semi", "FixMatchTask")

    threshold: Share = 0.95  # least probability of a pseudo-label that is trusted
    ratio: Count = 7  # unlabelled images for each labelled one
    weight: NotNegative = 1.0  # of the unlabelled images' loss
    ramp: Share = 0.0  # share of the run over which the weight rises from 0; 0 has it from the beginning


@register("task", "pseudo_label", "Pseudo-Label", labelled=("weak",), unlabelled=("weak",))
@dataclass(frozen=True)
class PseudoLabel(FixMatch):
    """A weak view learns its own trusted pseudo-label, with a weight that rises (Lee 2013)."""

    ratio: Count = 1
    ramp: Share = 0.4


@register("task", "mixmatch", "MixMatch", labelled=("weak",), unlabelled=("weak", "weak"))
@dataclass(frozen=True)
class MixMatch(TaskOptions):
    """Guessed labels of unlabelled images, all images mixed with one another (Berthelot et al. 2019)."""

    home = ("training.tasks.semi", "MixMatchTask")

    temperature: Positive = 0.5  # of sharpening the guesses
    alpha: Positive = 0.5  # of the Beta that ratios are drawn from
    weight: NotNegative = 100.0  # this and the next as of `FixMatch`
    ramp: Share = 0.4


# ------------------------------------------------------------------------------------------------- frozen networks


class NetworkOptions(Checked):
    """Base of frozen networks; `maker` is what makes one, in `training.models`."""

    maker = ""

    def __call__(self, *arguments: Any) -> Any:
        """The network for a run's data, by whose mean and std images are normalised; not `pretrained` it is random."""
        return getattr(importlib.import_module("training.models"), self.maker)(self, *arguments)


@register("network", "embedded", "a tiny ResNet trained on the run's own images")
@dataclass(frozen=True)
class Embedded(NetworkOptions):
    """For sets held in memory."""

    maker = "embedded"


@register("network", "pretrained", "a network of timm with published weights")
@dataclass(frozen=True)
class Pretrained(NetworkOptions):
    """A network of timm, by its name with the tag of its weights."""

    maker = "pretrained"

    model: str
