"""`make gpu`: what can be said in ten minutes by whoever has a GPU for the first time, in one JSON.

The tests for GPUs, a few rows of the bench, and a run of scale lab for a few epochs, stopped and resumed once, whose
weights must be those of the same run left alone. A part that fails says so in the file, and the next one begins.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from experiments.methods import lumix
from experiments.scale import get_scale
from training.config import Data, Execution
from training.data.files import data_root
from training.loop import fit
from training.process import Process
from training.run_directory import ROOT, Stopped, write_json

ROWS = ("cutmix", "mixup", "loss", "ensemble")
EPOCHS = 3


def command(*arguments: str, seconds: int) -> dict[str, Any]:
    """What a module of this project answers within so many seconds: exit status and last lines."""
    call = [sys.executable, "-m", *arguments]
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, timeout=seconds, check=False)
    return {"status": done.returncode, "said": (done.stdout + done.stderr).strip().splitlines()[-30:]}


def tests() -> dict[str, Any]:
    """All tests marked gpu."""
    return command("pytest", "-m", "gpu", "-n", "0", "-rf", seconds=200)


def rows(folder: Path) -> dict[str, Any]:
    """Rows of the bench on the GPU; those that miss their goal are among what it said."""
    chosen = [word for row in ROWS for word in ("--row", row)]
    answer = command("benchmarks", "--device", "cuda", "--quick", *chosen, "--out", f"{folder}/b.csv", seconds=240)
    found = Path(folder, "b.csv")  # missing where the bench failed, and what it said must not be lost for that
    return {**answer, "rows": found.read_text().splitlines() if found.exists() else []}


def lab(folder: Path) -> dict[str, Any]:
    """LUMix on a lab run, in bfloat16: left alone, and stopped in its second epoch and resumed; on scenes where
    CIFAR-100 is not there."""
    run = lumix(get_scale("lab").base("deit", "deit_s"))
    data = run.data if (data_root() / "cifar-100-python").is_dir() else Data("shapes", 32)
    run = run.replace(data=data, epochs=EPOCHS, optim=run.optim.replace(warmup_epochs=1), median_last=1)
    execution = Execution("cuda", checkpoint_seconds=0.0, deterministic=True)
    whole, asked = fit(run, 0, folder / "whole", execution), iter(range(10**9))
    try:
        fit(run, 0, folder / "stopped", execution, stop=lambda: next(asked) >= 2)
        raise AssertionError("the run did not stop when it was asked to")
    except Stopped as stop:
        said = str(stop)
    resumed = fit(run, 0, folder / "stopped", execution)
    equal = whole["checksum"] == resumed["checksum"]
    return {"run": run.key, "stopped": said, "resumed_equals_whole": equal, "whole": whole, "resumed": resumed}


def main() -> int:
    """Exit status: 0 where all went well, 1 where there is no GPU or a part failed."""
    if not torch.cuda.is_available():
        print("make gpu: no GPU is visible to torch here, so there is nothing to try", file=sys.stderr)
        return 1
    out, failed = ROOT / "build" / "gpu.json", []
    content: dict[str, Any] = {**Process.current("cuda").environment(), "cuda": torch.version.cuda}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        parts: dict[str, Callable[[], dict[str, Any]]] = {
            "lab": lambda: lab(folder),
            "tests": tests,
            "bench": lambda: rows(folder),
        }
        for part, work in parts.items():
            start = time.monotonic()
            try:
                content[part] = work()
                well = content[part].get("status", 0) == 0 and content[part].get("resumed_equals_whole", True)
            except Exception as error:
                content[part], well = {"failed": f"{type(error).__name__}: {error}"}, False
            content[part]["seconds"] = round(time.monotonic() - start, 1)
            failed += [] if well else [part]
            write_json(out, {**content, "failed": failed})
            print(f"{part}: {'well' if well else 'failed'}, {content[part]['seconds']} s", flush=True)
    print(f"written: {out}")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
