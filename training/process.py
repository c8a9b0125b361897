"""The process that trains, alone or as one of several under torch.distributed, and the machine and code it runs."""

import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from training.processor import pins
from training.run_directory import ROOT, RunError, explain


@dataclass(frozen=True)
class Process:
    """Rank of this process, number of processes, and its device. The launcher initialises torch.distributed."""

    rank: int
    world: int
    device: torch.device

    @classmethod
    def current(cls, device: str) -> "Process":
        """This process on `device`: "cpu", "cuda" (the current one) or "cuda:1"."""
        try:
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise RunError(f"device {device!r} cannot be used here ({reason}): choose 'cpu' or another") from error
        if dist.is_available() and dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size(), torch.device(device))
        return cls(0, 1, torch.device(device))

    @property
    def distributed(self) -> bool:
        return self.world > 1

    def environment(self) -> dict[str, Any]:
        """Commit, hardware, number of processes and pinned arithmetic, for the record."""
        device = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type
        pinned = pins() if self.device.type == "cpu" else {}
        return {**commit(), "hardware": hardware(device), "processes": self.world, "pinned": pinned}

    def agree(self, decide: Callable[[], Any]) -> Any:
        """What rank 0 decides, on every rank; its RunError, or that of a file that fails, is raised on every rank."""
        box: list[Any] = [None, None]
        if self.rank == 0:
            try:
                box[0] = decide()
            except (RunError, OSError) as error:
                box[1] = str(error) if isinstance(error, RunError) else explain(error, error.filename or "a file")
        if self.distributed:  # none waits for rank 0
            dist.broadcast_object_list(box, src=0, device=self.device if self.device.type == "cuda" else None)
        if box[1] is not None:
            raise RunError(box[1])
        return box[0]

    def sum(self, values: Tensor) -> Tensor:
        """`values` added up over all processes, in new memory."""
        return self._reduce(values, dist.ReduceOp.SUM)

    def minimum(self, values: Tensor) -> Tensor:
        """The smallest of `values` over all processes, in new memory."""
        return self._reduce(values, dist.ReduceOp.MIN)

    def _reduce(self, values: Tensor, operation: Any) -> Tensor:
        values = values.clone()
        if self.distributed:
            dist.all_reduce(values, operation)
        return values


def _git(*arguments: str) -> str | None:
    """What git says of this checkout, None outside one. It never takes the index lock that a person's command needs."""
    if not (ROOT / ".git").exists():
        return None
    try:
        answer = subprocess.run(
            ["git", "-C", str(ROOT), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()


@cache
def commit() -> dict[str, Any]:
    """{"commit", "dirty"} of the checkout this package lies in, None for both outside one.

    Results and reports are written by the pipeline itself, so only sources count as dirt.
    """
    head = _git("rev-parse", "HEAD")
    changes = _git("status", "--porcelain", "--", "*.py", "*.toml")
    return {"commit": head, "dirty": None if head is None else bool(changes)}


def _processor() -> str:
    """Name, family and model: a virtual machine gives processors that round differently the same name."""
    try:
        pairs = (line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().splitlines() if ":" in line)
        found = {name.strip(): value.strip() for name, value in pairs}
        return f"{found['model name']} (family {found['cpu family']}, model {found['model']})"
    except (OSError, KeyError):
        return platform.processor() or platform.machine()


@cache
def hardware(device: str) -> dict[str, Any]:
    """What a number was made on; `device` is "cpu" or the name of the accelerator."""
    versions = {name: importlib.metadata.version(name) for name in ("torch", "timm", "torchvision")}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"device": device, "cpu": _processor(), "cores": cores, **versions, "python": platform.python_version()}
