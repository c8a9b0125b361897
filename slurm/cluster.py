"""A cluster, read from a TOML file of slurm/clusters or of the user, and how a run is spread over it."""

import os
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from experiments.scale import Scale
from experiments.suggest import choose
from lumix.inputs import Count, CountOrNone, NotNegative, Range
from training.config import Config, Execution, Run
from training.run_directory import RunError

FOLDER = Path(__file__).resolve().parent / "clusters"


@dataclass(frozen=True)
class Cluster(Config):
    """What SLURM is asked for, whatever the scale. Texts that are empty and numbers that are 0 are not asked for."""

    name: str
    description: str = ""
    executor: Literal["slurm", "debug"] = "slurm"  # debug: one run after another in this process, without SLURM
    device: Literal["cuda", "cpu"] = "cuda"
    partition: str = ""
    account: str = ""
    qos: str = ""
    constraint: str = ""
    nodes: Count = 1  # most nodes that one run may take
    gpus_per_node: CountOrNone = 0
    tasks_per_node: CountOrNone = 0  # processes of one run on a node; 0 is one for each GPU, at least one
    cpus_per_task: Count = 1
    memory_gb: CountOrNone = 0  # of one node
    time_limit_minutes: Count = 60  # of one start: a run that needs longer is requeued and goes on
    signal_delay_seconds: Annotated[int, Range(10)] = (
        120  # before the limit SLURM sends SIGUSR2, at which a run saves its checkpoint
    )
    checkpoint_seconds: NotNegative = 600.0  # between two checkpoints; this much is lost when a job is killed outright
    max_parallel_jobs: Count = 8  # of one submission
    images_per_gpu: CountOrNone = 0  # most images of one forward pass; a larger share is accumulated. 0 is no limit
    modules: tuple[str, ...] = ()
    setup: tuple[str, ...] = ()  # shell lines before the run
    container: str = ""  # put before python, as in: apptainer exec --nv lumix.sif
    python: str = ""  # interpreter of a job; empty is the one that submits
    dollars_per_gpu_hour: NotNegative = 0.0  # 0 is the price of the scale

    def check(self) -> None:
        if self.signal_delay_seconds >= 60 * self.time_limit_minutes:
            raise ValueError(
                f"Cluster.signal_delay_seconds must be below the time limit of {self.time_limit_minutes} minutes, "
                f"not {self.signal_delay_seconds}"
            )
        if self.device == "cuda" and not self.gpus_per_node:
            raise ValueError("Cluster.gpus_per_node must be at least 1 where device is cuda, not 0")

    def execution(self, scale: Scale) -> Execution:
        """How a job carries out its runs, but for the microbatch, which the job derives from its real allocation."""
        return scale.execution.replace(
            device=self.device if scale.gpus else "cpu",
            workers=max(1, self.cpus_per_task - 1),
            checkpoint_seconds=self.checkpoint_seconds,
        )


def load_cluster(name: str | None) -> Cluster:
    """The cluster of that name, or of that .toml file; None is LUMIX_CLUSTER of the environment, else a100."""
    name = name or os.environ.get("LUMIX_CLUSTER") or "a100"
    path = Path(name)
    if not name.endswith(".toml"):
        path = FOLDER / f"{choose('cluster', name, sorted(path.stem for path in FOLDER.glob('*.toml')))}.toml"
    try:
        values: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
        return Cluster.from_dict({"name": path.stem, **values})
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}): name a shipped cluster or a .toml file") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path.name}: {error}") from error


class Layout(NamedTuple):
    """Nodes, tasks and GPUs of one job."""

    nodes: int
    tasks_per_node: int
    gpus_per_node: int
    device: str

    @property
    def tasks(self) -> int:
        return self.nodes * self.tasks_per_node


def layout_of(cluster: Cluster, scale: Scale, run: Run) -> Layout:
    """What a run takes of the cluster: the GPUs that its scale wants for it, or as many as the cluster gives."""
    if cluster.device == "cpu":
        if scale.gpus:
            raise ValueError(
                f"scale {scale.name} needs GPUs and cluster {cluster.name} trains on CPUs: choose --cluster a100 or "
                f"another, or --scale mini"
            )
        tasks = cluster.tasks_per_node or max(1, cluster.gpus_per_node)
        return Layout(cluster.nodes, tasks, cluster.gpus_per_node, "cpu")
    if not scale.gpus:  # made for CPUs: a GPU would change its numbers and idle
        return Layout(1, 1, 0, "cpu")
    gpus = scale.gpus_of(run)
    if gpus <= cluster.gpus_per_node:
        return Layout(1, gpus, gpus, "cuda")
    nodes = min(cluster.nodes, -(-gpus // cluster.gpus_per_node))
    return Layout(nodes, cluster.tasks_per_node or cluster.gpus_per_node, cluster.gpus_per_node, "cuda")


def microbatch(run: Run, tasks: int, images_per_gpu: int) -> int:
    """Images of one forward pass on one task: the whole share of the task, or its largest part within the limit."""
    share, rest = divmod(run.batch_size, tasks)
    if rest:
        raise RunError(
            f"the batch of {run.batch_size} images of {run.key} does not divide over {tasks} tasks: give the cluster "
            f"a number of GPUs, or of tasks_per_node, that divides {run.batch_size}"
        )
    if share % 2 and run.mix.pairing == "flip":
        raise RunError(
            f"{run.key} mixes pairs within the share of a task, and {run.batch_size} images on {tasks} tasks are an "
            f"odd {share} each: choose a number of tasks that leaves an even share"
        )
    limit = min(images_per_gpu or share, share)
    return next(size for size in range(limit, 0, -1) if share % size == 0)
