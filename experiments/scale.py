"""A scale: what "DeiT-S on ImageNet" stands for here. Tables are written once and built for any scale."""

import importlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from evaluation.evaluation import Evaluation
from experiments.learning import learning
from experiments.suggest import choose
from lumix.registry import name_of
from training.config import Execution, Run

NAMES = ("mini", "small_earlier", "small", "lab", "paper")  # the nearest to the papers last
HOMES = {name: f"experiments.scales.{name}" for name in NAMES}
DEFAULT_SETTING = "deit"


@dataclass(frozen=True, eq=False)
class Setting:
    """One recipe of a scale: the runs it gives to roles, and how tables on it are evaluated here.

    Attributes:
        base: role ("deit_s") -> its base run: the usual mixing, the ordinary loss.
        text: one sentence on data, models and budget, where it is not the scale's.
        evaluations: what a table asks for by name -> the evaluation that this scale can make of it.
        sources: roles whose base runs evaluations need and no cell shows.
        notes: further texts that a table shows, by name.
        unavailable: role or column -> why it is not there at this scale.
        learning: the base run with another task, by its name.
        labels: numbers of labelled images that a semi-supervised table has columns for.
    """

    base: Callable[[str], Run]
    text: str = ""
    evaluations: Mapping[str, Evaluation] = field(default_factory=dict)
    sources: tuple[str, ...] = ()
    notes: Mapping[str, str] = field(default_factory=dict)
    unavailable: Mapping[str, str] = field(default_factory=dict)
    learning: Callable[[Run, str], Run] = learning
    labels: tuple[int, ...] = ()


IMAGES_PER_GPU = 32  # a smaller share of a batch does not occupy a GPU


@dataclass(frozen=True, eq=False)
class Scale:
    """One answer to: which data, which models, how long, how many seeds, on what.

    Attributes:
        name: one of `NAMES`.
        text: one sentence on data, models and budget, printed above every table.
        settings: by name, as "deit" (the recipe of LUMix's tables) or "objects" (images whose objects are known).
        seeds: seeds of every cell; they are 0 .. n-1, so that any two cells can be compared seed by seed.
        headline_seeds: seeds of the runs behind the headline comparisons (`Table.headline`).
        more_seeds: seeds of tables with small differences (few labels; LUMix beside DM); 0 is `seeds`.
        tables: ids of the tables that it has settings for; () is all but those on photographs, which small has.
        blocks: whether seed k of all runs of a table is trained before seed k + 1, on one kind of processor.
        patch: side in pixels of the patches that Random Shuffling and Random lambda use (Table 12).
        hours: run -> estimated hours on this scale's device for one seed: GPU-hours where `gpus`, else CPU-hours.
        exercises: what a scale is for whose numbers judge no claim, in a sentence; "" for all others.
        replicates: whether its numbers may be set against the paper's own.
        retrain_on_code_change: train again when the code of `lumix` changed; else keep the run and flag it.
        execution: device and data loading of a run that is started here.
        gpus: most GPUs of one run; 0 is a scale for CPUs.
        processes: runs side by side on one machine; 0 is one for each usable core.
        alone_seeds: seeds of a run that trains alone, and of the evaluations that are themselves long; 0 is `seeds`.
        stack: run -> networks in the stack that it trains in, which decides how its numbers round; 1 trains it alone.
        dollars_per_gpu_hour: price behind `python -m experiments cost`.
    """

    name: str
    text: str
    settings: Mapping[str, Setting]
    seeds: int
    headline_seeds: int
    patch: int
    hours: Callable[[Run], float]
    more_seeds: int = 0
    tables: tuple[str, ...] = ()
    blocks: bool = False
    exercises: str = ""
    replicates: bool = False
    retrain_on_code_change: bool = False
    execution: Execution = field(default_factory=Execution)
    gpus: int = 0
    processes: int = 0
    alone_seeds: int = 0
    stack: Callable[[Run], int] = lambda run: 1
    dollars_per_gpu_hour: float = 0.0

    def has(self, table: str) -> bool:
        """Whether it has settings for a table."""
        return table in self.tables if self.tables else "photographs" not in table

    def stack_of(self, run: Run) -> int:
        """Networks in the stack that a run trains in, 1 where it trains alone."""
        return 1 if run.why_alone else self.stack(run)

    def seeds_of(self, run: Run) -> int:
        """Seeds of a run that no table asks more of."""
        return (self.alone_seeds if self.stack_of(run) == 1 else 0) or self.seeds

    def setting(self, name: str) -> Setting:
        """The setting of that name."""
        return self.settings[choose(f"setting of scale {self.name}", name, self.settings)]

    def text_of(self, names: Iterable[str]) -> str:
        """The texts of settings, each once."""
        return " ".join(dict.fromkeys(self.setting(name).text for name in names))

    def base(self, setting: str, role: str) -> Run:
        """The base run of a role under a setting."""
        return self.setting(setting).base(role)

    def gpus_of(self, run: Run) -> int:
        """GPUs of one training: all that the scale gives, or one where a batch would leave them idle."""
        return self.gpus if run.batch_size >= IMAGES_PER_GPU * self.gpus else 1


def semi_images(run: Run) -> float:
    """Images that a run with labels for some trains on, over all its updates; one without gradient counts a third."""
    unlabelled = getattr(run.task, "ratio", 1)
    each = {"mix": 1.0, "mixmatch": 1 + 2 * 4 / 3, "self_tuning": 3.0}.get(name_of(run.task), 1 + unlabelled * 4 / 3)
    mixed = 1 + unlabelled if run.mix.choices else 0
    return run.epochs * run.epoch_steps * run.batch_size * (each + mixed)


def register_scale(name: str, module: str) -> None:
    """Add a scale: `module` holds its `SCALE`."""
    HOMES[name] = module


def get_scale(name: str) -> Scale:
    """The scale of that name."""
    choose("scale", name, HOMES)
    scale = importlib.import_module(HOMES[name]).SCALE
    assert isinstance(scale, Scale)
    return scale
