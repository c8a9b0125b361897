"""The catalogue tells the truth about the classes; Specs are checked and written; a method is named in one place."""

import dataclasses
import inspect
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from lumix.catalogue import PARTS, Spec, create, get_part
from lumix.specs import Part

ROOT = Path(__file__).resolve().parents[1]
FOR_THE_BUILDER = {"mode", "pairing", "prob", "inplace", "mean", "std", "network", "mixer"}


def defaults_of(part: Part) -> dict[str, Any]:
    """The arguments of a part's class or function with their defaults, `inspect.Parameter.empty` where none."""
    return {name: p.default for name, p in inspect.signature(part.load()).parameters.items()}


@pytest.mark.parametrize("name", PARTS)
def test_an_entry_has_the_arguments_and_defaults_of_its_class(name: str) -> None:
    part = PARTS[name]
    known = defaults_of(part)
    settable = {argument for argument in known if argument not in part.given}
    assert settable <= set(part.arguments) | FOR_THE_BUILDER
    assert set(part.given) <= set(known)
    for argument, entry in part.arguments.items():
        default = known[argument]
        if argument in part.given:  # named by a Spec, built by the engine
            continue
        if entry.required:
            assert default is inspect.Parameter.empty
        elif isinstance(entry.default, Spec):
            factory = next(f for f in dataclasses.fields(part.load()) if f.name == argument).default_factory
            assert create(entry.default) == factory()  # type: ignore[misc]
        else:
            assert entry.default == default
            assert entry.optional or type(entry.default) is entry.type


@pytest.mark.parametrize("name", [name for name, part in PARTS.items() if part.kind == "mixer"])
def test_what_an_entry_says_of_pixels(name: str) -> None:
    assert PARTS[name].pixels in ("blend", "cut")
    assert PARTS[name].needs in ("nothing", "the network", "a frozen network", "networks of its own")


def test_a_spec_holds_what_differs_from_the_defaults() -> None:
    assert Spec("cutmix", alpha=1.0, box_rule="legacy") == Spec("cutmix")
    assert Spec("cutmix", alpha=1).to_dict() == {"name": "cutmix"}
    spec = Spec("lumix", law=Spec("beta", alpha=3.0), r_r=0.5)
    assert spec.to_dict() == {"name": "lumix", "law": {"name": "beta", "alpha": 3.0}, "r_r": 0.5}
    assert Spec.from_dict(spec.to_dict()) == spec
    assert hash(Spec.from_dict(spec.to_dict())) == hash(spec)
    assert (spec["r_r"], spec["r_s"], str(spec)) == (0.5, 0.1, "lumix(law=beta(alpha=3), r_r=0.5)")
    assert spec.replace(r_r=0.4, law=Spec("beta")) == Spec("lumix")


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: Spec("cutmx"), "did you mean cutmix"),
        (lambda: Spec("cutmix", alhpa=1.0), "cutmix has no argument 'alhpa'; it has alpha, minmax"),
        (lambda: Spec("mixup", alpha="0.8"), r"mixup\.alpha must be float, not '0.8'"),
        (lambda: Spec("attentivecutmix"), "attentivecutmix needs the argument 'network'"),
        (lambda: get_part("beta", "mixer"), "no mixer is called 'beta'"),
    ],
)
def test_bad_specs_are_refused_in_a_sentence(build: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        build()


def test_a_spec_cannot_be_changed() -> None:
    with pytest.raises(AttributeError, match="immutable"):
        Spec("cutmix").name = "mixup"


# Words of other meanings in the field: FixMatch's mixup, the kind of pixels "cut" ...
DISTINCT = ("saliencymix", "puzzlemix", "attentivecutmix", "resizemix", "fmix", "manifoldmix", "transmix")


@pytest.mark.parametrize("name", DISTINCT)
def test_a_method_is_named_in_its_own_file_and_the_catalogue_alone(name: str) -> None:
    part = PARTS[name]
    words = re.compile(rf"\b({name}|{part.class_name}|{re.escape(part.title)})\b")
    own = part.module.replace(".", "/") + ".py"
    files = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "lumix"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    sources = [file for file in files if file.endswith(".py") and (ROOT / file).exists()]
    named = {file for file in sources if words.search((ROOT / file).read_text())}
    helpers = {file for file in named if file.startswith(own.removesuffix(".py"))}  # puzzle_cut.py beside puzzle.py
    assert named - helpers <= {own, "lumix/catalogue.py"}
