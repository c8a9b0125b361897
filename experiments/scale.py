"""A scale: what "DeiT-S on ImageNet" stands for here. Tables are written once and built for any scale."""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from experiments.suggest import choose
from lumix.train.config import Execution, Run

HOMES = {
    "mini": "experiments.scales.mini_scale",
    "lab": "experiments.scales.lab",
    "paper": "experiments.scales.paper",
}
NAMES = tuple(HOMES)


@dataclass(frozen=True, eq=False)
class Scale:
    """One answer to: which data, which models, how long, how many seeds, on what.

    Attributes:
        name: one of `NAMES`.
        setting: one sentence on data, models and budget, printed above every table.
        seeds: seeds of every cell; they are 0 .. n-1, so that any two cells can be compared seed by seed.
        headline_seeds: seeds of the runs behind the headline comparison (`experiments.methods.headline`).
        run: role ("deit_s") -> its base run: Mixup and CutMix, the ordinary loss.
        patch: role -> side in pixels of the patches that Random Shuffling and Random lambda use (Table 12).
        hours: run -> estimated hours on this scale's device for one seed: GPU-hours where `gpus`, else CPU-hours.
        unavailable: role -> why this scale has no such model.
        retrain_on_code_change: train again when the code of `lumix` changed; else keep the run and flag it.
        execution: device and data loading of a run that is started here.
        gpus: GPUs of one run; 0 is a scale for CPUs.
        processes: runs side by side on one machine; 0 is one for each usable core.
        dollars_per_gpu_hour: price behind `python -m experiments cost`.
    """

    name: str
    setting: str
    seeds: int
    headline_seeds: int
    run: Callable[[str], Run]
    patch: Callable[[str], int]
    hours: Callable[[Run], float]
    unavailable: Mapping[str, str] = field(default_factory=dict)
    retrain_on_code_change: bool = False
    execution: Execution = field(default_factory=Execution)
    gpus: int = 0
    processes: int = 0
    dollars_per_gpu_hour: float = 0.0

    def gpu_hours(self, run: Run) -> float:
        """Estimated GPU-hours of one seed of `run`; 0 at a scale for CPUs."""
        return self.hours(run) if self.gpus else 0.0


def get_scale(name: str) -> Scale:
    """The scale of that name.

    Raises:
        ValueError: for any other name, with those there are.
    """
    choose("scale", name, NAMES)
    scale = importlib.import_module(HOMES[name]).SCALE
    assert isinstance(scale, Scale)
    return scale
