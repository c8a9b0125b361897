"""params.yaml: scale, seeds, launcher and tables of the pipeline. DVC reads the same file."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from experiments.registry import TABLES
from experiments.scale import HOMES
from experiments.suggest import choose

LAUNCHERS = ("local", "slurm")
FILE = Path("params.yaml")


@dataclass(frozen=True)
class Params:
    """The defaults of every command."""

    scale: str
    seeds: int | None  # None: the scale's own numbers
    launcher: str
    tables: tuple[str, ...]


def read_params(path: Path = FILE) -> Params:
    """The parameters in `path`."""
    try:
        values: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}): run this in the root of the project") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" near line {mark.line + 1}" if mark else ""
        raise ValueError(f"{path} is not YAML{where}: mend it, or get it back with git checkout {path}") from error
    if not isinstance(values, dict) or set(values) != {"scale", "seeds", "launcher", "tables"}:
        raise ValueError(f"{path} must hold the keys scale, seeds, launcher and tables, and no others")
    tables = list(TABLES) if values["tables"] == "all" else values["tables"]
    try:
        if not isinstance(tables, list) or not tables:
            raise ValueError(f"tables must be all or a list of table names, not {tables!r}")
        return Params(
            scale=choose("scale", str(values["scale"]), HOMES),
            seeds=None if values["seeds"] is None else check_seeds(values["seeds"], "seeds"),
            launcher=choose("launcher", str(values["launcher"]), LAUNCHERS),
            tables=tuple(choose("table", str(name), TABLES) for name in tables),
        )
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def check_seeds(value: object, name: str = "--seeds") -> int:
    """`value` itself if it is a number of seeds that a list can hold, else ValueError."""
    if type(value) is not int or not 1 <= value <= 1000:
        limit = "at most 1000" if type(value) is int and value > 1000 else "at least 1"
        raise ValueError(f"{name} must be a whole number of {limit}, not {value!r}")
    return value
