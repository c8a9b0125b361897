"""Tasks and frozen networks as a run names them: their arguments.

What trains takes these as its `options`. It is imported when it is built: it needs timm, which takes longer to import
than a list of tables may take.
"""

from dataclasses import dataclass
from typing import Any

from lumix.inputs import Checked, Count, NotNegative, Positive, Share
from lumix.registry import register

# ------------------------------------------------------------------------------------------------- tasks


@register("task", "mix", "one network on mixed images")
@dataclass(frozen=True)
class Mixed(Checked):
    """One network trains on images mixed as the run says."""

    def build(self, setup: Any) -> Any:
        """The task for a `training.build.Setup`; so for all tasks."""
        from training.build import mixing_parts
        from training.tasks.mixed import MixTask

        return MixTask(**mixing_parts(setup))


OWN: dict[str, Any] = {"needs": "networks of its own", "dynamic": True, "pixels": "cut"}


@register("task", "automix", "AutoMix", **OWN)
@dataclass(frozen=True)
class AutoMix(Checked):
    """AutoMix; arguments as of `lumix.AutoMix`, and learning rates of the mask generator's own.

    Attributes:
        block_lr, block_min_lr: of the mask generator, at its peak and at the end; None is the run's.
    """

    alpha: Positive = 2.0
    stage: int | None = None
    large: bool = False
    momentum: Share = 0.999999
    mask_decays: bool = False
    share: Share = 1.0
    block_lr: Positive | None = None
    block_min_lr: NotNegative | None = None

    def build(self, setup: Any) -> Any:
        from training.tasks.learners import AutoMixTask

        return AutoMixTask(self, setup)


@register("task", "samix", "SAMix", **OWN)
@dataclass(frozen=True)
class SAMix(AutoMix):
    """The same with SAMix."""


@register(
    "task",
    "self_tuning",
    "Self-Tuning",
    needs="networks of its own",
    labelled=("weak", "weak"),
    unlabelled=("weak", "weak"),
)
@dataclass(frozen=True)
class SelfTuning(Checked):
    """Self-Tuning; arguments as of `lumix.semi.learner.SelfTuning`.

    Attributes:
        head_lr_factor: learning rate of the classifier over the run's.
    """

    places: Count = 32
    features: Count = 1024
    temperature: Positive = 0.07
    momentum: Share = 0.999
    head_lr_factor: Positive = 10.0

    def build(self, setup: Any) -> Any:
        from training.tasks.learners import SelfTuningTask

        return SelfTuningTask(self, setup)


@register("task", "fixmatch", "FixMatch", labelled=("weak",), unlabelled=("weak", "strong"))
@dataclass(frozen=True)
class FixMatch(Checked):
    """Weak views give pseudo-labels, strong views learn those that are trusted (Sohn et al. 2020).

    Attributes:
        threshold: least probability of a pseudo-label that is trusted.
        ratio: unlabelled images for each labelled one.
        weight: of the unlabelled images' loss.
        ramp: share of the run over which the weight rises from 0; 0 has it from the beginning.
    """

    threshold: Share = 0.95
    ratio: Count = 7
    weight: NotNegative = 1.0
    ramp: Share = 0.0

    def build(self, setup: Any) -> Any:
        from training.tasks.semi import FixMatchTask

        return FixMatchTask(self, setup)


@register("task", "pseudo_label", "Pseudo-Label", labelled=("weak",), unlabelled=("weak",))
@dataclass(frozen=True)
class PseudoLabel(FixMatch):
    """A weak view learns its own trusted pseudo-label, with a weight that rises (Lee 2013)."""

    ratio: Count = 1
    ramp: Share = 0.4


@register("task", "mixmatch", "MixMatch", labelled=("weak",), unlabelled=("weak", "weak"))
@dataclass(frozen=True)
class MixMatch(Checked):
    """Guessed labels of unlabelled images, all images mixed with one another (Berthelot et al. 2019).

    Attributes:
        temperature: of sharpening the guesses.
        alpha: of the Beta that ratios are drawn from.
        weight, ramp: as of `FixMatch`.
    """

    temperature: Positive = 0.5
    alpha: Positive = 0.5
    weight: NotNegative = 100.0
    ramp: Share = 0.4

    def build(self, setup: Any) -> Any:
        from training.tasks.semi import MixMatchTask

        return MixMatchTask(self, setup)


# ------------------------------------------------------------------------------------------------- frozen networks


@register("network", "embedded", "a tiny ResNet trained on the run's own images")
@dataclass(frozen=True)
class Embedded(Checked):
    """For sets held in memory. Called by the engine with what the images are; without `pretrained` it is random."""

    def __call__(self, data: Any, mean: tuple[float, ...], std: tuple[float, ...], pretrained: bool) -> Any:
        from training.models import embedded

        return embedded(data, mean, std, pretrained)


@register("network", "pretrained", "a network of timm with published weights")
@dataclass(frozen=True)
class Pretrained(Checked):
    """A network of timm, by its name with the tag of its weights. Called as `Embedded`."""

    model: str

    def __call__(self, data: Any, mean: tuple[float, ...], std: tuple[float, ...], pretrained: bool) -> Any:
        from training.models import pretrained as network_of

        return network_of(self.model, mean, std, pretrained)
