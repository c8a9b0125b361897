"""ManifoldMix and Either: mixing inside the network against mixing by hand, and one of two mixers for a batch."""

import copy

import pytest
import torch
from batches import images_of, labels_of, stream
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.checkpoint import checkpoint

from lumix import CutMix, Either, Kind, ManifoldMix, MixLoss, Mixup, hidden_mixing
from lumix.mixers.manifold import mixed_output


class Stages(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer1, self.layer2 = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 5, 3, padding=1)

    def forward(self, images):
        return self.layer2(self.layer1(images).relu()).relu().mean((2, 3))


def mixed_in(layer, seed=0, **options):
    images, labels = images_of(6), labels_of(6)
    return images, labels, ManifoldMix((layer,), **options)(images, labels, stream(seed))


class Steps(nn.Module):
    """A module that may run twice, and one whose activations may be checkpointed."""

    def __init__(self, times, saves):
        super().__init__()
        self.stem, self.body, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1), nn.Linear(4, 5)
        self.times, self.saves = times, saves

    def forward(self, images):
        hidden = self.stem(images)
        for _ in range(self.times):
            body = nn.Sequential(self.body, nn.Tanh())
            hidden = body(hidden) if self.saves is None else checkpoint(body, hidden, use_reentrant=self.saves)
        return self.head(hidden.mean((2, 3)))


@settings(deadline=None, max_examples=60, derandomize=True)
@given(
    layer=st.sampled_from(["stem", "body", "head"]),
    times=st.integers(1, 2),
    saves=st.sampled_from([None, False, True]),
    asked=st.sampled_from(["student", "teacher", "earlier", "no gradient"]),
    frozen=st.booleans(),
    seed=st.integers(0, 99),
)
def test_the_loss_is_of_the_pass_that_was_mixed_once_or_refused(layer, times, saves, asked, frozen, seed):
    """With the gradient of mixing by hand. A pass of another network, of clean images, twice or again in backward."""
    torch.manual_seed(seed)
    student, teacher = Steps(times, saves), Steps(times, saves)
    student.stem.requires_grad_(not frozen or saves is not None)
    images, _, batch = mixed_in(layer, seed)
    batch, loss = batch._replace(labels=batch.labels % 5, partner_labels=batch.partner_labels % 5), MixLoss()
    asked = "student" if asked == "no gradient" and saves else asked  # of which torch warns
    twice, checkpointed = layer == "body" and times == 2, layer == "body" and saves is not None
    if checkpointed:
        for model in (student, teacher):
            with pytest.raises(ValueError, match=f"behind '{layer}' are checkpointed"), hidden_mixing(model, batch):
                model(images)
        return
    model = teacher if asked == "teacher" else student
    with hidden_mixing(model, batch), torch.set_grad_enabled(asked != "no gradient"):
        logits = model(images)
    if asked == "no gradient":
        assert loss(logits, batch).isfinite()
        return
    if asked in ("teacher", "earlier") or twice:
        with pytest.raises(ValueError, match="ran 2 times" if asked == "student" else "come from a pass that was not"):
            loss(logits if asked == "student" else student(images), batch)
        return
    found = torch.autograd.grad(loss(logits, batch), student.head.weight)[0]
    getattr(student, layer).register_forward_hook(
        lambda _module, _arguments, output: mixed_output(output, batch.own_weight, batch.partner)
    )
    seen = torch.autograd.grad(loss(student(images), batch._replace(hidden=None)), student.head.weight)[0]
    torch.testing.assert_close(found, seen)


def test_the_input_is_mixup_of_the_same_draws():
    images, labels, batch = mixed_in("", seed=5)
    assert batch.hidden is None
    weight = batch.own_weight.view(-1, 1, 1, 1)
    torch.testing.assert_close(batch.images, weight * images + (1 - weight) * images[batch.partner])
    assert torch.equal(batch.partner_labels, labels[batch.partner])
    hidden = mixed_in("layer1", seed=5)[2]
    assert torch.equal(hidden.own_weight, batch.own_weight)
    assert torch.equal(hidden.partner, batch.partner)


def test_layers_are_equally_likely():
    images, labels, generator = images_of(2), labels_of(2), stream()
    hidden = [ManifoldMix()(images, labels, generator).hidden for _ in range(600)]
    drawn = [None if one is None else one.name for one in hidden]
    for layer in (None, "layer1", "layer2"):
        assert 150 < drawn.count(layer) < 250  # 200 expected, four standard deviations are 46


def test_mistakes_are_named():
    model = Stages()
    images, _, batch = mixed_in("layer9")
    with pytest.raises(ValueError, match=r"Stages has no module 'layer9' to mix behind; it has layer1, layer2"):
        hidden_mixing(model, batch).__enter__()
    batch = mixed_in("layer1")[2]
    with pytest.raises(ValueError, match="cannot be split"):
        batch.rows(slice(3))
    with pytest.raises(RuntimeError, match="no forward pass"), hidden_mixing(model, batch):
        pass
    with pytest.raises(ValueError, match="a tensor of 6 samples, not \\[2, 4, 12, 8\\]"), hidden_mixing(model, batch):
        model(images[:2])
    with pytest.raises(ValueError, match="layers is empty"):
        ManifoldMix(())


def test_a_copy_made_meanwhile_does_not_mix():
    model, (images, _, batch) = Stages(), mixed_in("layer1")
    with hidden_mixing(model, batch):
        logits, average = model(images), copy.deepcopy(model)
        assert torch.equal(average(images), average(images.flip(0)).flip(0))
    assert MixLoss()(logits, batch._replace(labels=batch.labels % 5, partner_labels=batch.partner_labels % 5)) > 0
    assert not torch.equal(logits, average(images))
    assert average(images[:2]).shape == (2, 5)


@pytest.mark.parametrize("fullgraph", [False, True])
def test_within_a_compiled_function_it_is_refused_in_a_sentence(fullgraph):
    model, (images, _, batch) = Stages(), mixed_in("layer1")

    def step(images):
        with hidden_mixing(model, batch):
            return model(images)

    with pytest.raises(ValueError, match=r"within a function that torch\.compile made"):
        torch.compile(step, backend="eager", fullgraph=fullgraph)(images)


def test_either_is_one_of_two_mixers_for_the_whole_batch():
    images, labels, generator = images_of(6), labels_of(6), stream()
    mixer = Either(Mixup(), CutMix(), switch_prob=0.25, prob=0.8)
    kinds = [mixer(images, labels, generator).kind for _ in range(600)]
    counts = {kind: sum(bool((k == kind).any()) for k in kinds) for kind in Kind}
    assert 80 < counts[Kind.BOX] < 165  # 120 less the boxes of no pixel; four standard deviations are 39
    assert 300 < counts[Kind.BLEND] < 420  # 360
    assert all(not ({Kind.BLEND, Kind.BOX} <= {*k.tolist()}) for k in kinds)
