"""Label rules: the laws of lambda_r against scipy, equations 3 to 5, and which samples are perturbed."""

import pytest
import torch
from batches import label_batch, other_defaults, random_logits, stream
from scipy import stats

from lumix import BetaLaw, ConstantLaw, Kind, LUMixRule, NormalLaw, functional

BATCH = label_batch(size=30)
LOGITS = random_logits(size=30)
PAIR = (BATCH.labels, BATCH.partner_labels)
LAM_R = torch.rand(30, generator=stream(7))

# About 25 tests of distribution share this level, so all of them together raise a false alarm once in 400 seeds. With
# 100 000 draws a distribution function that is off by 0.01 anywhere is still found.
LEVEL, DRAWS = 1e-4, 100_000


@pytest.mark.parametrize("alpha", [0.1, 0.2, 0.8, 1.0, 2.0, 20.0])
def test_beta_law_is_a_beta(alpha):
    """Both halves by themselves: near 1, where numbers are sparse, small alphas pile up on the last of them."""
    draws, law = BetaLaw(alpha).draw(DRAWS, stream(2)), stats.beta(alpha, alpha)
    low = draws[draws < 0.5].double().numpy()
    assert draws.dtype == torch.float32
    assert stats.binomtest(len(low), len(draws)).pvalue > LEVEL
    assert stats.kstest(low, lambda x: 2 * law.cdf(x)).pvalue > LEVEL
    high = draws[draws >= 0.5].double().clamp(max=1 - 1e-5).numpy()
    below = high[high < 1 - 1e-5]
    assert stats.kstest(below, lambda x: (law.cdf(x) - 0.5) / (law.cdf(1 - 1e-5) - 0.5)).pvalue > LEVEL
    assert stats.binomtest(len(below), len(high), 2 * law.cdf(1 - 1e-5) - 1).pvalue > LEVEL


def test_normal_law_in_its_three_readings():
    """I-14."""
    scale = 5**0.5
    draws = {name: NormalLaw(scale, name).draw(DRAWS, stream()) for name in ("raw", "clamp_draw", "sigmoid")}
    assert stats.kstest(draws["raw"].numpy(), stats.norm(scale=scale).cdf).pvalue > LEVEL
    assert torch.equal(draws["clamp_draw"], draws["raw"].clamp(0, 1))
    assert draws["clamp_draw"].mean().item() == pytest.approx(0.412, abs=0.01)  # methods.md 2.6
    assert torch.equal(draws["sigmoid"], draws["raw"].sigmoid())


def test_constant_law_is_constant_and_takes_nothing_from_the_stream():
    generator = stream()
    state = generator.get_state()
    assert ConstantLaw(0.25).draw(3, generator).tolist() == [0.25] * 3
    assert torch.equal(generator.get_state(), state)


@pytest.mark.parametrize("law", [BetaLaw(), NormalLaw(), ConstantLaw()])
def test_the_default_device_and_dtype_do_not_matter(law):
    expected, generator = law.draw(3, stream()), stream()
    with other_defaults():
        assert torch.equal(law.draw(3, generator), expected)


def test_mix_weights_is_a_convex_combination_in_the_unit_interval():
    """Law 2, and equation 3 term by term."""
    generator = stream()
    area, random, predicted = torch.rand(3, 1000, generator=generator, dtype=torch.float64)
    for r_r, r_s in [(0.0, 0.0), (0.4, 0.1), (1.0, 0.0), (0.0, 1.0), (0.5, 0.5)]:
        mixed = functional.mix_weights(area, random, predicted, r_r, r_s)
        assert mixed.min() >= 0
        assert mixed.max() <= 1
        torch.testing.assert_close(mixed, area + r_r * (random - area) + r_s * (predicted - area))


@pytest.mark.parametrize("scores", ["softmax", "double_softmax", "sigmoid"])
def test_predicted_weight_is_the_ratio_of_the_scores(scores):
    """Law 3, equations 4 and 5."""
    logits = random_logits(30, scale=5.0)
    once = logits.sigmoid() if scores == "sigmoid" else logits.softmax(1)
    values = once.softmax(1) if scores == "double_softmax" else once
    own, partner = (values.gather(1, labels[:, None])[:, 0] for labels in PAIR)
    torch.testing.assert_close(functional.predicted_weight(logits, *PAIR, scores), own / (own + partner))
    assert functional.predicted_weight(logits, *PAIR, scores)[0] == 0.5  # one class


@pytest.mark.parametrize("scores", ["softmax", "double_softmax", "sigmoid"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_predicted_weight_of_huge_logits_is_finite_with_finite_gradients(scores, dtype):
    """Law 3: +-1e4 in any precision; half precision is computed in float32."""
    logits = torch.tensor([[1e4, -1e4, 0.0], [-1e4, 1e4, 0.0], [-1e4, -1e4, 0.0]], dtype=dtype, requires_grad=True)
    labels = torch.zeros(3, dtype=torch.int64)
    weight = functional.predicted_weight(logits, labels, labels + 1, scores)
    assert weight.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert ((weight >= 0) & (weight <= 1)).all()
    assert torch.autograd.grad(weight.sum(), logits)[0].isfinite().all()
    if scores == "softmax":
        assert weight.tolist() == [1.0, 0.0, 0.5]  # a ratio of probabilities would be 0/0 in the third


@pytest.mark.parametrize("scores", ["softmax", "double_softmax", "sigmoid"])
def test_lumix_rule_is_equation_3_on_the_partners_weight(scores):
    rule = LUMixRule(0.4, 0.1, apply_to="both", scores=scores)
    lam_0, lam_s = 1 - BATCH.own_weight, 1 - functional.predicted_weight(LOGITS, *PAIR, scores)
    expected = 1 - (0.5 * lam_0 + 0.4 * LAM_R + 0.1 * lam_s)
    mixed = BATCH.kind != Kind.NONE
    weight = rule.weigh(LOGITS, BATCH, LAM_R)
    torch.testing.assert_close(weight[mixed], expected[mixed], check_dtype=False)
    assert (weight[~mixed] == 1).all()


def test_calling_a_rule_is_drawing_and_weighing():
    rule = LUMixRule(law=BetaLaw(0.8))
    lam_r = rule.draw(BATCH, stream(4))
    assert torch.equal(lam_r, BetaLaw(0.8).draw(BATCH.size, stream(4)))
    assert torch.equal(rule(LOGITS, BATCH, stream(4)), rule.weigh(LOGITS, BATCH, lam_r))
    assert len(set(lam_r.tolist())) == BATCH.size  # one draw per sample, also where lambda_0 is shared


def test_the_final_clamp_acts_on_normal_draws_only_after_mixing():
    """I-14, the default reading: 0.5 x 0.6 + 0.5 x 1.2 = 0.9 is legal although the draw was not."""
    batch = label_batch(3, kind=Kind.BOX)
    batch = batch._replace(own_weight=torch.full((3,), 0.4))
    lam_r = torch.tensor([1.2, 3.0, -3.0])
    weight = LUMixRule(0.5, 0.0, NormalLaw()).weigh(random_logits(3), batch, lam_r)
    torch.testing.assert_close(1 - weight, torch.tensor([0.9, 1.0, 0.0], dtype=weight.dtype))


def test_apply_to_chooses_the_perturbed_samples():
    """Law 9 and I-13: CutMix and mask methods, or every mixed sample; never an unmixed one."""
    kinds = torch.tensor([Kind.NONE, Kind.BLEND, Kind.BOX, Kind.MASK], dtype=torch.uint8)
    batch = label_batch(4)
    batch = batch._replace(kind=kinds)
    assert LUMixRule(apply_to="cut").perturbs(batch).tolist() == [False, False, True, True]
    assert LUMixRule(apply_to="both").perturbs(batch).tolist() == [False, True, True, True]
    weight = LUMixRule(apply_to="cut")(random_logits(4), batch, stream())
    assert torch.equal(weight[:2].float(), batch.own_weight[:2])
    assert (weight[2:].float() != batch.own_weight[2:]).all()


@pytest.mark.parametrize("detach", [True, False])
def test_detach_decides_whether_the_weight_carries_a_gradient(detach):
    """I-12."""
    logits = LOGITS.clone().requires_grad_()
    assert LUMixRule(0.0, 0.5, detach=detach).weigh(logits, BATCH, LAM_R).requires_grad is not detach


@pytest.mark.gpu
def test_a_generator_on_the_cpu_serves_logits_on_the_gpu():
    weight = LUMixRule()(LOGITS.to("cuda"), BATCH.to("cuda"), stream())
    torch.testing.assert_close(weight.cpu(), LUMixRule()(LOGITS, BATCH, stream()))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: LUMixRule(0.6, 0.5), r"sum to at most 1.*not r_r = 0\.6 and r_s = 0\.5"),
        (lambda: LUMixRule()(LOGITS, BATCH), "pass a torch.Generator"),
        (lambda: functional.predicted_weight(LOGITS, *PAIR, "logits"), "scores must be 'softmax', 'double_softmax' or"),
        (lambda: functional.indicator(PAIR[0] == PAIR[1], "xor"), "reading must be 'or' or 'and', not 'xor'"),
        (lambda: LUMixRule().weigh(LOGITS, BATCH), r"needs the draws \[B\] of lambda_r"),
    ],
)
def test_bad_values_are_refused_in_one_sentence(build, message):
    with pytest.raises(ValueError, match=message):
        build()
