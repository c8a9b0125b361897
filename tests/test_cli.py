"""The command line: exit codes, one-sentence errors, no torch before training, and help as it was reviewed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import command_line
import pytest
from command_line import ROOT

from experiments.registry import TABLES

HELP = ROOT / "docs" / "help" / "experiments.txt"
COMMANDS = ("list", "show", "run", "status", "cost", "collect", "verify")
PARAMS = "scale: paper\nseeds: null\nlauncher: local\ntables: [lumix_controls]\n"


@pytest.fixture
def root(tmp_path) -> Path:
    (tmp_path / "params.yaml").write_text(PARAMS)
    return tmp_path


def call(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return command_line.call(root, "experiments", *arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        ["list"],
        ["show", "lumix_table10_laws"],
        ["status"],
        ["cost"],
        ["run", "lumix_controls", "--dry-run"],
        ["collect", "lumix_table01_models"],
        ["--help"],
    ],
)
def test_nothing_but_training_imports_torch(root, arguments):
    command_line.check_loads_nothing_heavy(root, "experiments", *arguments)


def test_help_loads_nothing_of_weight(root):
    command_line.check_help_loads_nothing_of_weight(root, "experiments")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["show", "lumix_table10_law"], "unknown table 'lumix_table10_law': did you mean lumix_table10_laws"),
        (
            ["run", "lumix_controls", "--only", "constnt"],
            "unknown row of lumix_controls 'constnt': did you mean constant",
        ),
        (["list", "--scale", "papr"], "unknown scale 'papr': did you mean paper"),
        (["cost", "--seeds", "0"], "--seeds must be a whole number of at least 1, not 0"),
        (["show", "zzz"], "unknown table 'zzz': choose from"),
    ],
)
def test_wrong_usage_is_one_sentence_and_exit_code_2(root, arguments, sentence):
    answer = call(root, *arguments)
    assert answer.returncode == 2
    assert answer.stderr.startswith(f"error: {sentence}")
    assert answer.stderr.count("\n") == 1


def test_elsewhere_than_in_the_root_is_said(tmp_path):
    answer = call(tmp_path, "list")
    assert answer.returncode == 2
    assert "params.yaml cannot be read" in answer.stderr
    assert "root of the project" in answer.stderr


def test_slurm_launcher_never_trains(root):
    (root / "params.yaml").write_text(PARAMS.replace("local", "slurm"))
    answer = call(root, "run", "lumix_table02_components")
    assert answer.returncode == 75
    assert answer.stderr == (
        "9 of 9 runs of lumix_table02_components are not finished (9 not started): "
        "python -m slurm submit lumix_table02_components --cluster a100\n"
    )
    assert not (root / "runs").exists()


def test_show_prints_paper_cells_keys_and_states(root):
    text = call(root, "show", "lumix_table02_components").stdout
    assert "80.5" in text
    assert "imagenet-deit_s-mixup_cutmix-lumix-regulariser-" in text
    assert "3 not started" in text
    assert "300 epochs, batch 1024" in text


def test_dry_run_counts_and_only_narrows(root):
    assert "9 of 9 runs would be trained" in call(root, "run", "lumix_table02_components", "--dry-run").stdout
    one = call(root, "run", "lumix_table02_components", "--dry-run", "--only", "lam_s", "--seeds", "2").stdout
    assert "2 of 2 runs would be trained" in one
    assert "seed1  not started" in one


def test_cost_prints_runs_hours_and_price(root):
    total = next(line for line in call(root, "cost").stdout.splitlines() if line.startswith("all "))
    assert total.split()[1] == "556"


def test_collect_writes_a_record_and_a_damaged_run_exits_1(root):
    answer = call(root, "collect", "lumix_table02_components")
    assert answer.returncode == 0, answer.stderr
    path = root / "results" / "paper" / "lumix_table02_components.json"
    written = path.read_text()
    assert json.loads(written)["schema"] == 2
    listed = call(root, "run", "lumix_table02_components", "--dry-run", "--only", "none").stdout
    directory = root / listed.split()[0]
    directory.mkdir(parents=True)
    (directory / "result.json").write_text("{")
    answer = call(root, "collect", "lumix_table02_components")
    assert answer.returncode == 1
    assert "result.json is damaged" in answer.stderr
    assert answer.stderr.count("\n") == 1
    assert path.read_text() == written
    assert "1 damaged" in call(root, "status", "lumix_table02_components").stdout


def test_list_names_every_table(root):
    text = call(root, "list").stdout
    assert all(table in text for table in TABLES)


@pytest.mark.parametrize(
    "command",
    ["experiments list", "experiments --help", "experiments zzz", "slurm --help", "report --help", "benchmarks -h"],
)
def test_a_reader_that_has_gone_ends_a_command_quietly(command):
    """As `| head` does, and `2>&1 | head`."""
    for stderr in (subprocess.PIPE, subprocess.STDOUT):
        reading, writing = os.pipe()
        os.close(reading)
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        arguments = [sys.executable, "-m", *command.split()]
        answer = subprocess.run(
            arguments, cwd=ROOT, env=environment, stdout=writing, stderr=stderr, text=True, timeout=60
        )
        os.close(writing)
        assert "Traceback" not in (answer.stderr or "")
        assert "pipe" not in (answer.stderr or "")
        assert answer.returncode == (2 if command.endswith("zzz") else 0)


def test_other_pipes_that_break_are_errors(capsys):
    from experiments.console import fail

    with open(os.devnull, "w") as out:
        sys.stdout, sys.stderr, kept = out, out, (sys.stdout, sys.stderr)
        try:
            assert fail(BrokenPipeError("a worker has gone"), 1) == 1
        finally:
            sys.stdout, sys.stderr = kept


def test_help_is_as_reviewed(root):
    """After a wanted change: `python tests/test_cli.py > docs/help/experiments.txt`."""
    assert help_text(root) == HELP.read_text()


def help_text(root: Path) -> str:
    return "\n".join(call(root, *command, "--help").stdout for command in ([], *([name] for name in COMMANDS)))


if __name__ == "__main__":
    print(help_text(ROOT), end="")
