"""SemiTask: what tasks with labelled and unlabelled images share: a weight that may rise, and its place in a run."""

from collections.abc import Callable
from typing import Any

from lumix.catalogue import Spec
from lumix.checks import check_number, check_probability
from training.config import Loss, Mix, Run
from training.mix_task import MixTask

PLAIN = Loss(terms=(Spec("cross_entropy"),))
Mixing = Callable[[], dict[str, Any]]


class SemiTask(MixTask):
    """One network; its batches are `Views` with the labels of the labelled ones.

    Args:
        mixing: gives the arguments of `MixTask`.
        updates: of the whole run.
        weight: of the unlabelled images' loss.
        ramp: share of the run over which the weight rises from 0; 0 has it from the beginning.

    Raises:
        ValueError: for a label rule that reads attention.
    """

    def __init__(self, *, mixing: Mixing, updates: int, weight: float, ramp: float) -> None:
        check_number("weight", weight, 0)
        check_probability("ramp", ramp)
        super().__init__(**mixing())
        if self.criterion.rule.needs_attention:
            raise ValueError(f"nothing records attention for {self.criterion.rule} here: use another label rule")
        self.updates, self.weight, self.ramp = updates, weight, ramp
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
            f"{run.task} has losses of its own here, and the run has {run.mix} and {run.loss}: leave out Run.mix, and "
            f"set Run.loss to cross entropy without smoothing"
        )
