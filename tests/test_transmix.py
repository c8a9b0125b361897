"""TransMix's label weight against a loop over patches, its quirks, and the network that gives the attention."""

import pytest
import timm
import torch
from batches import images_of, labels_of, random_logits, stream
from engine import small_run

from lumix import CutMix, FMix, Kind, LUMixRule, MixedBatch, Mixup, Switch, TransMixRule, functional
from lumix.batch import DrawnBatch
from lumix.integrations.attention import class_attention
from lumix.rules import attended_weight
from training.build import build_task
from training.config import Loss, Mix, Optim

PATCH = 4
GRID = 6  # images of 12 x 8 pixels have 3 x 2 patches of 4


def cut_batch(mixer=None, size=12, seed=0):
    mixer = mixer or CutMix(mode="elem")
    return mixer(images_of(size), labels_of(size), stream(seed))


def attention_of(size=12, patches=GRID, seed=1):
    return torch.rand(size, patches, generator=stream(seed)) / patches


def by_hand(batch: MixedBatch, attention):
    """A patch is pasted if its first pixel is; lambda_1 of the partner is the share of attention on pasted patches."""
    weights = []
    for i in range(batch.size):
        top, bottom, left, right = batch.box[i].tolist()
        pasted = sum(
            attention[i, 2 * row + column].item()
            for row in range(3)
            for column in range(2)
            if top <= PATCH * row < bottom and left <= PATCH * column < right
        )
        weights.append(1 - pasted / attention[i].sum().item())
    return torch.tensor(weights)


@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
def test_weight_is_the_mean_of_area_and_attention(mode):
    batch, attention = cut_batch(CutMix(mode=mode)), attention_of()
    weight = TransMixRule()(random_logits(), batch, attention=attention)
    torch.testing.assert_close(weight, 0.5 * batch.own_weight + 0.5 * by_hand(batch, attention))


def test_masks_of_any_shape_are_read_at_the_first_pixel_of_a_patch():
    batch, attention = cut_batch(FMix()), attention_of()
    expected = functional.attention_weight(attention, batch.mask[:, 0, ::PATCH, ::PATCH].flatten(1))
    torch.testing.assert_close(attended_weight(batch, attention), expected)


def test_a_box_within_a_patch_gets_no_attention():
    """The published quirk."""
    batch = cut_batch()
    batch = batch._replace(box=torch.tensor([[1, 4, 1, 4]]).expand(12, 4))
    assert (attended_weight(batch, attention_of()) == 1).all()


def test_blended_and_unmixed_samples_keep_their_weight():
    batch = cut_batch(Switch(Mixup(), CutMix(), mode="elem", prob=0.7), size=60)
    plain = ~batch.is_kind(Kind.BOX)
    assert 0 < plain.sum() < 60
    weight = TransMixRule()(random_logits(60), batch, attention=attention_of(60))
    assert torch.equal(weight[plain], batch.own_weight[plain])
    assert torch.equal(TransMixRule().perturbs(batch), ~plain)


def test_attention_is_a_third_part_of_lambda():
    batch, attention, logits, lam_r = (
        cut_batch(),
        attention_of(),
        random_logits(classes=10),
        torch.rand(12, generator=stream(3)),
    )
    weight = LUMixRule(0.4, 0.1, r_a=0.25).weigh(logits, batch, lam_r, attention)
    predicted = functional.predicted_weight(logits, batch.labels, batch.partner_labels)
    parts = (batch.own_weight, 1 - lam_r, predicted, by_hand(batch, attention))
    expected = sum(share * part for share, part in zip((0.25, 0.4, 0.1, 0.25), parts, strict=True))
    cut = batch.is_kind(Kind.BOX)
    torch.testing.assert_close(weight[cut], expected[cut], check_dtype=False)
    same = LUMixRule(0.4, 0.1).weigh(logits, batch, lam_r)
    assert torch.equal(LUMixRule(0.4, 0.1, r_a=0.0).weigh(logits, batch, lam_r, attention), same)


@pytest.mark.parametrize("scale", [0.0, 1e-45, 1e30])
def test_weight_is_in_range_however_small_or_large_the_attention(scale):
    share = torch.rand(5, 9, generator=stream())
    weight = functional.attention_weight(scale * torch.rand(5, 9, generator=stream(1)), share)
    assert ((weight >= 0) & (weight <= 1)).all()
    torch.testing.assert_close(functional.attention_weight(torch.zeros(5, 9), share), share.mean(1))


def test_no_gradient_reaches_the_network_through_its_attention():
    attention = attention_of().requires_grad_()
    assert not TransMixRule()(random_logits(), cut_batch(), attention=attention).requires_grad


def test_mistakes_are_named():
    batch = cut_batch()
    for wrong in (None, [[1.0] * GRID] * 12):
        with pytest.raises(ValueError, match="pass it as attention="):
            TransMixRule()(random_logits(), batch, attention=wrong)
    for shape in ((12, 7), (12, 0), (12, 2, GRID), (12, 24 * 97)):
        with pytest.raises(ValueError, match="square patches that tile 12 x 8 pixels"):
            TransMixRule()(random_logits(), batch, attention=torch.rand(shape))
    with pytest.raises(ValueError, match=r"sum to at most 1.* not r_r = 0.4 and r_s = 0.1 and r_a = 0.6"):
        LUMixRule(0.4, 0.1, r_a=0.6)
    with pytest.raises(ValueError, match=r"share must lie between 0 and 1, not 1.5"):
        TransMixRule(1.5)
    with pytest.raises(ValueError, match="box nor mask"):
        TransMixRule()(random_logits(), batch._replace(box=None), attention=attention_of())


def vit():
    torch.manual_seed(0)
    return timm.create_model(
        "deit_small_patch16_224", img_size=(12, 8), patch_size=4, embed_dim=16, depth=2, num_heads=2, num_classes=5
    )


def a_task(model, rule):
    run = small_run(mix=Mix(), loss=Loss(rule=rule), optim=Optim(lr=0.1))
    device = next(model.parameters(), torch.empty(0)).device
    return build_task(run, model, (0.5,), (0.5,), device)


def test_the_task_weighs_by_the_attention_of_its_own_forward_pass():
    model = vit().eval()
    task = a_task(model, TransMixRule())
    batch = cut_batch()
    batch = batch._replace(labels=batch.labels % 5, partner_labels=batch.partner_labels % 5)
    lam = task.step(DrawnBatch(batch, None)).record["lam"]
    attention = class_attention(model, batch.images).mean(1)
    torch.testing.assert_close(1 - lam, TransMixRule()(model(batch.images), batch, attention=attention))
    assert not torch.equal(1 - lam, batch.own_weight)
    assert not model.blocks[-1].attn._forward_pre_hooks


def test_attention_of_dropped_patches_is_refused():
    """Of 16 patches a quarter are left, which look like 2 x 2 larger ones."""
    small = {"img_size": 16, "patch_size": 4, "embed_dim": 16, "depth": 1, "num_heads": 2}
    model = timm.create_model("deit_tiny_patch16_224", patch_drop_rate=0.75, **small)
    with pytest.raises(ValueError, match="set patch_drop_rate=0"):
        class_attention(model.train(), torch.randn(2, 3, 16, 16))
    assert class_attention(model.eval(), torch.randn(2, 3, 16, 16)).shape == (2, 2, 16)
