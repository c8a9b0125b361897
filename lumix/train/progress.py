"""Progress of a run: a bar on a terminal, plain lines elsewhere, and always plain lines in log.txt."""

import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar


class Progress:
    """Tells how a run of `epochs` epochs goes on; to the screen only if `shown`."""

    def __init__(self, log: Path, epochs: int, shown: bool) -> None:
        self.log, self.epochs, self.shown = log, epochs, shown
        self.bar: Bar | None = None
        if shown and sys.stdout.isatty():
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self.bar = Bar(*columns, console=Console(), transient=True)
            self.job = self.bar.add_task("epochs", total=epochs)

    def __enter__(self) -> Self:
        if self.bar is not None:
            self.bar.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.bar is not None:
            self.bar.stop()

    def line(self, text: str) -> None:
        """A line in the log, and on the screen if shown."""
        with self.log.open("a") as file:
            file.write(text + "\n")
        if self.bar is not None:
            self.bar.console.print(text)
        elif self.shown:
            print(text, flush=True)

    def within(self, epoch: int, update: int, updates: int) -> None:
        """Move the bar within an epoch (from 0)."""
        if self.bar is not None:
            self.bar.update(self.job, completed=epoch + update / updates)

    def epoch(self, line: dict[str, Any]) -> None:
        """Report a line of metrics.jsonl."""
        top1 = f"  top-1 {line['top1']:6.2f}" if "top1" in line else ""
        self.line(
            f"epoch {line['epoch']}/{self.epochs}  mixed loss {line['loss']:.4f}{top1}  lr {line['lr']:.2e}  "
            f"{line['images_per_second']:.0f} images/s"
        )
        if self.bar is not None:
            self.bar.update(self.job, completed=line["epoch"])
