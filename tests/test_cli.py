"""The command line: exit codes, one-sentence errors, nothing of weight before --help, and help as it was reviewed."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import command_line
import pytest
from command_line import ROOT

from experiments.__main__ import main
from experiments.params import read_params
from experiments.registry import TABLES
from experiments.results import SCHEMA
from experiments.scale import NAMES
from training.run_directory import write_json

HELP = ROOT / "docs" / "help" / "experiments.txt"
COMMANDS = ("list", "show", "run", "status", "cost", "collect", "verify")
PARAMS = "scale: paper\nseeds: null\nlauncher: local\ntables: [lumix_controls]\n"
COMPONENTS = "lumix_table02_components"
GOOD = "scale: lab\nseeds: null\nlauncher: local\ntables: [lumix_controls]\n"


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    """Run a command in an empty project at paper scale; gives exit code, output and errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    Path("params.yaml").write_text(PARAMS)

    def call(*arguments: str) -> tuple[int, str, str]:
        return main(arguments), *capsys.readouterr()

    return call


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("scale: [", "is not YAML near line"),
        ("", "must hold the keys"),
        ("scale: lab\n", "must hold the keys"),
        (GOOD + "more: 1\n", "must hold the keys"),
        (GOOD.replace("lab", "labb"), "unknown scale 'labb': did you mean lab"),
        (GOOD.replace("null", "0"), "at least 1, not 0"),
        (GOOD.replace("null", "'3'"), "at least 1, not '3'"),
        (GOOD.replace("null", "1000000000"), "at most 1000, not 1000000000"),
        (GOOD.replace("local", "slum"), "did you mean slurm"),
        (GOOD.replace("lumix_controls", "lumix_control"), "did you mean lumix_controls"),
        (GOOD.replace("[lumix_controls]", "lumix_controls"), "must be all or a list"),
        (GOOD.replace("lumix_controls", "'lumix_controls; true'"), "did you mean lumix_controls"),
    ],
)
def test_malformed_parameters_give_one_sentence(tmp_path, text, message):
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        read_params(tmp_path / "params.yaml")
    assert "params.yaml" in str(error.value)
    assert "\n" not in str(error.value)


def test_parameters_of_the_project():
    params = read_params(ROOT / "params.yaml")
    assert params.tables == tuple(TABLES)
    assert params.scale in NAMES


def test_help_loads_nothing_of_weight(tmp_path):
    command_line.check_help_loads_nothing_of_weight(tmp_path, "experiments")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["show", "lumix_table10_law"], "unknown table 'lumix_table10_law': did you mean lumix_table10_laws"),
        (
            ["run", "lumix_controls", "--only", "constnt"],
            "unknown row of lumix_controls 'constnt': did you mean constant",
        ),
        (["run", "lumix_controls", COMPONENTS, "--only", "none"], "--only goes with one table"),
        (["list", "--scale", "papr"], "unknown scale 'papr': did you mean paper"),
        (["cost", "--seeds", "0"], "--seeds must be a whole number of at least 1, not 0"),
        (["show", "zzz; true"], "unknown table 'zzz; true': choose from"),
    ],
)
def test_wrong_usage_is_one_sentence_and_exit_code_2(call, arguments, sentence):
    code, _, errors = call(*arguments)
    assert code == 2
    assert errors.startswith(f"error: {sentence}")
    assert errors.count("\n") == 1


def test_elsewhere_than_in_the_root_is_said(call):
    Path("params.yaml").unlink()
    code, _, errors = call("list")
    assert code == 2
    assert re.search(r"params.yaml cannot be read .* root of the project", errors)


@pytest.mark.parametrize("tables", [[COMPONENTS], []])
def test_slurm_launcher_never_trains(call, tables):
    """Neither one table nor, without a name, those of params.yaml."""
    Path("params.yaml").write_text(PARAMS.replace("local", "slurm").replace("lumix_controls", COMPONENTS))
    code, _, errors = call("run", *tables)
    assert code == 75
    assert errors == (
        f"9 of 9 runs of {COMPONENTS} are not finished (9 not started): "
        f"python -m slurm submit {COMPONENTS} --scale paper --cluster a100\n"
    )
    assert not Path("runs").exists()


def test_evaluations_are_planned_and_left_to_the_cluster(call):
    name = "lumix_table07_shuffling"
    Path("params.yaml").write_text(f"scale: lab\nseeds: 1\nlauncher: slurm\ntables: [{name}]\n")
    planned = call("run", name, "--dry-run")[1]
    assert "2 of 2 runs would be trained\n2 of 2 evaluations would be made" in planned
    assert call("run", name)[0] == 75
    for line in planned.splitlines()[:2]:
        directory = Path(line.split()[0])
        result = {"key": directory.parent.name, "seed": 0, "fingerprint": "x", "top1": {"last": 1.0}, "n_samples": 1}
        result["checksum"] = "x"
        write_json(directory / "result.json", result)
    code, _, errors = call("run")
    assert code == 75
    command = f"python -m experiments run {name} --scale lab --seeds 1"
    assert errors == f"2 evaluations of {name} are not made: srun --gpus 1 {command}\n"


def test_show_prints_paper_cells_keys_and_states(call):
    text = call("show", COMPONENTS)[1]
    for part in ("80.5", "imagenet-deit_s-mixup_cutmix-lumix-regulariser-", "3 not started", "300 epochs, batch 1024"):
        assert part in text


def test_dry_run_counts_runs_once_and_only_narrows(call):
    one = call("run", COMPONENTS, "--dry-run", "--only", "lam_s", "--seeds", "2")[1]
    assert "2 of 2 runs would be trained" in one
    assert "seed1  not started" in one
    tables = (COMPONENTS, "lumix_table01_models")
    planned = [call("run", *names, "--dry-run", "--seeds", "1")[1] for names in (tables[:1], tables[1:], tables)]
    first, second, both = ({line for line in text.splitlines() if line.startswith("runs")} for text in planned)
    assert both == first | second
    assert first & second
    assert planned[2].count("\nruns") + 1 == len(both)


def test_collect_writes_results_and_a_damaged_run_exits_1(call):
    assert call("collect", COMPONENTS)[0] == 0
    path = Path("results", "paper", f"{COMPONENTS}.json")
    written = path.read_text()
    assert json.loads(written)["schema"] == SCHEMA
    directory = Path(call("run", COMPONENTS, "--dry-run", "--only", "none")[1].split()[0])
    directory.mkdir(parents=True)
    (directory / "result.json").write_text("{")
    code, _, errors = call("collect", COMPONENTS)
    assert code == 1
    assert "result.json is damaged" in errors
    assert errors.count("\n") == 1
    assert path.read_text() == written
    assert "1 damaged" in call("status", COMPONENTS)[1]


@pytest.mark.parametrize("module", ["experiments", "slurm", "report"])
def test_a_reader_that_has_gone_ends_a_command_quietly(module):
    """As `| head` does, and `2>&1 | head`."""
    reading, writing = os.pipe()
    os.close(reading)
    environment, stderr = {**os.environ, "PYTHONPATH": str(ROOT)}, subprocess.STDOUT if module == "slurm" else -1
    command = [sys.executable, "-m", module, "--help"]
    answer = subprocess.run(command, cwd=ROOT, env=environment, stdout=writing, stderr=stderr, text=True, timeout=60)
    os.close(writing)
    assert not answer.stderr
    assert answer.returncode


def test_help_is_as_reviewed():
    """After a wanted change: `python tests/test_cli.py > docs/help/experiments.txt`."""
    assert help_text() == HELP.read_text()


def help_text() -> str:
    calls = ([], *([name] for name in COMMANDS))
    return "\n".join(command_line.call(ROOT, "experiments", *command, "--help").stdout for command in calls)


if __name__ == "__main__":
    print(help_text(), end="")
