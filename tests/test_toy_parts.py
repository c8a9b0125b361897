"""A mixer, step, rule, loss term, protocol, table and scale of someone else's, from a package of their own.

What docs/architecture.md promises under "to add" is done here in a temporary package that touches nothing.
"""

import importlib
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from evaluation import evaluation
from experiments import registry, scale
from experiments.results import collect, read_results
from experiments.runs import items_of_table
from lumix.registry import PARTS
from training.config import Run

ROOT = Path(__file__).resolve().parents[1]
TOY = {
    "__init__.py": '''
        """Toys: importing this makes them known, in every process that imports it."""
        from experiments.registry import register_table
        from experiments.scale import register_scale
        from evaluation import evaluation
        from toy import parts

        evaluation.register("agreement", "toy.protocol", measured=("pace",))
        register_scale("toy", "toy.small")
        register_table("toy_table", "toy.table")
    ''',
    "run.py": '''
        """The command line, with the toys; the workers of the pool import this module too."""
        import sys
        from experiments.__main__ import main

        if __name__ == "__main__":
            sys.exit(main())
    ''',
    "parts.py": '''
        """Toy parts."""
        from dataclasses import dataclass, field
        import torch
        from lumix.batch import Kind
        from lumix.mixers.base import Mixer, PlannedMixer
        from lumix.mixers.base import NoMix
        from lumix.mixers.paste import Draws
        from lumix.registry import register
        from lumix.rules import Rule

        @register("mixer", "halfmix", "Halfmix", pixels="blend")
        @dataclass(frozen=True)
        class HalfMix(PlannedMixer):
            """Blend with a fixed weight."""
            weight: float = 0.5

            @property
            def kinds(self):
                return frozenset({Kind.BLEND})

            def draw_each(self, count, height, width, generator):
                device = generator.device
                weight = torch.full((count,), self.weight, dtype=torch.float64, device=device)
                kind = torch.full((count,), int(Kind.BLEND), dtype=torch.uint8, device=device)
                return Draws(weight, kind, torch.zeros((count, 4), dtype=torch.int64, device=device))

        @register("step", "dim", "Dim")
        @dataclass(frozen=True)
        class Dim(Mixer):
            """What `mixer` returns, with less light."""
            mixer: Mixer = field(default_factory=NoMix)
            light: float = 0.8

            def draw(self, shape, generator):
                return self.mixer.draw(shape, generator)

            def apply(self, images, labels, draws, model=None):
                batch = self.mixer.apply(images, labels, draws, model)
                return batch._replace(images=self.light * batch.images)

        @register("rule", "half", "half")
        @dataclass(frozen=True)
        class HalfRule(Rule):
            """Both labels weigh the same."""

            def perturbs(self, batch):
                return batch.is_cut()

            def weigh(self, logits, batch, draws=None, attention=None):
                return torch.full_like(batch.own_weight, 0.5)

        @register("term", "confidence", "confidence")
        @dataclass(frozen=True)
        class Confidence:
            """Penalty on large logits."""
            strength: float = 0.01
            name = "confidence"

            def __call__(self, logits, batch, own_weight, active):
                return self.strength * logits.square().mean(dim=-1)
    ''',
    "protocol.py": '''
        """A toy protocol: the share of test images that the network sees alike when they are mirrored."""
        import time
        import torch
        from evaluation.evaluation import Outcome
        from evaluation.images import normaliser, pixel_batches

        def drive(model, card, arguments, device):
            normalise, same, seen, start = normaliser(card, device), 0, 0, time.monotonic()
            for _, images, _ in pixel_batches(card, device, arguments["batch"]):
                with torch.inference_mode():
                    plain, mirrored = (model(normalise(x)).argmax(dim=1) for x in (images, images.flip(-1)))
                same, seen = same + int((plain == mirrored).sum()), seen + len(images)
            pace = seen / (time.monotonic() - start)
            return Outcome({"agreement": 100 * same / seen, "pace": pace}, seen, facts={"how": "mirrored"})
    ''',
    "small.py": '''
        """A toy scale: mini's nets for eight epochs."""
        from dataclasses import replace
        from experiments.scales import mini

        def run(role):
            return mini.run(role).replace(epochs=8, evaluate_every=8, median_last=1)

        SETTINGS = {**mini.SETTINGS, "deit": replace(mini.SETTINGS["deit"], base=run)}
        SCALE = replace(mini.SCALE, name="toy", text="digits for eight epochs", settings=SETTINGS, seeds=2,
                        headline_seeds=2, processes=1)
    ''',
    "table.py": '''
        """A toy table."""
        from experiments.methods import same
        from experiments.table import TOP1, Column, Table, make_row
        from lumix import Mixup
        from evaluation.evaluation import Evaluation
        from toy.parts import Confidence, Dim, HalfMix, HalfRule

        ALIKE = Evaluation("agreement", {"batch": 500})
        COLUMNS = (TOP1, Column("agreement", "Alike", ALIKE, "agreement"), Column("pace", "Pace", ALIKE, "pace"))

        def toy(run):
            mix = run.mix.replace(choices=((Mixup(), 0.5), (HalfMix(weight=0.7), 0.5)),
                                  then=(Dim(light=0.9),))
            terms = (*run.loss.terms, Confidence())
            return run.replace(mix=mix, loss=run.loss.replace(rule=HalfRule(), terms=terms))

        def row(scale, id, method):
            return make_row(scale, id, {"what": id}, {column.id: method for column in COLUMNS}, ours=True)

        def build(scale):
            rows = (row(scale, "usual", same), row(scale, "toy", toy))
            return Table("A toy", None, (Column("what", "What"),), rows, COLUMNS, baseline=("usual", "top1"))
    ''',
    "paper.csv": "row,column,value\n",
    "claims.csv": "id,source,register,comparison,sentence\ntoy-better,nowhere,,toy/top1 > usual/top1,Toys help\n",
}


@pytest.fixture
def toys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder that holds the package `toy`, which is also the working directory and on the path."""
    package = tmp_path / "toy"
    package.mkdir()
    for name, text in TOY.items():
        (package / name).write_text(textwrap.dedent(text).lstrip())
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    registers: list[dict[str, Any]] = [PARTS, scale.HOMES, registry.TABLES, evaluation.PROTOCOLS]
    before = [dict(register) for register in registers]
    yield tmp_path
    for register, entries in zip(registers, before, strict=True):
        register.clear()
        register.update(entries)
    registry.clear_caches()
    for module in [name for name in sys.modules if name.split(".")[0] == "toy"]:
        del sys.modules[module]


def test_toys_are_trained_evaluated_collected_and_judged_like_any_other(toys: Path) -> None:
    """By the command line of their package, in the pool."""
    (toys / "params.yaml").write_text("scale: toy\nseeds: null\nlauncher: local\ntables: [toy_table]\n")
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{toys}"}
    command = [sys.executable, "-m", "toy.run", "run", "toy_table"]
    answer = subprocess.run(command, cwd=toys, env=environment, capture_output=True, text=True, timeout=300)
    assert answer.returncode == 0, answer.stderr
    assert "4 runs trained, 0 found; 4 evaluations made, 0 found" in answer.stdout
    importlib.import_module("toy")
    toy = scale.get_scale("toy")
    table = registry.get_table("toy_table", toy)
    usual, key = table.runs
    assert key.startswith("digits-deit_s-mixup_halfmix-dim-light0.9-half-confidence-")
    run = table.runs[key]
    assert Run.from_dict(json.loads(json.dumps(run.to_dict()))) == run
    items = items_of_table(toy, table)
    assert {item.run.key: item.directory.parts[2] for item in items} == {
        usual: "lumix_table01_models",  # a run of all tables on this scale
        key: "toy_table",
    }
    for item in items:
        metrics = json.loads((item.directory / "metrics.jsonl").read_text().splitlines()[-1])
        assert metrics["top1"] > 15
        assert ("confidence" in metrics) == (item.run.key == key)
    kept = read_results(Path(), toy, ["toy_table"])
    (record,) = collect(toy, [table])
    assert kept.records["toy_table"]["rows"] == record["rows"]
    cell = {row["id"]: row["cells"] for row in record["rows"]}["toy"]
    assert [(cell[name]["n"], cell[name]["run"]) for name in ("top1", "agreement", "pace")] == [(2, key)] * 3
    assert 0 < cell["agreement"]["mean"] <= 100
    assert cell["top1"]["difference"]["to"] == ["usual", "top1"]
    (claim,) = record["claims"]
    assert claim["estimate"] == pytest.approx(cell["top1"]["difference"]["mean"], abs=1e-6)
    determined = "".join(path.read_text() for path in Path("results/toy/runs").rglob("*.json"))
    assert '"agreement":' in determined
    assert '"pace":' not in determined
    assert '"pace":' in Path("measured/toy/toy_table.json").read_text()
