"""Every label rule on every mixer: docs/combinations.md says what should happen, and here it happens."""

from dataclasses import fields
from pathlib import Path

import pytest
import torch
from batches import stream
from torch import nn

import lumix
from lumix import Kind, MixLoss
from lumix.registry import PARTS

PAGE = Path(__file__).resolve().parents[1] / "docs" / "combinations.md"
CLASSES, SIZE, SIDE, PATCH = 4, 6, 16, 4
# What fits a mixer to images of this size; all else stays at its default.
FITTING = {"patch": PATCH, "std": (0.2,) * 3, "mean": (0.5,) * 3, "network": nn.AvgPool2d(4), "size": None}


class Network(nn.Module):
    """Anything that turns images into logits, with two named stages."""

    def __init__(self) -> None:
        super().__init__()
        self.layer1, self.layer2 = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, CLASSES, 3, padding=1)

    def forward(self, images):
        return self.layer2(self.layer1(images).tanh()).mean((2, 3))


def promises():
    """(mixer, rule) -> the word that stands in the table."""
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("|") and "---" not in line]
    (_, *rules), *rows = [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines]
    return {(name, rule): word for name, *words in rows for rule, word in zip(rules, words, strict=True)}


PROMISES = promises()


def named(text):
    """The part that a cell of the page writes, as `Mixup` or `RandomShuffle(CutMix())`."""
    name, _, inner = text.partition("(")
    part = getattr(lumix, name)
    given = {field.name: FITTING[field.name] for field in fields(part) if field.name in FITTING}
    given |= {"mixer": named(inner.removesuffix("())"))} if inner.endswith("())") else {}
    given |= eval(f"dict({inner.removesuffix(')')})") if "=" in inner else {}
    return part(**given)


def test_the_table_names_every_mixer_and_rule():
    for place, kinds in ((0, ("mixer", "step")), (1, ("rule",))):
        known = {part.cls.__name__ for part in PARTS.values() if part.kind in kinds}
        assert {pair[place].split("(")[0] for pair in PROMISES} == known


def mixed_batch(name):
    """A batch in which at least one pair is mixed, with the network and its logits."""
    network, mixer = Network(), named(name)
    images = torch.rand(SIZE, 3, SIDE, SIDE, generator=stream(1))
    labels = torch.arange(SIZE) % CLASSES
    for seed in range(20):
        batch = mixer(images, labels, stream(seed), network)
        touched = ~batch.is_kind(Kind.NONE) & (batch.own_weight > 0) & (batch.own_weight < 1)
        if batch.mask is not None:  # Puzzle-Mix may show half of both images everywhere, which attention cannot tell
            touched &= batch.mask.flatten(1).amin(1) != batch.mask.flatten(1).amax(1)
        if bool((touched & (batch.partner != torch.arange(SIZE))).any()):
            break
    with torch.no_grad(), lumix.hidden_mixing(network, batch):
        return batch, network(batch.images)


@pytest.mark.parametrize(("mixer", "rule"), PROMISES, ids=[" + ".join(pair) for pair in PROMISES])
def test_combination(mixer, rule):
    batch, logits = mixed_batch(mixer)
    attention = torch.rand(SIZE, (SIDE // PATCH) ** 2, generator=stream(3))
    loss = MixLoss(named(rule), smoothing=0.1, eta=float(rule != "AreaRule"))
    if PROMISES[mixer, rule] == "no":
        with pytest.raises(ValueError, match="box nor mask"):
            loss(logits, batch, stream(4), attention)
        return
    weight = loss.weights(logits, batch, loss.draw(batch, stream(4)), attention)
    assert weight.shape == (SIZE,)
    assert ((weight >= 0) & (weight <= 1)).all()
    assert torch.equal(weight[batch.is_kind(Kind.NONE)], batch.own_weight[batch.is_kind(Kind.NONE)])
    moved = (weight - batch.own_weight).abs() > 1e-6
    assert bool(moved.any()) is (PROMISES[mixer, rule] == "yes")
    assert loss.per_sample(logits, batch, weight)[0].isfinite().all()
