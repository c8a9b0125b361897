"""The batched RandAugment, flip, normalisation and erasing against timm and Pillow, on real photographs."""

import math
import random
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from timm.data.auto_augment import LEVEL_TO_ARG, AugmentOp, RandAugment
from timm.data.random_erasing import RandomErasing
from torch import Tensor

from training.config import Data
from training.device_augment import BatchErasing, BatchRandAugment, DeviceAugmentation, strength
from training.device_ops import AFFINE, FUNCTIONS, TABLES
from training.folder import device_augmentation, train_transform

pytestmark = pytest.mark.usefixtures("global_state_untouched")

IMAGENET = Data("imagenet", 64, flip=True, crop_scale=0.08, rand_augment="rand-m9-mstd0.5-inc1", erasing=0.25)
NAMES = (*TABLES, *FUNCTIONS, *AFFINE)


def step_of(data: Data, kind: type) -> Any:
    return next(step for step in train_transform(data).transforms if isinstance(step, kind))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(images: list[Image.Image]) -> Tensor:
    return torch.stack([torch.from_numpy(np.array(image)).permute(2, 0, 1) for image in images])


@pytest.fixture(scope="module")
def photographs() -> list[Image.Image]:
    """Odd sizes: two photographs, a soft part of one without black or white, one colour, and four colours."""
    china, flower = (Image.fromarray(image) for image in load_sample_images().images)
    size = (97, 64)
    soft = china.crop((150, 200, 200, 250)).resize(size, Image.Resampling.BICUBIC)
    whole = [image.resize(size, Image.Resampling.BICUBIC) for image in (china, flower)]
    return [
        *whole,
        soft,
        Image.new("RGB", size, (5, 100, 255)),
        china.crop((300, 200, 397, 264)).quantize(4).convert("RGB"),
    ]


# One operation ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_operations_are_pillows(name: str, photographs: list[Image.Image], monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit, but for the affine maps: there at most 1 grey level in at most 1 % of the values.

    (Pillow truncates a value in double precision, we one in single precision.)
    """
    augment = BatchRandAugment.like(step_of(IMAGENET, RandAugment))
    operation: AugmentOp = next(op for op in step_of(IMAGENET, RandAugment).ops if op.name == name)
    operation.prob, operation.magnitude_std = 1.0, 0
    n = len(photographs)
    for level in (0.0, 2.2, 5.0, 8.5, 9.0, 9.7, 10.0):
        for negative in (False, True):
            operation.magnitude = level
            with monkeypatch.context() as context:
                context.setattr(random, "random", lambda sign=negative: 0.9 * sign)
                expected = batch([operation(image) for image in photographs]).int()
            images = batch(photographs)
            number = torch.full((n,), augment.names.index(name))
            augment.apply(images, number, torch.full((n,), level).double(), torch.full((n,), negative))
            difference = (images.int() - expected).abs()
            assert difference.max() <= (1 if name in AFFINE else 0)
            assert (difference > 0).double().mean() < 0.01


def test_operations_do_change_photographs(photographs: list[Image.Image]) -> None:
    """So that the test above compares something: no operation is the identity at full strength."""
    augment = BatchRandAugment.like(step_of(IMAGENET, RandAugment))
    before = batch(photographs[2:3])
    for number in range(len(augment.names)):
        images = before.clone()
        augment.apply(images, torch.tensor([number]), torch.tensor([10.0]).double(), torch.tensor([False]))
        assert not torch.equal(images, before)


@pytest.mark.parametrize("name", [name for name in NAMES if LEVEL_TO_ARG[name]])
def test_strengths_are_timms(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    level = torch.linspace(0, 10, 401, dtype=torch.float64)
    operation = next(op for op in step_of(IMAGENET, RandAugment).ops if op.name == name)
    for negative in (False, True):
        monkeypatch.setattr(random, "random", lambda sign=negative: 0.9 * sign)
        expected = [operation.level_fn(value, {})[0] for value in level.tolist()]
        got = strength(name, level, torch.full(level.shape, negative))
        np.testing.assert_allclose(got.numpy(), expected, rtol=1e-13, atol=1e-13)
    monkeypatch.undo()


def test_every_sample_has_its_own_operation_and_strength(photographs: list[Image.Image]) -> None:
    augment = BatchRandAugment.like(step_of(IMAGENET, RandAugment))
    image = batch(photographs[:1])
    operation = torch.arange(-1, len(augment.names)).repeat(2)
    level = torch.linspace(3, 10, len(operation), dtype=torch.float64)
    negative = torch.arange(len(operation)) % 3 == 0
    together = image.repeat(len(operation), 1, 1, 1)
    augment.apply(together, operation, level, negative)
    for i in range(len(operation)):
        alone = image.clone()
        augment.apply(alone, operation[i : i + 1], level[i : i + 1], negative[i : i + 1])
        assert torch.equal(together[i], alone[0])
    assert torch.equal(together[0], image[0])


@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (1, 3, 2, 5), (2, 3, 5, 2), (1, 3, 3, 3)])
def test_tiny_images_are_pillows_too(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    source = torch.randint(0, 256, shape, generator=generator(), dtype=torch.uint8)
    augment = BatchRandAugment.like(step_of(IMAGENET, RandAugment))
    monkeypatch.setattr(random, "random", lambda: 0.0)
    for number, operation in enumerate(step_of(IMAGENET, RandAugment).ops):
        operation.magnitude_std = 0
        images, n = source.clone(), len(source)
        augment.apply(images, torch.full((n,), number), torch.full((n,), 9.0).double(), torch.full((n,), False))
        expected = batch([operation(Image.fromarray(image.permute(1, 2, 0).numpy())) for image in source])
        assert (images.int() - expected.int()).abs().max() <= (1 if operation.name in AFFINE else 0), operation.name
    monkeypatch.undo()


# What is drawn ----------------------------------------------------------------------------------------------------


def test_draws_follow_timms_law() -> None:
    augment = BatchRandAugment.like(step_of(IMAGENET, RandAugment))
    n = 40_000
    operation, level, negative = augment.draw(n, generator())
    used = operation >= 0
    assert abs(used.double().mean() - 0.5) < 5 * 0.5 / math.sqrt(2 * n)
    counts = torch.bincount(operation[used], minlength=15)
    expected = n / 15
    assert ((counts - expected) ** 2 / expected).sum() < 40  # chi-square of 14 degrees of freedom: 40 is p = 3e-4
    assert abs((operation[:, 0] == operation[:, 1])[used.all(1)].double().mean() - 1 / 15) < 0.01  # with replacement
    assert abs(negative.double().mean() - 0.5) < 0.01
    clipped = torch.randn(10**6, generator=generator(1)).mul(0.5).add(9).clamp(0, 10)
    assert level.max() == 10
    assert abs(level.mean() - clipped.mean()) < 0.01
    assert abs(level.std() - clipped.std()) < 0.01
    for a, b in ((used, negative), (level > 9, used), (used[:, :1], used[:, 1:]), (negative, level > 9)):
        assert abs((a & b).double().mean() - 0.25) < 0.01  # independent of each other


def test_weighted_choices_do_not_repeat() -> None:
    augment = BatchRandAugment.like(
        step_of(IMAGENET.replace(rand_augment="rand-m9-inc1-n3-p1.0-tweights"), RandAugment)
    )
    operation, level, _ = augment.draw(2000, generator())
    assert all(len(set(row)) == 3 for row in operation.tolist())
    assert (operation == augment.names.index("Rotate")).sum() > 10 * (operation == augment.names.index("Invert")).sum()
    assert level.unique().tolist() == [9]


def test_flips_half_of_the_images_and_normalises_as_timm() -> None:
    images = torch.randint(0, 256, (400, 3, 4, 5), generator=generator(), dtype=torch.uint8)
    before = images.clone()
    data = Data("imagenet", 64, flip=True, crop_scale=0.08)
    out = device_augmentation(data)(images, generator(3))
    assert torch.equal(images, before)
    last = train_transform(data).transforms[-2:]
    plain = torch.stack([last[1](last[0](image.permute(1, 2, 0).numpy())) for image in images])
    as_was = torch.isclose(out, plain, atol=1e-5).flatten(1).all(1)
    turned = torch.isclose(out, plain.flip(3), atol=1e-5).flatten(1).all(1)
    assert (as_was | turned).all()
    assert 160 < turned.sum() < 240
    unflipped = device_augmentation(data.replace(flip=False))(images, generator(3))
    torch.testing.assert_close(unflipped, plain)


# Erasing ----------------------------------------------------------------------------------------------------------


def timms_boxes(n: int, side: int) -> Tensor:
    step: RandomErasing = step_of(IMAGENET.replace(erasing=1.0), RandomErasing)
    state = random.getstate()
    random.seed(0)
    try:
        with torch.random.fork_rng(devices=[]):
            erased = torch.stack([step(torch.zeros(1, side, side)) != 0 for _ in range(n)])[:, 0]
    finally:
        random.setstate(state)
    rows, columns = erased.any(2).int(), erased.any(1).int()
    ends = [(mask.argmax(1), mask.argmax(1) + mask.sum(1)) for mask in (rows, columns)]
    return torch.stack([*ends[0], *ends[1]], 1)


def test_erased_rectangles_follow_timms_law() -> None:
    n, side = 6000, 32
    ours = BatchErasing.like(step_of(IMAGENET.replace(erasing=1.0), RandomErasing)).draw(n, side, side, generator())
    timms = timms_boxes(n, side)
    assert (ours[:, 1] > ours[:, 0]).all()
    assert (ours >= 0).all()
    assert (ours <= side).all()

    def measures(boxes: Tensor) -> Tensor:
        top, bottom, left, right = boxes.double().unbind(1)
        height, width = bottom - top, right - left
        return torch.stack([height, width, height * width, (height / width).log(), top, left, bottom, right], 1)

    a, b = measures(ours), measures(timms)
    error = ((a.var(0) + b.var(0)) / n).sqrt()
    assert ((a.mean(0) - b.mean(0)).abs() < 4 * error).all()
    assert ((a.std(0) / b.std(0) - 1).abs() < 0.05).all()


def test_erasing_fills_one_rectangle_with_unit_noise() -> None:
    erasing = BatchErasing.like(step_of(IMAGENET, RandomErasing))
    images = torch.full((2000, 3, 16, 24), 9.0)
    boxes = erasing.draw(2000, 16, 24, generator(5))
    erased = erasing(images, generator(5)) != 9
    assert 0.21 < erased.flatten(1).any(1).double().mean() < 0.29
    row, column = torch.arange(16).view(-1, 1), torch.arange(24)
    top, bottom, left, right = boxes.view(-1, 4, 1, 1).unbind(1)
    inside = (row >= top) & (row < bottom) & (column >= left) & (column < right)
    assert torch.equal(erased, inside.unsqueeze(1).expand_as(erased))
    noise = images[erased]
    assert abs(noise.mean()) < 0.01
    assert abs(noise.std() - 1) < 0.01
    assert len(noise.unique()) > 0.99 * len(noise)  # every pixel and channel its own


def test_nothing_is_erased_where_no_rectangle_fits() -> None:
    erasing = BatchErasing(1.0, (0.9, 0.95), (math.log(2), math.log(3)))
    assert not erasing.draw(50, 8, 8, generator()).any()
    images = torch.ones(50, 3, 8, 8)
    assert torch.equal(erasing(images, generator()), torch.ones(50, 3, 8, 8))


# The whole --------------------------------------------------------------------------------------------------------


def test_the_generator_decides_everything_and_the_batch_is_left_alone(photographs: list[Image.Image]) -> None:
    augmentation = device_augmentation(IMAGENET.replace(erasing=0.5))
    images = batch(photographs * 4)
    before = images.clone()
    first = augmentation(images, generator(1))
    assert torch.equal(images, before)
    assert (first.shape, first.dtype) == (images.shape, torch.float32)
    assert torch.equal(first, augmentation(images, generator(1)))
    assert torch.equal(first, augmentation(images.contiguous(memory_format=torch.channels_last), generator(1)))
    assert not torch.equal(first, augmentation(images, generator(2)))
    assert augmentation(images[:1], generator(1)).shape == (1, 3, 64, 97)


def test_parameters_are_read_off_timms_transform() -> None:
    augmentation = device_augmentation(IMAGENET.replace(rand_augment="rand-m5-n3-mstd1.5-p0.7-mmax8-inc1", erasing=0.4))
    assert augmentation.flip == 0.5
    assert augmentation.mean == pytest.approx((0.485, 0.456, 0.406))
    layers = augmentation.rand_augment
    assert layers is not None
    assert (layers.layers, layers.magnitude, layers.std, layers.limit, layers.prob) == (3, 5, 1.5, 8, 0.7)
    assert layers.fill == (124, 116, 104)
    assert augmentation.erasing == BatchErasing(0.4, (0.02, 1 / 3), (math.log(0.3), -math.log(0.3)))
    plain = device_augmentation(Data("imagenet", 64, crop_scale=0.08))
    assert (plain.flip, plain.rand_augment, plain.erasing) == (0.0, None, None)


def test_what_has_no_batched_form_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no Posterize, only timm's RandAugment with inc1"):
        device_augmentation(IMAGENET.replace(rand_augment="rand-m9"))
    with pytest.raises(ValueError, match=r"no AugMixAugment: choose a rand_augment such as rand-m9-mstd0.5-inc1"):
        device_augmentation(IMAGENET.replace(rand_augment="augmix-m5-w4-d2"))
    with pytest.raises(ValueError, match=r"images must be uint8 \[B, 3, H, W\], not torch.float32 \[1, 3, 4, 4\]"):
        device_augmentation(IMAGENET)(torch.zeros(1, 3, 4, 4), generator())
    with pytest.raises(ValueError, match="one rectangle by noise of each pixel only"):
        BatchErasing.like(RandomErasing(0.5, mode="const"))


@pytest.mark.gpu
def test_a_gpu_draws_and_does_the_same(photographs: list[Image.Image]) -> None:
    augmentation: DeviceAugmentation = device_augmentation(IMAGENET.replace(erasing=0.0))
    images = batch(photographs * 20)
    on_cpu = augmentation(images, generator(1))
    on_gpu = augmentation(images.cuda(), generator(1)).cpu()
    close = torch.isclose(on_cpu, on_gpu, atol=1e-4)
    assert close.double().mean() > 0.999  # affine values at the edge between two grey levels may be truncated apart
    erased = device_augmentation(IMAGENET)(images.cuda(), generator(1))
    assert torch.equal(erased, device_augmentation(IMAGENET)(images.cuda(), generator(1)))
