"""Every label rule on every mixer: docs/combinations.md says what should happen, and here it happens."""

import re
from pathlib import Path

import pytest
import torch
from batches import stream
from torch import nn

import lumix
from lumix import Kind, MixLoss

PAGE = Path(__file__).resolve().parents[1] / "docs" / "combinations.md"
CLASSES, SIZE, SIDE, PATCH = 4, 6, 16, 4


class Network(nn.Module):
    """Anything that turns images into logits, with two named stages."""

    def __init__(self) -> None:
        super().__init__()
        self.layer1, self.layer2 = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, CLASSES, 3, padding=1)

    def forward(self, images):
        return self.layer2(self.layer1(images).tanh()).mean((2, 3))


MIXERS = {
    "Mixup": lumix.Mixup(),
    "CutMix": lumix.CutMix(),
    "ResizeMix": lumix.ResizeMix(),
    "SaliencyMix": lumix.SaliencyMix(),
    "FMix": lumix.FMix(),
    "PuzzleMix": lumix.PuzzleMix(std=(0.2, 0.2, 0.2)),
    "AttentiveCutMix": lumix.AttentiveCutMix(nn.AvgPool2d(4), size=None),
    "ManifoldMix": lumix.ManifoldMix(),
    "RandomLambda": lumix.RandomLambda(patch=4),
    "RandomShuffle(CutMix())": lumix.RandomShuffle(lumix.CutMix(), PATCH),
}
RULES = {
    "AreaRule": lumix.AreaRule(),
    "LUMixRule": lumix.LUMixRule(),
    'LUMixRule(apply_to="both")': lumix.LUMixRule(apply_to="both"),
    "TransMixRule": lumix.TransMixRule(),
    "LUMixRule(r_a=0.25)": lumix.LUMixRule(r_r=0.0, r_s=0.0, r_a=0.25),
}


def promises():
    """(mixer, rule) -> the word that stands in the table."""
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("|") and "---" not in line]
    (_, *rules), *rows = [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines]
    return {(name, rule): word for name, *words in rows for rule, word in zip(rules, words, strict=True)}


PROMISES = promises()


def test_the_table_names_every_mixer_and_rule():
    assert set(PROMISES) == {(mixer, rule) for mixer in MIXERS for rule in RULES}
    mixers = {name for name in lumix.__all__ if re.search("Mix$|Mixup|Lambda$|Shuffle$", name)}
    modules = {"AutoMix", "SAMix"}  # around a network, not mixers
    assert {name.split("(")[0] for name in MIXERS} == mixers - modules


def mixed_batch(name):
    """A batch in which at least one pair is mixed, with the network and its logits."""
    network = Network()
    images = torch.rand(SIZE, 3, SIDE, SIDE, generator=stream(1))
    labels = torch.arange(SIZE) % CLASSES
    for seed in range(20):
        batch = MIXERS[name](images, labels, stream(seed), network)
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
    loss = MixLoss(RULES[rule], smoothing=0.1, eta=1.0)
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
