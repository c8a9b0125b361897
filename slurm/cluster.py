"""A cluster: one TOML file of slurm/clusters, or of the user, read into a frozen record with strict fields."""

import os
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.suggest import choose
from training.records import Config

FOLDER = Path(__file__).resolve().parent / "clusters"
VARIABLE = "LUMIX_CLUSTER"  # the cluster where --cluster is not given
DEFAULT = "a100"
EXECUTORS, DEVICES = ("slurm", "debug"), ("cuda", "cpu")


@dataclass(frozen=True)
class Cluster(Config):
    """What SLURM is asked for, whatever the scale. Texts that are empty and numbers that are 0 are not asked for."""

    name: str
    description: str = ""
    executor: str = "slurm"  # debug: one run after another in this process, without SLURM
    device: str = "cuda"
    partition: str = ""
    account: str = ""
    qos: str = ""
    constraint: str = ""
    nodes: int = 1  # most nodes that one run may take
    gpus_per_node: int = 0
    tasks_per_node: int = 0  # processes of one run on a node; 0 is one for each GPU, at least one
    cpus_per_task: int = 1
    memory_gb: int = 0  # of one node
    time_limit_minutes: int = 60  # of one attempt: a run that needs longer is requeued and goes on
    signal_delay_seconds: int = 120  # before the limit SLURM sends SIGUSR2, at which a run saves its checkpoint
    checkpoint_seconds: float = 600.0  # between two checkpoints; this much is lost when a job is killed outright
    max_parallel_jobs: int = 8  # of one submission
    images_per_gpu: int = 0  # most images of one forward pass; a larger share is accumulated. 0 is no limit
    modules: tuple[str, ...] = ()
    setup: tuple[str, ...] = ()  # shell lines before the run
    container: str = ""  # put before python, as in: apptainer exec --nv lumix.sif
    python: str = ""  # interpreter of a job; empty is the one that submits
    dollars_per_gpu_hour: float = 0.0

    def check(self) -> None:
        for name, known in (("executor", EXECUTORS), ("device", DEVICES)):
            if getattr(self, name) not in known:
                raise ValueError(f"Cluster.{name} must be {' or '.join(known)}, not {getattr(self, name)!r}")
        for name in ("nodes", "cpus_per_task", "time_limit_minutes", "max_parallel_jobs"):
            self._at_least(name, 1)
        for name in ("gpus_per_node", "tasks_per_node", "memory_gb", "images_per_gpu", "checkpoint_seconds"):
            self._at_least(name, 0)
        self._at_least("dollars_per_gpu_hour", 0)
        self._at_least("signal_delay_seconds", 10)
        if self.signal_delay_seconds >= 60 * self.time_limit_minutes:
            raise ValueError(
                f"Cluster.signal_delay_seconds must be below the time limit of {self.time_limit_minutes} minutes, "
                f"not {self.signal_delay_seconds}"
            )
        if self.device == "cuda" and not self.gpus_per_node:
            raise ValueError("Cluster.gpus_per_node must be at least 1 where device is cuda, not 0")
        for name in ("modules", "setup"):
            lines = getattr(self, name)
            if not isinstance(lines, list | tuple) or not all(isinstance(line, str) for line in lines):
                raise ValueError(f"Cluster.{name} must be a list of texts, not {lines!r}")
            object.__setattr__(self, name, tuple(lines))

    def _at_least(self, name: str, low: int) -> None:
        if getattr(self, name) < low:
            raise ValueError(f"Cluster.{name} must be at least {low}, not {getattr(self, name)!r}")


def cluster_names() -> list[str]:
    """The clusters that are shipped."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load_cluster(name: str | None) -> Cluster:
    """The cluster of that name, or of that .toml file; None is LUMIX_CLUSTER of the environment, else a100.

    Raises:
        ValueError: for an unknown name, an unreadable file, or a wrong field or value, naming it and what is allowed.
    """
    name = name or os.environ.get(VARIABLE) or DEFAULT
    path = Path(name)
    if not name.endswith(".toml"):
        path = FOLDER / f"{choose('cluster', name, cluster_names())}.toml"
    try:
        values: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}): name a shipped cluster or a .toml file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not TOML ({error}): mend it") from error
    try:
        return Cluster.from_dict({"name": path.stem, **values})
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from error
