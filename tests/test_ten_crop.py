"""Ten-crop evaluation: torchvision's crops, and the logits of all of them."""

import pytest
import torch
from batches import stream
from torch import Tensor, nn
from torchvision.transforms import TenCrop

from evaluation.ten_crop import ten_crop_logits


def test_ten_crops_are_those_of_torchvision_with_summed_logits() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 6 * 6, 4), nn.Tanh())
    images = torch.rand(5, 3, 9, 11, generator=stream())
    wanted = torch.stack([torch.stack([model(crop[None])[0] for crop in TenCrop(6)(image)]).sum(0) for image in images])
    found = ten_crop_logits(model, images, 6)
    torch.testing.assert_close(found, wanted.detach())
    assert not found.requires_grad


def test_ten_crops_are_the_corners_and_the_centre_each_mirrored() -> None:
    image = torch.rand(1, 3, 8, 8, generator=stream())
    seen: list[Tensor] = []

    def model(crop: Tensor) -> Tensor:
        seen.append(crop)
        return torch.ones(1, 2, dtype=torch.bfloat16)

    assert ten_crop_logits(model, image, 4).dtype == torch.float32
    starts = [(0, 0), (0, 4), (4, 0), (4, 4), (2, 2)]
    plain = [image[..., top : top + 4, left : left + 4] for top, left in starts]
    wanted = plain + [crop.flip(3) for crop in plain]
    assert len(seen) == 10
    assert all(any(torch.equal(crop, other) for other in seen) for crop in wanted)
    with pytest.raises(ValueError, match="at least 9 pixels a side"):
        ten_crop_logits(model, image, 9)
