"""params.yaml: what is wrong with it is said in one sentence, and the project's own takes every table."""

from pathlib import Path

import pytest

from experiments.params import read_params
from experiments.registry import TABLES
from experiments.scale import NAMES

ROOT = Path(__file__).resolve().parents[1]
GOOD = "scale: lab\nseeds: null\nlauncher: local\ntables: [lumix_controls]\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("scale: [", "is not YAML near line"),
        ("", "must hold the keys"),
        ("scale: lab\n", "must hold the keys"),
        (GOOD + "more: 1\n", "must hold the keys"),
        (GOOD.replace("lab", "labb"), "unknown scale 'labb': did you mean lab"),
        (GOOD.replace("null", "0"), "at least 1, not 0"),
        (GOOD.replace("null", "'3'"), "at least 1, not '3'"),
        (GOOD.replace("null", "1000000000"), "at most 1000, not 1000000000"),
        (GOOD.replace("local", "slum"), "did you mean slurm"),
        (GOOD.replace("lumix_controls", "lumix_control"), "did you mean lumix_controls"),
        (GOOD.replace("[lumix_controls]", "lumix_controls"), "must be all or a list"),
        (GOOD.replace("lumix_controls", "'lumix_controls; true'"), "did you mean lumix_controls"),
    ],
)
def test_malformed_parameters_give_one_sentence(tmp_path, text, message):
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        read_params(tmp_path / "params.yaml")
    assert "params.yaml" in str(error.value)
    assert "\n" not in str(error.value)


def test_parameters_of_the_project():
    params = read_params(ROOT / "params.yaml")
    assert params.tables == tuple(TABLES)
    assert params.scale in NAMES
