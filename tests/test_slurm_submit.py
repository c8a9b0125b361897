"""Clusters, layouts, plans and what sbatch is given. No SLURM is needed."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from experiments.registry import get_table
from experiments.runs import items_of_table
from experiments.scale import get_scale
from slurm import submit as submission
from slurm.cluster import FOLDER, Cluster, layout_of, load_cluster, microbatch
from slurm.jobs import ROOT, submitted
from slurm.submit import make_plan, parameters, plan_text, submit, take_snapshot
from training.run_directory import RunError, write_text

PAPER, MINI, LAB = get_scale("paper"), get_scale("mini"), get_scale("lab")
TABLE = "lumix_table10_laws"


@pytest.fixture(autouse=True)
def _in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LUMIX_CLUSTER", raising=False)


def items(table=TABLE):
    return items_of_table(PAPER, get_table(table, PAPER))


def plan_with(squeue: str, monkeypatch, resume: bool = False):
    """A plan where the first item was submitted and squeue says so much of its job."""
    write_text(ROOT / "one" / "runs.txt", f"runs/other\n{items()[0].directory}\n")
    monkeypatch.setattr("slurm.jobs.call", lambda *command: squeue)
    return make_plan(PAPER, items(), load_cluster("a100"), resume)


def test_every_shipped_cluster_is_valid():
    clusters = {path.stem: load_cluster(path.stem) for path in FOLDER.glob("*.toml")}
    assert {name: cluster.gpus_per_node for name, cluster in clusters.items()} == {
        "a100": 8,
        "a100-single": 1,
        "debug": 0,
        "local": 0,
    }


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("gpus = 4", "Cluster has no field 'gpus'; it has name, description, executor, device, partition"),
        ('device = "tpu"', "Cluster.device must be one of cuda, cpu, not 'tpu'"),
        ('device = "cuda"', "Cluster.gpus_per_node must be at least 1 where device is cuda, not 0"),
        ('device = "cpu"\nmodules = "cuda"', "Cluster.modules must be a tuple"),
        ('device = "cpu"\ntime_limit_minutes = 1', "Cluster.signal_delay_seconds must be below the time limit of 1"),
        ('device = "cpu"\nmax_parallel_jobs = 0', "Cluster.max_parallel_jobs must be at least 1, not 0"),
        ("device = ", "Invalid value"),
    ],
)
def test_a_wrong_file_is_one_sentence(tmp_path, text, sentence):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"mine\.toml") as error:
        load_cluster(str(path))
    assert sentence in str(error.value)
    with pytest.raises(ValueError, match=r"absent\.toml cannot be read"):
        load_cluster("absent.toml")


@pytest.mark.parametrize(
    ("fields", "scale", "expected"),
    [
        ({"gpus_per_node": 8}, PAPER, (1, 8, 8, "cuda")),
        ({"gpus_per_node": 4, "nodes": 8}, PAPER, (2, 4, 4, "cuda")),
        ({"gpus_per_node": 1}, PAPER, (1, 1, 1, "cuda")),
        ({"gpus_per_node": 8}, LAB, (1, 1, 1, "cuda")),
        ({"gpus_per_node": 8}, MINI, (1, 1, 0, "cpu")),
        ({"device": "cpu", "tasks_per_node": 2}, MINI, (1, 2, 0, "cpu")),
        ({"device": "cpu", "gpus_per_node": 2}, MINI, (1, 2, 2, "cpu")),
    ],
)
def test_layout(fields, scale, expected):
    assert layout_of(Cluster(name="x", **fields), scale, scale.base("deit", "deit_s")) == expected


def test_parts_are_equal_and_within_the_limit():
    run = PAPER.base("deit", "deit_s")
    limits = [(8, 0), (8, 128), (8, 100), (1, 128), (4, 96), (1, 0)]
    assert [microbatch(run, tasks, limit) for tasks, limit in limits] == [128, 128, 64, 128, 64, 1024]


def test_a_batch_that_cannot_be_shared_is_one_sentence():
    run = MINI.base("deit", "deit_s").replace(batch_size=50)
    with pytest.raises(RunError, match="50 images on 2 tasks are an odd 25 each"):
        microbatch(run, 2, 0)
    assert microbatch(run.replace(mix=run.mix.replace(pairing="permutation")), 2, 0) == 25
    with pytest.raises(RunError, match=r"batch of 1024 images of imagenet-deit_s-\S+ does not divide over 6 tasks"):
        make_plan(PAPER, items(), Cluster(name="six", gpus_per_node=6), False)


def test_a_plan_takes_each_run_once_and_arrays_of_jobs_that_are_alike():
    small = items("dm_table06_fine_grained")
    plan = make_plan(PAPER, [*items(), *small, *items()], load_cluster("a100"), False)
    assert {layout.gpus_per_node: len(alike) for layout, alike in plan.arrays.items()} == {8: 13, 1: len(small)}
    hours = [PAPER.hours(item.run) for item in plan.arrays[next(iter(plan.arrays))]]
    assert hours == sorted(hours, reverse=True)
    text = plan_text(plan)
    total = sum(PAPER.hours(item.run) for item in plan.items)
    assert f"runs:      {len(plan.items)} to submit" in text
    assert "nodes: 1, tasks per node: 8, GPUs per node: 8" in text
    assert "8 x 1 x 128" in text
    assert text.endswith(f"GPU-hours: {total:.2f} (estimate), {2 * total:.0f} dollars")
    assert "train alone here" not in text
    stacked = plan_text(
        make_plan(MINI, items_of_table(MINI, get_table("lumix_table10_laws", MINI)), load_cluster("local"), False)
    )
    assert "of them train alone here and in stacks by python -m experiments run" in stacked


@pytest.mark.parametrize(
    ("state", "resume", "why"),
    [
        ("RUNNING", False, "running as job 7_1"),
        ("PENDING", True, "queued as job 7_1"),
        ("REQUEUE_HOLD", True, "queued as job 7_1"),
        ("NODE_FAIL", True, "running as job 7_1"),  # on its way to a requeue
        ("CANCELLED", False, "cancelled: --resume submits it again"),
        ("TIMEOUT", False, "lost: SLURM ended job 7_1 as TIMEOUT: --resume submits it again"),
        ("TIMEOUT", True, None),
        (None, False, "lost: its job is gone: --resume submits it again"),
        (None, True, None),
    ],
)
def test_what_has_a_job_is_left_alone(state, resume, why, monkeypatch):
    lines = f"7_0|lumix-one|RUNNING|None\n7_1|lumix-one|{state}|None\n8_1|lumix-two|RUNNING|None\n"
    plan = plan_with(lines if state else "", monkeypatch, resume)
    assert [text for _, text in plan.skipped] == ([] if why is None else [why])
    assert (items()[0] in plan.items) == (why is None)
    assert len(plan.items) + len(plan.skipped) == len(items())


def test_without_slurm_nothing_is_submitted_and_nothing_is_left(monkeypatch, capsys):
    monkeypatch.setenv("PATH", "")
    submit(PAPER, items(), load_cluster("a100"), dry_run=True)
    assert capsys.readouterr().out.endswith("nothing was submitted: this was a dry run\n")
    assert list(Path().iterdir()) == []
    with pytest.raises(RunError, match="sinfo is not on the PATH"):
        submit(PAPER, items(), load_cluster("a100"))
    assert not submitted()


def test_parameters_are_taken_by_submitit():
    from submitit.slurm.slurm import _make_sbatch_string

    cluster = load_cluster("a100").replace(modules=("cuda/12.4",), setup=("umask 002",), account="lab")
    layout = layout_of(cluster, PAPER, items()[0].run)
    values = parameters(cluster, layout, Path("/f/one"))
    text = _make_sbatch_string(command="apptainer exec i.sif python x", folder="/f/log", map_count=3, **values)
    for line in (
        *("#SBATCH --gpus-per-node=8", "#SBATCH --ntasks-per-node=8", "#SBATCH --array=0-2%3", "#SBATCH --time=1440"),
        *("#SBATCH --signal=USR2@300", "#SBATCH --mem=480GB", "#SBATCH --account=lab", "#SBATCH --requeue"),
        *("#SBATCH --job-name=lumix-one", "module load cuda/12.4", "export PYTHONPATH=/f/one/code PYTHONSAFEPATH=1"),
    ):
        assert line in text
    order = [text.index(part) for part in ("module load", "umask 002", "PYTHONPATH", "srun", "requeue.sh")]
    assert order == sorted(order)
    assert "OMP_NUM_THREADS" not in text
    small = layout_of(cluster, PAPER, PAPER.base("cub200", "resnet18"))
    assert small == (1, 1, 1, "cuda")
    assert parameters(cluster, small, Path("/f"))["mem"] == "60GB"


def git(folder: Path, *arguments: str) -> str:
    who = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
    answer = subprocess.run(["git", "-C", str(folder), *who, *arguments], capture_output=True, text=True, check=True)
    return answer.stdout.strip()


@pytest.mark.skipif(shutil.which("rsync") is None, reason="submitit's snapshot needs rsync")
def test_a_snapshot_keeps_code_and_commit_of_its_submission(tmp_path, monkeypatch):
    project, copy = tmp_path / "project", tmp_path / "project" / "runs" / "code"
    for name in submission.PACKAGES:
        write_text(project / name / "__init__.py", "A = 1\n")
    monkeypatch.chdir(project)
    git(project, "init", "--quiet")
    git(project, "add", ".")
    git(project, "commit", "--quiet", "-m", "first")
    write_text(project / "slurm" / "__init__.py", "A = 2\n")  # an edit that was not committed
    os.utime(project / "slurm" / "__init__.py", (0, 0))  # rsync compares sizes and seconds
    write_text(project / "experiments" / "new.py", "A = 2\n")
    first = git(project, "rev-parse", "HEAD")
    take_snapshot(copy)
    write_text(project / "lumix" / "__init__.py", "A = 3\n")  # a later edit, of which a job must see nothing
    git(project, "commit", "--quiet", "-am", "second")
    assert [(copy / name).read_text() for name in ("slurm/__init__.py", "experiments/new.py")] == ["A = 2\n"] * 2
    assert (copy / "lumix" / "__init__.py").read_text() == "A = 1\n"
    assert git(copy / "lumix", "rev-parse", "HEAD") == first
    assert Path.cwd() == project


def test_without_a_repository_there_is_no_snapshot(tmp_path):
    with pytest.raises(RunError, match="this must be a git repository"):
        take_snapshot(tmp_path / "one" / "code")
    assert not (tmp_path / "one").exists()
