"""What a run takes of the disk: its checkpoint while it trains, its weights for good."""

from pathlib import Path

from experiments.results import read_runs
from experiments.scale import Scale
from training.config import Run


def parameters_of(scale: Scale, run: Run) -> int | None:
    """Parameters of a run's model: known at paper scale, else read from a collected result of the same model."""
    if scale.parameters:
        return scale.parameters.get(run.model.role)
    return _measured(scale).get(run.model.role)


def _measured(scale: Scale) -> dict[str, int]:
    return {
        run["config"].model.role: int(result["parameters"])
        for run in read_runs(Path(), scale.name, measured=False).values()
        for result in run["seeds"].values()
    }


def checkpoint_bytes(scale: Scale, run: Run) -> int | None:
    """Weights, two moments of the optimizer and, if kept, the moving average, in four bytes each."""
    parameters = parameters_of(scale, run)
    copies = 4 if run.optim.ema_decay else 3
    return None if parameters is None else 4 * copies * parameters


def weight_bytes(scale: Scale, run: Run) -> int | None:
    """The exported weights."""
    parameters = parameters_of(scale, run)
    return None if parameters is None else 4 * parameters


def readable(size: float) -> str:
    """Bytes in a unit that suits them."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"
