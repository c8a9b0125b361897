"""A copy of the project in which training can be slowed down, whose commands talk to the test cluster."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from training.processor import pinned_arithmetic

PROJECT = Path(__file__).resolve().parents[1]
TABLE, ROW = "lumix_table02_components", "none"
PATIENCE = 240.0  # an import of torch takes seconds, and minutes on a machine that is busy with other things
CLUSTER = """
executor = "slurm"
device = "cpu"
partition = "debug"
time_limit_minutes = {minutes}
signal_delay_seconds = 20
tasks_per_node = {tasks}
checkpoint_seconds = 1
max_parallel_jobs = 2
setup = ["export ASLEEP={asleep}"]
"""


def copy_project(target: Path) -> None:
    """Clone the project with its uncommitted files into `target`, for one seed of one table.

    A training there sleeps for as many seconds as the variable ASLEEP says, an equal part in each of its updates: it
    lasts long enough on any machine, and however many updates the scale has, that a fault can hit it, and costs no CPU.
    Nothing that decides the weights is changed.
    """
    subprocess.run(["git", "clone", "--quiet", str(PROJECT), str(target)], check=True)
    listed = subprocess.run(
        ["git", "-C", str(PROJECT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        source, copy = PROJECT / name, target / name
        if source.is_file():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, copy)
    _substitute(
        target / "training" / "loop.py",
        r"^( +)self\.schedule\.step_update\(step\)$",
        r"\g<0>\n\1updates = self.run.epochs * self.feed.updates_per_epoch\n"
        r"\1time.sleep(float(__import__('os').environ.get('ASLEEP', 0)) / updates)",
    )
    mini = target / "experiments" / "scales" / "mini.py"
    _substitute(mini, r"^BATCH_SIZE = .*$", "BATCH_SIZE = 60")
    _substitute(mini, r"^    return 16 if .*$", "    return 1")  # alone, as in a job of its own
    params = target / "params.yaml"
    _substitute(params, r"^launcher: .*$", "launcher: slurm")
    _substitute(params, r"^seeds: .*$", "seeds: 1")
    _substitute(params, r"^tables: all$", f"tables: [{TABLE}]")
    shutil.rmtree(target / "results", ignore_errors=True)
    for command in (["add", "--all"], ["commit", "--quiet", "--message", "test"]):
        who = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
        subprocess.run(["git", "-C", str(target), *who, *command], check=True)


def _substitute(path: Path, pattern: str, text: str) -> None:
    changed, count = re.subn(pattern, text, path.read_text(), flags=re.MULTILINE)
    assert count == 1, f"{path.name} has {count} places like {pattern}: mend copy_project"
    path.write_text(changed)


@dataclass(frozen=True)
class Workspace:
    """A copied project and the environment in which its commands reach the cluster."""

    root: Path
    environment: dict[str, str]

    def cluster(self, minutes: int = 30, tasks: int = 1, asleep: float = 10.0) -> str:
        """Write a cluster file, as a user does; returns what to give --cluster."""
        (self.root / "test.toml").write_text(CLUSTER.format(minutes=minutes, tasks=tasks, asleep=asleep))
        return "test.toml"

    def start(self, *command: str) -> "subprocess.Popen[str]":
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        ours = {"PATH": path, "PYTHONPATH": str(self.root), "OMP_NUM_THREADS": "1", "DVC_NO_ANALYTICS": "1"}
        ours |= pinned_arithmetic()  # as jobs and pools set it, for what is started by hand
        return subprocess.Popen(
            command,
            cwd=self.root,
            env=os.environ | ours | self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def call(self, *command: str) -> tuple[int, str]:
        """Exit code and output of a command."""
        process = self.start(*command)
        try:
            output, _ = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
        return process.returncode, output

    def python(self, *arguments: str) -> tuple[int, str]:
        return self.call(sys.executable, "-m", *arguments)

    def slurm(self, *arguments: str) -> str:
        """What `python -m slurm ...` prints; it must succeed."""
        code, output = self.python("slurm", *arguments)
        assert code == 0, output
        return output

    def submit(self, *options: str, cluster: str | None = None) -> "Run":
        """Submit the one run of a fault test; returns its handle."""
        self.slurm("submit", TABLE, "--only", ROW, "--cluster", cluster or self.cluster(), *options)
        return self.run()

    def run(self) -> "Run":
        """The run that was submitted last."""
        folder = self.submissions()[-1]
        return Run(self, folder, Path(folder.joinpath("runs.txt").read_text().strip()))

    def submissions(self) -> list[Path]:
        return [path.parent for path in sorted(self.root.glob("runs/.jobs/*/runs.txt"))]

    def jobs(self) -> list[str]:
        """The ids of the jobs or arrays, in the order of their submission."""
        return [path.name.split("_")[0] for f in self.submissions() for path in f.glob("log/*_submission.sh")]

    def checksums(self) -> dict[str, str]:
        """Run directory -> checksum of its weights, of every finished run."""
        found = {}
        for path in sorted((self.root / "runs").glob("*/*/*/seed*/result.json")):
            found[str(path.parent.relative_to(self.root))] = json.loads(path.read_text())["checksum"]
        return found

    def cancel_all(self) -> None:
        """Cancel what is left of its jobs and wait until SLURM has forgotten them."""
        if jobs := self.jobs():
            self.call("scancel", *jobs)
            listed = ("squeue", "--noheader", f"--jobs={','.join(jobs)}")
            await_that(
                lambda: not self.call(*listed)[1].strip().replace("Invalid job id", ""), None, "is cancelled", 60
            )


@dataclass(frozen=True)
class Run:
    """A run directory in a workspace, and the folder of its submission."""

    workspace: Workspace
    folder: Path
    place: Path

    @property
    def directory(self) -> Path:
        return self.workspace.root / self.place

    @property
    def job(self) -> str:
        return self.workspace.jobs()[-1]

    @property
    def log(self) -> str:
        path = self.directory / "log.txt"
        return path.read_text() if path.exists() else ""

    @property
    def starts(self) -> list[str]:
        """The lines of the log that tell of a start, by whichever job."""
        return re.findall(r"^start \d+ of job .*$", self.log, flags=re.MULTILINE)

    @property
    def failures(self) -> list[str]:
        """Why starts of the last job failed."""
        return [path.read_text() for path in sorted(self.folder.glob("ended/0.*.failed"))]

    @property
    def epoch(self) -> int:
        """Epochs recorded."""
        path = self.directory / "metrics.jsonl"
        return path.read_text().count("\n") if path.exists() else 0

    @property
    def worker(self) -> int:
        """Process id of the training."""
        return int(self.starts[-1].split("process ")[1].split(",")[0])

    @property
    def checksum(self) -> str | None:
        path = self.directory / "result.json"
        return json.loads(path.read_text())["checksum"] if path.exists() else None

    @property
    def status(self) -> str:
        return self.workspace.slurm("status", TABLE)

    def training(self, epochs: int = 3) -> int:
        """Wait until a checkpoint and some epochs are there; returns the epoch then."""
        saved = self.directory / "checkpoint.pt"
        await_that(lambda: bool(self.checksum or (self.epoch >= epochs and saved.exists())), self, "trains")
        assert self.checksum is None, "the run ended before the fault: raise `asleep`"
        return self.epoch

    def recovered(self, start: int, since: float) -> float:
        """Wait until the `start`-th start, over all jobs, has passed the epoch of the last; seconds since then."""
        await_that(lambda: self._is_past(start), self, f"got further in start {start}")
        return time.monotonic() - since

    def _is_past(self, start: int) -> bool:
        *before, latest = re.split(r"^start \d+ of job .*$", self.log, flags=re.MULTILINE)
        epochs = [max(map(int, re.findall(r"^epoch (\d+)/", text, flags=re.MULTILINE)), default=0) for text in before]
        now = re.findall(r"^epoch (\d+)/", latest, flags=re.MULTILINE)
        return len(before) >= start and bool(now) and int(now[-1]) > max(epochs)

    def finished(self) -> str:
        """Wait for the end; returns the checksum of the weights."""
        await_that(lambda: self.checksum is not None, self, "is finished")
        assert self.checksum is not None
        return self.checksum

    def story(self) -> str:
        """Everything a person would look at, for the message of a failed test."""
        _, status = self.workspace.python("slurm", "status", TABLE)
        _, queue = self.workspace.call("squeue", "--states=all")
        output = "".join(path.read_text()[-3000:] for path in self.folder.glob("log/*_log.err"))
        return f"{status}\n{queue}\n--- log\n{self.log}\n--- output\n{output}"


def await_that(condition: Callable[[], bool], run: Run | None, what: str, seconds: float = PATIENCE) -> float:
    """Wait until the condition holds; returns the seconds it took. Fails with the run's story after `seconds`."""
    start = time.monotonic()
    while not condition():
        if time.monotonic() - start > seconds:
            raise AssertionError(f"after {seconds:.0f} s it is not so that it {what}\n{run.story() if run else ''}")
        time.sleep(0.1)
    return time.monotonic() - start
