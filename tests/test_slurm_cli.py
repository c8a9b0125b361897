"""python -m slurm: exit codes, one-sentence errors, status and cancel with a made-up squeue, debug, help."""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import command_line
import pytest
from bench import finish
from command_line import ROOT

from experiments.registry import get_table
from experiments.runs import items_of_table
from experiments.scale import get_scale
from slurm import jobs
from slurm.__main__ import main
from slurm.cluster import Cluster
from slurm.jobs import Job, SchedulerError, Submitted
from slurm.status import cancel, items_named, status_of, statuses
from training import run_directory

HELP, COST = ROOT / "docs" / "help" / "slurm.txt", ROOT / "docs" / "cost.md"
PARAMS = "scale: paper\nseeds: null\nlauncher: slurm\ntables: [lumix_controls, lumix_table10_laws]\n"
TABLE, PAPER = "lumix_table10_laws", get_scale("paper")


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """A folder with parameters, without the machine's commands and cluster."""
    (tmp_path / "params.yaml").write_text(PARAMS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("LUMIX_CLUSTER", raising=False)
    return tmp_path


@pytest.fixture
def call(root, capsys) -> Callable[..., tuple[int, str, str]]:
    """`python -m slurm` with arguments in that folder: exit code, output, errors."""
    return lambda *arguments: (main(arguments), *capsys.readouterr())


def test_help_loads_nothing_of_weight(root):
    command_line.check_help_loads_nothing_of_weight(root, "slurm")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["submit", "lumix_table10_law"], "unknown table 'lumix_table10_law': did you mean lumix_table10_laws"),
        (["submit", TABLE, "--only", "normal"], "unknown row of lumix_table10_laws 'normal': did you mean normal_"),
        (["submit", TABLE, "--cluster", "a10"], "unknown cluster 'a10': did you mean a100"),
        (["submit", TABLE, "--cluster", "local"], "scale paper needs GPUs and cluster local trains on CPUs"),
        (["submit", TABLE, "--seeds", "0"], "--seeds must be a whole number of at least 1, not 0"),
        (["cancel", "zzz"], "unknown table 'zzz': choose from"),
    ],
)
def test_wrong_usage_is_one_sentence_and_exit_code_2(call, arguments, sentence):
    code, _, error = call(*arguments)
    assert code == 2
    assert error.startswith(f"error: {sentence}")
    assert error.count("\n") == 1


def test_dry_run_takes_tables_rows_and_seeds(root, call):
    _, text, _ = call("submit", TABLE, "--only", "normal_1", "--seeds", "2", "--dry-run")
    assert "runs:      2 to submit (1 configurations)" in text
    assert call("submit", "all", "--dry-run") == call("submit", "lumix_controls", TABLE, "--dry-run")
    assert not (root / "runs").exists()


def test_debug_trains_here_also_within_an_interactive_job(call, monkeypatch):
    """Its SLURM_* say four tasks, of which only this one would come."""
    for name, value in {"JOB_ID": "77", "NTASKS": "4", "PROCID": "0", "LOCALID": "0", "JOB_NODELIST": "n1"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    arguments = ("submit", TABLE, "--scale", "mini", "--only", "normal_1", "--seeds", "1", "--cluster", "debug")
    code, text, error = call(*arguments)
    assert code == 0, error
    assert "seed 0  finished" in text
    assert "nothing to submit" in call(*arguments)[1]
    assert "1 done" in call("status", "--scale", "mini")[1]


@pytest.mark.parametrize("command", ["experiments list", "slurm submit lumix_table10_laws --dry-run"])
def test_a_terminal_that_cannot_print_greek_ends_no_command(root, command):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"}
    answer = subprocess.run([sys.executable, "-m", *command.split()], cwd=root, env=environment, capture_output=True)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.isascii()


@pytest.fixture
def item(root):
    return items_of_table(PAPER, get_table(TABLE, PAPER), seeds=1)[0]


@pytest.fixture
def entry(item) -> Submitted:
    run_directory.write_text(jobs.ROOT / "one" / "runs.txt", f"{item.directory}\n")
    return Submitted(jobs.ROOT / "one", 0)


def started(item) -> None:
    run_directory.write_json(item.directory / "environment.json", {"fingerprint": "other"})
    for epoch in (1, 2, 3):
        line = {"epoch": epoch, "images_per_second": 8000.0, "seconds": 100.0}
        run_directory.append_line(item.directory / "metrics.jsonl", json.dumps(line))


@pytest.mark.parametrize(
    ("job", "failures", "state", "note"),
    [
        (Job("7", "RUNNING", ""), [], "running", ""),
        (Job("7", "RUNNING", ""), ["no space"], "running", "after no space"),
        (Job("7", "PENDING", "BeginTime"), ["no space"], "queued", "waits for BeginTime, after no space"),
        (Job("7", "CANCELLED", ""), [], "cancelled", ""),
        (Job("7", "TIMEOUT", ""), [], "lost", "SLURM ended job 7 as TIMEOUT"),
        (None, [], "lost", "its job is gone"),
        (None, ["no space"], "failed", "no space"),
        (None, [*"0123456789", "no space"], "failed", "11 times, the last time: no space"),  # 10 comes after 9
    ],
)
def test_states_of_what_is_not_finished(item, entry, job, failures, state, note):
    started(item)
    for restart, reason in enumerate(failures):
        run_directory.write_text(entry.folder / "ended" / f"0.{restart}.failed", f"{reason}\n")
    found = status_of(item, entry, {} if job is None else {entry: job})
    assert (found.state, found.note) == (state, note)
    cells = found.cells()
    assert cells[4:6] == ("3/300", "8000")
    assert cells[6] == ("8.2 h" if state == "running" else "")


def test_done_is_what_the_directory_says_whatever_slurm_thinks(item, entry):
    finish(item, 79.9)
    values = run_directory.read_json(item.directory / "result.json")
    found = status_of(item, entry, {entry: Job("7", "FAILED", "")})
    assert (found.state, found.note) == ("done", "top-1 79.90")
    run_directory.write_json(item.directory / "result.json", {**values, "fingerprint": "other"})
    assert status_of(item, None, {}).state == "older code"


def test_without_slurm_the_directories_speak(item, entry):
    started(item)
    (found,), warning = statuses(PAPER, [item])
    assert (found.state, found.note) == ("queued", "or lost")
    assert warning.endswith("the states below are those of the run directories")
    with run_directory.locked(item.directory):
        assert statuses(PAPER, [item])[0][0].state == "running"
    (entry.folder / "runs.txt").unlink()
    assert statuses(PAPER, [item]) == ([status_of(item, None, {})], "")
    assert status_of(item, None, {}).state == "started"


def test_a_controller_that_is_down_is_one_sentence(tmp_path, monkeypatch):
    scripts = {"squeue": "echo 'Unable to contact slurm controller' >&2; exit 1", "slow": "exec sleep 5"}
    for name, script in scripts.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.setattr(jobs, "SECONDS", 1)
    with pytest.raises(SchedulerError, match=r"squeue failed .*Unable to contact slurm controller"):
        jobs.call("squeue")
    with pytest.raises(SchedulerError, match="slow did not answer within 1 s: SLURM's controller seems to be down"):
        jobs.call("slow")


def test_cancel_takes_living_jobs_only_and_remembers(item, entry, monkeypatch):
    calls = []

    def answer(*command: str) -> str:
        calls.append(command)
        return "7|lumix-one|RUNNING|None\n" if command[0] == "squeue" else ""

    monkeypatch.setattr(jobs, "call", answer)
    monkeypatch.setattr("slurm.status.call", answer)
    (entry.folder / "ended").mkdir()
    assert items_named(PAPER, f"{item.run.key}/seed0", None) == [item]
    assert [found.seed for found in items_named(PAPER, item.run.key, 2)] == [0, 1]
    assert cancel(items_named(PAPER, TABLE, None)) == ["7"]
    assert calls[-1] == ("scancel", "7")
    assert status_of(item, entry, {}).state == "cancelled"
    monkeypatch.setattr(jobs, "call", lambda *command: "7|lumix-one|CANCELLED|None\n")
    assert cancel([item]) == []


def test_the_guide_names_every_field_of_a_cluster():
    guide = (ROOT / "docs" / "slurm.md").read_text()
    names = {each.name for each in dataclasses.fields(Cluster)} - {"name"}
    assert not [name for name in names if f"`{name}`" not in guide]


def test_help_and_costs_are_as_reviewed(root):
    """After a wanted change: `python tests/test_slurm_cli.py` writes both pages anew."""
    assert help_text(root) == HELP.read_text()
    assert COST.read_text().endswith(f"```\n{costs(root)}```\n")


def help_text(root: Path) -> str:
    commands = ([], ["submit"], ["status"], ["cancel"])
    return "\n".join(command_line.call(root, "slurm", *command, "--help").stdout for command in commands)


def costs(root: Path) -> str:
    return command_line.call(root, "experiments", "cost", "--scale", "paper").stdout


if __name__ == "__main__":
    HELP.write_text(help_text(ROOT))
    COST.write_text(f"{COST.read_text().partition('```')[0]}```\n{costs(ROOT)}```\n")
