"""params.yaml: scale, seeds and launcher of the pipeline. DVC reads the same file."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
    """The parameters in `path`.

    Raises:
        ValueError: for a missing, malformed or nonsensical file, naming it and the remedy.
    """
    import yaml  # late: --help must not wait for it

    try:
        values: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}): run this in the root of the project") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" near line {mark.line + 1}" if mark else ""
        raise ValueError(f"{path} is not YAML{where}: mend it, or get it back with git checkout {path}") from error
    wanted = {"scale", "seeds", "launcher", "tables"}
    if not isinstance(values, dict) or set(values) != wanted:
        found = ", ".join(map(str, values)) if isinstance(values, dict) else type(values).__name__
        raise ValueError(f"{path} must hold the keys scale, seeds, launcher and tables, not {found or 'nothing'}")
    return Params(
        scale=_named(path, "scale", values["scale"], HOMES),
        seeds=None if values["seeds"] is None else check_seeds(values["seeds"], f"{path}: seeds"),
        launcher=_named(path, "launcher", values["launcher"], LAUNCHERS),
        tables=_tables(path, values["tables"]),
    )


def check_seeds(value: object, name: str = "--seeds") -> int:
    """`value` itself if it is a number of seeds.

    Raises:
        ValueError: otherwise.
    """
    if type(value) is not int or value < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, not {value!r}")
    return value


def _named(path: Path, key: str, value: object, known: Iterable[str]) -> str:
    try:
        return choose(key, str(value), known)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _tables(path: Path, value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise ValueError(f"{path}: tables must be a list of table names, not {value!r}")
    return tuple(_named(path, "table", name, TABLES) for name in value)
