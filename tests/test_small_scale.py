"""The scale small: reduced photographs, its net and arms, its blocks, and the protocol that came before its runs."""

import json
import math
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from bench import finish, measure

from experiments import blocks
from experiments.registry import get_table, seeds_of, tables_of
from experiments.results import collect, read_runs
from experiments.runs import EvaluationItem, Item, items_of_table
from experiments.scale import get_scale
from lumix import MixLoss
from training.build import build_task
from training.config import Data
from training.data import feeds
from training.data.sets import ImageSet, digits, load, shapes
from training.loop import fit
from training.models import build_model
from training.process import hardware
from training.run_directory import write_json

ROOT = Path(__file__).resolve().parents[1]
SMALL = get_scale("small")
ONE = get_table("lumix_photographs", SMALL)
QUESTIONS = {"lumix_photographs": 12, "lumix_photographs_controls": 5, "dm_photographs": 8, "dm_photographs_lumix": 5}


def test_an_image_is_reduced_to_the_means_of_its_squares() -> None:
    whole, _ = digits()
    reduced, _ = load(Data("digits", image_size=4))
    expected = whole.images.float().unflatten(3, (4, 2)).unflatten(2, (4, 2)).mean(dim=(3, 5)).round()
    assert torch.equal(reduced.images, expected.to(torch.uint8))
    assert torch.equal(reduced.labels, whole.labels)


def test_images_with_masks_are_not_reduced() -> None:
    with pytest.raises(ValueError, match="images with masks or boxes cannot be reduced"):
        shapes(4, seed=0).reduced(2)


def test_its_tables_are_the_questions_with_their_blocks() -> None:
    tables = tables_of(SMALL)
    assert {table.id: len(seeds_of(SMALL, next(iter(table.runs.values())))) for table in tables} == QUESTIONS
    assert [table.id for table in tables] == list(QUESTIONS)
    keys = [key for table in tables for key in table.runs]
    assert len(set(keys)) == len(keys), "a training that two questions share would be on one machine only"
    with pytest.raises(ValueError, match="scale small has no table lumix_table01_models: it has lumix_photographs"):
        get_table("lumix_table01_models", SMALL)


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_the_protocol_is_older_than_every_run() -> None:
    """Each run's commit, which is clean and of this history, holds the protocol word by word as it stands now."""
    files = [json.loads(path.read_text()) for path in (ROOT / "measured" / "small").glob("*.json")]
    seeds = [seed for file in files for run in file["runs"].values() for seed in run["seeds"].values()]
    if not seeds or not (ROOT / ".git").exists() or git("rev-parse", "--is-shallow-repository").strip() == "true":
        pytest.skip("no run of this protocol is recorded, or there is no history to look at")
    assert not any(seed["dirty"] for seed in seeds)
    protocol = (ROOT / "docs" / "small-scale.md").read_text().partition("## What changed afterwards")[0]
    for commit in {seed["commit"] for seed in seeds}:
        git("merge-base", "--is-ancestor", commit, "HEAD")
        assert git("show", f"{commit}:docs/small-scale.md").startswith(protocol)


MACHINE = {"hardware": hardware("cpu")}
FOREIGN = {"hardware": {"cpu": "another kind of processor"}}


def work(item: Item, machine: dict[str, Any] = MACHINE) -> None:
    """A training and what it leaves, on a machine."""
    finish(item, 40.0, measured={"seconds": 1.5, **machine})
    write_json(item.directory / "environment.json", machine)


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Blocks in an empty project, whose trainings are made up; method and seed of those that were asked for."""
    asked: list[tuple[str, int]] = []

    def train(scale: Any, missing: Sequence[Item], unmade: Sequence[EvaluationItem]) -> list[Any]:
        assert missing or unmade
        for item in missing:
            work(item)
        for one in unmade:
            measure(one, dict.fromkeys(("loss", "ece", "error", "average", "random_average"), 1.0))
        asked.extend((item.run.key, item.seed) for item in missing)
        return []

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(blocks, "train", train)
    monkeypatch.setattr(blocks, "load", lambda data: None)
    return asked


def run_two_blocks() -> int:
    return blocks.run_blocks(SMALL, [ONE], 2, dry_run=False)


def test_blocks_go_seed_by_seed_and_a_second_call_does_nothing(
    trained: list[tuple[str, int]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_two_blocks() == 0
    assert trained == [(key, seed) for seed in (0, 1) for key in ONE.runs]
    said = capsys.readouterr().out
    for done in range(3):
        assert f"lumix_photographs: {done} of 2 blocks done, {2 - done} left, about" in said
    for folder in Path("runs").glob("*/*"):
        shutil.rmtree(folder)  # a fresh clone has what is recorded
    trained.clear()
    assert run_two_blocks() == 0
    assert trained == []


def test_what_is_made_and_not_recorded_is_collected(trained: list[tuple[str, int]]) -> None:
    assert run_two_blocks() == 0
    trained.clear()
    for folder in ("results", "measured"):
        shutil.rmtree(folder)
    assert run_two_blocks() == 0
    assert trained == []


def test_a_block_that_was_cut_on_another_machine_is_trained_again_whole(trained: list[tuple[str, int]]) -> None:
    first, second, *_ = items_of_table(SMALL, ONE, seeds=1)
    work(first, FOREIGN)
    work(second)
    list(collect(SMALL, [ONE], 1))
    assert run_two_blocks() == 0
    assert trained[:4] == [(key, 0) for key in ONE.runs if key != second.run.key] + [(first.run.key, 1)]


def test_a_recorded_block_of_two_machines_is_not_whole(trained: list[tuple[str, int]]) -> None:
    assert run_two_blocks() == 0
    path = Path("measured/small/lumix_photographs.json")
    recorded = json.loads(path.read_text())
    recorded["runs"][next(iter(ONE.runs))]["seeds"]["1"].update(FOREIGN)
    write_json(path, recorded)
    left = [block.seed for block in blocks.blocks_of(SMALL, [ONE], 2) if not block.is_whole(read_runs(Path(), "small"))]
    assert left == [1]


def photographs(data: Data) -> tuple[ImageSet, ImageSet]:
    """Noise in the shape of CIFAR-100 at 16 pixels."""
    images = torch.randint(0, 256, (20, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    both = ImageSet(images, torch.arange(20), 100, (0.5,) * 3, (0.25,) * 3)
    return both, both


ARMS = {
    f"{table.title[13:23]} {row.id}": next(iter(row.runs.values())) for table in tables_of(SMALL) for row in table.rows
}


@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_takes_two_updates(arm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "load", photographs)
    run = ARMS[arm].replace(epochs=1, median_last=1, batch_size=10)
    result = fit(run, 0, tmp_path)
    assert result["steps"] == 2
    assert math.isfinite(result["loss"]["last"])


def test_a_clean_loss_has_a_head_of_its_own() -> None:
    run = ARMS["question 2 cutmix_clean"].replace(precision="float32", channels_last=False)
    network = build_model(run.model, 100, 3, 16, seed=0)
    task = build_task(run, network, (0.5,) * 3, (0.25,) * 3, torch.device("cpu"))
    images, labels = torch.randn(8, 3, 16, 16), torch.arange(8)
    before = images.clone()
    batch = task.prepare(images, labels, lambda name: torch.Generator().manual_seed(1))
    assert torch.equal(batch.clean, before)
    result = task.step(batch)
    with torch.no_grad():
        plain = build_model(run.model, 100, 3, 16, seed=0).train()
        mixed = MixLoss()(plain(batch.drawn.batch.images), batch.drawn.batch)
        clean = torch.nn.functional.cross_entropy(plain(before), labels)
    assert result.loss.item() == pytest.approx(float(mixed + clean), rel=1e-5)  # the heads begin alike
    result.loss.backward()
    heads = [task.network.clean_head[0].weight.grad, network.fc.weight.grad]
    assert all(gradient.abs().sum() > 0 for gradient in heads)
    assert not torch.equal(*heads)
    assert task.reported_model() is network
    assert batch.rows(slice(2, 5)).size == 3
