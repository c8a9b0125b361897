"""FGSM and the accuracy on mixed images: laws, hand-made cases, and whole test sets."""

import pytest
import torch
from torch import nn

from evaluation.robustness import fgsm, mixed_accuracy


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# ------------------------------------------------------------------------------------------------- FGSM


def test_fgsm_is_one_signed_step_within_the_image(trained):
    model, _, _ = trained
    images, labels = torch.rand(6, 1, 8, 8, generator=generator()), torch.arange(6)
    images[0, 0, 0] = 0.0
    before = images.clone()
    attacked = fgsm.fgsm(model, images, labels, 0.03)
    leaf = images.clone().requires_grad_()
    nn.functional.cross_entropy(model(leaf), labels).backward()
    assert bool((images == before).all())
    torch.testing.assert_close(attacked, (images + 0.03 * leaf.grad.sign()).clamp(0, 1))
    assert bool((fgsm.fgsm(model, images, labels, 0.0) == images).all())
    losses = [nn.functional.cross_entropy(model(x), labels).item() for x in (images, attacked)]
    assert losses[1] > losses[0]
    assert all(
        parameter.grad is None or bool((parameter.grad == parameter.grad).all()) for parameter in model.parameters()
    )


def test_pixels_without_gradient_stay():
    images = torch.rand(2, 1, 4, 4, generator=generator())
    attacked = fgsm.fgsm(
        lambda x: torch.stack((x[:, 0, 0, 0], 2 * x[:, 0, 0, 1]), 1), images, torch.tensor([0, 1]), 0.1
    )
    changed = (attacked != images).nonzero()[:, 2:].tolist()
    assert {tuple(place) for place in changed} == {(0, 0), (0, 1)}


def test_fgsm_refuses_normalised_images_and_negative_radii():
    with pytest.raises(ValueError, match="before normalisation"):
        fgsm.fgsm(lambda images: images.flatten(1), torch.full((1, 1, 4, 4), 1.5), torch.tensor([0]), 0.1)
    with pytest.raises(ValueError, match="radius must be at least 0"):
        fgsm.fgsm(lambda images: images.flatten(1), torch.zeros(1, 1, 4, 4), torch.tensor([0]), -0.1)


def test_fgsm_error_counts_what_was_wrong_before(trained):
    model, card, _ = trained
    values = fgsm.drive(model, card, {"radius": 0, "batch": 300}, "cpu").values
    assert values["error"] == pytest.approx(100 - values["top1"])
    assert fgsm.drive(model, card, {"radius": 64, "batch": 300}, "cpu").values["error"] > values["error"]


# ------------------------------------------------------------------------------------------------- mixed accuracy


def test_mixed_hits_by_hand():
    logits = torch.tensor([[5.0, 4.0, 1.0], [5.0, 1.0, 4.0], [1.0, 4.0, 5.0], [5.0, 4.0, 1.0]])
    labels, partners = torch.tensor([1, 1, 0, 0]), torch.tensor([0, 0, 2, 0])
    first, both = mixed_accuracy.mixed_hits(logits, labels, partners)
    assert first.tolist() == [True, True, True, True]
    assert both.tolist() == [True, False, False, False]  # the last pair is of one class
    swapped = mixed_accuracy.mixed_hits(logits, partners, labels)
    assert (swapped[0].tolist(), swapped[1].tolist()) == (first.tolist(), both.tolist())
    ties = torch.zeros(1, 3)
    assert mixed_accuracy.mixed_hits(ties, torch.tensor([1]), torch.tensor([0]))[1].tolist() == [True]
    assert mixed_accuracy.mixed_hits(ties, torch.tensor([1]), torch.tensor([2]))[0].tolist() == [False]
    with pytest.raises(ValueError, match="at least 2 classes"):
        mixed_accuracy.mixed_hits(torch.zeros(1, 1), torch.tensor([0]), torch.tensor([0]))


@pytest.mark.parametrize("method", ["mixup", "cutmix"])
def test_mixed_accuracy_of_real_images(method, trained):
    model, card, _ = trained
    arguments = {"method": method, "alpha": 1.0, "seed": 0, "batch": 300}
    values = mixed_accuracy.drive(model, card, arguments, "cpu").values
    assert values == mixed_accuracy.drive(model, card, arguments, "cpu").values
    assert set(values) == {"top1_mixed", "top2_mixed", "top1_mixed_all", "top2_mixed_all"}
    assert values["top2_mixed"] <= values["top1_mixed"]
    assert values["top2_mixed"] > values["top2_mixed_all"]  # digits hold pairs of one class, which top-2 never gets
    for changed, message in (({"method": "cutout"}, "method must be"), ({"batch": 796}, "has no partner")):
        with pytest.raises(ValueError, match=message):
            mixed_accuracy.drive(model, card, {**arguments, **changed}, "cpu")
