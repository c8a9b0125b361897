"""Keys that last: those of all scales are frozen in a list, and a new field with a default renames none.

Run as a script it writes the list anew: `python tests/test_frozen_keys.py`. Lines may be added, never changed.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from experiments.registry import tables_of
from experiments.scale import NAMES, get_scale
from lumix import AreaRule, CrossEntropy, CutMix
from lumix.registry import PARTS
from training.config import Data, Loss, Mix, Model, Optim, Run

FROZEN = Path(__file__).parent / "frozen_keys.txt"
RUN = Run(Data("digits", 8), Model("deit_s", "deit_small_patch16_224"), Optim(lr=1e-3))


def keys(name: str) -> list[str]:
    """One line for each run and each evaluation that the tables of a scale ask for."""
    scale = get_scale(name)
    found = set()
    for table in tables_of(scale):
        found |= {f"{name} {key}" for key in table.runs}
        found |= {f"{name} {evaluation} of {run}" for run, evaluation in table.evaluations}
    return sorted(found)


@pytest.mark.parametrize("name", NAMES)
def test_the_keys_of_every_scale_are_the_frozen_ones(name: str) -> None:
    frozen = {line for line in FROZEN.read_text().splitlines() if line.startswith(f"{name} ")}
    assert frozen <= set(keys(name)), "a frozen key is gone: a changed meaning needs a new name, not a new key"
    assert set(keys(name)) <= frozen, "new keys: add them to the list by running this file as a script"


def test_a_new_field_with_a_default_renames_nothing() -> None:
    @dataclass(frozen=True)
    class DataWithMore(Data):
        later: float = 0.5

    more = RUN.replace(data=DataWithMore("digits", 8))
    assert more.key == RUN.key
    assert RUN.replace(data=DataWithMore("digits", 8, later=0.6)).key != RUN.key


def test_a_new_argument_of_a_part_renames_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass(frozen=True)
    class CutMixWithMore(CutMix):
        later: int = 1

    key = RUN.replace(mix=Mix(choices=((CutMix(alpha=0.5), 1.0),))).key
    monkeypatch.setitem(PARTS, "cutmix", replace(PARTS["cutmix"], cls=CutMixWithMore))
    again = RUN.replace(mix=Mix(choices=((CutMixWithMore(alpha=0.5), 1.0),)))
    assert again.key == key
    assert Run.from_dict(again.to_dict()) == again
    assert again.replace(mix=Mix(choices=((CutMixWithMore(alpha=0.5, later=2), 1.0),))).key != key


def test_what_equals_the_defaults_is_not_written() -> None:
    assert RUN.to_dict() == {
        "data": {"name": "digits", "image_size": 8},
        "model": {"role": "deit_s", "name": "deit_small_patch16_224"},
        "optim": {"lr": 1e-3},
    }
    spelt_out = RUN.replace(loss=Loss(rule=AreaRule(), terms=(CrossEntropy(smoothing=0.1),)), epochs=300)
    assert spelt_out.key == RUN.key


if __name__ == "__main__":
    FROZEN.write_text("".join(f"{line}\n" for name in NAMES for line in keys(name)))
