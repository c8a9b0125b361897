"""Jobs for the tests of the process pool, in a module of their own because spawned workers import them by name.

Run as a script it keeps two workers busy until it is stopped, and prints their process ids.
"""

import os
import signal
import sys
import time
from pathlib import Path

from experiments.pool import Interrupted, Job, run_pool
from experiments.runs import Item
from training.config import Data, Execution, Model, Optim, Run

RUN = Run(
    data=Data(name="digits", image_size=8, train_size=64),
    model=Model(
        "deit_s", "vit_tiny_patch16_224", {"img_size": 8, "patch_size": 4, "embed_dim": 8, "depth": 1, "num_heads": 2}
    ),
    optim=Optim(lr=1e-3),
    epochs=1,
    batch_size=32,
)


def items(folder: Path, number: int) -> list[Item]:
    return [Item(RUN, seed, folder / f"seed{seed}") for seed in range(number)]


def echo(job: Job, execution: Execution, fresh_code: bool) -> dict[str, object]:
    """Answer at once; seed 1 fails, seed 2 kills its own process."""
    item = job if isinstance(job, Item) else job.item
    if item.seed == 1:
        raise ValueError("seed 1\nis  unlucky")
    if item.seed == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return {"seed": item.seed, "pid": os.getpid(), "threads": os.environ["OMP_NUM_THREADS"], "fresh": fresh_code}


def sleep(item: Item, execution: Execution, fresh_code: bool) -> dict[str, object]:
    os.write(1, f"{os.getpid()}\n".encode())  # in one piece: the lines of two workers must not mingle
    time.sleep(120)
    return {}


if __name__ == "__main__":
    try:
        list(run_pool(items(Path(), 4), Execution(), 2, work=sleep))
    except Interrupted as stop:
        sys.exit(stop.code)
