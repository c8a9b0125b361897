"""A scale: what "DeiT-S on ImageNet" stands for here. Tables are written once and built for any scale."""

import importlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from evaluation.arguments import Recipe, fitting_grids
from evaluation.evaluation import Evaluation
from experiments.learning import learning
from experiments.suggest import choose
from lumix.registry import name_of
from training.config import Execution, Run

NAMES = ("mini", "small_earlier", "small", "lab", "paper")  # the nearest to the papers last
# The questions of scale small in their order, which no other scale has settings for.
PHOTOGRAPHS = ("lumix_photographs", "lumix_photographs_controls", "dm_photographs", "dm_photographs_lumix")
HOMES = {name: f"experiments.scales.{name}" for name in NAMES}
DEFAULT_SETTING = "deit"


@dataclass(frozen=True, eq=False)
class Setting:
    """One recipe of a scale: the runs it gives to roles, and how tables on it are evaluated here."""

    base: Callable[[str], Run]  # role ("deit_s") -> its base run: the usual mixing, the ordinary loss
    text: str = ""  # one sentence on data, models and budget, where it is not the scale's
    evaluations: Mapping[str, Evaluation] = field(default_factory=dict)  # by the name that a table asks for
    sources: tuple[str, ...] = ()  # roles whose base runs evaluations need and no cell shows
    notes: Mapping[str, str] = field(default_factory=dict)  # further texts that a table shows, by name
    unavailable: Mapping[str, str] = field(default_factory=dict)  # role or column -> why it is not there
    learning: Callable[[Run, str], Run] = learning  # the base run with another task, by its name
    labels: tuple[int, ...] = ()  # numbers of labelled images that a semi-supervised table has columns for


# A batch of 256 shares its random patches as published; small test sets draw for each image, for less noise.
AS_PUBLISHED = {"draw": "per_batch", "repetitions": 3, "seed": 0, "batch": 256}
PER_IMAGE = {"draw": "per_image", "repetitions": 3, "seed": 0, "batch": 1000}


def robustness(run: Run, token: int, source: dict[str, Any], draws: dict[str, Any]) -> dict[str, Evaluation]:
    """Both evaluations of DeiT-S: all ways of dropping patches (Table 9), and all grids of shuffled ones (Table 7).

    Grids cut no patch, of side `token`, of the images of its base run. `source` is whose attention says what is
    salient: {"timm": name} or {"key": run key}; `draws` one of the above.
    """
    grids = fitting_grids(run.data.image_size, token)
    return {
        "occlusion": Evaluation("occlusion", {"source": source, "head": 1, **draws}),
        "shuffling": Evaluation("shuffling", {"grids": grids, **draws}),
    }


def segmentation(**recipes: Recipe) -> dict[str, Evaluation]:
    """The evaluation of each named recipe of fine-tuning (Table 4)."""
    return {name: Evaluation("segmentation", {"recipe": recipe.to_dict()}) for name, recipe in recipes.items()}


IMAGES_PER_GPU = 32  # a smaller share of a batch does not occupy a GPU


@dataclass(frozen=True, eq=False)
class Scale:
    """One answer to: which data, which models, how long, how many seeds, on what."""

    name: str  # one of `NAMES`
    text: str  # one sentence on data, models and budget, printed above every table
    settings: Mapping[str, Setting]  # as "deit" (LUMix's tables) or "objects" (images whose objects are known)
    seeds: int  # of every cell; they are 0 .. n-1, so that any two cells can be compared seed by seed
    headline_seeds: int  # of the runs behind the headline comparisons (`Table.headline`)
    patch: int  # side in pixels of the patches that Random Shuffling and Random lambda use (Table 12)
    hours: Callable[[Run], float]  # estimate of one seed on this scale's device: GPU-hours where `gpus`, else CPU-hours
    more_seeds: int = 0  # of tables with small differences (few labels; LUMix beside DM); 0 is `seeds`
    tables: tuple[str, ...] = ()  # that it has settings for; () is all but those on photographs, which small has
    blocks: bool = False  # whether seed k of all runs of a table is trained before k + 1, on one kind of processor
    exercises: str = ""  # what a scale is for whose numbers judge no claim, in a sentence; "" for all others
    replicates: bool = False  # whether its numbers may be set against the paper's own
    retrain_on_code_change: bool = False  # train again when the code of `lumix` changed; else keep the run and flag it
    execution: Execution = field(default_factory=Execution)  # of a run that is started here
    gpus: int = 0  # most of one run; 0 is a scale for CPUs
    processes: int = 0  # runs side by side on one machine; 0 is one for each usable core
    alone_seeds: int = 0  # of a run that trains alone, and of evaluations that are themselves long; 0 is `seeds`
    stack: Callable[[Run], int] = lambda run: 1  # networks in a run's stack, which decides how its numbers round
    dollars_per_gpu_hour: float = 0.0  # price behind `python -m experiments cost`

    def has(self, table: str) -> bool:
        """Whether it has settings for a table."""
        return table in self.tables if self.tables else table not in PHOTOGRAPHS

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
