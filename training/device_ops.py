"""RandAugment's operations on a batch, each sample with its own strength, in Pillow's integer arithmetic.

Pixels are uint8 [n, 3, H, W] throughout, strengths float64 or int64 [n], and no input is changed. All functions of a
single grey level are lookup tables, applied together by one gather.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.transforms.v2.functional import equalize

LEVELS = 256
LUMA = (19595, 38470, 7471)  # Pillow's weights of red, green and blue, out of 65536


def greyscale(pixels: Tensor) -> Tensor:
    """Pillow's mode L, int32 [n, 1, H, W]."""
    red, green, blue = pixels.int().split(1, dim=1)
    return (red * LUMA[0] + green * LUMA[1] + blue * LUMA[2] + 0x8000) >> 16


def blend(start: Tensor, end: Tensor, factor: Tensor) -> Tensor:
    """Pillow's Image.blend of whole grey levels, as uint8: start + factor (end - start), cut off and truncated.

    Args:
        start: any shape; broadcast against `end`.
        end: [n, ...].
        factor: [n]; above 1 extrapolates.
    """
    factor = factor.float().view(-1, *[1] * (end.dim() - 1))
    start, end = start.float(), end.float()
    return (start + factor * (end - start)).clamp_(0, 255).to(torch.uint8)


# Functions of one grey level: tables uint8 [n, 3, 256] ------------------------------------------------------------


def apply_tables(pixels: Tensor, tables: Tensor) -> Tensor:
    """Every pixel's entry in the table of its sample and channel."""
    return tables.gather(2, pixels.flatten(2).long()).view(pixels.shape)


def _ramp(pixels: Tensor) -> Tensor:
    return torch.arange(LEVELS, device=pixels.device).expand(len(pixels), 3, LEVELS)


def _per_sample(strength: Tensor) -> Tensor:
    return strength.view(-1, 1, 1)


def autocontrast_table(pixels: Tensor, _strength: Tensor) -> Tensor:
    """ImageOps.autocontrast: each channel stretched to [0, 255]."""
    flat = pixels.reshape(*pixels.shape[:2], -1)
    low, high = flat.amin(2, keepdim=True).double(), flat.amax(2, keepdim=True).double()
    ramp = _ramp(pixels)
    scale = torch.full_like(low, 255.0) / (high - low)  # a number over a tensor would be rounded twice
    stretched = (ramp * scale + -low * scale).clamp(0, 255).nan_to_num().long()  # no number for a single level
    return torch.where(high > low, stretched, ramp).to(torch.uint8)


def invert_table(pixels: Tensor, _strength: Tensor) -> Tensor:
    return (255 - _ramp(pixels)).to(torch.uint8)


def posterize_table(pixels: Tensor, bits: Tensor) -> Tensor:
    """The highest `bits` bits of each level."""
    dropped = _per_sample(8 - bits)
    return (_ramp(pixels) >> dropped << dropped).to(torch.uint8)


def solarize_table(pixels: Tensor, threshold: Tensor) -> Tensor:
    """Levels from `threshold` on inverted."""
    ramp = _ramp(pixels)
    return torch.where(ramp < _per_sample(threshold), ramp, 255 - ramp).to(torch.uint8)


def solarize_add_table(pixels: Tensor, added: Tensor) -> Tensor:
    """`added` on the darker half of the levels."""
    ramp = _ramp(pixels)
    return torch.where(ramp < 128, (ramp + _per_sample(added)).clamp(max=255), ramp).to(torch.uint8)


def brightness_table(pixels: Tensor, factor: Tensor) -> Tensor:
    """Blend of black and the image."""
    ramp = _ramp(pixels)
    return blend(torch.zeros_like(ramp), ramp, factor)


def contrast_table(pixels: Tensor, factor: Tensor) -> Tensor:
    """Blend of the mean grey level, rounded, and the image."""
    grey = greyscale(pixels).view(len(pixels), -1)
    mean = (2 * grey.sum(1) + grey.shape[1]) // (2 * grey.shape[1])
    return blend(_per_sample(mean), _ramp(pixels), factor)


TABLES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "AutoContrast": autocontrast_table,
    "Invert": invert_table,
    "PosterizeIncreasing": posterize_table,
    "SolarizeIncreasing": solarize_table,
    "SolarizeAdd": solarize_add_table,
    "BrightnessIncreasing": brightness_table,
    "ContrastIncreasing": contrast_table,
}

# Functions of several channels, pixels or images -------------------------------------------------------------------


def color(pixels: Tensor, factor: Tensor) -> Tensor:
    """ImageEnhance.Color: blend of the grey and the coloured image."""
    return blend(greyscale(pixels), pixels, factor)


def sharpness(pixels: Tensor, factor: Tensor) -> Tensor:
    """ImageEnhance.Sharpness: blend of the smoothed image, whose border is not smoothed, and the image."""
    smooth = pixels.float()
    if min(pixels.shape[2:]) > 2:
        rows = smooth[:, :, :-2] + smooth[:, :, 1:-1] + smooth[:, :, 2:]
        total = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:] + 4 * smooth[:, :, 1:-1, 1:-1]
        smooth[:, :, 1:-1, 1:-1] = total.add_(6.5).div_(13).floor_()
    return blend(smooth, pixels, factor)


FUNCTIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "ColorIncreasing": color,
    "SharpnessIncreasing": sharpness,
    "Equalize": lambda pixels, _strength: equalize(pixels),
}

# Affine maps: from a pixel of the result to its place in the image ------------------------------------------------


def affine_matrix(name: str, strength: Tensor, height: int, width: int) -> Tensor:
    """Pillow's six coefficients, float64 [n, 6], of one of `AFFINE`."""
    one, zero = torch.ones_like(strength), torch.zeros_like(strength)
    if name == "Rotate":  # degrees, about the middle
        angle = -torch.deg2rad(strength)
        cos, sin = angle.cos(), angle.sin()
        x, y = width / 2, height / 2
        return torch.stack([cos, sin, x - cos * x - sin * y, -sin, cos, y + sin * x - cos * y], 1)
    rows = {
        "ShearX": [one, strength, zero, zero, one, zero],
        "ShearY": [one, zero, zero, strength, one, zero],
        "TranslateXRel": [one, zero, strength * width, zero, one, zero],
        "TranslateYRel": [one, zero, zero, zero, one, strength * height],
    }
    return torch.stack(rows[name], 1)


# Whether a map moves pixels along the columns and along the rows. Where not, one tap is exact instead of four.
AFFINE = {
    "Rotate": (True, True),
    "ShearX": (True, False),
    "ShearY": (False, True),
    "TranslateXRel": (True, False),
    "TranslateYRel": (False, True),
}
TAPS = (-1, 0, 1, 2)


def affine(pixels: Tensor, matrix: Tensor, fill: tuple[int, ...], moves: tuple[bool, bool] = (True, True)) -> Tensor:
    """Pillow's affine transform with bicubic interpolation; what lies outside the image gets the colour `fill`.

    Pillow's cubic has the parameter -1, torch's grid_sample -0.75, and Pillow truncates: hence not grid_sample.

    Args:
        pixels: [n, 3, H, W].
        matrix: [n, 6].
        fill: red, green, blue.
        moves: as in `AFFINE`.
    """
    n, channels, height, width = pixels.shape
    a, b, c, d, e, f = matrix.float().view(n, 6, 1, 1).unbind(1)
    row = torch.arange(height, device=pixels.device).view(1, -1, 1) + 0.5
    column = torch.arange(width, device=pixels.device).view(1, 1, -1) + 0.5
    x, y = a * column + b * row + c, d * column + e * row + f
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    x, y = x - 0.5, y - 0.5
    left, top = x.floor(), y.floor()
    columns = [(left.long() + k).clamp(0, width - 1) for k in (TAPS if moves[0] else TAPS[1:2])]
    rows = [(top.long() + k).clamp(0, height - 1) * width for k in (TAPS if moves[1] else TAPS[1:2])]
    flat = pixels.reshape(n, channels, -1)
    lines = [_cubic([_take(flat, start + at) for at in columns], (x - left).unsqueeze(1)) for start in rows]
    value = _cubic(lines, (y - top).unsqueeze(1)).clamp(0, 255).to(torch.uint8)
    colour = torch.tensor(fill, dtype=torch.uint8, device=pixels.device).view(1, -1, 1, 1)
    return torch.where(inside.unsqueeze(1), value, colour)


def _take(flat: Tensor, index: Tensor) -> Tensor:
    n, height, width = index.shape
    return flat.gather(2, index.view(n, 1, -1).expand(-1, flat.shape[1], -1)).view(n, -1, height, width).float()


def _cubic(taps: list[Tensor], share: Tensor) -> Tensor:
    """Pillow's polynomial through four neighbours, in Horner's form: exact where they are equal."""
    if len(taps) == 1:
        return taps[0]
    before, here, after, beyond = taps
    linear, square = after - before, before - here
    cube = (beyond - after).sub_(square)
    square.sub_(cube)
    return cube.mul_(share).add_(square).mul_(share).add_(linear).mul_(share).add_(here)
