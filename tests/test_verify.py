"""`verify` tells equal results from those of another CPU, and those from results that differ."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from report_fixture import ROOT, fake_record, write_record

from experiments.scale import get_scale
from experiments.verify import tolerance, verify

MINI = get_scale("mini")


@pytest.fixture
def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Two projects with the same results; the second is the working directory."""
    for name in ("theirs", "ours"):
        write_record(tmp_path / name, fake_record("fixture_many", 4))
    monkeypatch.chdir(tmp_path / "ours")
    return tmp_path / "theirs", Path()


def change(cpu: str = "fixture cpu", by: float = 0.0, **more: Any) -> None:
    """Our results anew: of that CPU, the first cell's mean and a seed's accuracy off by so many points."""
    record = fake_record("fixture_many", 4)
    for run in record["runs"].values():
        for seed in run["seeds"].values():
            seed["hardware"]["cpu"] = cpu
            seed["top1"]["last"] += by
            seed.update(more)
    record["rows"][0]["cells"]["top1"]["mean"] += by
    write_record(Path(), record)


def test_equal_results_are_equal_whatever_the_machine(pair: tuple[Path, Path]) -> None:
    change("another", seconds=99.0, commit="d" * 40)
    assert verify(MINI, pair[0]) == (f"equal: the 4 files of results/mini are those of {pair[0]}", True)


def test_another_cpu_may_round_otherwise(pair: tuple[Path, Path]) -> None:
    change("another", by=0.6, checksum="other")
    text, well = verify(MINI, pair[0])
    assert well
    assert text.startswith("equal within tolerance (another CPU or other packages)")
    assert "last 0.6" in text
    assert "mean 0.6" in text


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"by": 0.6}, "though the recorded machine is the same"),
        ({"checksum": "other"}, "though the recorded machine is the same"),
        ({"cpu": "another", "by": 9.0}, "fixture_many.json: none/top1 was"),
        ({"cpu": "another", "parameters": 7}, "parameters was 18000, is 7"),
    ],
)
def test_what_differs_is_named(pair: tuple[Path, Path], changes: dict[str, Any], said: str) -> None:
    change(**changes)
    text, well = verify(MINI, pair[0])
    assert not well
    assert text.startswith("differs: ")
    assert said in text


def test_new_and_missing_files_differ(pair: tuple[Path, Path]) -> None:
    change("another")
    Path("results/mini/fixture_many.json").rename("results/mini/renamed.json")
    text, well = verify(MINI, pair[0])
    assert not well
    assert "results/mini/fixture_many.json is missing" in text
    assert "results/mini/renamed.json is new" in text
    with pytest.raises(ValueError, match="no file in common"):
        verify(get_scale("lab"), pair[0])


def test_tolerance_is_the_interval_between_two_means() -> None:
    # Student's t 3.182446 with 3 degrees of freedom, deviation 1.5, two means of 4.
    assert tolerance({"n": 4, "std": 1.5}) == pytest.approx(3.182446 * 1.5 / 2**0.5, abs=1e-5)
    assert tolerance({"n": 4, "std": 0.0}) == tolerance({"n": 1, "std": None}) == 1


def test_the_last_commit_is_what_the_command_compares_with(pair: tuple[Path, Path]) -> None:
    def call(*command: str) -> tuple[int, str]:
        answer = subprocess.run(command, capture_output=True, text=True, env={"PATH": "/usr/bin:/bin", **PYTHON})
        return answer.returncode, answer.stdout + answer.stderr

    PYTHON = {"PYTHONPATH": str(ROOT)}
    check = (sys.executable, "-m", "experiments", "verify")
    Path("params.yaml").write_text((ROOT / "params.yaml").read_text())
    assert call(*check)[0] == 1  # no repository
    identity = ("-c", "user.name=t", "-c", "user.email=t@t")
    for command in (("init", "-q"), ("add", "."), (*identity, "commit", "-qm", "all")):
        assert call("git", *command)[0] == 0
    assert call(*check) == (0, "equal: the 4 files of results/mini are those of the last commit\n")
    change(by=5.0)
    code, text = call(*check)
    assert code == 1
    assert "none/top1" in text
    assert call(*check, "--against", str(pair[0]))[0] == 1
