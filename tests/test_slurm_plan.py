"""Clusters, layouts and plans: what is submitted, how it is spread, and what is left alone. No SLURM is needed."""

import dataclasses
import json
from pathlib import Path

import pytest

from experiments.registry import get_table
from experiments.runs import items_of_table
from experiments.scale import get_scale
from experiments.scales.paper import RUNS
from slurm import ledger
from slurm.cluster import Cluster, cluster_names, load_cluster
from slurm.disk import checkpoint_bytes
from slurm.layout import layout_of, microbatch
from slurm.plan import make_plan, plan_text, states_of
from slurm.scheduler import JobState, SchedulerError
from slurm.submit import parameters, submit
from training.run_directory import RunError

PAPER, MINI = get_scale("paper"), get_scale("mini")
TABLE = "lumix_table10_laws"


@pytest.fixture(autouse=True)
def _in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LUMIX_CLUSTER", raising=False)


def items(scale=PAPER, seeds=None):
    return items_of_table(scale, get_table(TABLE, scale), seeds=seeds)


def enter(item, scale=PAPER, **changes) -> ledger.Entry:
    entry = ledger.Entry(
        scale=scale.name,
        table=TABLE,
        key=item.run.key,
        seed=item.seed,
        directory=str(item.directory),
        submission="/nowhere/20260101-000000-abc",
        index=0,
        cluster="a100",
        executor="slurm",
        submitted=0.0,
        job="7_0",
    )
    entry = dataclasses.replace(entry, **changes)
    ledger.write_entry(ledger.entry_path(ledger.ROOT, scale.name, item.run.key, item.seed), entry)
    return entry


def plan_with(states, resume=False, scale=PAPER, cluster="a100"):
    return make_plan(scale, items(scale), load_cluster(cluster), ledger.ROOT, resume, ask=lambda entries: states)


# ------------------------------------------------------------------------------------------------- clusters


def test_every_shipped_cluster_is_valid():
    assert cluster_names() == ["a100", "a100-single", "debug", "local"]
    for name in cluster_names():
        assert load_cluster(name).name == name
    assert load_cluster("a100").gpus_per_node == 8
    assert load_cluster("a100-single").gpus_per_node == 1


def test_a_user_brings_his_own_file(tmp_path, monkeypatch):
    path = tmp_path / "mine.toml"
    path.write_text('device = "cuda"\ngpus_per_node = 4\nnodes = 2\nmodules = ["cuda/12.4"]\n')
    cluster = load_cluster(str(path))
    assert (cluster.name, cluster.gpus_per_node, cluster.modules) == ("mine", 4, ("cuda/12.4",))
    monkeypatch.setenv("LUMIX_CLUSTER", str(path))
    assert load_cluster(None) == cluster


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("gpus = 4", "Cluster has no field 'gpus'; it has name, description, executor, device, partition"),
        ('device = "tpu"', "Cluster.device must be cuda or cpu, not 'tpu'"),
        ('gpus_per_node = "four"', "Cluster.gpus_per_node must be int, not 'four'"),
        ('device = "cuda"', "Cluster.gpus_per_node must be at least 1 where device is cuda, not 0"),
        ('device = "cpu"\nmodules = "cuda"', "Cluster.modules must be a list of texts, not 'cuda'"),
        ('device = "cpu"\ntime_limit_minutes = 1', "Cluster.signal_delay_seconds must be below the time limit of 1"),
        ('device = "cpu"\nmax_parallel_jobs = 0', "Cluster.max_parallel_jobs must be at least 1, not 0"),
        ("device = ", "is not TOML"),
    ],
)
def test_a_wrong_file_is_one_sentence(tmp_path, text, sentence):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"mine\.toml") as error:
        load_cluster(str(path))
    assert sentence in str(error.value)


def test_unknown_cluster_names_the_near_ones():
    with pytest.raises(ValueError, match="unknown cluster 'a10': did you mean a100"):
        load_cluster("a10")
    with pytest.raises(ValueError, match=r"absent\.toml cannot be read"):
        load_cluster("absent.toml")


# ------------------------------------------------------------------------------------------------- layout


@pytest.mark.parametrize(
    ("fields", "scale", "expected"),
    [
        ({"gpus_per_node": 8}, PAPER, (1, 8, 8, "cuda")),
        ({"gpus_per_node": 4, "nodes": 2}, PAPER, (2, 4, 4, "cuda")),
        ({"gpus_per_node": 4, "nodes": 8}, PAPER, (2, 4, 4, "cuda")),
        ({"gpus_per_node": 1}, PAPER, (1, 1, 1, "cuda")),
        ({"gpus_per_node": 8}, get_scale("lab"), (1, 1, 1, "cuda")),
        ({"gpus_per_node": 8}, MINI, (1, 1, 0, "cpu")),
        ({"device": "cpu"}, MINI, (1, 1, 0, "cpu")),
        ({"device": "cpu", "tasks_per_node": 2}, MINI, (1, 2, 0, "cpu")),
        ({"device": "cpu", "gpus_per_node": 2}, MINI, (1, 2, 2, "cpu")),
    ],
)
def test_layout(fields, scale, expected):
    layout = layout_of(Cluster(name="x", **fields), scale, scale.base("deit", "deit_s"))
    assert dataclasses.astuple(layout) == expected


def test_a_small_batch_takes_one_gpu_and_its_share_of_the_memory():
    small = PAPER.base("cub200", "resnet18")
    cluster = load_cluster("a100")
    layout = layout_of(cluster, PAPER, small)
    assert dataclasses.astuple(layout) == (1, 1, 1, "cuda")
    assert parameters(cluster, layout, Path("/f"), "python")["mem"] == "60GB"


def test_gpu_scale_on_cpus_is_refused():
    with pytest.raises(ValueError, match="scale paper needs GPUs and cluster local trains on CPUs"):
        layout_of(load_cluster("local"), PAPER, PAPER.base("deit", "deit_s"))


@pytest.mark.parametrize(
    ("tasks", "limit", "expected"), [(8, 0, 128), (8, 128, 128), (8, 100, 64), (1, 128, 128), (4, 96, 64), (1, 0, 1024)]
)
def test_parts_are_equal_and_within_the_limit(tasks, limit, expected):
    run = PAPER.base("deit", "deit_s")
    size = microbatch(run, tasks, limit)
    assert size == expected
    assert run.batch_size % (tasks * size) == 0


def test_an_odd_share_cannot_be_paired():
    run = MINI.base("deit", "deit_s").replace(batch_size=50)
    assert run.mix.pairing == "flip"
    with pytest.raises(RunError, match="50 images on 2 tasks are an odd 25 each"):
        microbatch(run, 2, 0)
    assert microbatch(run.replace(mix=run.mix.replace(pairing="permutation")), 2, 0) == 25


def test_a_batch_that_does_not_divide_is_one_sentence():
    with pytest.raises(RunError, match=r"batch of 1024 images of imagenet-deit_s-\S+ does not divide over 12 tasks"):
        microbatch(PAPER.base("deit", "deit_s"), 12, 128)
    cluster = Cluster(name="six", gpus_per_node=6, nodes=2)
    with pytest.raises(RunError, match="does not divide over 6 tasks"):
        make_plan(PAPER, items(), dataclasses.replace(cluster, nodes=1), ledger.ROOT, False)


# ------------------------------------------------------------------------------------------------- plans


def test_tables_share_runs_and_each_is_submitted_once():
    both = items() + items_of_table(PAPER, get_table("lumix_table02_components", PAPER)) + items()
    plan = make_plan(PAPER, both, load_cluster("a100"), ledger.ROOT, False)
    directories = [item.directory for item in plan.items]
    assert len(directories) == len(set(directories)) < len(both)
    hours = [PAPER.hours(item.run) for item in plan.items]
    assert hours == sorted(hours, reverse=True)


def test_jobs_of_one_array_are_alike():
    small = items_of_table(PAPER, get_table("dm_table06_fine_grained", PAPER))
    plan = make_plan(PAPER, [*items(), *small], load_cluster("a100"), ledger.ROOT, False)
    assert {layout.gpus: len(alike) for layout, alike in plan.layouts.items()} == {8: len(items()), 1: len(small)}
    assert plan_text(plan).count("jobs: ") == 2


def test_plan_names_runs_jobs_hours_price_and_disk():
    text = plan_text(plan_with({}))
    number = len(items())
    assert f"runs:      {number} to submit" in text
    assert "1 node with 8 tasks and 8 GPUs each" in text
    assert "8 x 1 x 128" in text
    hours = sum(PAPER.hours(item.run) for item in items())
    assert f"GPU-hours: {hours:.0f}" in text
    assert f"price:     {2 * hours:.0f} dollars" in text
    assert "GB of checkpoints while running" in text


@pytest.mark.parametrize(
    ("state", "listed", "resume", "why"),
    [
        ("RUNNING", True, False, "running as job 7_0"),
        ("RUNNING", True, True, "running as job 7_0"),
        ("PENDING", True, True, "queued as job 7_0"),
        ("REQUEUE_HOLD", True, True, "queued as job 7_0"),
        ("CANCELLED", True, False, "cancelled: --resume submits it again"),
        ("NODE_FAIL", False, False, "lost: SLURM ended job 7_0 as NODE_FAIL: --resume submits it again"),
        ("TIMEOUT", False, True, None),
        (None, False, False, "lost: job 7_0 is gone: --resume submits it again"),
        (None, False, True, None),
    ],
)
def test_what_has_a_job_is_left_alone(state, listed, resume, why):
    first = items()[0]
    enter(first)
    plan = plan_with({} if state is None else {"7_0": JobState(state, listed=listed)}, resume)
    assert [text for item, text in plan.skipped] == ([] if why is None else [why])
    assert (first in plan.items) == (why is None)
    assert len(plan.items) + len(plan.skipped) == len(items())


def test_given_up_runs_need_resume_and_say_why():
    enter(items()[0], ended="gave up after 3 failures, the last one: RunError: no space")
    assert (
        plan_with({}).skipped[0][1].startswith("gave up after 3 failures, the last one: RunError: no space: --resume")
    )
    assert not plan_with({}, resume=True).skipped


def test_without_an_answer_from_slurm_nothing_is_submitted():
    enter(items()[0])

    def silent(entries):
        raise SchedulerError("squeue did not answer")

    with pytest.raises(SchedulerError):
        make_plan(PAPER, items(), load_cluster("a100"), ledger.ROOT, True, ask=silent)


def test_a_submission_that_was_cut_short_is_found_by_name(monkeypatch):
    entry = enter(items()[0], job="", index=3)
    answers = {"9_3": JobState("PENDING"), "9_2": JobState("RUNNING")}
    monkeypatch.setattr("slurm.plan.jobs_named", lambda name: answers if name == "lumix-20260101-000000-abc" else {})
    monkeypatch.setattr("slurm.plan.job_states", lambda jobs: {job: answers[job] for job in jobs})
    assert states_of([entry]) == {"9_3": JobState("PENDING")}
    assert entry.job == "9_3"


def test_dry_run_writes_nothing(capsys, monkeypatch):
    monkeypatch.setenv("PATH", "")
    submit(PAPER, items(), load_cluster("a100"), dry_run=True)
    assert list(Path().iterdir()) == []
    assert capsys.readouterr().out.endswith("nothing was submitted: this was a dry run\n")


def test_dry_run_away_from_the_cluster_trusts_the_book(capsys, monkeypatch):
    enter(items()[0])
    monkeypatch.setenv("PATH", "")
    plan = submit(PAPER, items(), load_cluster("a100"), dry_run=True)
    assert plan.skipped[0][1] == "queued as job 7_0"
    assert "squeue is not on the PATH" in capsys.readouterr().err


def test_submit_without_slurm_says_so_and_enters_nothing(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SchedulerError, match="sbatch is not on the PATH"):
        submit(PAPER, items(), load_cluster("a100"))
    assert not (ledger.ROOT / "entries").exists()


# ------------------------------------------------------------------------------------------------- sbatch


def test_parameters_are_taken_by_submitit():
    from submitit.slurm.slurm import _make_sbatch_string

    cluster = dataclasses.replace(load_cluster("a100"), modules=("cuda/12.4",), setup=("umask 002",), account="lab")
    (layout,) = make_plan(PAPER, items(), cluster, ledger.ROOT, False).layouts
    text = _make_sbatch_string(
        command="python x",
        folder="/f/log",
        map_count=3,
        **parameters(cluster, layout, Path("/f"), "apptainer exec i.sif python"),
    )
    for line in (
        "#SBATCH --gpus-per-node=8",
        "#SBATCH --ntasks-per-node=8",
        "#SBATCH --array=0-2%3",
        "#SBATCH --signal=USR2@300",
        "#SBATCH --time=1440",
        "#SBATCH --mem=480GB",
        "#SBATCH --account=lab",
        "#SBATCH --requeue",
        "module load cuda/12.4",
        "export PYTHONPATH=/f/code PYTHONSAFEPATH=1",
        "apptainer exec i.sif python -m slurm.after /f",
    ):
        assert line in text
    order = [text.index(part) for part in ("module load", "umask 002", "PYTHONPATH", "srun", "slurm.after")]
    assert order == sorted(order)
    assert "OMP_NUM_THREADS" not in text


def test_parameters_of_models_are_those_of_timm():
    import timm
    import torch

    with torch.device("meta"):
        for role in ("deit_s", "resnet50", "xcit_s"):
            model = PAPER.base("deit", role).model
            network = timm.create_model(model.name, num_classes=1000, **model.arguments)
            assert sum(p.numel() for p in network.parameters()) == PAPER.parameters[role]
    run = PAPER.base("deit", "deit_s")
    assert checkpoint_bytes(PAPER, run) == 16 * PAPER.parameters["deit_s"]
    assert set(PAPER.parameters) == set(RUNS)


def test_entries_survive_the_disk_and_damage_is_named():
    entry = enter(items()[0], attempts=[ledger.Attempt(1, "7_0", 0, "n1", 5, 1.0, 2.0, ledger.STOPPED, "SIGUSR2")])
    path = ledger.entry_path(ledger.ROOT, "paper", entry.key, entry.seed)
    assert ledger.read_entry(path) == entry
    path.write_text(json.dumps({"scale": "paper", "attempts": []}))
    with pytest.raises(RunError, match="is no entry of the job book"):
        ledger.read_entry(path)
