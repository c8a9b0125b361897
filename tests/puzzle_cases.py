"""Batches for the tests of Puzzle-Mix, and the plain reading of it as their oracle."""

import puzzle_reference as reference  # noqa: F401 - the tests take it from here
import torch
import torch.nn.functional as F
from batches import stream

from lumix.mixers.puzzle_cut import CutEnergy, cut_energy, saliency_share


def smooth(generator, *shape, coarse=4):
    """Random fields that vary slowly, as images do."""
    size, channels, side, _ = shape
    low = torch.rand(size, channels, max(side // coarse, 1), max(side // coarse, 1), generator=generator)
    return F.interpolate(low, size=side, mode="bilinear")


def puzzle_batch(size=6, side=32, channels=3, seed=0, spread=4.0):
    """Images in [0, 1], labels, partner and saliency whose largest values are about e^spread times the smallest."""
    generator = stream(seed)
    images = smooth(generator, size, channels, side, side)
    saliency = torch.exp(spread * smooth(generator, size, 1, side, side, coarse=2)[:, 0])
    return images, torch.arange(size) % 3, torch.randperm(size, generator=generator), saliency


def problem(size=6, grid=4, num_labels=3, seed=0, lam=0.4, spread=4.0, **weights) -> CutEnergy:
    """A mask problem of images of 32 pixels."""
    images, _, partner, saliency = puzzle_batch(size, seed=seed, spread=spread)
    block = 32 // grid
    colours = F.avg_pool2d(images.double(), min(4, block))
    return cut_energy(saliency_share(saliency, block), colours, partner, lam, num_labels, **weights)


def random_problem(size=20, grid=2, num_labels=3, seed=0, largest=6) -> CutEnergy:
    """Small whole numbers, hence many ties, and weights that no images have."""
    generator = stream(seed)

    def numbers(*shape):
        return torch.randint(largest, shape, generator=generator, dtype=torch.int32)

    pairs = numbers(size, grid - 1, grid), numbers(size, grid, grid - 1)
    return CutEnergy(numbers(size, grid, grid, num_labels), *pairs)


def one(energy: CutEnergy, index: int) -> CutEnergy:
    return CutEnergy(*(t[index : index + 1] for t in (energy.unary, energy.down, energy.right)))
