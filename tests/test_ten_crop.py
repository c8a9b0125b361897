"""Ten-crop evaluation: torchvision's crops, and the logits of all of them."""

import pytest
import torch
from batches import stream
from torch import nn
from torchvision.transforms import TenCrop

from evaluation.ten_crop import ten_crop_logits


def test_ten_crops_are_those_of_torchvision_with_summed_logits() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 6 * 6, 4), nn.Tanh())
    images = torch.rand(5, 3, 9, 11, generator=stream())
    wanted = torch.stack([torch.stack([model(crop[None])[0] for crop in TenCrop(6)(image)]).sum(0) for image in images])
    found = ten_crop_logits(model, images, 6)
    torch.testing.assert_close(found, wanted.detach())
    assert not found.requires_grad
    assert ten_crop_logits(lambda crop: torch.ones(1, 2, dtype=torch.bfloat16), images[:1], 4).dtype == torch.float32
    with pytest.raises(ValueError, match="bigger than input size"):
        ten_crop_logits(model, images, 10)
