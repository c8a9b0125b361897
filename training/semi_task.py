"""SemiTask: what tasks with labelled and unlabelled images share: a weight that may rise, and its place in a run."""

from typing import Any

from lumix.registry import describe
from lumix.terms.cross_entropy import CrossEntropy
from training.build import Setup, mixing_parts
from training.config import Loss, Mix, Run
from training.mix_task import MixTask

PLAIN = Loss(terms=(CrossEntropy(),))


class SemiTask(MixTask):
    """One network; its batches are `Views` with the labels of the labelled ones.

    Args:
        options: with the weight of the unlabelled images' loss, and over which share of the run it rises.
    """

    def __init__(self, options: Any, setup: Setup) -> None:
        super().__init__(**mixing_parts(setup))
        if self.criterion.rule.needs_attention:
            raise ValueError(f"nothing records attention for {self.criterion.rule} here: use another label rule")
        self.updates, self.weight, self.ramp = setup.updates, options.weight, options.ramp
        self.done = 0  # updates

    def factors(self, labelled: int, unlabelled: int) -> tuple[float, float]:
        """Factors of the losses of labelled and of unlabelled images in the mean over a batch of so many of both.

        That mean is then the mean over the labelled images and, as high as it has risen, `weight` times that over the
        unlabelled ones.
        """
        total = labelled + unlabelled
        risen = min(self.done / (self.ramp * self.updates), 1.0) if self.ramp else 1.0
        return total / labelled, self.weight * risen * total / unlabelled

    def after_update(self, step: int) -> None:
        super().after_update(step)
        self.done = step + 1

    def checkpoint(self) -> dict[str, Any]:
        return {**super().checkpoint(), "done": self.done}

    def restore(self, saved: dict[str, Any]) -> None:
        super().restore(saved)
        self.done = saved["done"]


def check_plain(run: Run) -> None:
    """Raise ValueError for mixing or a loss that the task of the run would pass over."""
    if run.mix != Mix() or run.loss != PLAIN:
        raise ValueError(
            f"{describe(run.task)} has losses of its own here, and the run has {run.mix} and {run.loss}: leave out "
            f"Run.mix, and set Run.loss to cross entropy without smoothing"
        )
