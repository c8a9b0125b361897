"""Strong views: RandAugment's operations against timm and Pillow on real photographs, its draws, cutout."""

import math
import random
from typing import Any

import numpy as np
import pytest
import torch
from batches import stream
from PIL import Image
from sklearn.datasets import load_sample_images
from torch import Tensor

from training.data.strong_views import AFFINE, cutout, rand_augment, strong_view

pytestmark = pytest.mark.usefixtures("global_state_untouched")

FILL = (124, 116, 104)
NAMES = [op.name for op in rand_augment("rand-m9-inc1", FILL).ops]


def photographs(size: tuple[int, int] = (97, 64)) -> list[Image.Image]:
    """Two photographs, a soft part of one without black or white, one colour, and four colours."""
    china, flower = (Image.fromarray(image) for image in load_sample_images().images)
    soft, four = china.crop((150, 200, 200, 250)), china.crop((300, 200, 397, 264)).quantize(4).convert("RGB")
    return [image.resize(size) for image in (china, flower, soft, Image.new("RGB", size, (5, 100, 255)), four)]


def batch(images: list[Image.Image]) -> Tensor:
    return torch.stack([torch.from_numpy(np.array(image)).permute(2, 0, 1) for image in images])


def only(name: str, level: float) -> Any:
    """RandAugment that always does one operation at one strength."""
    step = rand_augment("rand-m9-n1-p1-inc1", FILL)
    step.ops = [op for op in step.ops if op.name == name]
    for op in step.ops:
        op.prob, op.magnitude, op.magnitude_std = 1.0, level, 0
    return step


@pytest.mark.parametrize("size", [(97, 64), (3, 2)])
@pytest.mark.parametrize("name", NAMES)
def test_operations_are_timms(name: str, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit, but for affine maps: at most 1 grey level in at most 1 % of the values of an image of this size."""
    images, changed = photographs(size), 0
    for level in (0.0, 2.2, 5.0, 9.0, 10.0):
        step = only(name, level)
        found = strong_view(batch(images), step, stream()).int()
        wanted = []
        for sign in (0.0, 0.9):  # of which timm's draws one by the global state
            with monkeypatch.context() as context:
                context.setattr(random, "random", lambda sign=sign: sign)
                monkeypatch.setattr(step.ops[0], "level_fn", at_least_one_bit(step.ops[0]))
                wanted.append(batch([step.ops[0](image) for image in images]).int())
        difference = torch.stack([(found - each).abs().flatten(1) for each in wanted])
        nearest = difference.amax(2).argmin(0)
        difference = difference[nearest, torch.arange(len(images))]
        assert difference.max() <= (1 if name in AFFINE else 0)
        assert size[0] < 10 or (difference > 0).double().mean() < 0.01
        changed += int((found != batch(images)).sum())
    assert changed > 0 or size[0] < 10


def at_least_one_bit(op: Any) -> Any:
    """Pillow refuses the 0 bits that timm asks of Posterize at full strength."""
    if op.name != "PosterizeIncreasing":
        return op.level_fn
    return lambda level, hparams: (max(1, 4 - int(level / 10 * 4)),)


def test_draws_follow_timms_law() -> None:
    """Which operations, how strong and with which sign is seen in what shifts and greys of the operations do."""
    step = rand_augment("rand-m9-mstd0.5-inc1", FILL)
    assert (step.num_layers, step.ops[0].prob) == (2, 0.5)
    step.ops = [op for op in step.ops if op.name in ("Invert", "BrightnessIncreasing")]
    level = torch.full((20_000, 3, 1, 1), 100, dtype=torch.uint8)
    found = strong_view(level, step, stream())[:, 0, 0, 0].int()
    assert abs((found == 100).double().mean() - 0.25 - 1 / 16) < 0.01  # neither layer acts, or both invert
    once = found[(found != 100) & (found != 155) & (found < 200)]
    share = (once - 100).abs().double() / 90  # brightness by 1 +- 0.9 * level / 10 and nothing else, or inverted too
    assert 0.7 < share.quantile(0.5) < 0.95


def test_any_strength_is_uniform() -> None:
    step = only("BrightnessIncreasing", 10.0)
    for op in step.ops:
        op.magnitude_std = float("inf")
    level = torch.full((20_000, 3, 1, 1), 100, dtype=torch.uint8)
    found = strong_view(level, step, stream())[:, 0, 0, 0].double()
    assert abs(found.mean() - 99.5) < 1.5
    assert abs(found.std() - 180 / math.sqrt(12)) < 1


def test_the_generator_decides_and_the_batch_is_left_alone() -> None:
    step, images = rand_augment("rand-m10-n3-p1-mstd101-inc1", FILL), batch(photographs() * 4)
    before = images.clone()
    first = strong_view(images, step, stream(1))
    assert torch.equal(images, before)
    assert (first.shape, first.dtype) == (images.shape, torch.uint8)
    assert torch.equal(first, strong_view(images, step, stream(1)))
    assert not torch.equal(first, strong_view(images, step, stream(2)))
    for notation in ("rand-m9", "rand-m9-inc1-tweights"):
        with pytest.raises(ValueError, match="RandAugment with inc1 and without weights"):
            rand_augment(notation, FILL)


def test_cutout_is_a_square_inside_the_image_of_any_place() -> None:
    images = torch.full((400, 3, 16, 16), 9, dtype=torch.uint8)
    hit = cutout(images, 0.5, (1, 2, 3), stream()) != 9
    assert bool((images == 9).all())
    assert torch.equal(hit[:, 0], hit[:, 1])
    rows, columns = hit[:, 0].any(2).sum(1), hit[:, 0].any(1).sum(1)
    assert torch.equal(hit[:, 0].sum((1, 2)), rows * columns)
    assert int(rows.max()) == int(columns.max()) == 8
    assert int(rows.min()) == 0
    assert bool((hit[:, 0, 4:-4, 4:-4].float().mean(0) > 0).all())
    assert bool((hit[:, 0, 0] | hit[:, 0, -1]).any())
