"""The engine: a run trains, resumes bit for bit, refuses what is not its own, and says what is wrong."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from engine import OFTEN, VIT, small_run, stopped_after, weights
from photographs import WRITERS

from training import loop, run_directory
from training.config import Data, Execution, Optim
from training.data.sets import load, normalise
from training.loop import fit
from training.run_directory import RunError
from training.state import load_model, read_checkpoint, save_checkpoint

ROOT = Path(__file__).resolve().parents[1]


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
    texts = {"config.json", "environment.json", "metrics.jsonl", "model.json", "result.json", "log.txt", "lock"}
    assert names == texts | {"model.safetensors"}
    result, metrics = run_directory.read_result(finished), run_directory.read_metrics(finished)
    assert result is not None
    assert result["key"] == small_run().key
    assert result["checksum"] == run_directory.sha256(finished / "model.safetensors")
    assert [line["epoch"] for line in metrics] == [1, 2, 3, 4]
    assert result["top1"]["last"] == metrics[-1]["top1"]
    assert (result["n_samples"], "begun_by" in result) == (797, False)
    assert metrics[-1]["lr"] == pytest.approx(small_run().optim.min_lr)
    assert 0 < metrics[-1]["lam_0"] < 1
    config = json.loads((finished / "config.json").read_text())
    assert type(small_run()).from_dict(config["run"]) == small_run()


def test_a_finished_run_is_returned_and_not_trained_again(finished: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.iterdir()}
    assert fit(small_run(), 0, finished) == run_directory.read_result(finished)
    assert before == {path: path.stat().st_mtime_ns for path in finished.iterdir()}
    with pytest.raises(RunError, match=r"holds run .* choose another directory"):
        fit(small_run(epochs=5), 0, finished)


def test_the_seed_decides_and_global_state_is_left_alone(finished: Path, tmp_path: Path) -> None:
    before = torch.random.get_rng_state()
    fit(small_run(), 0, tmp_path / "same", Execution(deterministic=True))
    fit(small_run(), 1, tmp_path / "other")
    assert_same_weights(finished, tmp_path / "same")
    assert not torch.equal(*(weights(d)["head.weight"] for d in (finished, tmp_path / "other")))
    assert torch.equal(before, torch.random.get_rng_state())
    assert not torch.are_deterministic_algorithms_enabled()


def test_load_model_gives_the_reported_accuracy_and_finds_a_changed_bit(finished: Path, tmp_path: Path) -> None:
    model, (_, test) = load_model(finished), load(small_run().data)
    with torch.no_grad():
        hits = model(normalise(test.images, test.mean, test.std)).argmax(1) == test.labels
    result = run_directory.read_result(finished)
    assert result is not None
    assert 100 * hits.double().mean().item() == pytest.approx(result["top1"]["last"], abs=1e-9)
    content = bytearray((finished / "model.safetensors").read_bytes())
    content[-9] ^= 1
    (tmp_path / "model.safetensors").write_bytes(content)
    for name in ("model.json", "result.json"):
        (tmp_path / name).write_bytes((finished / name).read_bytes())
    with pytest.raises(RunError, match=r"model.safetensors is damaged, its SHA-256 is not that of result.json"):
        load_model(tmp_path)
    (tmp_path / "result.json").unlink()
    (tmp_path / "model.json").write_text("{}")
    with pytest.raises(RunError, match=r"damaged or of another model"):
        load_model(tmp_path)
    with pytest.raises(RunError, match="holds no trained model: run its table first"):
        load_model(tmp_path / "nowhere")


@pytest.mark.parametrize("stop_at", [1, 13, 23])
def test_stopped_and_resumed_equals_undisturbed(finished: Path, tmp_path: Path, stop_at: int) -> None:
    with stopped_after(stop_at, check_every=4):
        fit(small_run(), 0, tmp_path, OFTEN)
    assert "begun_by" not in fit(small_run(), 0, tmp_path, OFTEN)
    assert_same_weights(finished, tmp_path)
    found, wanted = (without_times(run_directory.read_metrics(d)) for d in (tmp_path, finished))
    assert found == wanted


def test_a_run_that_is_asked_to_stop_saves_and_goes_on_later(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "CHECK_EVERY", 4)
    asked = iter([False, False, True])
    with pytest.raises(run_directory.Stopped, match="update 8"):
        fit(small_run(), 0, tmp_path, stop=lambda: next(asked))
    assert (tmp_path / "lock").stat().st_mtime == 0
    fit(small_run(), 0, tmp_path)
    assert "resumed at update 8\n" in (tmp_path / "log.txt").read_text()
    assert_same_weights(finished, tmp_path)


def test_a_run_that_other_code_began_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(run_directory, "code_fingerprint", lambda: "0123456789abcdef")
        half_done(tmp_path)
    result = fit(small_run(), 0, tmp_path)
    now = run_directory.code_fingerprint()
    assert (result["fingerprint"], result["begun_by"]) == (now, "0123456789abcdef")
    assert f"begun by code 0123456789abcdef and continued by {now}" in (tmp_path / "log.txt").read_text()


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
        fit(small_run(epochs=26), 0, Path({directory!r}), Execution(checkpoint_seconds=0))
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
    fit(small_run(epochs=26), 0, tmp_path / "undisturbed")
    directory = tmp_path / "killed"
    script = KILLER.format(tests=str(ROOT / "tests"), directory=str(directory))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, timeout=600)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 5
    assert (directory / "log.txt").read_text().count("resumed") >= 3
    assert_same_weights(tmp_path / "undisturbed", directory)


def half_done(directory: Path, execution: Execution = OFTEN) -> None:
    """Train one epoch and stop in the second."""
    with stopped_after(10):
        fit(small_run(), 0, directory, execution)
    assert (directory / "checkpoint.pt").exists()


def test_a_damaged_checkpoint_is_named_and_kept(tmp_path: Path) -> None:
    half_done(tmp_path)
    path = tmp_path / "checkpoint.pt"
    content = path.read_bytes()
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 4
    for damaged in (b"", content[:10], content[: len(content) // 2], bytes(flipped)):
        path.write_bytes(damaged)
        with pytest.raises(RunError, match=r"checkpoint.pt cannot be read .*delete it"):
            fit(small_run(), 0, tmp_path)
        assert path.read_bytes() == damaged
    path.unlink()
    path.mkdir()
    with pytest.raises(RunError, match=r"checkpoint.pt cannot be read"):
        fit(small_run(), 0, tmp_path)


def test_a_checkpoint_of_another_run_is_refused_and_none_executes_code(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "executed"),)

    half_done(tmp_path / "a")
    with stopped_after(1, check_every=1):
        fit(small_run(), 1, tmp_path / "b", OFTEN)
    (tmp_path / "a" / "checkpoint.pt").rename(tmp_path / "b" / "checkpoint.pt")
    with pytest.raises(RunError, match=r"belongs to run .* move it away"):
        fit(small_run(), 1, tmp_path / "b")
    torch.save({"members": Bomb()}, tmp_path / "evil.pt")
    content = (tmp_path / "evil.pt").read_bytes()
    (tmp_path / "evil.pt").write_bytes(content + hashlib.sha256(content).digest())
    with pytest.raises(RunError, match="cannot be read"):
        read_checkpoint(tmp_path / "evil.pt")
    assert not (tmp_path / "executed").exists()


def test_a_checkpoint_of_another_format_is_refused(tmp_path: Path) -> None:
    half_done(tmp_path)
    path = tmp_path / "checkpoint.pt"
    saved = read_checkpoint(path)
    assert saved is not None
    for odd in ({**saved, "states": [{}]}, {**saved, "optimizers": []}, {"members": saved["members"]}):
        save_checkpoint(path, odd)
        with pytest.raises(RunError, match=r"checkpoint.pt is none that this code writes for this run .*: delete it"):
            fit(small_run(), 0, tmp_path)
    save_checkpoint(path, [1])  # type: ignore[arg-type]
    with pytest.raises(RunError, match=r"cannot be read \(it holds a list\)"):
        fit(small_run(), 0, tmp_path)


@pytest.mark.parametrize("seed", [-1, 2**63, True, 1.5, "0", None, torch.tensor(1)])
def test_what_is_no_seed_is_refused_before_anything_is_written(seed: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="seed must be an integer of at least 0"):
        fit(small_run(), seed, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_no_number_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "CHECK_EVERY", 2)
    step = loop.Training.step

    def poisoned(self: loop.Training, images: torch.Tensor, labels: torch.Tensor) -> None:
        step(self, images * float("nan") if self.state.update == 9 else images, labels)

    monkeypatch.setattr(loop.Training, "step", poisoned)
    with pytest.raises(RunError, match=r"not finite at update 9 \(epoch 2\)"):
        fit(small_run(), 0, tmp_path, OFTEN)
    saved = read_checkpoint(tmp_path / "checkpoint.pt")
    assert saved is not None
    assert saved["update"] <= 9
    assert all(value.isfinite().all() for value in saved["states"][0]["state_dict"].values())


def test_no_space_left_is_said_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    half_done(tmp_path)
    before = (tmp_path / "checkpoint.pt").read_bytes()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(RunError, match=r"no space left on the disk while writing .*free some"):
            fit(small_run(), 0, tmp_path, OFTEN)
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    fit(small_run(), 0, tmp_path)


def test_batches_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="batch_size 200 is larger than the 100 training images"):
        fit(small_run(batch_size=200), 0, tmp_path / "r")
    with pytest.raises(RunError, match="device 'cuda:77' cannot be used"):
        fit(small_run(), 0, tmp_path / "q", Execution(device="cuda:77"))


def test_a_reported_average_and_channels_last_train(tmp_path: Path) -> None:
    optim = Optim(lr=1e-3, name="lamb", ema_decay=0.9, ema_reported=True)
    data = Data(name="shapes", image_size=16, train_size=64, flip=True)
    run = small_run(epochs=2, optim=optim, data=data, precision="bfloat16", channels_last=True)
    assert 0 <= fit(run, 0, tmp_path)["top1"]["last"] <= 100


def test_accumulation_gives_the_same_update_up_to_rounding(tmp_path: Path) -> None:
    # SGD without stochastic depth, whose stream sees the microbatches.
    model = small_run().model.replace(arguments={**VIT, "drop_path_rate": 0.0})
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
    determined = [{k: v for k, v in r.items() if k not in ("key", "measured")} for r in results]
    assert determined[0] == determined[1]


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_class_folders_train_and_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    WRITERS["imagenet"](tmp_path)
    monkeypatch.setenv("LUMIX_DATA", str(tmp_path))
    data = Data("imagenet", 16, flip=True, crop_scale=0.3, rand_augment="rand-m9-mstd0.5-inc1", erasing=0.25, repeats=3)
    run = small_run(data=data, epochs=3, batch_size=2)
    fit(run, 0, tmp_path / "a", Execution(workers=0))
    with stopped_after(5, check_every=1):
        fit(run, 0, tmp_path / "b", Execution(workers=0, checkpoint_seconds=0))
    result = fit(run, 0, tmp_path / "b", Execution(workers=2, checkpoint_seconds=0))
    assert_same_weights(tmp_path / "a", tmp_path / "b")
    assert result["n_samples"] == 3


@pytest.mark.gpu
def test_gpu_training_resumes_bit_for_bit(tmp_path: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    execution = Execution(device="cuda", deterministic=True, checkpoint_seconds=0)
    fit(small_run(), 0, tmp_path / "a", execution)
    half_done(tmp_path / "b", execution)
    fit(small_run(), 0, tmp_path / "b", execution)
    assert_same_weights(tmp_path / "a", tmp_path / "b")
