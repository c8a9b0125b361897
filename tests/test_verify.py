"""`verify` tells equal results from those of another CPU, and those from results that differ."""

import copy
import re
import subprocess
from pathlib import Path

import pytest
from report_fixture import ONE, write_parameters, write_table

from experiments.__main__ import main
from experiments.results import results_path
from experiments.scale import get_scale
from experiments.verify import verify

MINI = get_scale("mini")
FILES = 6  # five rows, each of one run


@pytest.fixture
def theirs(tmp_path, monkeypatch):
    """Another project with the same results as the working directory."""
    for name in ("theirs", "ours"):
        write_table(tmp_path / name, ONE, 4, change=lambda row, found: found.update(copy.deepcopy(ARRAYS)))
    monkeypatch.chdir(tmp_path / "ours")
    return tmp_path / "theirs"


ARRAYS = {"evaluations": {"fgsm-1": {"values": {"error": 50.0}, "n_samples": 9, "arrays": {"curve": [[1.0, 2], [3]]}}}}


def change(cpu="another", by=0.0, of="none", seeds="0123", loss=0.0, **more):
    """Our results anew, of that CPU, with other accuracies and losses in a row."""

    def changed(row, found):
        found.update(copy.deepcopy(ARRAYS), hardware=found["hardware"] | {"cpu": cpu})
        if row == of and found["checksum"][-1] in seeds:
            found["top1"] = {name: value + by for name, value in found["top1"].items()}
            found["curve"] = [{**epoch, "loss": epoch["loss"] + loss} for epoch in found["curve"]]
            found.update({"checksum": f"other{found['checksum'][-1]}", **more})

    write_table(Path(), ONE, 4, change=changed)


def test_equal_results_are_equal_whatever_the_machine(theirs):
    change(of="", seconds=99.0)
    assert verify(MINI, theirs) == (f"equal: the {FILES} files of results/mini are those of {theirs}", True)


def test_another_cpu_may_round_otherwise(theirs):
    change(by=0.6, loss=0.01)
    text, well = verify(MINI, theirs)
    assert well
    assert text.startswith("equal within tolerance (another CPU or other packages)")
    assert "last 0.6" in text


def edited(**changes):
    """The evaluation with other findings."""
    return {"fgsm-1": ARRAYS["evaluations"]["fgsm-1"] | changes}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"cpu": '<b>"bold" & </td>', "by": 0.6}, "tolerance"),  # on the same machine what is within it is named too
        ({"cpu": '<b>"bold" & </td>'}, "though the recorded machine is the same"),
        ({"by": 9.0}, "mean of seeds/*/top1/last"),
        ({"by": 9.0, "seeds": "2"}, "seeds/2/top1/last was"),
        ({"by": 0.5, "checksum": f"{1:064x}", "seeds": "1"}, "seeds/1/top1/last was"),  # weights as they were
        ({"loss": 9.0}, "mean of seeds/*/curve/0/loss"),
        ({"n_samples": 3}, "n_samples was 1297, is 3"),
        ({"evaluations": edited(values={"error": 90.0})}, "seeds/0/evaluations/fgsm-1/values/error was 50, is 90"),
        ({"evaluations": edited(n_samples=8)}, "seeds/0/evaluations/fgsm-1/n_samples was 9, is 8"),
        ({"evaluations": edited(arrays={"curve": [[1.0, 9], [9]]})}, "mean of seeds/*/evaluations/fgsm-1/array curve"),
        ({"evaluations": edited(arrays={"curve": [[1.0, 2]]})}, "arrays/curve/1/0 was 3, is None"),
        ({"parameters": 7}, "parameters was 18000, is 7"),
    ],
)
def test_what_differs_is_named(theirs, changes, said):
    change(**changes)
    text, well = verify(MINI, theirs)
    assert not well
    assert text.startswith("differs: ")
    assert said in text


@pytest.mark.parametrize(("by", "well"), [(19.0, True), (21.0, False)])
def test_no_spread_over_seeds_explains_more_than_twenty_points(theirs, by, well):
    def wide(by, begin=""):
        def changed(row, found):
            seed = found["checksum"][-1]
            found.update({"checksum": begin + seed, "top1": {"last": 20.0 * int(seed) + by}})
            found["hardware"] = found["hardware"] | {"cpu": begin}

        return changed

    write_table(theirs, ONE, 4, change=wide(0.0))
    write_table(Path(), ONE, 4, change=wide(by, "other"))
    assert verify(MINI, theirs)[1] == well


def test_no_number_never_passes(theirs):
    path = next(Path("results/mini/runs").rglob("*.json"))
    path.write_text(re.sub('"last": [0-9.]+', '"last": NaN', path.read_text()))
    with pytest.raises(ValueError, match=r"damaged .*NaN is no result"):
        verify(MINI, theirs)


def test_new_and_missing_files_differ(theirs):
    change()
    path = results_path("mini", ONE)
    path.rename(path.with_name("renamed.json"))
    text, well = verify(MINI, theirs)
    assert not well
    assert f"{path} is missing" in text
    assert "results/mini/renamed.json is new" in text
    with pytest.raises(ValueError, match="no file in common"):
        verify(get_scale("lab"), theirs)


def test_the_last_commit_is_what_the_command_compares_with(theirs, capsys):
    write_parameters(Path(), ONE)
    assert main(["verify"]) == 1  # no repository
    assert main(["verify", "--against", ""]) == 1  # this very folder
    identity = ("-c", "user.name=t", "-c", "user.email=t@t")
    for command in (("init", "-q"), ("add", "."), (*identity, "commit", "-qm", "all")):
        subprocess.run(("git", *command), check=True)
    capsys.readouterr()
    assert main(["verify"]) == 0
    assert capsys.readouterr().out == f"equal: the {FILES} files of results/mini are those of the last commit\n"
    change(by=5.0)
    assert main(["verify", "--against", str(theirs)]) == 1
    assert "seeds/0/top1/last was" in capsys.readouterr().out
