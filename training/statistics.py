"""Statistics of an epoch: means by name, summed on the device without waiting for it."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from training.process import Process


class Statistics:
    """Means over samples of all updates, microbatches and processes; values that are NaN do not count."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.names: list[str] = []
        self.sums = torch.zeros(2, 0)

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Count in values [B] of any dtype; the names are those of the first call."""
        names = self.names or list(values)
        self.add_sums(names, sums_of([values[name] for name in names])[0])

    def add_sums(self, names: list[str], sums: Tensor) -> None:
        """Count in what `sums_of` gives for the values of these names, which are those of the first call."""
        if not self.names:
            self.reset(names)
        self.sums += sums

    def reset(self, names: list[str]) -> None:
        """Forget all values."""
        self.names = names
        self.sums = torch.zeros(2, len(names), dtype=torch.float64, device=self.process.device)

    def means(self) -> dict[str, float | None]:
        """The mean under each name, None where nothing counted; a call of all processes."""
        sums, counts = self.process.sum(self.sums).tolist()
        return {n: s / count if count else None for n, s, count in zip(self.names, sums, counts, strict=True)}

    def state(self) -> dict[str, Any]:
        """Names, and sums over all processes, for a checkpoint; a call of all processes."""
        return {"names": self.names, "sums": self.process.sum(self.sums).cpu()}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from `state`, which one process carries on for all."""
        self.reset(state["names"])
        if self.process.rank == 0:
            self.sums += state["sums"].to(self.sums.device)


def sums_of(values: list[Tensor], parts: int = 1) -> Tensor:
    """Sums and counts [parts, 2, K] float64 of K values [B] of any dtype, over each of so many equal parts of B."""
    stacked = torch.stack([value.double() for value in values]).unflatten(1, (parts, -1))
    return torch.stack([stacked.nansum(-1), (~stacked.isnan()).sum(-1)]).movedim(-1, 0)
