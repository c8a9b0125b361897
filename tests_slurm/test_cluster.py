"""The test cluster itself: idempotent, without accounting, as an ordinary user, and nothing is left of it."""

import os
import pwd
import shutil
import subprocess
from pathlib import Path

import pytest
from workspace import PROJECT, await_that

from tests_slurm.local_cluster import ClusterError, LocalCluster, missing
from tests_slurm.local_cluster.daemons import with_text_in_environment

SYSTEM_PYTHON = "/usr/bin/python3"  # pyenv's may lie in root's home, which nobody else can read


@pytest.fixture(autouse=True)
def _packages() -> None:
    if absent := missing():
        pytest.skip(f"SLURM IS NOT TESTED: {', '.join(absent)} missing")


def test_start_and_stop_are_idempotent_and_leave_nothing(tmp_path: Path) -> None:
    """A job that ignores SIGTERM is ended too."""
    cluster = LocalCluster(tmp_path / "one", accounting=False)
    try:
        assert cluster.start()
        assert not cluster.start()
        with pytest.raises(ClusterError, match="without accounting: stop it first"):
            LocalCluster(tmp_path / "one", accounting=True).start()
        pids = [pid for pid in cluster.processes().values() if pid]
        assert len(pids) == 3
        environment = os.environ | cluster.environment()
        stubborn = f"--wrap=trap '' TERM; touch {tmp_path}/started; sleep 600 & wait; sleep 600"
        subprocess.run(["sbatch", "--output=/dev/null", stubborn], env=environment, check=True, timeout=60)
        await_that((tmp_path / "started").exists, None, "starts")
    finally:
        assert cluster.stop()
    assert not cluster.stop()
    assert not (tmp_path / "one").exists()
    assert not with_text_in_environment(f"SLURM_CONF={cluster.layout.conf}")


def test_a_cluster_with_a_dead_daemon_is_started_anew(tmp_path: Path) -> None:
    with LocalCluster(tmp_path / "one", accounting=False) as cluster:
        before = cluster.processes()
        cluster.stop_daemon("slurmctld")
        assert cluster.start()
        assert all(cluster.processes().values())
        assert cluster.processes() != before
        assert cluster.node() == "idle"


def test_an_ordinary_user_can_run_it() -> None:
    """Database and accounting included; here root plays the user nobody."""
    user = pwd.getpwnam("nobody")
    demote = [] if os.getuid() else ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
    base = [*demote, "env", "-i", "PATH=/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE=1", SYSTEM_PYTHON]
    probe = subprocess.run(
        [*base, "-c", "import tomllib, tests_slurm.local_cluster"], cwd=PROJECT, capture_output=True, check=False
    )
    if probe.returncode:
        pytest.skip(f"nobody can run {SYSTEM_PYTHON} 3.11 on this checkout")
    directory = Path(f"/tmp/lumix-test-{os.getpid()}")  # short enough for a socket, in reach of everyone

    def call(command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*base, "-m", "tests_slurm.local_cluster", command, "--directory", str(directory)],
            cwd=PROJECT,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    try:
        started = call("start")
        assert started.returncode == 0, started.stderr
        assert f"export SLURM_CONF={directory}/slurm.conf" in call("env").stdout
        status = call("status")
        assert status.returncode == 0, status.stdout
        assert "slurmdbd" in status.stdout
        if not os.getuid():
            assert (directory / "slurm.conf").owner() == "nobody"
    finally:
        stopped = call("stop")
        left = directory.exists()
        shutil.rmtree(directory, ignore_errors=True)
    assert stopped.returncode == 0
    assert not left
    assert call("status").returncode == 1
