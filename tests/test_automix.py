"""AutoMix and SAMix: masks follow the label weight, gradients go where they should, one draw is plain Mixup."""

import math
from typing import Any

import pytest
import timm
import torch
from batches import stream
from timm.optim import create_optimizer_v2
from torch import Tensor, nn
from torch.nn import functional as F

import lumix
from lumix import automix as module
from lumix.automix import (
    AutoMixBlock,
    MixBlock,
    SAMixBlock,
    cosine,
    cross_attention,
    mask_loss,
    momentum_at,
    residual_embedding,
)
from lumix.batch import Kind
from lumix.rules import TransMixRule
from lumix.semi import SelfTuning

LEARNERS = (lumix.AutoMix, lumix.SAMix)
BLOCKS = {"automix": AutoMixBlock, "samix": SAMixBlock}
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "resnet": ("resnet18", {"channels": [4, 8, 12, 16], "layers": [1, 1, 1, 1]}),
    "resnetv2": ("resnetv2_18", {"layers": [1, 1, 1], "channels": [8, 16, 24], "stem_chs": 8}),
    "vit": ("deit_tiny_patch16_224", {"img_size": 16, "patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2}),
    "swin": (
        "swin_tiny_patch4_window7_224",
        {"img_size": 16, "patch_size": 2, "window_size": 2, "embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2]},
    ),
}


def network(name: str = "resnet") -> nn.Module:
    entry, arguments = NETWORKS[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return timm.create_model(entry, num_classes=5, **arguments)


def images_and_labels(size: int = 8) -> tuple[Tensor, Tensor]:
    return torch.randn(size, 3, 16, 16, generator=stream(1)), torch.arange(size) % 5


def prepared(learner: lumix.AutoMix, seed: int = 0) -> module.LearnersBatch:
    return learner.prepare(*images_and_labels(), stream(seed))


def test_attention_is_the_formula_at_every_place() -> None:
    query, key, value = (torch.randn(2, channels, 3, 2, generator=stream()) for channels in (4, 4, 1))
    q, k, v = (x.flatten(2) for x in (query, key, value))
    weights = torch.softmax(torch.einsum("bdn,bdm->bnm", q, k) / 4**0.5, dim=-1)
    wanted = torch.einsum("bnm,bcm->bcn", weights, v).view(2, 1, 3, 2)
    torch.testing.assert_close(cross_attention(query, key, value), wanted)
    with torch.autocast("cpu", torch.bfloat16):
        assert cross_attention(query, key, value).dtype == torch.float32


def test_the_residual_embedding_is_odd_around_a_half_and_grows() -> None:
    weight = torch.linspace(0, 1, 101, dtype=torch.float64)
    embedded = residual_embedding(weight)
    torch.testing.assert_close(embedded.flip(0), 1 - embedded)
    assert (embedded.diff() > 0).all()
    assert embedded[50].item() == pytest.approx(0.5)
    assert (embedded[0].item(), embedded[-1].item()) == pytest.approx((0, 1))


def trained_block(name: str) -> tuple[MixBlock, Tensor]:
    """A block that sees the label weight, after updates by the mask loss alone, and the features it saw."""
    torch.manual_seed(0)
    block = BLOCKS[name](6, large=True)
    features = torch.rand(8, 6, 4, 4, generator=stream()) + 0.5
    optimizer, draws = torch.optim.Adam(block.parameters(), lr=0.03), stream(2)
    for step in range(500):
        optimizer.param_groups[0]["lr"] = cosine({"automix": 0.05, "samix": 0.03}[name], 0, step / 500)
        weight = torch.rand(1, generator=draws).expand(8)
        loss = mask_loss(block(features, features.flip(0), weight, (8, 8)), weight, margin=0.0)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return block.requires_grad_(False), features


@pytest.mark.parametrize("name", BLOCKS)
def test_the_mean_of_a_mask_follows_the_label_weight_and_swaps_with_the_images(name: str) -> None:
    block, features = trained_block(name)
    for value in (0.2, 0.5, 0.8):
        weight = torch.full((8,), value)
        own = block(features, features.flip(0), weight, (8, 8)).mean().item()
        other = block(features.flip(0), features, 1 - weight, (8, 8)).mean().item()
        assert own == pytest.approx(value, abs=0.1)  # the published margin
        assert other == pytest.approx(1 - own, abs=0.15)


def test_the_mask_loss_counts_what_the_mean_misses_beyond_the_margin() -> None:
    weight = torch.full((2,), 0.7)
    flat = torch.full((2, 1, 2, 2), 0.65)
    assert mask_loss(flat, weight).item() == 0
    assert mask_loss(torch.full((2, 1, 2, 2), 0.2), weight).item() == pytest.approx(0.4)
    halves = torch.tensor([[0.0, 1.0], [1.0, 0.0]]).expand(2, 1, 2, 2)
    assert mask_loss(halves, weight, variance=2.0).item() == pytest.approx(0.1 - 2 * 0.25)


def test_momentum_waits_and_then_follows_a_cosine_that_counts_from_the_start() -> None:
    for warm in (0.1, 0.25):
        assert momentum_at(warm - 0.01, 0.9, 1.0, warm) == 0.9
        for progress in (warm, 0.5, 1.0):
            published = 1.0 - (1.0 - 0.9) * (math.cos(math.pi * progress) + 1) / 2
            assert momentum_at(progress, 0.9, 1.0, warm) == pytest.approx(published)
    assert cosine(0.1, 0, 0.5) == pytest.approx(0.05)


@pytest.mark.parametrize("kind", LEARNERS)
@pytest.mark.parametrize("name", NETWORKS)
def test_it_learns_with_networks_of_every_family(kind: type[lumix.AutoMix], name: str) -> None:
    learner = kind(network(name))
    losses = learner(prepared(learner))
    losses.loss.backward()
    assert all(p.grad is not None for p in learner.parameters() if p.requires_grad)
    assert list(losses.parts) == ["cross_entropy", "clean", "copy", "mask"]
    torch.testing.assert_close(losses.loss.detach(), torch.stack(list(losses.parts.values())).sum(0).mean())


@pytest.mark.parametrize(
    ("name", "stage"),
    [("resnet50", 3), ("deit_small_patch16_224", 5), ("swin_tiny_patch4_window7_224", 2), ("xcit_small_12_p16_224", 5)],
)
def test_masks_are_made_of_the_published_features(name: str, stage: int) -> None:
    with torch.device("meta"):
        learner = lumix.AutoMix(timm.create_model(name))
    assert learner.stage == stage


def gradients(loss: Tensor, parameters: Any) -> list[Tensor | None]:
    return list(torch.autograd.grad(loss, list(parameters), retain_graph=True, allow_unused=True))


@pytest.mark.parametrize("kind", LEARNERS)
def test_gradients_reach_the_block_and_the_network_only_where_they_should(kind: type[lumix.AutoMix]) -> None:
    learner = kind(network())
    batch = prepared(learner)
    assert not batch.mixed.images.requires_grad
    learned, mask = learner._block_losses(batch)
    theirs = learned.mean() + mask
    assert all(found is None for found in gradients(theirs, learner.network.parameters()))
    assert all(found is not None for found in gradients(theirs, learner.block.parameters()))
    loss = learner(batch).loss
    assert not any(p.requires_grad for p in learner.slow.parameters())
    # The block's gradient is that of its own losses, whatever the network learns.
    whole = gradients(loss, learner.block.parameters())
    own = gradients(sum(learner._block_losses(batch), torch.zeros(8)).mean(), learner.block.parameters())
    for first, second in zip(whole, own, strict=True):
        torch.testing.assert_close(first, second)


@pytest.mark.parametrize("weight", [0.05, 0.92])
def test_hardly_mixed_batches_are_plain_mixup(weight: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "draw_beta", lambda alpha, count, generator: torch.full((count,), weight).double())
    images, labels = images_and_labels()
    learner = lumix.AutoMix(network())
    mixed = learner.prepare(images, labels, stream()).mixed
    torch.testing.assert_close(mixed.images, weight * images + (1 - weight) * images[mixed.partner])
    assert (mixed.kind == Kind.BLEND).all()
    assert mixed.mask is not None
    assert (mixed.mask == weight).all()
    torch.testing.assert_close(mixed.own_weight, torch.full((8,), weight))


def test_otherwise_the_mask_is_the_blocks_and_the_label_weight_the_draw() -> None:
    images, labels = images_and_labels()
    learner = lumix.AutoMix(network())
    batch = learner.prepare(images, labels, stream(3))
    mixed, mask = batch.mixed, batch.mixed.mask
    assert mask is not None
    torch.testing.assert_close(mixed.images, mask * images + (1 - mask) * images[mixed.partner])
    assert (mixed.kind == Kind.MASK).all()
    assert len(mixed.own_weight.unique()) == 1
    assert mixed.own_weight[0] != batch.clean.own_weight[0]
    assert not torch.equal(mixed.partner, batch.clean.partner)
    assert torch.equal(batch.partner_images, images[batch.clean.partner])
    assert torch.equal(images, images_and_labels()[0])


def test_parts_of_a_batch_have_the_losses_of_the_whole() -> None:
    learner = lumix.AutoMix(network("vit"))  # no statistics over the batch
    batch = prepared(learner)
    whole = learner(batch).parts
    halves = [learner(batch.rows(part)).parts for part in (slice(0, 4), slice(4, 8))]
    for name in ("cross_entropy", "clean", "copy"):  # the mask loss is one of means
        torch.testing.assert_close(torch.cat([half[name] for half in halves]), whole[name])


def test_the_slow_copy_follows_the_parameters_alone() -> None:
    learner = lumix.AutoMix(network(), momentum=0.5)
    before = {name: value.clone() for name, value in learner.slow.state_dict().items()}
    with torch.no_grad():
        for parameter in learner.network.parameters():
            parameter.add_(1)
    learner.after_update(1.0)
    for name, parameter in learner.slow.named_parameters():
        torch.testing.assert_close(parameter.detach(), before[name] + 0.5)
    for name, value in learner.slow.named_buffers():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize("kind", LEARNERS)
def test_a_skipped_batch_teaches_the_generator_by_the_mask_loss_alone(kind: type[lumix.AutoMix]) -> None:
    learner = kind(network(), share=0.8, mask_decays=True)
    draws = stream()
    for progress in (0.0, 0.5, 1.0):  # as often at the end as at the beginning
        learner.after_update(progress)
        assert 0.68 < sum(learner.prepare(*images_and_labels(2), draws).trains for _ in range(100)) / 100 < 0.92
    learner.after_update(0.2)
    seen: list[int] = []
    learner.slow.register_forward_hook(lambda *_: seen.append(1))
    with torch.no_grad():
        learner.block.value.bias.fill_(3.0) if kind is lumix.AutoMix else None  # far from any label weight
    batch = prepared(learner)._replace(trains=False)
    losses = learner(batch)
    losses.backward()
    assert not seen
    assert not losses.parts["copy"].any()
    assert losses.parts["mask"].any()
    alone = torch.autograd.grad(learner._block_losses(batch)[1], [*learner.block.parameters()])
    for parameter, gradient in zip(learner.block.parameters(), alone, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


def test_published_options_reach_the_block() -> None:
    """Fine-grained sets: the label weight as a channel; SAMix's k = 1 and dropout on its values."""
    learner = lumix.SAMix(network(), curvature=1.0, dropout=0.1)
    seen: list[Tensor] = []
    learner.block.query.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    ones, weight = torch.ones(2, 12, 3, 3), torch.tensor([0.2, 0.35])
    learner.block(ones, ones, weight, (6, 6))
    torch.testing.assert_close(seen[0][:, 0, 0, 0] - 1, residual_embedding(weight, 1.0))
    assert [m.p for m in learner.block.value.modules() if isinstance(m, nn.Dropout)] == [0.1]
    assert lumix.AutoMix(network(), large=True).block.match.in_channels == 13


@pytest.mark.parametrize("loss", [None, lumix.MixLoss(ignore_index=4)])
def test_images_without_a_class_count_in_no_mean(loss: lumix.MixLoss | None) -> None:
    learner = lumix.AutoMix(network("vit"), loss)
    images, _ = images_and_labels()
    ignored = -100 if loss is None else 4
    labels = torch.where(torch.arange(8) < 4, torch.arange(8) % 4, ignored)
    batch = learner.prepare(images, labels, stream(0))
    losses = learner(batch)
    learned = batch.clean._replace(labels=batch.clean.labels.clamp(0, 3))
    logits = automix_logits(learner, images)
    wanted = F.cross_entropy(logits[:4], learned.labels[:4])
    torch.testing.assert_close(losses.parts["clean"].mean(), wanted.detach())
    counted = learner.loss(learner.network(batch.mixed.images), batch.mixed)
    if counted.isfinite():
        torch.testing.assert_close(losses.parts["cross_entropy"].mean(), counted.detach())
    nobody = learner(learner.prepare(images, torch.full((8,), ignored), stream(0)))
    assert nobody.loss.isfinite()


def automix_logits(learner: lumix.AutoMix, images: Tensor) -> Tensor:
    return module.logits_by(learner.network, learner.heads, learner.clean_head, images)


HOLDERS: dict[str, Any] = {"automix": lumix.AutoMix, "samix": lumix.SAMix, "self_tuning": SelfTuning}
CONTRACT = ("resnet18", "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "convnext_atto", "xcit_nano_12_p16_224")


def groups(holder: nn.Module, prefix: str, **options: Any) -> dict[str, tuple[float, float]]:
    """Weight decay and scale of the rate of every parameter below `prefix` in the optimizer that timm makes."""
    made = create_optimizer_v2(holder, opt="adamw", lr=1e-3, weight_decay=0.05, **options).param_groups
    names = {id(parameter): name for name, parameter in holder.named_parameters()}
    found = {names[id(p)]: (g["weight_decay"], g.get("lr_scale", 1.0)) for g in made for p in g["params"]}
    return {name.removeprefix(prefix): value for name, value in found.items() if name.startswith(prefix)}


@pytest.mark.parametrize("holder", HOLDERS)
@pytest.mark.parametrize("name", CONTRACT)
def test_optimizers_treat_a_network_in_a_learner_as_the_network_alone(name: str, holder: str) -> None:
    with torch.device("meta"):
        alone = timm.create_model(name, num_classes=5)
        learner = HOLDERS[holder](alone)
    for options in ({}, {"layer_decay": 0.5}, {"layer_decay": 0.9}):
        assert groups(learner, "network.", **options) == groups(alone, "", **options)
    others = groups(learner, "", layer_decay=0.5)
    assert all(scale == 1 for other, (_, scale) in others.items() if not other.startswith("network."))


@pytest.mark.parametrize("holder", HOLDERS)
def test_freezing_and_unfreezing_leave_slow_copies_constants(holder: str) -> None:
    learner = HOLDERS[holder](network())
    slow = {name for name, parameter in learner.named_parameters() if not parameter.requires_grad}
    learner.requires_grad_(False).requires_grad_(True)
    assert {name for name, parameter in learner.named_parameters() if not parameter.requires_grad} == slow
    timm.utils.unfreeze(learner)  # which asks no module
    with pytest.raises((AttributeError, IndexError)):
        learner(tuple.__new__(learner.BATCH))
    assert {name for name, parameter in learner.named_parameters() if not parameter.requires_grad} == slow
    timm.utils.freeze(learner, ["network.layer1", "network.bn1"])  # which makes buffers of the norms' parameters
    module.follow(getattr(learner, learner.SLOW[0]), learner.network, 0.5)


@pytest.mark.parametrize("holder", HOLDERS)
def test_a_learner_takes_images_in_evaluation_and_says_what_it_trains_on(holder: str) -> None:
    learner, images = HOLDERS[holder](network()), images_and_labels()[0]
    mixed = lumix.CutMix()(images, torch.arange(8), stream())
    for wrong in ((images,), (images, torch.arange(8)), (mixed,), (None,)):
        with pytest.raises(ValueError, match=r"what its prepare\(\) returns, not from"):
            learner.train()(*wrong)
    learner.eval()
    assert torch.equal(learner(images), learner.network(images))


@pytest.mark.parametrize(
    "head", [nn.Linear(16, 5, bias=False), nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 5))]
)
def test_heads_of_any_shape_are_copied(head: nn.Module) -> None:
    net: Any = network()
    net.fc = head
    learner = lumix.AutoMix(net)
    learner(prepared(learner)).backward()
    assert all(parameter.grad is not None for parameter in learner.clean_head.parameters())
    torch.testing.assert_close(automix_logits(learner.eval(), images_and_labels()[0]), net(images_and_labels()[0]))


@pytest.mark.parametrize("kind", LEARNERS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_network_of_another_precision_has_a_block_of_its_own_precision(
    kind: type[lumix.AutoMix], dtype: torch.dtype
) -> None:
    images, labels = images_and_labels()
    learner = kind(network().to(dtype))
    losses = learner(learner.prepare(images.to(dtype), labels, stream()))
    losses.backward()
    assert all(parameter.grad.isfinite().all() for parameter in learner.block.parameters())
    assert {place.device.type for place in kind(network().to("meta")).block.parameters()} == {"meta"}


def test_it_composes_with_lumix_and_decoupled_mixup() -> None:
    loss = lumix.MixLoss(lumix.LUMixRule(), [lumix.CrossEntropy(), lumix.Decoupled()])
    learner = lumix.SAMix(network(), loss)
    batch = prepared(learner)
    losses = learner(batch)
    logits = learner.network(batch.mixed.images)
    assert {"cross_entropy", "decoupled"} < set(losses.parts)
    assert (losses.own_weight != batch.mixed.own_weight).all()
    again = loss.per_sample(logits, batch.mixed, loss.weights(logits, batch.mixed, batch.draws))[0].detach()
    torch.testing.assert_close(losses.parts["cross_entropy"] + losses.parts["decoupled"], again)


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: lumix.AutoMix(nn.Linear(2, 2)), "a classifier of timm with forward_intermediates"),
        (lambda: lumix.AutoMix(network(), stage=7), "one of the 5 feature maps of the network, from 0, not 7"),
        (lambda: lumix.AutoMix(network(), stage=-1), "from 0, not -1"),
        (lambda: lumix.AutoMix(network(), alpha=0.0), "alpha must"),
        (lambda: lumix.AutoMix(network(), lumix.MixLoss(TransMixRule())), "use another label rule"),
        (lambda: lumix.AutoMix(network()).after_update(1.5), "progress must"),
        (
            lambda: lumix.SAMix(network()).prepare(torch.ones(2, 3, 8, 8).byte(), torch.zeros(2).long(), stream()),
            "a learner needs the normalised images that the network takes, not torch.uint8",
        ),
        (lambda: lumix.AutoMix(network()).prepare(torch.zeros(2, 3, 16), torch.zeros(2).long(), stream()), "images"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(build: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        build()


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # of torch itself, between two graphs
@pytest.mark.parametrize("wrap", ["network", "learner"])
@pytest.mark.parametrize("kind", LEARNERS)
def test_compiled_it_learns_the_same(kind: type[lumix.AutoMix], wrap: str) -> None:
    """The network within, or the learner, also while the weight of the mask loss falls; heads of its own included."""
    found: list[list[Any]] = []
    for compiles in (False, True):
        torch.manual_seed(1)
        inner = torch.compile(network(), backend="eager") if compiles and wrap == "network" else network()
        learner = kind(inner, mask_decays=True).eval()
        called = torch.compile(learner, backend="eager") if compiles and wrap == "learner" else learner
        losses = []
        for progress in (0.0, 0.5, 0.9):
            learner.after_update(progress)
            losses.append(called(prepared(learner)).loss)
            losses[-1].backward()
        found.append([*losses, *(p.grad for p in learner.parameters() if p.grad is not None)])
    assert len(found[0]) == len(found[1]) > 10
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)
