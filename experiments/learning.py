"""AutoMix and SAMix in place of a run's mixing, as their published configurations set them for each data set."""

from functools import partial
from typing import Any

from lumix.registry import get_part
from training.config import Mix, Run
from training.parts import MixMatch


def learning(
    run: Run,
    name: str,
    min_lr: float | None = None,
    automix: dict[str, Any] | None = None,
    samix: dict[str, Any] | None = None,
    **arguments: Any,
) -> Run:
    """The run with the task of that name: no average of the weights, and another floor of the rate where given.

    `automix` and `samix` are arguments of one of the two.
    """
    floor = {} if min_lr is None else {"min_lr": min_lr}
    optim = run.optim.replace(ema_decay=0.0, ema_reported=False, **floor)
    own = (automix if name == "automix" else samix) or {}
    return run.replace(mix=Mix(), optim=optim, task=get_part(name, "task").cls(**arguments, **own))


def on_cifar100(run: Run, name: str) -> Run:
    """With a rate that stays high, but for the wide network's."""
    return learning(run, name, min_lr=1e-3 if run.model.role == "wrn28_8" else 0.05)


_LARGE: dict[str, Any] = {"momentum": 0.99999, "mask_decays": True}
on_tiny_imagenet = partial(learning, min_lr=0.05, block_lr=0.1, block_min_lr=1e-3)
on_imagenet = partial(learning, large=True, samix={"dropout": 0.1}, **_LARGE)
under_sgd = partial(on_imagenet, block_min_lr=1e-3)
# The generator learns from the classification of 80 % of the batches; the slow copy waits for a quarter of the run.
under_deit = partial(on_imagenet, share=0.8, warm=0.25, block_min_lr=1e-4)
fine_grained = partial(
    learning,
    automix={"large": True},
    samix={"curvature": 1.0, "dropout": 0.1},
    block_lr=0.01,
    block_min_lr=5e-4,
    **_LARGE,
)


def semi_supervised(run: Run, name: str, mixmatch_weight: float = 100.0) -> Run:
    """FixMatch's run with another semi-supervised task, or "mix": what labelled images alone teach in as many updates.

    None of these has strong views. The weight is that of MixMatch's unlabelled images.
    """
    task = MixMatch(weight=mixmatch_weight) if name == "mixmatch" else get_part(name, "task").cls()
    return run.replace(task=task, data=run.data.replace(strong="", cutout=0.0))
