"""Parts by name: written as what differs from their defaults, read again, refused in one sentence."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from lumix import AttentiveCutMix, BetaLaw, CutMix, LUMixRule, Mixup, RandomShuffle
from lumix.registry import GIVEN, PARTS, Part, describe, from_dict, get_part, part_of, register, to_dict
from training.config import Loss, Mix
from training.parts import Embedded, FixMatch, Pretrained

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
def test_a_part_is_a_frozen_dataclass_of_its_arguments(part: Part) -> None:
    assert part.cls.__dataclass_params__.frozen
    assert part.kind != "mixer" or part.pixels in ("blend", "cut")
    assert part.needs in ("nothing", "the network", "a frozen network", "networks of its own")
    assert not set(part.arguments) & set(GIVEN) or part.kind not in ("mixer", "step")
    if all(f.default is not dataclasses.MISSING or f.name != "model" for f in part.arguments.values()):
        example = part.cls(Embedded()) if part.cls is AttentiveCutMix else part.cls()
        written = {"name": part.name} | ({"network": {"name": "embedded"}} if part.cls is AttentiveCutMix else {})
        assert to_dict(example) == written
        assert from_dict(written) == example


@pytest.mark.parametrize(
    ("part", "written", "text"),
    [
        (CutMix(alpha=1, pairing="flip", prob=0.5), {"name": "cutmix"}, "cutmix"),
        (CutMix(alpha=2), {"name": "cutmix", "alpha": 2.0}, "cutmix(alpha=2)"),
        (
            LUMixRule(law=BetaLaw(3), r_s=0.0, r_r=0.5),
            {"name": "lumix", "law": {"name": "beta", "alpha": 3.0}, "r_r": 0.5, "r_s": 0.0},
            "lumix(law=beta(alpha=3), r_r=0.5, r_s=0)",
        ),
        (RandomShuffle(Mixup(), patch=4), {"name": "shuffle", "patch": 4}, "shuffle(patch=4)"),
        (
            AttentiveCutMix(Pretrained("resnet18"), size=None),
            {"name": "attentivecutmix", "network": {"name": "pretrained", "model": "resnet18"}, "size": None},
            "attentivecutmix(network=pretrained(model=resnet18), size=None)",
        ),
        (FixMatch(ratio=2, weight=1), {"name": "fixmatch", "ratio": 2}, "fixmatch(ratio=2)"),
    ],
)
def test_a_part_is_written_as_what_differs_from_its_defaults(part: Any, written: dict[str, Any], text: str) -> None:
    assert (to_dict(part), describe(part)) == (written, text)
    assert to_dict(from_dict(written)) == written


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: get_part("cutmx"), "did you mean cutmix"),
        (lambda: get_part("beta", "mixer"), "no mixer is called 'beta'"),
        (lambda: from_dict({"name": "cutmix", "alhpa": 1.0}), "cutmix has no argument 'alhpa'; it has alpha, minmax"),
        (lambda: from_dict({"name": "attentivecutmix"}), "attentivecutmix: .*'network'"),
        (lambda: part_of(3), "3 is no registered part"),
        (lambda: Mix(((BetaLaw(), 1.0),)), "is no registered mixer"),
        (lambda: Mix(((Mixup(prob=0.5), 1.0),)), "prob of .* is the run's to give"),
        (lambda: Mix((), then=(RandomShuffle(Mixup()),)), "mixer of .* is the run's to give"),
        (lambda: Mix(((Mixup(), 0.5), (CutMix(), 0.4))), "above 0 and sum to 1"),
        (lambda: Loss(rule=CutMix()), "is no registered rule"),
        (lambda: Loss(terms=()), "at least one term"),
        (lambda: register("mixer", "cutmix", "CutMix"), "there is a mixer called 'cutmix' already"),
        (lambda: register("blender", "new", "New"), "kind must be one of mixer"),
    ],
)
def test_what_is_no_part_or_no_run_is_refused_in_a_sentence(build: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        build()


# Mixup and CutMix are words of other meanings in the field, as FixMatch's mixup.
@pytest.mark.parametrize("name", [n for n, p in PARTS.items() if p.kind == "mixer" and n not in ("mixup", "cutmix")])
def test_a_method_is_named_in_its_own_file_alone(name: str) -> None:
    part = PARTS[name]
    words = re.compile(rf"\b({name}|{part.cls.__name__}|{re.escape(part.title)})\b")
    own = ROOT / (part.cls.__module__.replace(".", "/") + ".py")
    sources = {path: path.read_text() for path in (ROOT / "lumix").rglob("*.py")}
    named = {path for path, text in sources.items() if words.search(text)}
    helpers = {path for path in named if path.name.startswith(own.stem)}  # puzzle_cut.py beside puzzle.py
    assert named - helpers <= {own, ROOT / "lumix" / "__init__.py"}
