"""The device's part of the fast input path: flip, RandAugment, normalise and random erasing on whole uint8 batches.

Its parameters are read off the transform that timm builds for the same `Data`, so the fast path has the published
path's distribution by construction. Small draws are made on the CPU, where they decide which samples an operation
gets without waiting for the device; only the noise of erased pixels is drawn on the device.
"""

from dataclasses import dataclass

import torch
from timm.data.auto_augment import AugmentOp, RandAugment
from timm.data.random_erasing import RandomErasing
from torch import Tensor
from torchvision.transforms import Compose, Normalize, RandomHorizontalFlip

from training.data import normalise
from training.device_ops import AFFINE, FUNCTIONS, TABLES, affine, affine_matrix, apply_tables

ATTEMPTS = 10  # of timm's RandomErasing to find a rectangle that fits
FULL = 10.0  # timm's magnitude of full strength


def strength(name: str, level: Tensor, negative: Tensor, translation: float = 0.45) -> Tensor:
    """timm's argument of the operation `name`, for magnitudes `level` float64 [n] in [0, 10] and signs bool [n].

    Whole numbers come as int64, all others as float64. Operations without an argument get the level.
    """
    share = level / FULL
    signed = torch.where(negative, -share, share)
    match name:
        case "Rotate":
            return signed * 30
        case "ShearX" | "ShearY":
            return signed * 0.3
        case "TranslateXRel" | "TranslateYRel":
            return signed * translation
        case "PosterizeIncreasing":  # timm's 0 bits at full strength are refused by Pillow: one bit, as in `folder`
            return (4 - (share * 4).long()).clamp(min=1)
        case "SolarizeIncreasing":
            return 256 - (share * 256).long().clamp(max=256)
        case "SolarizeAdd":
            return (share * 110).long().clamp(max=128)
        case "ColorIncreasing" | "ContrastIncreasing" | "BrightnessIncreasing" | "SharpnessIncreasing":
            return (1 + signed * 0.9).clamp(min=0.1)
    return level


@dataclass(frozen=True)
class BatchRandAugment:
    """timm's RandAugment on a batch: each sample draws its own operations, strengths and signs.

    Raises:
        ValueError: for operations other than the fifteen of timm's notation with `inc1`, or operations that differ in
            more than their name.
    """

    names: tuple[str, ...]
    layers: int
    weights: tuple[float, ...] | None  # given, the layers of a sample differ from one another
    prob: float
    magnitude: float
    std: float
    limit: float
    translation: float
    fill: tuple[int, ...]

    @classmethod
    def like(cls, step: RandAugment) -> "BatchRandAugment":
        """The batched form of timm's `step`."""
        operations: list[AugmentOp] = list(step.ops)
        known = (*TABLES, *FUNCTIONS, *AFFINE)
        for operation in operations:
            if operation.name not in known:
                raise ValueError(
                    f"the fast path has no {operation.name}, only timm's RandAugment with inc1 in its notation "
                    f"(rand-m9-mstd0.5-inc1): choose that, or Data.pipeline 'paper'"
                )
            if operation.kwargs["resample"] != 3:  # Pillow's number of BICUBIC
                raise ValueError("the fast path turns and shears images by bicubic interpolation only")
        first = operations[0]
        return cls(
            names=tuple(operation.name for operation in operations),
            layers=step.num_layers,
            weights=None if step.choice_weights is None else tuple(step.choice_weights),
            prob=first.prob,
            magnitude=first.magnitude,
            std=first.magnitude_std,
            limit=first.magnitude_max or FULL,
            translation=first.hparams.get("translate_pct", 0.45),
            fill=tuple(first.kwargs["fillcolor"]),
        )

    def draw(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """For n samples: operation int64 [n, layers] (-1 is none), level float64 and negative sign bool, alike."""
        weights = torch.tensor(self.weights or [1.0] * len(self.names), dtype=torch.float64)
        repeats = self.weights is None
        operation = torch.multinomial(weights.expand(n, -1), self.layers, repeats, generator=generator)
        used, level, sign = torch.rand(3, n, self.layers, dtype=torch.float64, generator=generator)
        normal = torch.randn(n, self.layers, dtype=torch.float64, generator=generator)
        level = level * self.magnitude if self.std == float("inf") else self.magnitude + self.std * normal
        return operation.where(used < self.prob, -1), level.clamp(0, self.limit), sign < 0.5

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Changes `images`, uint8 [B, 3, H, W], in place and returns them; `generator` is on the CPU."""
        operation, level, negative = self.draw(len(images), generator)
        for layer in range(self.layers):
            self.apply(images, operation[:, layer], level[:, layer], negative[:, layer])
        return images

    def apply(self, images: Tensor, operation: Tensor, level: Tensor, negative: Tensor) -> None:
        """One layer: every sample's operation, by the index in `names`, in place; all tables go together."""
        tabled: list[tuple[Tensor, Tensor]] = []
        for number, name in enumerate(self.names):
            index = (operation == number).nonzero()[:, 0]
            if not len(index):
                continue
            by = strength(name, level[index], negative[index], self.translation)
            if name in AFFINE:
                by = affine_matrix(name, by, *images.shape[2:])
            index, by = index.to(images.device, non_blocking=True), by.to(images.device, non_blocking=True)
            if name in TABLES:
                tabled.append((index, TABLES[name](images[index], by)))
            elif name in FUNCTIONS:
                images[index] = FUNCTIONS[name](images[index], by)
            else:
                images[index] = affine(images[index], by, self.fill, AFFINE[name])
        if tabled:
            index, tables = (torch.cat(parts) for parts in zip(*tabled, strict=True))
            images[index] = apply_tables(images[index], tables)


@dataclass(frozen=True)
class BatchErasing:
    """timm's RandomErasing with one rectangle of normal noise per erased sample."""

    prob: float
    area: tuple[float, float]
    log_aspect: tuple[float, float]

    @classmethod
    def like(cls, step: RandomErasing) -> "BatchErasing":
        """The batched form of timm's `step`.

        Raises:
            ValueError: for another fill than noise by pixel, or several rectangles.
        """
        if not step.per_pixel or step.max_count != 1:
            raise ValueError("the fast path erases one rectangle by noise of each pixel only")
        return cls(step.probability, (step.min_area, step.max_area), step.log_aspect_ratio)

    def draw(self, n: int, height: int, width: int, generator: torch.Generator) -> Tensor:
        """Rectangles int64 [n, 4]: first row, row after the last, first column, column after the last; 0 if none."""
        area, aspect = torch.rand(2, n, ATTEMPTS, dtype=torch.float64, generator=generator)
        used, top, left = torch.rand(3, n, dtype=torch.float64, generator=generator)
        area = _between(self.area, area) * (height * width)
        aspect = _between(self.log_aspect, aspect).exp()
        rows, columns = (area * aspect).sqrt().round(), (area / aspect).sqrt().round()
        fits = (rows < height) & (columns < width)
        first = fits.int().argmax(1, keepdim=True)  # of the attempts; the first that fits
        rows, columns = rows.gather(1, first)[:, 0], columns.gather(1, first)[:, 0]
        top, left = (top * (height - rows + 1)).floor(), (left * (width - columns + 1)).floor()
        boxes = torch.stack([top, top + rows, left, left + columns], 1).long()
        return boxes * ((used < self.prob) & fits.any(1)).unsqueeze(1)

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Changes `images`, normalised float32 [B, C, H, W], in place and returns them; `generator` is on the CPU."""
        height, width = images.shape[2:]
        boxes = self.draw(len(images), height, width, generator)
        noise = torch.Generator(images.device).manual_seed(int(torch.randint(2**62, (), generator=generator)))
        chosen = (boxes[:, 1] > 0).nonzero()[:, 0]
        if not len(chosen):
            return images
        top, bottom, left, right = boxes[chosen].to(images.device, non_blocking=True).view(-1, 4, 1, 1, 1).unbind(1)
        row = torch.arange(height, device=images.device).view(-1, 1)
        column = torch.arange(width, device=images.device)
        erased = (row >= top) & (row < bottom) & (column >= left) & (column < right)
        chosen = chosen.to(images.device, non_blocking=True)
        part = images[chosen]
        images[chosen] = torch.where(erased, torch.randn(part.shape, generator=noise, device=part.device), part)
        return images


def _between(limits: tuple[float, float], share: Tensor) -> Tensor:
    return limits[0] + (limits[1] - limits[0]) * share


@dataclass(frozen=True)
class DeviceAugmentation:
    """What follows the random crop in timm's training transform, on a batch: crops to normalised images."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    flip: float = 0.0
    rand_augment: BatchRandAugment | None = None
    erasing: BatchErasing | None = None

    @classmethod
    def like(cls, transform: Compose) -> "DeviceAugmentation":
        """The batched form of all steps of timm's `transform` but its first, the crop.

        Raises:
            ValueError: for a step that has none.
        """
        flip, rand_augment, erasing, normalisation = 0.0, None, None, None
        for step in transform.transforms[1:]:
            match step:
                case RandomHorizontalFlip():
                    flip = step.p
                case RandAugment():
                    rand_augment = BatchRandAugment.like(step)
                case Normalize():
                    normalisation = step
                case RandomErasing():
                    erasing = BatchErasing.like(step)
                case _ if type(step).__name__ != "MaybeToTensor":
                    raise ValueError(
                        f"the fast path has no {type(step).__name__}: choose a rand_augment such as "
                        f"rand-m9-mstd0.5-inc1, or Data.pipeline 'paper'"
                    )
        assert normalisation is not None
        mean, std = tuple(map(float, normalisation.mean)), tuple(map(float, normalisation.std))
        return cls(mean, std, flip, rand_augment, erasing)

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Augmented, normalised images, float32 [B, 3, H, W].

        Args:
            images: crops, uint8 [B, 3, H, W] in any layout and on any device; not changed.
            generator: on the CPU; decides everything.

        Raises:
            ValueError: for images of another type or number of channels.
        """
        if images.dtype != torch.uint8 or images.dim() != 4 or images.shape[1] != 3:
            raise ValueError(f"images must be uint8 [B, 3, H, W], not {images.dtype} {list(images.shape)}")
        images = images.contiguous()
        flipped = torch.rand(len(images), generator=generator) < self.flip
        images = images.where(~flipped.to(images.device, non_blocking=True).view(-1, 1, 1, 1), images.flip(3))
        if self.rand_augment:
            images = self.rand_augment(images, generator)
        out = normalise(images, self.mean, self.std)
        return self.erasing(out, generator) if self.erasing else out
