"""The benchmark's own arithmetic, its equality checks against tampered rivals, its command line and its page."""

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import loss, measure, mixing, page, recording, start_up
from benchmarks.__main__ import main
from benchmarks.measure import Setting, Spread, Timings
from benchmarks.rows import Case, Goal, Skipped
from lumix import Kind, LUMixRule, MixLoss
from lumix.mixers import paste as plans

ROOT = Path(__file__).resolve().parents[1]
SHORT = Setting(rounds=4, seconds=0.0)
SMALL = mixing.Cell(6, 32, torch.float32, False)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# ------------------------------------------------------------------------------------------------- arithmetic


def test_spread_is_median_and_quartiles():
    assert Spread.of([5.0, 1.0, 3.0, 2.0, 4.0]) == Spread(3.0, 2.0, 4.0, 5)
    assert Spread.of([7.0]) == Spread(7.0, 7.0, 7.0, 1)


def test_ratios_are_taken_within_a_round():
    """Rounds in which the machine was slow for both say the same as the others."""
    timings = Timings({"peer": [2.0, 20.0, 4.0], "lumix": [1.0, 10.0, 2.0]})
    assert timings.ratio("peer", "lumix") == Spread(2.0, 2.0, 2.0, 3)


def test_rivals_run_in_every_round_in_changing_order():
    calls = []
    rivals = {name: (lambda name=name: calls.append(name)) for name in "abc"}
    timings = measure.compare(rivals, SHORT)
    rounds = ["".join(calls[i : i + 3]) for i in range(len(calls) - 12, len(calls), 3)]
    assert all(sorted(order) == list("abc") for order in rounds)
    assert len(set(rounds)) > 1
    assert {len(seconds) for seconds in timings.decided.values()} == {4}


def test_slow_rivals_have_fewer_rounds_and_quick_ones_more_runs():
    runs = []
    setting = Setting(rounds=50, seconds=0.01, budget=0.2)
    timings = measure.compare({"sleep": lambda: time.sleep(0.05), "count": lambda: runs.append(1)}, setting)
    assert len(timings.wall["sleep"]) == 3
    assert len(runs) >= 3 * measure.AT_MOST
    assert min(timings.wall["sleep"]) >= 0.05
    assert max(timings.decided["sleep"]) < 0.05  # sleeping takes no CPU time


def test_the_clock_follows_device_and_threads():
    assert [Setting(d, t).clock for d, t in [("cpu", 1), ("cpu", 2), ("cuda", 1)]] == [
        "CPU time",
        "wall time",
        "GPU time",
    ]


@pytest.mark.parametrize(
    ("at_most", "value", "reached", "passed_quickly"),
    [
        (False, 8.0, True, True),
        (False, 7.9, False, True),
        (False, 3.9, False, False),
        (True, 8.0, True, True),
        (True, 15.0, False, True),
        (True, 17.0, False, False),
    ],
)
def test_a_quick_run_wants_half_of_the_target(at_most, value, reached, passed_quickly):
    goal = Goal("number", Spread.of([value]), 8.0, at_most=at_most)
    assert (goal.reached(), goal.reached(quick=True)) == (reached, passed_quickly)
    assert replace(goal, quick=value).reached(quick=True)
    assert replace(goal, target=None).reached(quick=True)


# ------------------------------------------------------------------------------------------------- equality


@pytest.mark.parametrize("kind", [Kind.BOX, Kind.BLEND])
def test_mixers_make_of_timms_draws_what_timm_makes(kind):
    mixing.check_equal(kind, SMALL, "cpu", ("elem", "pair", "batch"))


@pytest.mark.parametrize("mode", ["elem", "pair", "batch"])
@pytest.mark.parametrize("kind", [Kind.BOX, Kind.BLEND])
def test_a_mixer_that_errs_in_one_pixel_is_found(kind, mode, monkeypatch):
    original = plans.mix_images

    def spoilt(images, plan, inplace=False):
        mixed = original(images, plan, inplace)
        mixed[-1, 0, 0, 0] += 1e-3
        return mixed

    monkeypatch.setattr(plans, "mix_images", spoilt)
    with pytest.raises(AssertionError, match="Mismatched elements: 1 /"):
        mixing.check_equal(kind, SMALL, "cpu", (mode,))


def test_the_loss_is_algorithm_1_and_a_wrong_one_is_found():
    loss.check_equal(20, "cpu", loss.lumix_loss())
    wrong = MixLoss(LUMixRule(loss.R_R, loss.R_S), smoothing=loss.SMOOTHING, eta=1.001 * loss.ETA)
    with pytest.raises(AssertionError):
        loss.check_equal(20, "cpu", wrong)


def test_the_tasks_samples_are_all_cut_and_of_two_classes():
    batch = loss.Task.make(5, "cpu").batch
    assert (batch.kind == Kind.BOX).all()
    assert (batch.labels != batch.partner_labels).all()


def test_one_row_in_full(monkeypatch):
    monkeypatch.setattr(loss, "SIZE", 64)
    cases = list(loss.cases(SHORT))
    decoupled = cases.pop(0)
    assert set(decoupled.values) == {"lumix DM(CE)", loss.MIXED, loss.PUBLIC}
    assert [case.title for case in cases] == ["logits 64 x 1000, float32", "logits 64 x 100, float32"]
    for case in cases:
        assert set(case.values) == {"lumix", "lumix without LUMix", loss.PRINTED, loss.SOFT, loss.PLAIN}
        assert all(value.median > 0 and value.n == 4 for value in case.values.values())
        assert [goal.target is None for goal in case.goals] == [False, False, False, False, True]


def test_every_rival_of_the_mixing_rows_runs():
    for kind in (Kind.BOX, Kind.BLEND):
        for mode in ("elem", "batch"):
            rivals = mixing.rivals(kind, mode, SMALL, "cpu")
            assert {"copy", "torchvision", "lumix", "lumix, copying"} < set(rivals)
            for work in rivals.values():
                work()


# ------------------------------------------------------------------------------------------------- record and page


def fake_row(monkeypatch, values, quick=False, error=None):
    """`recording.run_row` of a row whose number is `values` in turn, with the target 8."""
    left = iter(values)

    class Row:
        NAME, TITLE, PEERS = "fake", "Fake", "none"

        @staticmethod
        def cases(setting):
            if error:
                raise error
            yield Case("case", "ms", {"lumix": Spread.of([1.0])}, [Goal("number", Spread.of([next(left)]), 8.0)])

    monkeypatch.setitem(recording.ROWS, "fake", "fake")
    monkeypatch.setitem(sys.modules, "benchmarks.fake", Row)
    return recording.run_row("fake", replace(SHORT, quick=quick))


def test_rows_have_a_status(monkeypatch):
    assert fake_row(monkeypatch, [9.0])["status"] == "done"
    assert fake_row(monkeypatch, [5.0])["status"] == "below target"
    skipped = fake_row(monkeypatch, [], error=Skipped("no peer here"))
    assert (skipped["status"], skipped["reason"]) == ("skipped", "no peer here")
    unequal = fake_row(monkeypatch, [], error=AssertionError("other\npixels"))
    assert (unequal["status"], unequal["reason"]) == ("not equal", "other pixels")
    assert "Not equal: other pixels" in recording.row_markdown(unequal, "CPU time")


def test_a_quick_row_is_tried_once_more(monkeypatch):
    assert fake_row(monkeypatch, [3.0, 5.0], quick=True)["status"] == "done"
    assert fake_row(monkeypatch, [3.0, 3.5, 9.0], quick=True)["status"] == "below target"


def test_markdown_shows_verdicts_and_says_why():
    missed = Goal("speed-up", Spread(5.0, 4.0, 6.0, 9), 8.0, why="physics")
    case = Case("case", "ms", {"lumix": Spread(0.0123, 0.012, 0.013, 9)}, [missed], skipped={"gco": "not installed"})
    row = {"name": "fake", "title": "Fake", "peers": "none", "status": "below target", "reason": ""}
    text = recording.row_markdown(row | {"cases": [case.as_json(False)]}, "CPU time")
    assert "| case | 0.0123 (0.0120 to 0.0130) | 9 |" in text
    assert "| case | speed-up | 5.00x (4.00 to 6.00) | ≥ 8x | **not reached** |" in text
    assert "case, speed-up: physics." in text
    assert "gco did not take part: not installed." in text


def test_numbers_have_three_digits():
    assert [recording.number(x) for x in (0, 0.0741, 1.234, 47.77, 2365.1)] == ["0", "0.0741", "1.23", "47.8", "2 365"]


def test_the_page_is_that_of_the_committed_results():
    """`make bench` writes both; neither is edited by hand."""
    assert page.PAGE.read_text() == page.page(page.results())


@pytest.mark.parametrize("path", sorted(recording.RESULTS.glob("*.json")), ids=lambda p: p.name)
def test_committed_results_are_whole_and_name_their_machine(path):
    result = json.loads(path.read_text())
    assert path.name == f"{recording.slug(result)}.json"
    assert not result["quick"]
    assert result["hardware"]["cpu"]
    assert result["hardware"]["torch"]
    assert [row["name"] for row in result["rows"]] == list(recording.ROWS)
    for row in result["rows"]:
        assert row["status"] in ("done", "below target", "skipped")
        missed = [goal for case in row["cases"] for goal in case["goals"] if not goal["reached"]]
        assert all(goal["why"] for goal in missed), [goal["text"] for goal in missed if not goal["why"]]


# ------------------------------------------------------------------------------------------------- command line


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120
    )


def test_help_needs_no_torch():
    code = "import sys, benchmarks.__main__ as m; m.build_parser().format_help(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_row_is_printed_and_written_where_asked(tmp_path):
    done = run("--row", "loss-memory", "--quick", "--out", str(tmp_path / "out.json"))
    assert done.returncode == 0, done.stderr
    assert "Memory of the loss above the logits" in done.stdout
    result = json.loads((tmp_path / "out.json").read_text())
    (row,) = result["rows"]
    peaks = {name: value["median"] for name, value in row["cases"][0]["values"].items()}
    assert 1 <= peaks["lumix"] < 1.1  # the softmax, which becomes the gradient
    assert peaks[loss.PRINTED] > 8
    assert "Memory of the loss" in (tmp_path / "out.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--row", "speed"), "no row is called 'speed': choose from cutmix, mixup"),
        (("--threads", "0"), "--threads must be at least 1, not 0"),
    ],
)
def test_wrong_usage_is_one_sentence(arguments, message):
    done = run(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_start_up_checks_that_the_import_is_lazy():
    start_up.check_all()


@pytest.mark.parametrize(
    ("status", "quick", "code"),
    [
        ("done", True, 0),
        ("below target", True, 3),
        ("below target", False, 0),
        ("not equal", True, 1),
        ("not equal", False, 1),
    ],
)
def test_exit_status_tells_what_is_wrong_from_what_is_slow(monkeypatch, status, quick, code):
    row = {"name": "loss", "status": status, "reason": "", "cases": []}
    monkeypatch.setattr(recording, "run", lambda names, setting: {"rows": [row], "quick": quick})
    assert main(["--row", "loss", *(["--quick"] if quick else [])]) == code
