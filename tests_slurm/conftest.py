"""One real SLURM for all tests of this folder, copies of the project for each of them, and the record of faults."""

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from workspace import PROJECT, TABLE, Run, Workspace, copy_project

from tests_slurm.local_cluster import INSTALL, LocalCluster, missing, program


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
    if not (PROJECT / ".git").exists():
        pytest.skip("SLURM IS NOT TESTED: a submission clones the code, which is no git repository here")
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
def faults() -> Iterator[list[str]]:
    """The lines of the table of faults in docs/slurm.md; written to build/slurm/faults.md at the end of a session."""
    lines = ["| Injected | Seen | Recovery, s | Weights |", "| --- | --- | --- | --- |"]
    yield lines
    version = subprocess.run([program("slurmctld"), "-V"], capture_output=True, text=True, check=False).stdout.strip()
    lines += ["", f"{version} with one node, {os.cpu_count()} CPU cores shared with whatever else ran."]
    record = PROJECT / "build" / "slurm" / "faults.md"
    record.parent.mkdir(parents=True, exist_ok=True)
    record.write_text("\n".join(lines) + "\n")


@pytest.fixture
def recorded(faults: list[str], local: Workspace) -> Callable[..., None]:
    """Wait for the end of a run, whose weights must be the undisturbed ones, and enter the faults that hit it.

    A fault is what was injected, what was seen, and the seconds of recovery, None where nothing had to recover.
    """

    def enter(run: Run, *hit: tuple[str, str, float | None], expected: str | None = None) -> None:
        checksum = run.finished()
        assert checksum == (expected or local.checksums()[str(run.place)]), f"other weights\n{run.story()}"
        for fault, seen, seconds in hit:
            recovery = "none needed" if seconds is None else f"{seconds:.0f}"
            faults.append(f"| {fault} | {seen} | {recovery} | the same |")

    return enter
