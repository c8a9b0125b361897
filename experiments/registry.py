"""All tables in order, and who owns which run: the first table that declares it."""

import importlib
from functools import cache
from pathlib import Path

from experiments.methods import headline
from experiments.near import choose
from experiments.scale import Scale
from experiments.table import Table
from lumix.train.config import Run

TABLES = (
    "lumix_table01_models",
    "lumix_table02_components",
    "lumix_table03_ratios",
    "lumix_table10_laws",
    "lumix_table11_losses",
    "lumix_table12_randomness",
    "lumix_controls",
)


@cache
def get_table(name: str, scale: Scale) -> Table:
    """The table of that id, built for `scale`.

    Raises:
        ValueError: for an unknown id, with near matches.
    """
    choose("table", name, TABLES)
    table = importlib.import_module(f"experiments.{name}.table").build(scale)
    assert isinstance(table, Table)
    return table


@cache
def owners(scale: Scale) -> dict[str, str]:
    """Run key -> id of the table that owns it. Its run directories are one output of that table's DVC stage."""
    owner: dict[str, str] = {}
    for name in TABLES:
        for key in get_table(name, scale).runs:
            owner.setdefault(key, name)
    return owner


@cache
def _headline(scale: Scale) -> frozenset[str]:
    return headline(scale)


def seeds_of(scale: Scale, run: Run, seeds: int | None = None) -> range:
    """The seeds of a run: `seeds` of them where given, else the scale's own number."""
    if seeds is not None:
        return range(seeds)
    return range(scale.headline_seeds if run.key in _headline(scale) else scale.seeds)


def run_directory(scale: Scale, run: Run, seed: int) -> Path:
    """runs/<scale>/<owner>/<run key>/seed<k>, relative to the project's root."""
    return Path("runs", scale.name, owners(scale)[run.key], run.key, f"seed{seed}")
