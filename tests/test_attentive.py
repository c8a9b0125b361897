"""Attentive CutMix with networks whose feature maps are known: cells, weights, modes, and what it refuses."""

import pytest
import torch
from batches import images_of, labels_of, stream
from torch import nn
from torch.nn import functional as F

from lumix.mixers.attentive import AttentiveCutMix


def brightness(images):
    """A feature map of 4 x 3 cells: mean brightness, and its negative as the last of three channels."""
    cells = F.adaptive_avg_pool2d(images.mean(1, keepdim=True), (4, 3))
    return torch.cat([3 * cells, cells, -cells], dim=1)


def strongest(scores, count):
    """The cells [h, w] of one score map [h, w] that are among its `count` largest, by sorting in Python."""
    places = sorted(((-value, index) for index, value in enumerate(scores.flatten().tolist())))[:count]
    kept = torch.zeros(scores.numel(), dtype=torch.bool)
    kept[[index for _, index in places]] = True
    return kept.view(scores.shape)


def slowly(images, partner, kept):
    """Mixed images and masks, pixel by pixel, of cells kept [B, h, w]."""
    height, width = images.shape[-2:]
    rows, columns = kept.shape[1:]
    mixed, masks = images.clone(), torch.zeros(len(images), 1, height, width)
    for i, j in enumerate(partner.tolist()):
        for y in range(height):
            for x in range(width):
                masks[i, 0, y, x] = kept[i, y * rows // height, x * columns // width]
                mixed[i, :, y, x] = images[i if masks[i, 0, y, x] else j, :, y, x]
    return mixed, masks


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
@pytest.mark.parametrize(("height", "width"), [(13, 10), (4, 3)])
def test_the_own_images_strongest_cells_are_pasted_on_the_partner(dtype, height, width):
    for size, seed in ((1, 0), (5, 1), (6, 2)):
        images, labels = images_of(size, dtype, height=height, width=width), labels_of(size)
        batch = AttentiveCutMix(brightness, cells=5, size=None)(images, labels, stream(seed))
        seen = images.float() / 255 if dtype == torch.uint8 else images.float()
        kept = torch.stack([strongest(scores, 5) for scores in brightness(seen).mean(1)])
        mixed, masks = slowly(images, batch.partner, kept)
        assert torch.equal(batch.images, mixed)
        assert torch.equal(batch.mask, masks)
        torch.testing.assert_close(batch.own_weight, torch.full((size,), 5 / 12))


def test_equal_scores_are_taken_row_by_row():
    flat = AttentiveCutMix(lambda x: x.new_ones(len(x), 2, 3, 3), cells=4, size=None)
    mask = flat(images_of(2, height=3, width=3), labels_of(2), stream()).mask[0, 0]
    assert mask.flatten().tolist() == [1, 1, 1, 1, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("size", [24, 12, None])
def test_the_network_sees_images_of_its_size(size):
    seen = []

    def network(images):
        seen.append(images)
        return brightness(images)

    images = images_of(3, torch.float16, height=12, width=8)
    AttentiveCutMix(network, size=size)(images, labels_of(3), stream())
    expected = images.float()
    if size is not None:
        expected = F.interpolate(expected, (size, size), mode="bilinear", antialias=True)
    torch.testing.assert_close(seen[0], expected, rtol=0, atol=1e-6)


class Watching(nn.Module):
    """A network that notes its mode; a dropout is in evaluation mode from the start."""

    def __init__(self, channels=3):
        super().__init__()
        self.first = nn.Conv2d(channels, 4, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.5).eval()
        self.seen = []

    def forward(self, images):
        self.seen.append((self.training, self.norm.training, torch.is_grad_enabled(), tuple(images.shape)))
        return self.drop(self.norm(self.first(images)))

    def features(self, images):
        return self(images)


@pytest.mark.parametrize("bound", [False, True])
def test_a_module_runs_frozen_and_is_left_as_it_was(bound):
    module = Watching()
    mixer = AttentiveCutMix(module.features if bound else module, size=None)
    images = images_of(4).requires_grad_()
    batch = mixer(images, labels_of(4), stream())
    assert module.seen == [(False, False, False, (4, 3, 12, 8))]
    assert (module.training, module.norm.training, module.drop.training) == (True, True, False)
    batch.images.sum().backward()
    assert images.grad is not None
    module.eval()
    mixer(images, labels_of(4), stream())
    assert not module.training


def test_grey_images_are_repeated_for_a_network_of_three_channels():
    for channels in (3, 1):
        module = Watching(channels)
        AttentiveCutMix(module, size=16)(images_of(4)[:, :1], labels_of(4), stream())
        assert module.seen[0][3] == (4, channels, 16, 16)


def mix_with(network=brightness, size=4, **options):
    options = {"size": None, **options}
    return AttentiveCutMix(network, **options)(images_of(size), labels_of(size), stream())


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: mix_with(cells=13), "cells = 13 of a feature map of 4 x 3: choose at most 12"),
        (lambda: mix_with(lambda x: x.mean((2, 3))), r"feature map \[B, channels, h, w\], not of shape \[4, 3\]: use"),
        (lambda: mix_with(lambda x: [brightness(x)]), "not list: use forward_features"),
        (lambda: mix_with(lambda x: brightness(x)[:2]), r"not of shape \[2, 3, 4, 3\]"),
        (lambda: mix_with(lambda x: x.repeat(1, 1, 2, 1)), "24 x 8 cells is finer than the images of 12 x 8 pixels"),
        (lambda: AttentiveCutMix("resnet50"), "network must map images to a feature map, not be 'resnet50'"),
    ],
)
def test_what_cannot_be_mixed_is_refused_in_one_sentence(build, message):
    with pytest.raises(ValueError, match=message):
        build()
