"""The engine: a run trains, resumes bit for bit, refuses what is not its own, and says what is wrong."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from engine import small_run, stopped_after
from training.checkpoint import load_checkpoint

from training import loop, run_directory
from training.config import Data, Execution, Mix, Optim
from training.loop import fit
from training.run_directory import RunError
from training.state import load_model

ROOT = Path(__file__).resolve().parents[1]
OFTEN = Execution(checkpoint_seconds=0)


def weights(directory: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(directory / "model.safetensors")


def assert_same_weights(first: Path, second: Path) -> None:
    one, other = weights(first), weights(second)
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


def without_times(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in line.items() if k not in ("seconds", "images_per_second")} for line in lines]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of one undisturbed run."""
    directory = tmp_path_factory.mktemp("undisturbed") / "seed0"
    fit(small_run(), 0, directory)
    return directory


def test_a_run_leaves_what_a_run_directory_holds(finished: Path) -> None:
    names = {path.name for path in finished.iterdir()}
    assert names == {
        "config.json",
        "environment.json",
        "metrics.jsonl",
        "model.safetensors",
        "model.json",
        "result.json",
        "log.txt",
    }
    result, metrics = run_directory.read_result(finished), run_directory.read_metrics(finished)
    assert result is not None
    assert result["key"] == small_run().key
    assert result["checksum"] == run_directory.sha256(finished / "model.safetensors")
    assert [line["epoch"] for line in metrics] == [1, 2, 3, 4]
    assert result["top1"]["last"] == metrics[-1]["top1"]
    assert result["n_samples"] == 797
    assert metrics[-1]["lr"] == pytest.approx(small_run().optim.min_lr)
    assert 0 < metrics[-1]["lam_0"] < 1
    config = json.loads((finished / "config.json").read_text())
    assert type(small_run()).from_dict(config["run"]) == small_run()


def test_training_learns(tmp_path: Path) -> None:
    run = small_run(
        data=Data(name="digits", image_size=8, train_size=500),
        mix=Mix(),
        epochs=8,
        optim=Optim(lr=1e-2, warmup_epochs=1),
        evaluate_every=8,
        median_last=1,
    )
    assert fit(run, 0, tmp_path / "r")["top1"]["last"] > 70


def test_a_finished_run_is_returned_and_not_trained_again(finished: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.iterdir()}
    assert fit(small_run(), 0, finished) == run_directory.read_result(finished)
    assert before == {path: path.stat().st_mtime_ns for path in finished.iterdir()}


def test_the_seed_decides(finished: Path, tmp_path: Path) -> None:
    fit(small_run(), 0, tmp_path / "same")
    fit(small_run(), 1, tmp_path / "other")
    assert_same_weights(finished, tmp_path / "same")
    assert not torch.equal(*(weights(d)["head.weight"] for d in (finished, tmp_path / "other")))


def test_global_random_state_and_determinism_are_left_alone(tmp_path: Path) -> None:
    state = torch.random.get_rng_state()
    fit(small_run(epochs=2), 0, tmp_path / "r", Execution(deterministic=True))
    assert torch.equal(state, torch.random.get_rng_state())
    assert not torch.are_deterministic_algorithms_enabled()


def test_load_model_gives_the_reported_accuracy(finished: Path) -> None:
    from training.data.sets import load, normalise

    model = load_model(finished)
    _, test = load(small_run().data)
    with torch.no_grad():
        hits = model(normalise(test.images, test.mean, test.std)).argmax(1) == test.labels
    result = run_directory.read_result(finished)
    assert result is not None
    assert 100 * hits.double().mean().item() == pytest.approx(result["top1"]["last"], abs=1e-9)


# ------------------------------------------------------------------------------------------------- resume


@pytest.mark.parametrize("stop_at", [1, 7, 13, 23])
def test_stopped_and_resumed_equals_undisturbed(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_at: int
) -> None:
    monkeypatch.setattr(loop, "CHECK_EVERY", 4)
    with stopped_after(stop_at):
        fit(small_run(), 0, tmp_path / "r", OFTEN)
    assert not (tmp_path / "r" / "lock").exists()
    fit(small_run(), 0, tmp_path / "r", OFTEN)
    assert_same_weights(finished, tmp_path / "r")
    assert without_times(run_directory.read_metrics(finished)) == without_times(
        run_directory.read_metrics(tmp_path / "r")
    )


def test_a_run_that_is_asked_to_stop_saves_and_goes_on_later(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "CHECK_EVERY", 4)
    asked = iter([False, False, True])
    with pytest.raises(run_directory.Stopped, match="update 8"):
        fit(small_run(), 0, tmp_path / "r", stop=lambda: next(asked))
    assert load_checkpoint(tmp_path / "r", small_run().key, 0) is not None
    assert not (tmp_path / "r" / "lock").exists()
    fit(small_run(), 0, tmp_path / "r")
    assert "resumed at update 8" in (tmp_path / "r" / "log.txt").read_text()
    assert_same_weights(finished, tmp_path / "r")


# Imports once, then forks a child for each attempt and kills it, at a random moment after its start or after one of its
# checkpoints, however slow the machine is; at last one comes through.
KILLER = """
import os, random, signal, sys, time
from pathlib import Path
import torch
sys.path.insert(0, {tests!r})
from engine import small_run
from training import loop
from training.config import Execution
from training.data.sets import load
from training.loop import fit
torch.set_num_threads(1)
loop.CHECK_EVERY = 3
load(small_run().data)
def stamp(path):
    return path.stat().st_mtime_ns if path.exists() else 0
delays, kills = random.Random(0), 0
while not Path({directory!r}, "result.json").exists():
    child = os.fork()
    if not child:
        fit(small_run(epochs=40), 0, Path({directory!r}), Execution(checkpoint_seconds=0))
        os._exit(0)
    checkpoint, saved = Path({directory!r}, "checkpoint.pt"), 0
    before, deadline = stamp(checkpoint), None
    while not os.waitpid(child, os.WNOHANG)[0]:
        if stamp(checkpoint) != before:
            before, saved = stamp(checkpoint), saved + 1
        if kills < 8 and deadline is None and saved >= (0, 4, 12)[kills % 3]:
            deadline = time.monotonic() + delays.uniform(0, 0.05)
        if deadline is not None and time.monotonic() >= deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            kills += 1
            break
        time.sleep(0.001)
print(kills)
"""


def test_killed_at_random_moments_gives_the_same_weights(tmp_path: Path) -> None:
    fit(small_run(epochs=40), 0, tmp_path / "undisturbed")
    directory = tmp_path / "killed"
    script = KILLER.format(tests=str(ROOT / "tests"), directory=str(directory))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, timeout=600)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 5
    assert (directory / "log.txt").read_text().count("resumed") >= 3
    assert_same_weights(tmp_path / "undisturbed", directory)


# ------------------------------------------------------------------------------------------------- refusals


def test_a_directory_of_another_run_is_refused(finished: Path) -> None:
    with pytest.raises(RunError, match=r"holds run .* choose another directory"):
        fit(small_run(epochs=5), 0, finished)
    with pytest.raises(RunError, match="seed 1"):
        fit(small_run(), 1, finished)


def _half_done(directory: Path, execution: Execution = OFTEN) -> None:
    """Train one epoch and stop in the second."""
    with stopped_after(10):
        fit(small_run(), 0, directory, execution)
    assert (directory / "checkpoint.pt").exists()


def test_a_truncated_checkpoint_is_named(tmp_path: Path) -> None:
    _half_done(tmp_path / "r")
    path = tmp_path / "r" / "checkpoint.pt"
    content = path.read_bytes()
    for size in (0, 10, len(content) // 2):
        path.write_bytes(content[:size])
        with pytest.raises(RunError, match=r"checkpoint.pt cannot be read .*delete it"):
            fit(small_run(), 0, tmp_path / "r")
        assert path.read_bytes() == content[:size]


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    _half_done(tmp_path / "r")
    with pytest.raises(RunError, match="belongs to run"):
        load_checkpoint(tmp_path / "r", "another-run", 0)


def test_a_checkpoint_executes_no_code(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "executed"),)

    torch.save({"key": Bomb(), "seed": 0}, tmp_path / "checkpoint.pt")
    with pytest.raises(RunError, match="cannot be read"):
        load_checkpoint(tmp_path, "key", 0)
    assert not (tmp_path / "executed").exists()


def test_damaged_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text('{"key": "a"')
    with pytest.raises(RunError, match=r"result.json is damaged .*delete it"):
        run_directory.read_result(tmp_path)
    (tmp_path / "result.json").write_text("[]")
    with pytest.raises(RunError, match="no result of a run"):
        run_directory.read_result(tmp_path)


def test_a_loss_that_is_no_number_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "CHECK_EVERY", 2)
    step = loop.Training.step

    def poisoned(self: loop.Training, images: torch.Tensor, labels: torch.Tensor) -> None:
        step(self, images * float("nan") if self.state.update == 9 else images, labels)

    monkeypatch.setattr(loop.Training, "step", poisoned)
    with pytest.raises(RunError, match=r"not finite at update 9 \(epoch 2\)"):
        fit(small_run(), 0, tmp_path / "r", OFTEN)
    state = load_checkpoint(tmp_path / "r", small_run().key, 0)
    assert state is not None
    assert state["update"] <= 9
    assert all(value.isfinite().all() for value in state["state_dict"].values())
    assert not (tmp_path / "r" / "lock").exists()


def test_no_space_left_is_said_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _half_done(tmp_path / "r")
    before = (tmp_path / "r" / "checkpoint.pt").read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(RunError, match=r"no space left on the disk while writing .*free some"):
            fit(small_run(), 0, tmp_path / "r", OFTEN)
    assert (tmp_path / "r" / "checkpoint.pt").read_bytes() == before
    assert not [path for path in (tmp_path / "r").iterdir() if path.name.startswith(".")]
    fit(small_run(), 0, tmp_path / "r")


def test_no_permission_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*arguments: Any, **options: Any) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", denied)
    with pytest.raises(RunError, match="no permission to write"):
        fit(small_run(), 0, tmp_path / "r")


def test_batches_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="batch_size 200 is larger than the 100 training images"):
        fit(small_run(batch_size=200), 0, tmp_path / "r")
    with pytest.raises(RunError, match="device 'cuda:77' cannot be used"):
        fit(small_run(), 0, tmp_path / "q", Execution(device="cuda:77"))


# ------------------------------------------------------------------------------------------------- lock


def test_a_living_owner_keeps_its_lock(tmp_path: Path) -> None:
    with (
        run_directory.locked(tmp_path / "r"),
        pytest.raises(RunError, match=rf"in use by process {os.getpid()} on"),
        run_directory.locked(tmp_path / "r"),
    ):
        pass
    with run_directory.locked(tmp_path / "r") as path:
        assert path.exists()
    assert not path.exists()


@pytest.mark.parametrize("text", ["", "{", '{"host": 1}'])
def test_a_lock_cut_short_is_taken_over_when_old(tmp_path: Path, text: str) -> None:
    path = tmp_path / "lock"
    path.write_text(text)
    with pytest.raises(RunError, match="in use"), run_directory.locked(tmp_path):
        pass
    os.utime(path, (1, 1))
    with run_directory.locked(tmp_path):
        pass


def test_locks_of_the_dead_are_taken_over(tmp_path: Path) -> None:
    import socket

    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    path = tmp_path / "lock"
    for born in ("1", None):
        path.write_text(json.dumps({"host": socket.gethostname(), "pid": process.pid, "born": born}))
        with run_directory.locked(tmp_path):
            pass
    # This very process, but born at another time: the pid was used again.
    path.write_text(json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "born": "1"}))
    with run_directory.locked(tmp_path):
        pass
    path.write_text(json.dumps({"host": "elsewhere", "pid": 1, "born": "1"}))
    with pytest.raises(RunError, match="process 1 on elsewhere"), run_directory.locked(tmp_path):
        pass
    os.utime(path, (1, 1))
    with run_directory.locked(tmp_path):
        pass


# ------------------------------------------------------------------------------------------------- variants


@pytest.mark.parametrize(
    "changes",
    [
        {"precision": "bfloat16"},
        {"channels_last": True},
        {"optim": Optim(lr=1e-3, name="sgd")},
        {"optim": Optim(lr=1e-3, name="lamb", ema_decay=0.9, ema_reported=True)},
        {"data": Data(name="shapes", image_size=16, train_size=64, flip=True)},
    ],
    ids=["bfloat16", "channels_last", "sgd", "lamb and reported average", "shapes"],
)
def test_variants_train(tmp_path: Path, changes: dict[str, Any]) -> None:
    result = fit(small_run(epochs=2, **changes), 0, tmp_path / "r")
    assert 0 <= result["top1"]["last"] <= 100


def test_accumulation_gives_the_same_update_up_to_rounding(tmp_path: Path) -> None:
    # SGD without stochastic depth, whose stream sees the microbatches.
    from engine import VIT

    from training.config import Model

    model = Model(role="deit_s", name="deit_small_patch16_224", arguments={**VIT, "drop_path_rate": 0.0}, init="small")
    run = small_run(epochs=1, model=model, optim=Optim(lr=0.1, name="sgd"))
    fit(run, 0, tmp_path / "whole")
    fit(run, 0, tmp_path / "parts", Execution(microbatch=5))
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    for name in whole:
        torch.testing.assert_close(whole[name], parts[name], rtol=1e-4, atol=1e-5)
    logs = [without_times(run_directory.read_metrics(tmp_path / name))[0] for name in ("whole", "parts")]
    assert logs[0] == pytest.approx(logs[1], rel=1e-5)


def test_equal_weights_have_equal_checksums_whatever_the_runs_are_called(tmp_path: Path) -> None:
    run = small_run(epochs=2)
    called = run.replace(model=run.model.replace(role="another_name"))
    results = [fit(r, 0, tmp_path / r.key) for r in (run, called)]
    assert results[0]["key"] != results[1]["key"]
    assert results[0]["checksum"] == results[1]["checksum"]
    determined = [{k: v for k, v in r.items() if k not in ("key", "measured")} for r in results]
    assert determined[0] == determined[1]


def test_class_folders_train_and_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    generator = torch.Generator().manual_seed(0)
    for split, count in (("train", 8), ("val", 3)):
        for name in ("n01", "n02"):
            folder = tmp_path / "imagenet" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = torch.randint(0, 256, (20, 24, 3), generator=generator, dtype=torch.uint8)
                Image.fromarray(pixels.numpy()).save(folder / f"{i}.png")
    monkeypatch.setenv("LUMIX_DATA", str(tmp_path))
    monkeypatch.setattr(loop, "CHECK_EVERY", 1)
    data = Data("imagenet", 16, flip=True, crop_scale=0.3, rand_augment="rand-m9-mstd0.5-inc1", erasing=0.25, repeats=3)
    run = small_run(data=data, epochs=3, batch_size=4)
    fit(run, 0, tmp_path / "a", Execution(workers=0))
    with stopped_after(5):
        fit(run, 0, tmp_path / "b", Execution(workers=0, checkpoint_seconds=0))
    fit(run, 0, tmp_path / "b", Execution(workers=2, checkpoint_seconds=0))
    assert_same_weights(tmp_path / "a", tmp_path / "b")
    result = run_directory.read_result(tmp_path / "b")
    assert result is not None
    assert result["n_samples"] == 6


@pytest.mark.gpu
def test_gpu_training_resumes_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    monkeypatch.setattr(loop, "CHECK_EVERY", 4)
    execution = Execution(device="cuda", deterministic=True, checkpoint_seconds=0)
    fit(small_run(), 0, tmp_path / "a", execution)
    _half_done(tmp_path / "b", execution)
    fit(small_run(), 0, tmp_path / "b", execution)
    assert_same_weights(tmp_path / "a", tmp_path / "b")
