"""python -m slurm: exit codes, one-sentence errors, no torch, one-way imports, help and cost page as reviewed."""

import dataclasses
import os
import subprocess
from pathlib import Path

import command_line
import pytest
from command_line import ROOT

from experiments.scale import get_scale
from slurm.cluster import Cluster
from slurm.cost_page import Measurement, corrected_hours, cost_page, wall_hours
from slurm.snapshot import take_snapshot

HELP = ROOT / "docs" / "help" / "slurm.txt"
COMMANDS = ("submit", "status", "cancel", "logs", "cost-page")
PARAMS = "scale: paper\nseeds: null\nlauncher: slurm\ntables: [lumix_controls, lumix_table10_laws]\n"
TABLE = "lumix_table10_laws"


@pytest.fixture
def root(tmp_path) -> Path:
    (tmp_path / "params.yaml").write_text(PARAMS)
    return tmp_path


def call(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return command_line.call(root, "slurm", *arguments)


@pytest.mark.parametrize(
    "arguments",
    [["submit", TABLE, "--dry-run"], ["status"], ["status", TABLE], ["logs", TABLE], ["cost-page"], ["--help"]],
)
def test_no_command_imports_torch(root, arguments):
    command_line.check_loads_nothing_heavy(root, "slurm", *arguments)


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
        (["status", "zzz"], "unknown table 'zzz': choose from"),
        (["cancel", "zzz"], "unknown table or run 'zzz': choose from"),
        (["cost-page", "--scale", "mini"], "scale mini needs no GPU"),
    ],
)
def test_wrong_usage_is_one_sentence_and_exit_code_2(root, arguments, sentence):
    answer = call(root, *arguments)
    assert answer.returncode == 2
    assert answer.stderr.startswith(f"error: {sentence}")
    assert answer.stderr.count("\n") == 1


def test_submit_away_from_a_cluster_fails_and_leaves_no_entry(root):
    answer = call(root, "submit", TABLE)
    assert answer.returncode == 1
    assert answer.stderr == (
        "error: sbatch is not on the PATH: run this on a machine of the cluster, or use --cluster debug\n"
    )
    assert not list(root.rglob("*.json"))


def test_dry_run_takes_tables_rows_and_seeds(root):
    assert "runs:      2 to submit (1 configurations)" in (
        call(root, "submit", TABLE, "--only", "normal_1", "--seeds", "2", "--dry-run").stdout
    )
    everything = call(root, "submit", "all", "--dry-run").stdout
    named = call(root, "submit", "lumix_controls", TABLE, "--dry-run").stdout
    assert everything == named
    assert not (root / "runs").exists()


def test_debug_executor_trains_here_and_a_second_submit_has_nothing_to_do(root):
    arguments = ("submit", TABLE, "--scale", "mini", "--only", "normal_1", "--seeds", "1", "--cluster", "debug")
    answer = call(root, *arguments)
    assert answer.returncode == 0, answer.stderr
    assert "seed 0  finished" in answer.stdout
    assert "nothing to submit" in call(root, *arguments).stdout
    assert "1 done" in call(root, "status", "--scale", "mini").stdout


def test_status_tells_what_to_do_about_a_failure(root):
    listed = call(root, "submit", TABLE, "--dry-run", "--only", "normal_1").stdout.splitlines()
    key = next(line.split()[0] for line in listed if line.startswith("imagenet-"))
    directory = root / "runs" / "paper" / TABLE / key / "seed0"
    directory.mkdir(parents=True)
    (directory / "result.json").write_text("{")
    text = call(root, "status", TABLE).stdout
    assert "result.json is damaged, delete it and submit again" in text
    assert text.endswith(f"once the cause is mended, submit 1 again: python -m slurm submit {TABLE} --resume\n")


def test_slurm_knows_neither_report_nor_figures():
    for path in (ROOT / "slurm").rglob("*.py"):
        text = path.read_text()
        assert "import report" not in text
        assert "paper_figures" not in text


# ------------------------------------------------------------------------------------------------- snapshot


def git(folder: Path, *arguments: str) -> str:
    who = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
    answer = subprocess.run(["git", "-C", str(folder), *who, *arguments], capture_output=True, text=True, check=True)
    return answer.stdout.strip()


def test_a_snapshot_keeps_code_and_commit_of_its_submission(tmp_path):
    project, copy = tmp_path / "project", tmp_path / "project" / "runs" / "code"
    for name in ("lumix", "experiments", "slurm"):
        (project / name).mkdir(parents=True)
        (project / name / "__init__.py").write_text("A = 1\n")
    git(project, "init", "--quiet")
    git(project, "add", "lumix", "experiments", "slurm")
    git(project, "commit", "--quiet", "-m", "first")
    (project / "slurm" / "__init__.py").write_text("A = 2\n")  # an edit that was not committed
    take_snapshot(project, copy)
    first = git(project, "rev-parse", "HEAD")
    (project / "lumix" / "__init__.py").write_text("A = 3\n")  # later edits, of which a job must see nothing
    git(project, "commit", "--quiet", "-am", "second")
    assert (copy / "slurm" / "__init__.py").read_text() == "A = 2\n"
    assert (copy / "lumix" / "__init__.py").read_text() == "A = 1\n"
    assert git(copy / "lumix", "rev-parse", "HEAD") == first != git(project, "rev-parse", "HEAD")
    assert git(copy, "status", "--porcelain") == "M slurm/__init__.py"


def test_a_snapshot_needs_no_repository(tmp_path):
    for name in ("lumix", "experiments", "slurm"):
        (tmp_path / "project" / name).mkdir(parents=True)
    take_snapshot(tmp_path / "project", tmp_path / "code")
    assert not (tmp_path / "code" / ".git").exists()
    assert (tmp_path / "code" / "slurm").is_dir()


# ------------------------------------------------------------------------------------------------- pages


def test_the_guide_names_every_field_of_a_cluster():
    guide = (ROOT / "docs" / "slurm.md").read_text()
    missing = [
        each.name for each in dataclasses.fields(Cluster) if each.name != "name" and f"`{each.name}`" not in guide
    ]
    assert not missing


def test_wall_time_is_that_of_the_longest_first():
    jobs = [(hours, 8) for hours in (3, 3, 2, 2, 2)]
    assert [wall_hours(jobs, nodes) for nodes in (1, 2, 16)] == [12, 7, 3]
    assert wall_hours([(1, 1)] * 16, 1) == 2
    assert wall_hours([(3, 8), (2, 1), (1, 1), (1, 4)], 1) == 5


def test_measured_hours_replace_estimates_of_the_same_model_on_the_same_gpu():
    paper = get_scale("paper")
    run = paper.base("deit", "deit_s")
    fast = Measurement("imagenet", "deit_s", run.epochs, "NVIDIA A100-SXM4-80GB", 8, 9000.0, 40.0)
    unlike = [{"device": "NVIDIA H100"}, {"role": "deit_b"}, {"epochs": 7}, {"data": "cifar100"}]
    other = [dataclasses.replace(fast, gpu_hours=1.0, **changes) for changes in unlike]
    assert corrected_hours(paper, run, other) == paper.gpu_hours(run)
    assert corrected_hours(paper, run, [*other, fast]) == 40.0


def test_cost_page_is_as_generated():
    """After a change of tables, scales or measurements: `python -m slurm cost-page > docs/cost.md`."""
    previous = Path.cwd()
    os.chdir(ROOT)
    try:
        assert cost_page(get_scale("paper")) == (ROOT / "docs" / "cost.md").read_text()
    finally:
        os.chdir(previous)


def test_help_is_as_reviewed(root):
    """After a wanted change: `python tests/test_slurm_cli.py > docs/help/slurm.txt`."""
    assert help_text(root) == HELP.read_text()


def help_text(root: Path) -> str:
    return "\n".join(call(root, *command, "--help").stdout for command in ([], *([name] for name in COMMANDS)))


if __name__ == "__main__":
    print(help_text(ROOT), end="")
