"""One real SLURM for all tests of this folder, copies of the project for each of them, and the record of faults."""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from faults import RECORD
from workspace import TABLE, Run, Workspace, copy_project

from tests_slurm.local_cluster import INSTALL, LocalCluster, missing
from tests_slurm.local_cluster.packages import program


def pytest_configure() -> None:
    """A test session that is told to end stops its cluster too."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """A running cluster with accounting."""
    if absent := missing():
        pytest.skip(f"SLURM IS NOT TESTED: {', '.join(absent)} missing; as root: {INSTALL}")
    with LocalCluster(tmp_path_factory.mktemp("slurm")) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pristine copy of the project, made once."""
    copy = tmp_path_factory.mktemp("project") / "lumix"
    copy_project(copy)
    return copy


@pytest.fixture(scope="module")
def make(
    cluster: LocalCluster, project: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[], Workspace]]:
    """A fresh workspace at every call; what is left of its jobs is cancelled at the end of the file."""
    made: list[Workspace] = []

    def build() -> Workspace:
        root = tmp_path_factory.mktemp("work") / "lumix"
        shutil.copytree(project, root, symlinks=True)
        made.append(Workspace(root, cluster.environment()))
        return made[-1]

    yield build
    for workspace in made:
        workspace.cancel_all()


@pytest.fixture
def workspace(make: Callable[[], Workspace]) -> Iterator[Workspace]:
    """A workspace of one test; what is left of its jobs is cancelled after it."""
    made = make()
    yield made
    made.cancel_all()


@pytest.fixture(scope="session")
def local(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The same table trained undisturbed by the local launcher, without SLURM: what every test must arrive at."""
    root = tmp_path_factory.mktemp("local") / "lumix"
    shutil.copytree(project, root, symlinks=True)
    params = root / "params.yaml"
    params.write_text(params.read_text().replace("launcher: slurm", "launcher: local"))
    workspace = Workspace(root, {})
    code, output = workspace.python("experiments", "run", TABLE)
    assert code == 0, output
    return workspace


@pytest.fixture(scope="session")
def faults() -> Iterator[list[dict[str, Any]]]:
    """The record of faults; written at the end of a session."""
    found: list[dict[str, Any]] = []
    yield found
    if not found:
        return
    version = subprocess.run([program("slurmctld"), "-V"], capture_output=True, text=True, check=False).stdout.strip()
    machine = (
        f"{version} with one node, {os.cpu_count()} CPU cores shared with whatever else ran, n = 1 for each fault. "
        "Recovery runs from the fault (full disk, read-only directory: from its mending) until the run was past the "
        "epoch at which it was hit (time limit: until the next start), and includes a start of Python and torch. SLURM "
        "holds a requeued job for 6 s here, as the test cluster sets cred_expire=5, and for 2 minutes by default."
    )
    RECORD.parent.mkdir(parents=True, exist_ok=True)
    RECORD.write_text(json.dumps({"machine": machine, "faults": found}, indent=1) + "\n")


@pytest.fixture
def recorded(faults: list[dict[str, Any]], local: Workspace) -> Callable[..., None]:
    """Wait for the end of a run, whose weights must be the undisturbed ones, and enter the faults that hit it.

    A fault is what was injected, what was seen, and the seconds of recovery, None where nothing had to recover.
    """

    def enter(run: Run, *hit: tuple[str, str, float | None], expected: str | None = None) -> None:
        checksum = run.finished()
        place = str(run.directory.relative_to(run.workspace.root))
        assert checksum == (expected or local.checksums()[place]), f"other weights than undisturbed\n{run.story()}"
        for fault, seen, seconds in hit:
            faults.append({"fault": fault, "seen": seen, "seconds": seconds, "weights": "the same"})

    return enter
