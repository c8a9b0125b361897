"""The laws of methods.md 7 for mixers, their draws against scipy, and torchvision's formulas."""

import pytest
import torch
from batches import MIX_CLASSES, MODES, PLANNED, images_of, labels_of, mix, stream
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torchvision.transforms import v2

from lumix import CutMix, Kind, Mixup, RandomLambda, RandomShuffle, Switch
from lumix.mixers.paste import MixPlan, apply_plan, box_around, permute_grid, unmixed_plan, visible_share
from lumix.random import draw_beta, draw_integers, draw_partners

# ------------------------------------------------------------------------------------------------- laws of methods.md 7


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


def test_uncorrected_weights_are_those_drawn():
    """correct_lam=False keeps the share of the box before it was clipped, so boxes show at least as much."""
    corrected, drawn = (mix(CutMix(mode="elem", correct_lam=c), 200)[2] for c in (True, False))
    assert torch.equal(corrected.images, drawn.images)
    assert torch.equal(drawn.own_weight, draw_beta(1.0, 200, after_partners(200)).float())
    assert (corrected.own_weight >= drawn.own_weight - 1e-6).all()
    assert (corrected.own_weight > drawn.own_weight).sum() > 100


def after_partners(size):
    generator = stream()
    draw_partners(size, "elem", "permutation", generator)
    return generator


# ------------------------------------------------------------------------------------------------- draws


@pytest.mark.parametrize("alpha", [0.2, 0.8, 1.0, 8.0])
def test_beta_draws_are_scipys_beta(alpha):
    draws = draw_beta(alpha, 100_000, stream())
    assert draws.dtype == torch.float64
    assert stats.kstest(draws[draws < 0.5].numpy(), lambda x: 2 * stats.beta(alpha, alpha).cdf(x)).pvalue > 1e-3
    assert stats.binomtest(int((draws < 0.5).sum()), len(draws)).pvalue > 1e-3


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


# ------------------------------------------------------------------------------------------------- torchvision


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
                kinds, weight, box = Kind.BLEND, drawn[-1]["lam"], plan.box
            else:
                left, top, right, bottom = drawn[-1]["box"]
                kinds, weight = Kind.BOX, drawn[-1]["lam_adjusted"]
                box = torch.tensor([[top, bottom, left, right]]).expand(6, 4)
            weights, codes = torch.full_like(plan.own_weight, weight), torch.full_like(plan.kind, int(kinds))
            batch = apply_plan(images, labels, MixPlan(weights, partner, codes, box, frozenset({kinds}), True))
            torch.testing.assert_close(batch.images, their_images, rtol=0, atol=1e-6)
            own, other = (torch.nn.functional.one_hot(y, MIX_CLASSES) for y in (labels, batch.partner_labels))
            torch.testing.assert_close(weight * own + (1 - weight) * other, their_target)


# ------------------------------------------------------------------------------------------------- Table 12


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
