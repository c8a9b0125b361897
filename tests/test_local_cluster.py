"""The local SLURM cluster where it is not installed or not wanted: one sentence each, and no folder is touched."""

from pathlib import Path

import pytest

from tests_slurm.local_cluster import INSTALL, ClusterError, LocalCluster, cluster, missing, packages
from tests_slurm.local_cluster.__main__ import main


@pytest.fixture
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the packages were there."""
    monkeypatch.setattr(cluster, "missing", lambda accounting: [])


def test_missing_packages_are_named_with_the_command_that_installs_them(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(packages, "SYSTEM_FOLDERS", ())
    assert "munged" in missing(accounting=False)
    assert "slurmdbd" in missing(accounting=True)
    assert "slurmdbd" not in missing(accounting=False)
    folder = tmp_path / "one"
    assert main(["start", "--directory", str(folder)]) == 1
    error = capsys.readouterr().err
    assert INSTALL in error
    assert "slurmctld" in error
    assert not folder.exists()


@pytest.mark.usefixtures("_installed")
def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ClusterError, match="not empty and holds no cluster: choose another folder"):
        LocalCluster(tmp_path).start()
    assert not LocalCluster(tmp_path).stop()
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.usefixtures("_installed")
def test_a_path_too_long_for_a_socket_is_refused():
    with pytest.raises(ClusterError, match="too long a path for a socket: choose a shorter one"):
        LocalCluster(Path("/tmp", "x" * 100)).start()


def test_stop_and_status_without_a_cluster(tmp_path, capsys):
    folder = ["--directory", str(tmp_path / "none")]
    assert main(["stop", *folder]) == 0
    assert main(["status", *folder]) == 1
    assert "python -m tests_slurm.local_cluster start" in capsys.readouterr().out


def test_a_pid_that_now_belongs_to_another_process_is_not_touched(tmp_path):
    """The state file of a cluster that died with its machine."""
    import json
    import os

    one = LocalCluster(tmp_path)
    one.layout.state.write_text(
        json.dumps({"starter": None, "settings": None, "daemons": {"munged": [os.getpid(), "1"]}})
    )
    assert one.processes() == {"munged": None}
    assert one.stop()
    assert not tmp_path.exists()
