"""Faults, injected one after another into runs on a real SLURM: each goes on, and ends with the undisturbed weights."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from workspace import ROW, TABLE, Run, Workspace, await_that

from tests_slurm.local_cluster import LocalCluster


def test_requeue_kill_and_cancel(workspace: Workspace, recorded: Callable[..., None]) -> None:
    """By an administrator, by the kernel, by the user."""
    cluster = workspace.cluster(asleep=60.0)  # six epochs, of which each fault takes one or two
    run = workspace.submit(cluster=cluster)

    run.training()
    start = time.monotonic()
    workspace.call("scontrol", "requeue", run.job)
    requeue = run.recovered(2, since=start)
    assert not run.failures, run.story()

    start = time.monotonic()
    os.kill(run.worker, signal.SIGKILL)
    kill = run.recovered(3, since=start)
    assert "killed by SIGKILL, the usual cause is too little memory" in run.failures[0], run.story()
    assert "memory" in run.log

    job, start = run.job, time.monotonic()
    workspace.call("scancel", job)
    await_that(lambda: "1 cancelled" in run.status, run, "is shown as cancelled")
    refused = workspace.slurm("submit", TABLE, "--only", ROW, "--cluster", cluster)
    assert "--resume submits it again" in refused
    assert run.job == job, "a cancelled run must not start by itself"
    run = workspace.submit("--resume", cluster=cluster)
    cancel = run.recovered(4, since=start)
    assert run.job != job
    assert run.log.count("resumed at update") == 3, run.story()
    recorded(
        run,
        ("`scontrol requeue`", "SIGTERM, checkpoint, started again by SLURM", requeue),
        ("SIGKILL of the worker", "the batch script requeues the job and says why", kill),
        ("`scancel`, then `submit --resume`", "shown as cancelled, submitted only with --resume", cancel),
    )


def test_preemption_and_daemons_that_are_away(
    workspace: Workspace, cluster: LocalCluster, recorded: Callable[..., None]
) -> None:
    """A job of higher priority takes the node; then slurmdbd is down, then slurmctld."""
    run = workspace.submit(cluster=workspace.cluster(asleep=45.0))

    run.training()
    start = time.monotonic()
    workspace.call("sbatch", "--partition=high", "--ntasks=2", "--output=/dev/null", "--wrap=sleep 2")
    preemption = run.recovered(2, since=start)
    assert "stopped by SIGUSR2" in run.log, run.story()
    assert "resumed at update" in run.log

    with away(cluster, "slurmdbd"):
        assert "1 running" in run.status
    epoch = run.epoch
    with away(cluster, "slurmctld"):
        code, output = workspace.python("slurm", "status", TABLE)
        assert code == 0, output
        assert "run directories" in output
        assert "1 running" in output or "1 done" in output
        await_that(lambda: run.epoch > epoch or run.checksum is not None, run, "trains without slurmctld")
    run.finished()
    assert len(run.starts) == 2, "a run needs SLURM's daemons only to start"
    recorded(
        run,
        ("preemption by a job in partition high", "SIGUSR2, checkpoint, requeued by itself", preemption),
        ("slurmdbd stopped: no accounting", "training goes on; `status` is right from squeue", None),
        ("slurmctld stopped and started again", "training goes on; `status` from the run directories", None),
    )


@contextlib.contextmanager
def away(cluster: LocalCluster, daemon: str) -> Iterator[None]:
    cluster.stop_daemon(daemon)
    try:
        yield
    finally:
        cluster.start_daemon(daemon)


# ------------------------------------------------------------------------------------------------- disks


@contextlib.contextmanager
def read_only(directory: Path) -> Iterator[None]:
    """Nothing can be made or removed in `directory`. Root ignores modes, so for root it is made immutable."""
    if os.getuid():
        directory.chmod(0o555)
    elif subprocess.run(["chattr", "+i", str(directory)], capture_output=True, check=False).returncode:
        pytest.skip("root cannot make a folder read-only on this file system: chattr +i fails")
    try:
        yield
    finally:
        if os.getuid():
            directory.chmod(0o755)
        else:
            subprocess.run(["chattr", "-i", str(directory)], check=True)


@pytest.fixture(scope="module")
def locked_out(make: Callable[[], Workspace]) -> Iterator[tuple[Run, Callable[[], None]]]:
    """A run whose directory has become read-only, and what undoes that; it fails in the background of the next test."""
    run = make().submit()
    run.training()
    with contextlib.ExitStack() as stack:
        stack.enter_context(read_only(run.directory))
        yield run, stack.close


@contextlib.contextmanager
def small_disk(place: Path) -> Iterator[None]:
    """A disk of 4 MB at `place`."""
    if os.getuid():
        pytest.skip("only root can mount a small disk")
    place.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a small disk cannot be mounted in this container")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_full_disk(locked_out: object, workspace: Workspace, recorded: Callable[..., None]) -> None:
    with small_disk(workspace.root / "runs" / "mini"):
        run = workspace.submit()
        run.training()
        filler = workspace.root / "runs" / "mini" / "filler"
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(b"\0" * 4096)
        await_that(lambda: bool(run.failures), run, "fails")
        assert "no space left on the disk" in run.failures[0], run.story()
        await_that(lambda: "no space left on the disk" in run.status, run, "says why")
        filler.unlink()
        seconds = run.recovered(2, since=time.monotonic())
        seen = "the message names the file and the remedy; goes on by itself once there is space"
        recorded(run, ("a full disk", seen, seconds))


def test_a_run_directory_that_is_read_only(
    locked_out: tuple[Run, Callable[[], None]], recorded: Callable[..., None]
) -> None:
    """It fails three times for its own fault, so that it is given up, with the reason; then the user mends it."""
    run, unlock = locked_out
    await_that(lambda: len(run.failures) == 3 and "1 failed" in run.status, run, "is given up")
    assert "no permission to write" in run.status, run.story()
    refused = run.workspace.slurm("submit", TABLE, "--only", ROW, "--cluster", "test.toml")
    assert "--resume submits it again" in refused
    starts = len(run.starts)
    unlock()
    start = time.monotonic()
    run = run.workspace.submit("--resume")
    seconds = run.recovered(starts + 1, since=start)
    seen = "given up after three failures with the reason; goes on after `submit --resume`"
    recorded(run, ("a run directory made read-only", seen, seconds))
