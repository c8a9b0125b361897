"""The benchmark's own arithmetic, its equality checks against tampered rivals, its command line and its page."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

from benchmarks import loss, measure, mixing, table
from benchmarks.__main__ import main
from benchmarks.measure import Line, Setting, Skipped, number
from lumix import Kind, LUMixRule, MixLoss
from lumix.mixers import paste as plans

ROOT = Path(__file__).resolve().parents[1]
SHORT = Setting(rounds=4, seconds=0.0)
SMALL = mixing.Cell(6, 32, torch.float32)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_ratios_are_taken_within_a_round():
    """Rounds in which the machine was slow for both say the same as the others."""
    timings = pd.DataFrame({"peer": [2.0, 20.0, 5.0], "lumix": [1.0, 10.0, 2.0]})
    line = measure.faster("case", timings, "peer", 8)
    assert (line.low, line.median, line.high, line.n, line.limit) == (2.0, 2.0, 2.25, 3, 4.0)
    assert measure.within("case", timings, "peer", 8).median == 0.5
    assert [(each.number, each.median) for each in measure.times("case", timings)] == [("peer", 5e3), ("lumix", 2e3)]


def test_rivals_run_in_every_round_in_changing_order():
    calls = []
    rivals = {name: (lambda name=name: calls.append(name)) for name in "abc"}
    timings = measure.compare(rivals, SHORT)
    rounds = ["".join(calls[i : i + 3]) for i in range(len(calls) - 12, len(calls), 3)]
    assert all(sorted(order) == list("abc") for order in rounds)
    assert len(set(rounds)) > 1
    assert timings.shape == (4, 3)


def test_a_quick_run_wants_half_of_the_target():
    for at_most, values in ((False, (8.0, 7.9, 3.9)), (True, (8.0, 15.0, 17.0))):
        lines = [number("case", "number", [value], 8.0, at_most) for value in values]
        lines = pd.DataFrame([*lines, number("case", "no target", [0.0])])
        assert table.missed(lines).tolist() == [False, True, True, False]
        assert table.missed(lines, "limit").tolist() == [False, False, True, False]
    assert number("case", "number", [1.0], 8.0, quick=1.0).limit == 1.0


@pytest.mark.parametrize("mode", ["elem", "pair", "batch"])
@pytest.mark.parametrize("kind", [Kind.BOX, Kind.BLEND])
def test_mixers_make_of_timms_draws_what_timm_makes_and_an_error_in_one_pixel_is_found(kind, mode, monkeypatch):
    mixing.check_equal(kind, SMALL, "cpu", (mode,))
    original = plans.mix_images

    def spoilt(images, plan, inplace=False):
        mixed = original(images, plan, inplace)
        mixed[-1, 0, 0, 0] += 1e-3
        return mixed

    monkeypatch.setattr(plans, "mix_images", spoilt)
    with pytest.raises(AssertionError, match="Mismatched elements: 1 /"):
        mixing.check_equal(kind, SMALL, "cpu", (mode,))


def test_the_loss_is_algorithm_1_and_a_wrong_one_is_found():
    batch = loss.Task.make(5, "cpu").batch
    assert (batch.kind == Kind.BOX).all()
    assert (batch.labels != batch.partner_labels).all()
    loss.check_equal(20, "cpu", loss.lumix_loss())
    wrong = MixLoss(LUMixRule(loss.R_R, loss.R_S), smoothing=loss.SMOOTHING, eta=1.001 * loss.ETA)
    with pytest.raises(AssertionError):
        loss.check_equal(20, "cpu", wrong)


def test_one_row_in_full(monkeypatch):
    monkeypatch.setattr(loss, "SIZE", 64)
    lines = pd.DataFrame(loss.loss(SHORT))
    rivals = lines[lines["rival"]].groupby("case", sort=False)["number"].agg(set).to_dict()
    ours = {"lumix", "lumix without LUMix", loss.PRINTED, loss.SOFT, loss.PLAIN}
    assert rivals == {
        "DM(CE), logits 64 x 1000, float32": {"lumix DM(CE)", loss.MIXED, loss.PUBLIC},
        "logits 64 x 1000, float32": ours,
        "logits 64 x 100, float32": ours,
        "logits 100 x 100, float32": ours,
        "logits 20 x 10, float32": ours,
    }
    assert (lines["n"] == 4).all()
    assert (lines["median"] > 0).all()


@pytest.mark.parametrize(("row", "kind"), [(mixing.cutmix, Kind.BOX), (mixing.mixup, Kind.BLEND)])
def test_every_rival_of_the_mixing_rows_runs(row, kind, monkeypatch):
    monkeypatch.setattr(mixing, "Cell", lambda size, side, dtype: SMALL)
    lines = pd.DataFrame(row(SHORT))
    rivals = set(lines[lines["rival"]]["number"])
    assert rivals == {"copy", "timm elem", "timm pair", "timm batch", "torchvision", *mixing.OURS}


def fake_row(monkeypatch, *runs, quick=False):
    """`table.run_row` of a row that yields the lines of each of `runs` in turn, or raises them."""
    left = iter(runs)

    def cases(setting):
        found = next(left)
        if isinstance(found, Exception):
            raise found
        yield from found

    monkeypatch.setattr(loss, "loss", cases)
    return table.run_row("loss", replace(SHORT, quick=quick))


def test_a_row_that_cannot_run_or_is_not_equal_has_a_reason_and_no_numbers(monkeypatch):
    errors = (Skipped(f"no images in {table.ROOT}/data"), AssertionError("other\npixels"), MemoryError())
    rows = [(line.row, line.case, line.why) for error in errors for line in fake_row(monkeypatch, error).itertuples()]
    reasons = [("skipped", "no images in data"), ("not equal", "other pixels"), ("failed", "MemoryError")]
    assert rows == [("loss", *reason) for reason in reasons]  # and the other rows are not lost
    assert "Not equal: other pixels" in table.row_markdown(fake_row(monkeypatch, AssertionError("other pixels")))


def test_a_number_that_fails_is_measured_once_more_in_a_quick_run(monkeypatch):
    first, second = (
        [number("case", name, [value], 8.0) for name, value in values.items()]
        for values in ({"slow": 3.0, "slower": 2.0, "fast": 9.0}, {"slow": 5.0, "slower": 1.0, "fast": 1.0})
    )
    assert fake_row(monkeypatch, first, second, quick=True)["median"].tolist() == [5, 2, 9]
    assert fake_row(monkeypatch, first, Skipped("gone"), quick=True)["case"].tolist() == ["skipped"]
    assert fake_row(monkeypatch, first)["median"].tolist() == [3, 2, 9]


def test_markdown_shows_verdicts_and_says_why(monkeypatch):
    lines = [
        Line("case", "lumix", "ms", True, 0.012, 0.0123, 0.013, 9),
        Line("case", "speed-up", "x", False, 4.0, 5.0, 6.0, 9, 8.0, why="physics"),
        Line("case", "share", "", False, 0.5, 0.5, 0.5, 1),
    ]
    text = " ".join(table.row_markdown(fake_row(monkeypatch, lines)).split())
    assert "| case | 0.0123 (0.0120 to 0.0130) | 9 |" in text
    assert "| case | speed-up | 5.00x (4.00 to 6.00) | ≥ 8x | **not reached** |" in text
    assert "| case | share | 0.500 | | |" in text
    assert "case, speed-up: physics." in text
    digits = [table.three_digits(x) for x in (0, 0.0741, 1.234, 47.77, 2365.1)]
    assert digits == ["0", "0.0741", "1.23", "47.8", "2 365"]


def test_the_page_is_that_of_the_committed_results():
    """`make bench` writes both; below its mark nothing is edited by hand."""
    assert table.PAGE.read_text() == table.page()


@pytest.mark.parametrize("path", sorted(table.RESULTS.glob("*.csv")), ids=lambda p: p.name)
def test_committed_results_are_whole_name_their_machine_and_say_why_a_target_is_missed(path):
    machine, lines = table.read(path)
    assert path.name == f"{table.slug(machine)}.csv"
    assert machine["torch"]
    assert list(lines["row"].unique()) == list(table.ROWS)
    assert not (lines["case"] == table.UNEQUAL).any()
    assert (lines[table.missed(lines)]["why"] != "").all()


def test_a_row_is_printed_and_written_where_asked(tmp_path):
    arguments = ("--row", "loss-memory", "--quick", "--out", str(tmp_path / "out.csv"))
    command = [sys.executable, "-m", "benchmarks", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "Memory of the loss above the logits" in done.stdout
    machine, lines = table.read(tmp_path / "out.csv")
    assert machine["clock"] == "CPU time"
    peaks = lines[lines["rival"]].set_index("number")["median"].groupby(level=0).first()
    assert 1 <= peaks["lumix"] < 1.1  # the softmax, which becomes the gradient
    assert peaks[loss.PRINTED] > 8


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--row", "speed", "no row is called 'speed': choose from cutmix, mixup"),
        ("--threads", "0", "--threads must be at least 1, not 0"),
    ],
)
def test_wrong_usage_is_one_sentence(option, value, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        main([option, value])
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "quick", "code"),
    [
        (number("case", "fast", [9.0], 8.0), True, 0),
        (number("case", "slow", [3.0], 8.0), True, 3),
        (number("case", "slow", [3.0], 8.0), False, 0),
        (Line(table.SKIPPED, why="no peer here"), True, 0),
        *((Line(case, why="pixels"), quick, 1) for case in (table.UNEQUAL, table.FAILED) for quick in (True, False)),
    ],
)
def test_exit_status_tells_what_is_wrong_from_what_is_slow(monkeypatch, line, quick, code):
    lines = pd.DataFrame([line]).assign(row="loss")
    monkeypatch.setattr(table, "run", lambda names, setting: ({}, lines))
    assert main(["--row", "loss", *(["--quick"] if quick else [])]) == code
