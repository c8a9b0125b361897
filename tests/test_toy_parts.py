"""A mixer, rule, loss term, table and scale of someone else's: added from a package of their own, touching nothing.

What docs/architecture.md promises under "to add" is done here in a temporary package.
"""

import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from experiments import registry, scale
from lumix.specs import PARTS

TOY = {
    "parts.py": '''
        """Toy parts."""
        from dataclasses import dataclass
        import torch
        from lumix.batch import Kind
        from lumix.catalogue import Argument, Part, register
        from lumix.mixers.base import PlannedMixer
        from lumix.mixers.plan import Draws
        from lumix.rules.base import Rule

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

        @dataclass(frozen=True)
        class HalfRule(Rule):
            """Both labels weigh the same."""

            def perturbs(self, batch):
                return batch.is_cut()

            def weigh(self, logits, batch, draws=None, attention=None):
                return torch.full_like(batch.own_weight, 0.5)

        @dataclass(frozen=True)
        class Confidence:
            """Penalty on large logits."""
            strength: float = 0.01
            name = "confidence"

            def __call__(self, logits, batch, own_weight, active):
                return self.strength * logits.square().mean(dim=-1)

        number = lambda default: Argument(float, default)
        register(Part("mixer", "halfmix", "toy.parts:HalfMix", "Halfmix", {"weight": number(0.5)},
                      ("mode", "pairing", "prob", "inplace"), "blend"))
        register(Part("rule", "half", "toy.parts:HalfRule", "half"))
        register(Part("term", "confidence", "toy.parts:Confidence", "confidence", {"strength": number(0.01)}))
    ''',
    "small.py": '''
        """A toy scale: two epochs."""
        from experiments.scale import Scale, Setting
        from experiments.scales import mini

        SCALE = Scale("toy", "digits for two epochs", {"deit": Setting(lambda role: mini.run(role).replace(
            epochs=2, evaluate_every=1, median_last=1, optim=mini.run(role).optim.replace(warmup_epochs=0)))},
            seeds=2, headline_seeds=2, patch=2, hours=lambda run: 0.0, retrain_on_code_change=True)
    ''',
    "table.py": '''
        """A toy table."""
        from pathlib import Path
        from experiments.table import TOP1, Column, Table, top1_row
        from lumix.catalogue import Spec

        def toy(run):
            mix = run.mix.replace(choices=((Spec("mixup"), 0.5), (Spec("halfmix", weight=0.7), 0.5)))
            terms = (*run.loss.terms, Spec("confidence"))
            return run.replace(mix=mix, loss=run.loss.replace(rule=Spec("half"), terms=terms))

        def build(scale):
            return Table("toy_table", "A toy", None, Path(__file__).parent, (Column("what", "What"),), (TOP1,),
                         (top1_row(scale, "toy", {"what": "all toys"}, toy, ours=True),))
    ''',
    "__init__.py": '"""Toys."""\n',
    "paper.csv": "row,column,value\n",
}


@pytest.fixture
def toys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    package = tmp_path / "toy"
    package.mkdir()
    for name, text in TOY.items():
        (package / name).write_text(textwrap.dedent(text))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    parts, homes, tables = dict(PARTS), dict(scale.HOMES), dict(registry.TABLES)
    yield
    for registered, before in ((PARTS, parts), (scale.HOMES, homes), (registry.TABLES, tables)):
        registered.clear()
        registered.update(before)  # type: ignore[arg-type]
    registry.clear_caches()
    for module in [name for name in sys.modules if name.split(".")[0] == "toy"]:
        del sys.modules[module]


@pytest.mark.usefixtures("toys")
def test_toys_are_trained_collected_and_judged_like_any_other(tmp_path: Path) -> None:
    import importlib

    importlib.import_module("toy.parts")
    scale.register_scale("toy", "toy.small")
    registry.register_table("toy_table", "toy.table")
    toy = scale.get_scale("toy")
    table = registry.get_table("toy_table", toy)
    (key,) = table.runs
    assert key.startswith("digits-deit_s-mixup_halfmix-half-confidence-")
    from experiments.collect import collect
    from experiments.runs import items_of_table
    from lumix.train.loop import fit

    for item in items_of_table(toy, table):
        result = fit(item.run, item.seed, item.directory)
        assert result["top1"]["last"] > 10
    (row,) = collect(toy, table)["rows"]
    assert (row["cells"]["top1"]["n"], row["cells"]["top1"]["run"]) == (2, key)
