"""The local SLURM cluster where it is not installed or not wanted: one sentence each, and no folder is touched."""

import json
import os
from pathlib import Path

import pytest

from tests_slurm import local_cluster
from tests_slurm.local_cluster import INSTALL, ClusterError, LocalCluster, main


def test_missing_packages_are_named_with_the_command_that_installs_them(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(local_cluster, "SYSTEM_FOLDERS", ())
    assert main(["start", "--directory", str(tmp_path / "one")]) == 1
    error = capsys.readouterr().err
    assert INSTALL in error
    assert "slurmctld" in error
    assert not (tmp_path / "one").exists()


def test_a_folder_that_cannot_be_used_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(local_cluster, "missing", list)
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ClusterError, match="not empty and holds no cluster: choose another folder"):
        LocalCluster(tmp_path).start()
    assert main(["stop", "--directory", str(tmp_path)]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(ClusterError, match="too long a path for a socket: choose a shorter one"):
        LocalCluster(Path("/nowhere", "x" * 100)).start()


def test_a_pid_that_now_belongs_to_another_process_is_not_touched(tmp_path):
    """The state file of a cluster that died with its machine."""
    one = LocalCluster(tmp_path)
    one.state.write_text(json.dumps({"munged": [os.getpid(), "1"]}))
    assert one.processes() == {"munged": None}
    assert one.stop()
    assert not tmp_path.exists()
