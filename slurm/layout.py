"""Layout: how one run is spread over the tasks of a job. The recipe fixes the batch; the share of a task follows."""

from dataclasses import dataclass

from experiments.scale import Scale
from slurm.cluster import Cluster
from training.config import Execution, Run
from training.run_directory import RunError


@dataclass(frozen=True)
class Layout:
    """Nodes, tasks and GPUs of one job."""

    nodes: int
    tasks_per_node: int
    gpus_per_node: int
    device: str

    @property
    def tasks(self) -> int:
        return self.nodes * self.tasks_per_node

    @property
    def gpus(self) -> int:
        return self.nodes * self.gpus_per_node


def layout_of(cluster: Cluster, scale: Scale, run: Run) -> Layout:
    """What a run of `scale` takes of `cluster`: the GPUs that the scale wants for it, or as many as the cluster gives.

    Raises:
        ValueError: where the scale needs GPUs and the cluster is one of CPUs.
    """
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
    """Images of one forward pass on one task: the whole share of the task, or its largest part within the limit.

    Raises:
        RunError: where the batch of the recipe does not divide over the tasks.
    """
    if run.batch_size % tasks:
        raise RunError(
            f"the batch of {run.batch_size} images of {run.key} does not divide over {tasks} tasks: give the cluster "
            f"a number of GPUs, or of tasks_per_node, that divides {run.batch_size}"
        )
    share = run.batch_size // tasks
    if share % 2 and run.mix.pairing == "flip":
        raise RunError(
            f"{run.key} mixes pairs within the share of a task, and {run.batch_size} images on {tasks} tasks are an "
            f"odd {share} each: choose a number of tasks that leaves an even share"
        )
    limit = images_per_gpu or share
    return next(size for size in range(min(limit, share), 0, -1) if share % size == 0)


def execution_of(cluster: Cluster, scale: Scale) -> Execution:
    """How a job carries out its runs, but for the microbatch, which the job derives from its real allocation."""
    return scale.execution.replace(
        device=cluster.device if scale.gpus else "cpu",
        workers=max(1, cluster.cpus_per_task - 1),
        checkpoint_seconds=cluster.checkpoint_seconds,
    )
