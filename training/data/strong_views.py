"""Strong views of unlabelled images (FixMatch): timm's RandAugment with draws of a generator of its own, and cutout.

Operations on grey levels are timm's, image by image. Affine ones act on the batch: Pillow truncates an interpolated
value in double precision, this code in single precision, and results that were published here have the latter's bits.
"""

from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.data.auto_augment import RandAugment, rand_augment_transform
from torch import Tensor

from lumix.random import moved

BICUBIC = 3  # Pillow's number, as timm's parameters have it
TRANSLATION = 0.3  # of the image's side, at full strength, as FixMatch has it; timm's own is 0.45
FULL = 10.0  # timm's magnitude of full strength
# Whether a map moves pixels along the columns and along the rows. Where not, one tap is exact instead of four.
AFFINE = {
    "Rotate": (True, True),
    "ShearX": (True, False),
    "ShearY": (False, True),
    "TranslateXRel": (True, False),
    "TranslateYRel": (False, True),
}
TAPS = (-1, 0, 1, 2)


def rand_augment(notation: str, fill: tuple[int, ...]) -> RandAugment:
    """timm's RandAugment of a notation such as rand-m5-n1-mstd101-inc1; what affine maps uncover gets the RGB `fill`."""
    options = {"translate_pct": TRANSLATION, "img_mean": fill, "interpolation": BICUBIC}
    step = rand_augment_transform(notation, options)
    if step.choice_weights is not None or any(op.name in ("Posterize", "Solarize", "Color") for op in step.ops):
        raise ValueError(f"strong views are made by timm's RandAugment with inc1 and without weights, not {notation!r}")
    return step


def strong_view(images: Tensor, step: RandAugment, generator: torch.Generator) -> Tensor:
    """Images uint8 [B, 3, H, W] augmented, in new memory: each draws its own operations, strengths and signs (on the CPU)."""
    images, shape, first = images.clone(), (len(images), step.num_layers), step.ops[0]
    chances = torch.ones(len(step.ops), dtype=torch.float64).expand(len(images), -1)
    operation = torch.multinomial(chances, step.num_layers, replacement=True, generator=generator)
    used, level, sign = torch.rand(3, *shape, dtype=torch.float64, generator=generator)
    normal = torch.randn(*shape, dtype=torch.float64, generator=generator)
    spread = first.magnitude_std
    level = level * first.magnitude if spread == float("inf") else first.magnitude + spread * normal
    level, operation = level.clamp(0, first.magnitude_max or FULL), operation.where(used < first.prob, -1)
    for layer in range(step.num_layers):
        for number, op in enumerate(step.ops):
            rows = (operation[:, layer] == number).nonzero()[:, 0]
            if not len(rows):
                continue
            share, negative = level[rows, layer] / FULL, sign[rows, layer] < 0.5
            place = moved(rows, images.device)
            if op.name in AFFINE:
                images[place] = affine(images[place], op.name, torch.where(negative, -share, share), op.kwargs)
            else:
                shares = zip(images[place].cpu(), share.tolist(), negative.tolist(), strict=True)
                images[place] = torch.stack([_recoloured(op, *each) for each in shares]).to(images.device)
    return images


def _recoloured(op: Any, image: Tensor, share: float, negative: bool) -> Tensor:
    """An image uint8 [3, H, W] after an operation of timm's on its grey levels, at a share of its full strength."""
    match op.name:
        case "PosterizeIncreasing":  # timm's 0 bits at full strength are refused by Pillow: one bit
            arguments: tuple[float, ...] = (max(4 - int(share * 4), 1),)
        case "SolarizeIncreasing":
            arguments = (256 - min(int(share * 256), 256),)
        case "SolarizeAdd":
            arguments = (min(int(share * 110), 128),)
        case "AutoContrast" | "Equalize" | "Invert":
            arguments = ()
        case _:  # colour, contrast, brightness, sharpness
            arguments = (max(1 + (-share if negative else share) * 0.9, 0.1),)
    changed = op.aug_fn(Image.fromarray(image.permute(1, 2, 0).numpy()), *arguments, **op.kwargs)
    return torch.from_numpy(np.array(changed)).permute(2, 0, 1)


def affine(pixels: Tensor, name: str, share: Tensor, options: dict[str, Any]) -> Tensor:
    """Images uint8 [n, 3, H, W] turned, sheared or shifted by a signed share [n] of the full strength of `name`.

    Bicubic interpolation with Pillow's parameter -1 (torch's is -0.75); `options` are those of timm's operation.
    """
    n, channels, height, width = pixels.shape
    a, b, c, d, e, f = moved(_matrix(name, share, height, width), pixels.device).float().view(n, 6, 1, 1).unbind(1)
    row = torch.arange(height, device=pixels.device).view(1, -1, 1) + 0.5
    column = torch.arange(width, device=pixels.device).view(1, 1, -1) + 0.5
    x, y = a * column + b * row + c, d * column + e * row + f
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    x, y = x - 0.5, y - 0.5
    left, top = x.floor(), y.floor()
    across, down = AFFINE[name]
    columns = [(left.long() + k).clamp(0, width - 1) for k in (TAPS if across else TAPS[1:2])]
    rows = [(top.long() + k).clamp(0, height - 1) * width for k in (TAPS if down else TAPS[1:2])]
    flat = pixels.reshape(n, channels, -1)

    def taken(index: Tensor) -> Tensor:
        return flat.gather(2, index.view(n, 1, -1).expand(-1, channels, -1)).view(pixels.shape).float()

    lines = [_cubic([taken(start + at) for at in columns], (x - left).unsqueeze(1)) for start in rows]
    value = _cubic(lines, (y - top).unsqueeze(1)).clamp(0, 255).to(torch.uint8)
    colour = moved(torch.tensor(options["fillcolor"], dtype=torch.uint8, device="cpu"), pixels.device).view(1, -1, 1, 1)
    return torch.where(inside.unsqueeze(1), value, colour)


def _matrix(name: str, share: Tensor, height: int, width: int) -> Tensor:
    """Pillow's six coefficients, float64 [n, 6], from a pixel of the result to its place in the image."""
    one, zero = torch.ones_like(share), torch.zeros_like(share)
    if name == "Rotate":  # about the middle, by at most 30 degrees
        angle = -torch.deg2rad(share * 30)
        cos, sin = angle.cos(), angle.sin()
        x, y = width / 2, height / 2
        return torch.stack([cos, sin, x - cos * x - sin * y, -sin, cos, y + sin * x - cos * y], 1)
    rows = {
        "ShearX": [one, share * 0.3, zero, zero, one, zero],
        "ShearY": [one, zero, zero, share * 0.3, one, zero],
        "TranslateXRel": [one, zero, share * TRANSLATION * width, zero, one, zero],
        "TranslateYRel": [one, zero, zero, zero, one, share * TRANSLATION * height],
    }
    return torch.stack(rows[name], 1)


def _cubic(taps: list[Tensor], share: Tensor) -> Tensor:
    """Pillow's polynomial through four neighbours, in Horner's form: exact where they are equal."""
    if len(taps) == 1:
        return taps[0]
    before, here, after, beyond = taps
    linear, square = after - before, before - here
    cube = (beyond - after).sub_(square)
    square.sub_(cube)
    return cube.mul_(share).add_(square).mul_(share).add_(linear).mul_(share).add_(here)


def cutout(images: Tensor, largest: float, fill: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Images uint8 [B, C, H, W] with a square of colour `fill` [C] each, in new memory.

    Its centre is uniform over the image and its side over [0, largest W]; what lies outside the image is cut off. The
    generator is on the CPU.
    """
    batch, _, height, width = images.shape
    draws = moved(torch.rand(3, batch, 1, generator=generator), images.device)
    half = draws[0] * largest * width / 2
    rows, columns = (torch.arange(side, device=images.device) + 0.5 for side in (height, width))
    hit_rows = (rows - draws[1] * height).abs() < half
    hit_columns = (columns - draws[2] * width).abs() < half
    hit = (hit_rows.unsqueeze(2) & hit_columns.unsqueeze(1)).unsqueeze(1)
    colour = moved(torch.tensor(fill, dtype=images.dtype, device="cpu"), images.device)
    return images.where(~hit, colour.view(1, -1, 1, 1))
