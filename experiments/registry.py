"""All tables in order, and who owns which run: the first table that declares it."""

import importlib
from dataclasses import replace
from functools import cache
from pathlib import Path

from experiments.scale import PHOTOGRAPHS, Scale
from experiments.suggest import choose
from experiments.table import Table
from training.config import Run

# In the order of the report. Each is a folder here with table.py, paper.csv, claims.csv and README.md.
TABLES = {  # id -> module with build(scale)
    id: f"experiments.{id}.table"
    for id in (
        "lumix_table01_models",
        "lumix_table02_components",
        "lumix_table03_ratios",
        "lumix_table04_segmentation",
        "lumix_table05_localisation",
        "lumix_table06_rivals",
        "lumix_table07_shuffling",
        "lumix_table08_natural",
        "lumix_table09_occlusion",
        "lumix_table10_laws",
        "lumix_table11_losses",
        "lumix_table12_randomness",
        "lumix_controls",
        "dm_figure01_mixed",
        "dm_table02_small_sets",
        "dm_table03_imagenet",
        "dm_table04_losses",
        "dm_table05_transformers",
        "dm_table06_fine_grained",
        "dm_table07_adversarial",
        "dm_table08_limited_labels",
        "dm_figure02_eta",
        "dm_figure02_rescaling",
        "dm_figure03_eta",
        "dm_semi_supervised",
        "dm_self_tuning",
        "dm_with_lumix",
        *PHOTOGRAPHS,
    )
}


def register_table(id: str, module: str) -> None:
    """Add a table, for instance from another package: `module` has build(scale) -> Table."""
    if id in TABLES:
        raise ValueError(f"there is a table {id!r} already: choose another id")
    TABLES[id] = module
    clear_caches()


def clear_caches() -> None:
    """Forget who owns what, because the tables have changed."""
    for cached in (get_table, owners, _wanted):
        cached.cache_clear()


@cache
def get_table(name: str, scale: Scale) -> Table:
    """The table of that id, built for `scale`."""
    choose("table", name, TABLES)
    if not scale.has(name):
        raise ValueError(f"scale {scale.name} has no table {name}: it has {', '.join(filter(scale.has, TABLES))}")
    module = importlib.import_module(TABLES[name])
    table: Table = module.build(scale)
    return replace(table, id=name, folder=Path(str(module.__file__)).parent)


def tables_of(scale: Scale) -> list[Table]:
    """The tables that a scale has, in the order of the report."""
    return [get_table(name, scale) for name in filter(scale.has, TABLES)]


@cache
def owners(scale: Scale) -> dict[str, str]:
    """Run key -> id of the table that owns it."""
    owner: dict[str, str] = {}
    for table in tables_of(scale):
        for key in table.runs:
            owner.setdefault(key, table.id)
    return owner


@cache
def _wanted(scale: Scale) -> dict[str, int]:
    """Run key -> seeds: the scale's, or more of tables that ask for it, and of the headlines' runs."""
    wanted: dict[str, int] = {}
    for table in tables_of(scale):
        headline = {table.cells[cell].key for cell in table.headline}
        for key, run in table.runs.items():
            asked = scale.headline_seeds if key in headline else table.seeds
            if scale.alone_seeds and scale.stack_of(run) == 1:
                asked = 0
            wanted[key] = max(asked, wanted.get(key, scale.seeds_of(run)))
    return wanted


def seeds_of(scale: Scale, run: Run, seeds: int | None = None) -> range:
    """The seeds of a run: `seeds` of them where given, else as many as the scale or a table of the run wants."""
    return range(_wanted(scale).get(run.key, scale.seeds_of(run)) if seeds is None else seeds)


def directory_of(scale: Scale, run: Run, seed: int) -> Path:
    """runs/<scale>/<owner>/<run key>/seed<k>, relative to the project's root."""
    return Path("runs", scale.name, owners(scale)[run.key], run.key, f"seed{seed}")
