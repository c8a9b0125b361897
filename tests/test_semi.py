"""The equations of FixMatch and MixMatch against plain references, and what is a constant in them."""

import pytest
import torch
from batches import stream
from torch import Tensor
from torch.nn import functional as F

from lumix.semi import guess_labels, mix_targets, pseudo_labels, sharpen, soft_cross_entropy, squared_error


def logits_of(size: int = 8, classes: int = 4, seed: int = 0) -> Tensor:
    return 3 * torch.randn(size, classes, generator=stream(seed))


@pytest.mark.parametrize("threshold", [0.0, 0.5, 0.9, 1.0])
def test_a_pseudo_label_is_trusted_from_the_threshold_on(threshold: float) -> None:
    logits = torch.cat([logits_of(), torch.tensor([[200.0, 0, 0, 0], [0, 0, 0, 0]])])
    labels, trusted = pseudo_labels(logits, threshold)
    assert labels.dtype == torch.int64
    assert torch.equal(labels, logits.argmax(1))
    for row, is_trusted in zip(logits.double(), trusted.tolist(), strict=True):
        assert is_trusted == (float(row.softmax(0).max()) >= threshold)
    assert trusted[-2]  # probability 1 to the last digit
    assert bool(trusted[-1]) == (threshold <= 0.25)


def test_no_gradient_passes_through_what_serves_as_a_label() -> None:
    logits = logits_of().requires_grad_()
    labels, trusted = pseudo_labels(logits, 0.5)
    guess = guess_labels([logits, 2 * logits], 0.5)
    assert not any(each.requires_grad for each in (labels, trusted, guess))


@pytest.mark.parametrize("temperature", [0.1, 0.5, 1.0, 2.0])
def test_sharpening_is_a_power_scaled_to_sum_to_one(temperature: float) -> None:
    probabilities = torch.cat([logits_of().softmax(1), torch.tensor([[1.0, 0, 0, 0]])])
    powers = probabilities ** (1 / temperature)
    sharp = sharpen(probabilities, temperature)
    torch.testing.assert_close(sharp, powers / powers.sum(1, keepdim=True))
    if temperature == 1:
        torch.testing.assert_close(sharp, probabilities)
    with pytest.raises(ValueError, match="temperature must be"):
        sharpen(probabilities, 0.0)


def test_a_guess_is_the_sharpened_mean_of_views() -> None:
    views = [logits_of(seed=seed) for seed in range(2)]
    mean = (views[0].softmax(1) + views[1].softmax(1)) / 2
    torch.testing.assert_close(guess_labels(views, 0.5), mean**2 / (mean**2).sum(1, keepdim=True))
    for wrong in (views[0], []):
        with pytest.raises(ValueError, match="views must be a list"):
            guess_labels(wrong, 0.5)


def test_mixing_keeps_each_image_nearer_to_itself_and_targets_follow() -> None:
    size, classes = 64, 4
    images = torch.eye(size).view(size, 1, size, 1)  # pixel i of image i: pixels tell the ratios
    targets = F.one_hot(torch.arange(size) % classes, classes).float()
    mixed, mixed_targets = mix_targets(images, targets, 0.5, stream(1))
    ratios = mixed.view(size, size)
    own = ratios.diagonal()
    assert bool((own >= 0.5).all())
    assert own.unique().numel() > size // 2  # each image has a ratio of its own
    torch.testing.assert_close(ratios.sum(1), torch.ones(size))
    torch.testing.assert_close(mixed_targets, ratios @ targets)
    torch.testing.assert_close(ratios.sum(0), own + (ratios - own.diag()).sum(0))
    again = mix_targets(images, targets, 0.5, stream(1))
    assert torch.equal(again[0], mixed)


def test_losses_equal_their_definitions_and_are_float32_in_half_precision() -> None:
    logits, targets = logits_of(), logits_of(seed=1).softmax(1)
    probabilities = logits.softmax(1)
    torch.testing.assert_close(soft_cross_entropy(logits, targets), F.cross_entropy(logits, targets, reduction="none"))
    torch.testing.assert_close(squared_error(logits, targets), ((probabilities - targets) ** 2).mean(1))
    hot = F.one_hot(targets.argmax(1), 4)
    for loss in (soft_cross_entropy, squared_error):
        assert loss(logits.bfloat16(), targets).dtype == torch.float32
        assert torch.equal(loss(logits, hot), loss(logits, hot.float()))
        for indices in (hot.argmax(1), hot.argmax(1)[:4]):  # four of them would be spread over the classes
            with pytest.raises(ValueError, match=r"use F\.one_hot"):
                loss(logits[: len(indices)], indices)
