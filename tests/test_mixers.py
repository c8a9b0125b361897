"""Planned mixers: slow arithmetic, in place, the laws of methods.md 7, draws against scipy, torchvision; errors."""

from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from batches import ALL_MIXERS, MIX_CLASSES, MODES, PLANNED, images_of, labels_of, mix, stream
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torchvision.transforms import v2

from lumix import CutMix, Kind, Mixup, RandomLambda, RandomShuffle, Switch
from lumix.mixers import paste
from lumix.mixers.paste import (
    MixPlan,
    apply_plan,
    blend,
    box_around,
    mix_by_selecting,
    permute_grid,
    unmixed_plan,
    visible_share,
)
from lumix.random import draw_integers, draw_partners

LAYOUTS = {
    "contiguous": lambda x: x,
    "channels_last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "transposed": lambda x: x.transpose(2, 3),
    "strided": lambda x: x.repeat_interleave(2, dim=3)[..., ::2],
    "one channel": lambda x: x[:, :1].contiguous(),
}
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.uint8]


def slowly(images, plan):
    """The mixed images of a plan, one sample after the other, from the definitions."""
    mixed = []
    for i, j in enumerate(plan.partner.tolist()):
        own, other = images[i].clone(), images[j]
        if plan.kind[i] == Kind.BLEND:
            weight = plan.own_weight[i].item()
            own = blended = own.to(torch.float64) * weight + other.to(torch.float64) * (1 - weight)
            own = (blended if images.is_floating_point() else blended.round()).to(images.dtype)
        top, bottom, left, right = plan.box[i].tolist()
        own[:, top:bottom, left:right] = other[:, top:bottom, left:right]
        mixed.append(own)
    return torch.stack(mixed)


PATHS = ["small", "small, no NumPy", "large", "large, no NumPy"]


@contextmanager
def path(name):
    """The ways for small and for large batches on the CPU, also without NumPy."""

    def refuse(tensor):
        raise RuntimeError("Numpy is not available")

    with pytest.MonkeyPatch.context() as patch:
        for limit in ("LARGE", "PIECE") if "large" in name else ():
            patch.setattr(paste, limit, 1)
        if "no NumPy" in name:
            patch.setattr(torch.Tensor, "numpy", refuse)
        yield


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    name=st.sampled_from(sorted(PLANNED)),
    mode=st.sampled_from(MODES),
    dtype=st.sampled_from(DTYPES),
    layout=st.sampled_from(sorted(LAYOUTS)),
    way=st.sampled_from(PATHS),
    case=st.sampled_from([("flip", 6), ("permutation", 1), ("permutation", 7)]),
    seed=st.integers(0, 99),
)
def test_images_are_what_the_plan_says_in_new_memory_and_in_place(name, mode, dtype, layout, way, case, seed):
    """Per-sample arithmetic, and bit for bit the way for devices. Memory format is kept, the caller's images too."""
    pairing, size = case
    mixer = PLANNED[name](mode=mode, pairing=pairing, prob=0.8)
    images, labels = LAYOUTS[layout](images_of(size, dtype)), labels_of(size)
    before, plan = images.clone(), mixer.draw(images.shape, stream(seed))
    with path(way):
        batch = mixer(images, labels, stream(seed))
        assert torch.equal(images, before)
        written = replace(mixer, inplace=True)(images, labels, stream(seed))
    assert torch.equal(batch.images, mix_by_selecting(before, plan))
    # half an ulp of the sum, and for uint8 a tie rounded the other way
    tolerance = {torch.uint8: 1.0, torch.float16: 1e-3, torch.bfloat16: 8e-3}.get(dtype, 1e-6)
    torch.testing.assert_close(batch.images, slowly(before, plan), rtol=0, atol=tolerance)
    assert batch.images.dtype == dtype
    for result in (batch.images, mix_by_selecting(before, plan)):
        if layout in ("contiguous", "channels_last"):
            assert result.is_contiguous(
                memory_format=torch.channels_last if layout == "channels_last" else torch.contiguous_format
            )
    assert written.images is images
    assert torch.equal(images, batch.images)
    for field in ("partner_labels", "own_weight", "kind"):
        assert torch.equal(getattr(written, field), getattr(batch, field))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    partner=st.permutations(range(7)) | st.lists(st.integers(0, 6), min_size=7, max_size=7),
    kinds=st.lists(st.sampled_from(list(Kind)[:3]), min_size=7, max_size=7),
    large=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_any_partners_and_any_kinds(partner, kinds, large, seed):
    """Cycles of every length, with blended, pasted and unmixed samples in any order, and several readers of one."""
    images, kind = images_of(7, seed=seed), torch.tensor(kinds, dtype=torch.uint8)
    top, left = torch.randint(6, (2, 7), generator=stream(seed))
    boxes = torch.stack([top, top + 4, left, left + 2], dim=1)
    box = torch.where((kind == Kind.BOX)[:, None], boxes, 0)
    weight = torch.where(kind == Kind.NONE, 1.0, torch.rand(7, generator=stream(seed), dtype=torch.float64))
    plan = MixPlan(weight, torch.tensor(partner), kind, box, (kind, frozenset({*kinds, Kind.NONE})))
    expected = mix_by_selecting(images, plan)
    with pytest.MonkeyPatch.context() as patch:
        if large:
            patch.setattr(paste, "LARGE", 0)
        assert torch.equal(apply_plan(images, labels_of(7), plan).images, expected)
        assert torch.equal(apply_plan(images, labels_of(7), plan, inplace=True).images, expected)
    assert torch.equal(images, expected)


@pytest.mark.parametrize("way", PATHS)
@pytest.mark.parametrize("inplace", [False, True])
def test_a_plan_with_a_field_changed_says_what_is_mixed(way, inplace):
    """Other boxes than the one that was drawn, and another kind than the one that is known of it."""
    images, labels, top = images_of(6), labels_of(6), torch.arange(6)
    cut, unmixed = (CutMix(prob=prob).draw(images.shape, stream()) for prob in (1.0, 0.0))
    blended = {"kind": torch.full_like(unmixed.kind, int(Kind.BLEND)), "own_weight": 0.5 * unmixed.own_weight}
    boxes = replace(cut, box=torch.stack([top, top + 3, top, top + 2], dim=1))
    for plan in (boxes, replace(unmixed, partner=torch.arange(6).roll(1), **blended), replace(cut, **blended)):
        box = torch.where((plan.kind == Kind.BOX)[:, None], plan.box, 0)
        expected = slowly(images, replace(plan, box=box))
        assert not torch.equal(expected, images)
        with path(way):
            torch.testing.assert_close(apply_plan(images.clone(), labels, plan, inplace).images, expected)
        torch.testing.assert_close(mix_by_selecting(images, plan.to(torch.device("cpu"))), expected)


@pytest.mark.parametrize("mixer", [CutMix(inplace=True), Mixup(inplace=True), CutMix(mode="elem", inplace=True)])
def test_an_unmixed_batch_in_place_is_the_batch(mixer):
    images = images_of(6)
    before = images.clone()
    assert replace(mixer, prob=0.0)(images, labels_of(6), stream()).images is images
    assert torch.equal(images, before)


def test_images_that_share_memory_are_refused():
    images = images_of(1).expand(6, -1, -1, -1)
    with pytest.raises(
        ValueError, match=r"share memory \(expand\) cannot be mixed in place: use images.contiguous\(\)"
    ):
        Switch(mode="elem", inplace=True)(images, labels_of(6), stream())
    assert Switch(mode="elem")(images, labels_of(6), stream()).images.shape == images.shape


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("way", PATHS)
def test_autograd_notices_what_was_written(mode, way):
    """NumPy writes past autograd, which must still refuse gradients of the pixels that were there before."""
    images = images_of(6)
    weight = torch.ones(1, requires_grad=True)
    product = (weight * images).sum()
    with path(way):
        CutMix(mode=mode, inplace=True)(images, labels_of(6), stream())
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.backward()


def test_device_path_compiles_as_one_graph():
    images, plan = images_of(6), Switch(mode="elem").draw((6, 3, 12, 8), stream())
    compiled = torch.compile(lambda x: mix_by_selecting(x, plan), fullgraph=True, backend="eager")
    assert torch.equal(compiled(images), mix_by_selecting(images, plan))


def test_blend_rounds_integers_to_the_nearest():
    own, other = torch.full((1, 1, 1, 1), 10, dtype=torch.uint8), torch.full((1, 1, 1, 1), 20, dtype=torch.uint8)
    assert blend(own, other, torch.tensor([0.24], dtype=torch.float64)).item() == 18


def test_blended_samples_have_no_mask_of_one_object_per_pixel():
    with pytest.raises(ValueError, match="cut masks of cut batches only"):
        mix(Mixup())[2].cut_masks(torch.zeros(6, 12, 8))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    name=st.sampled_from(sorted(PLANNED)),
    mode=st.sampled_from(MODES),
    size=st.integers(1, 9),
    height=st.integers(4, 20),
    width=st.integers(4, 20),
    prob=st.sampled_from([0.0, 0.5, 1.0]),
    seed=st.integers(0, 2**31),
)
def test_boxes_lie_inside_and_weights_are_what_can_be_seen(name, mode, size, height, width, prob, seed):
    """Mixer laws: paste provenance, lam_own = 1 - pasted fraction counted from pixels, unmixed samples untouched."""
    mixer = PLANNED[name](mode=mode, prob=prob)
    plan = mixer.draw((size, 3, height, width), stream(seed))
    top, bottom, left, right = plan.box.unbind(1)
    assert ((top >= 0) & (top <= bottom) & (bottom <= height)).all()
    assert ((left >= 0) & (left <= right) & (right <= width)).all()
    # every image is constant, its own index: pixels tell where they come from
    images = torch.arange(size, dtype=torch.float64).view(-1, 1, 1, 1).expand(size, 2, height, width).contiguous()
    batch = apply_plan(images, torch.arange(size), plan)
    expected = plan.own_weight * torch.arange(size) + (1 - plan.own_weight) * plan.partner
    torch.testing.assert_close(batch.images.mean((1, 2, 3)), expected)
    cut = plan.kind == Kind.BOX
    pasted = (batch.images[:, 0] == plan.partner.view(-1, 1, 1)).double().mean((1, 2))
    moved = cut & (plan.partner != torch.arange(size))
    torch.testing.assert_close(plan.own_weight[moved], 1 - pasted[moved])
    unmixed = plan.kind == Kind.NONE
    assert torch.equal(batch.images[unmixed], images[unmixed])
    assert (plan.own_weight[unmixed] == 1).all()
    assert prob > 0 or unmixed.all()
    if not (batch.kind == Kind.BLEND).any() and batch.box is not None:
        masks = torch.arange(size).view(-1, 1, 1).expand(size, height, width)
        assert torch.equal(batch.cut_masks(masks).double(), batch.images[:, 0])
    shown = batch.own_mask().mean((1, 2, 3))
    torch.testing.assert_close(shown, plan.own_weight.float())


@pytest.mark.parametrize("size", [1, 2, 7, 8])
@pytest.mark.parametrize("pairing", ["flip", "permutation"])
def test_pair_mode_is_mutual_and_shares_its_draw(pairing, size):
    if pairing == "flip" and size % 2:
        return
    partner, group, count = draw_partners(size, "pair", pairing, stream())
    assert torch.equal(partner[partner], torch.arange(size))
    assert torch.equal(group[partner], group)
    assert (partner == torch.arange(size)).sum() == size % 2
    assert count == (size + 1) // 2
    assert group.max() < count


def test_integer_draws_are_uniform_up_to_the_last():
    draws = draw_integers(torch.full((70_000,), 7), stream())
    assert stats.chisquare(draws.bincount(minlength=7).numpy()).pvalue > 1e-3


def test_switch_mixes_and_cuts_at_their_rates():
    plan = Switch(Mixup(0.3), CutMix(1.0), switch_prob=0.3, prob=0.8, mode="elem").draw((20_000, 3, 32, 32), stream())
    counts = plan.kind.bincount(minlength=3).numpy()
    # a box of no pixel is no cut: sides of int(32 sqrt(u)) < 2 under the legacy rule, u uniform
    lost = 0.24 * (2 / 32) ** 2
    expected = torch.tensor([0.2 + lost, 0.56, 0.24 - lost]).double().numpy() * 20_000
    assert stats.chisquare(counts, expected).pvalue > 1e-3
    blended = plan.own_weight[plan.kind == Kind.BLEND].numpy()
    assert stats.kstest(blended[blended < 0.5], lambda x: 2 * stats.beta(0.3, 0.3).cdf(x)).pvalue > 1e-3


def test_permutation_pairs_all_with_all():
    partners = torch.stack([draw_partners(4, "elem", "permutation", g)[0] for g in [stream()] for _ in range(8000)])
    for i in range(4):
        assert stats.chisquare(partners[:, i].bincount(minlength=4).numpy()).pvalue > 1e-3


@pytest.mark.parametrize(("rule", "sides"), [("legacy", (4, 0)), ("full", (5, 1))])
def test_box_rules_differ_in_odd_sides(rule, sides):
    """An odd side loses a pixel under the legacy rule; a side of one vanishes."""
    weight = 1 - torch.tensor([5.0, 1.0], dtype=torch.float64) ** 2 / 400
    box = box_around(weight - 1e-9, torch.tensor([[10, 10], [10, 10]]), 20, 20, rule)
    assert (box[:, 1] - box[:, 0]).tolist() == list(sides)
    torch.testing.assert_close(visible_share(box, 20, 20), 1 - torch.tensor(sides).double() ** 2 / 400)


def test_minmax_boxes_keep_their_limits_and_reach_the_border_under_the_full_rule_only():
    for rule, reached in [("legacy", 19), ("full", 20)]:
        box = CutMix(minmax=(0.2, 0.5), box_rule=rule, mode="elem").draw((5000, 3, 20, 20), stream()).box
        side = box[:, 1::2] - box[:, ::2]
        assert (side.min(), side.max()) == (4, 9)
        assert (box.min(), box.max()) == (0, reached)


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_torchvisions_formulas_on_its_own_draws(kind):
    """v2.MixUp and v2.CutMix pair with the batch rolled by one; their boxes are even on both sides of the centre."""
    theirs = v2.MixUp(num_classes=MIX_CLASSES) if kind == "mixup" else v2.CutMix(num_classes=MIX_CLASSES)
    drawn = []
    original = theirs.make_params
    theirs.make_params = lambda inputs: drawn.append(original(inputs)) or drawn[-1]
    images, labels = images_of(6), labels_of(6)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        for _ in range(10):
            their_images, their_target = theirs(images, labels)
            plan = unmixed_plan(6, images.device)
            partner = (torch.arange(6) - 1) % 6
            if kind == "mixup":
                code, weight, box = Kind.BLEND, drawn[-1]["lam"], plan.box
            else:
                left, top, right, bottom = drawn[-1]["box"]
                code, weight = Kind.BOX, drawn[-1]["lam_adjusted"]
                box = torch.tensor([[top, bottom, left, right]]).expand(6, 4)
            weights, kind_of_each = torch.full_like(plan.own_weight, weight), torch.full_like(plan.kind, int(code))
            batch = apply_plan(images, labels, MixPlan(weights, partner, kind_of_each, box))
            torch.testing.assert_close(batch.images, their_images, rtol=0, atol=1e-6)
            own, other = (torch.nn.functional.one_hot(y, MIX_CLASSES) for y in (labels, batch.partner_labels))
            torch.testing.assert_close(weight * own + (1 - weight) * other, their_target)


def test_shuffling_can_be_undone_and_keeps_every_pixel():
    """Mixer law: RS is invertible, keeps the multiset of pixels, and draws one permutation per sample."""
    images = images_of(5)
    order = torch.rand(5, 6, generator=stream()).argsort(1)
    shuffled = permute_grid(images, order, 3, 2)
    assert torch.equal(permute_grid(shuffled, order.argsort(1), 3, 2), images)
    batch = RandomShuffle(CutMix(prob=0.0), patch=4)(images[:1].expand(5, -1, -1, -1), labels_of(5), stream())
    for mixed in batch.images:
        assert torch.equal(mixed.flatten(1).sort().values, images[0].flatten(1).sort().values)
    assert len({mixed.numpy().tobytes() for mixed in batch.images}) > 1


def test_a_shuffled_cut_no_longer_knows_its_place():
    batch = mix(RandomShuffle(CutMix(), patch=4))[2]
    assert batch.box is None
    with pytest.raises(ValueError, match="ask before patches are shuffled"):
        batch.cut_masks(torch.zeros(6, 12, 8))


def test_random_lambda_lies_between_the_images_and_weighs_by_the_patch_mean():
    """Mixer law, and I-18: one draw per patch; the label weight is their mean."""
    images, _, batch = mix(RandomLambda(0.8, patch=4), dtype=torch.float64)
    other = images[batch.partner]
    assert (batch.images >= torch.minimum(images, other) - 1e-12).all()
    assert (batch.images <= torch.maximum(images, other) + 1e-12).all()
    moved = batch.partner != torch.arange(6)
    share = ((batch.images - other) / (images - other))[moved]
    patches = share.unfold(2, 4, 4).unfold(3, 4, 4).permute(0, 2, 3, 1, 4, 5).flatten(3)
    assert (patches.amax(3) - patches.amin(3)).max() < 1e-9
    torch.testing.assert_close(patches.mean((1, 2, 3)).float(), batch.own_weight[moved])


@pytest.mark.parametrize("make", ALL_MIXERS)
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda x, y: (x, y[:3]), r"labels must be \[B\] with B = 6 images, not of shape \[3\]"),
        (lambda x, y: (x[0, 0], y), r"mixes .*images \[B, C, H, W\].*, not a batch of shape \[12, 8\]"),
        (lambda x, y: (x[:0], y[:0]), r"a batch of shape \[0, .*\] is empty"),
    ],
)
def test_bad_batches_are_refused_in_one_sentence(make, spoil, message):
    with pytest.raises(ValueError, match=message):
        make()(*spoil(images_of(6), labels_of(6)), stream())


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: mix(Mixup(pairing="flip"), 5), "flip pairing needs an even batch, not 5 images: use drop_last=True"),
        (lambda: mix(RandomLambda(patch=4, pairing="flip"), 5), "even batch"),
        (lambda: CutMix(minmax=(0.8, 0.2)), "minmax must be two shares of a side"),
        (lambda: mix(CutMix(minmax=(0.1, 0.11))), "leaves no whole pixel for a side of 12"),
        (lambda: mix(RandomLambda(patch=5)), "patches of side 5 do not tile an image of 12 x 8"),
        (lambda: mix(RandomShuffle(Mixup(), patch=16)), "patches of side 16 do not tile"),
        (
            lambda: Mixup().apply(images_of(4), labels_of(4), Mixup().draw((6, 3, 12, 8), stream())),
            "draws are for 6 images, the",
        ),
    ],
)
def test_bad_settings_are_refused_in_one_sentence(build, message):
    with pytest.raises(ValueError, match=message):
        build()
