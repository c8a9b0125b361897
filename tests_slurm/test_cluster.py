"""The test cluster itself: idempotent, started by an ordinary user too, and nothing is left of it."""

import os
import pwd
import shutil
import subprocess
from pathlib import Path

import pytest
from workspace import PROJECT, await_that

from tests_slurm.local_cluster import LocalCluster, missing, with_text_in_environment

SYSTEM_PYTHON = "/usr/bin/python3"  # pyenv's may lie in root's home, which nobody else can read


@pytest.fixture(autouse=True)
def _packages() -> None:
    if absent := missing():
        pytest.skip(f"SLURM IS NOT TESTED: {', '.join(absent)} missing")


def test_start_and_stop_are_idempotent_and_leave_nothing(tmp_path: Path) -> None:
    """A job that ignores SIGTERM is ended too."""
    cluster = LocalCluster(tmp_path / "one")
    try:
        assert cluster.start()
        assert not cluster.start()
        environment = os.environ | cluster.environment()
        stubborn = f"--wrap=trap '' TERM; touch {tmp_path}/started; sleep 600 & wait; sleep 600"
        subprocess.run(["sbatch", "--output=/dev/null", stubborn], env=environment, check=True, timeout=60)
        await_that((tmp_path / "started").exists, None, "starts")
    finally:
        assert cluster.stop()
    assert not cluster.stop()
    assert not (tmp_path / "one").exists()
    assert not with_text_in_environment(f"SLURM_CONF={cluster.environment()['SLURM_CONF']}")


def test_a_cluster_with_a_dead_daemon_is_started_anew(tmp_path: Path) -> None:
    with LocalCluster(tmp_path / "one") as cluster:
        before = cluster.processes()
        cluster.stop_daemon("slurmctld")
        assert cluster.start()
        assert all(cluster.processes().values())
        assert cluster.processes() != before


def test_an_ordinary_user_can_run_it() -> None:
    """Here root plays the user nobody."""
    user = pwd.getpwnam("nobody")
    demote = [] if os.getuid() else ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
    base = [*demote, "env", "-i", "PATH=/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE=1", SYSTEM_PYTHON]
    directory = Path(f"/tmp/lumix-test-{os.getpid()}")  # short enough for a socket, in reach of everyone

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*base, *arguments], cwd=PROJECT, capture_output=True, text=True, timeout=240)

    if call("-c", "import tomllib, tests_slurm.local_cluster").returncode:
        pytest.skip(f"nobody can run {SYSTEM_PYTHON} 3.11 on this checkout")
    command = ("-m", "tests_slurm.local_cluster", "--directory", str(directory))
    try:
        started = call(*command, "start")
        assert started.returncode == 0, started.stderr
        assert f"export SLURM_CONF={directory}/slurm.conf" in call(*command, "env").stdout
        assert directory.owner() == "nobody" or os.getuid()
    finally:
        stopped = call(*command, "stop")
        left = directory.exists()
        shutil.rmtree(directory, ignore_errors=True)
    assert stopped.returncode == 0
    assert not left
