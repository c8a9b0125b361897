"""The two image sets that need no download: digits (scikit-learn's real 8x8 scans) and shapes (procedural scenes)."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from training.imageset import ImageSet, boxes_of, channel_statistics
from training.rng import stream_seed

Array = NDArray[np.floating[Any]]

DIGITS_TRAIN = 1000  # the pool; the other 797 images are the test set
SHAPES_SIZE = 16
SHAPES_MEAN = (0.341, 0.329, 0.375)  # of shapes(2000, seed=0), rounded; a test compares them
SHAPES_STD = (0.259, 0.2, 0.076)


def digits() -> tuple[ImageSet, ImageSet]:
    """The 1797 grey 8x8 digits of scikit-learn in a fixed random order: the train pool of 1000, the test set of 797.

    Scikit-learn's order groups writers, so it is permuted once, the same way for every run.
    """
    from sklearn.datasets import load_digits

    source = load_digits()
    order = np.random.default_rng(20220101).permutation(len(source.target))
    pixels = np.rint(source.images[order] * (255 / 16)).astype(np.uint8)
    images = torch.from_numpy(pixels).unsqueeze(1)
    labels = torch.from_numpy(source.target[order].astype(np.int64))
    mean, std = channel_statistics(images[:DIGITS_TRAIN])
    names = tuple(str(digit) for digit in range(10))
    everything = ImageSet(images, labels, num_classes=10, mean=mean, std=std, class_names=names)
    return everything[:DIGITS_TRAIN], everything[DIGITS_TRAIN:]


def _box(x: Array, y: Array, half_width: float, half_height: float) -> Array:
    return np.maximum(np.abs(x) - half_width, np.abs(y) - half_height)


def _star(x: Array, y: Array) -> Array:
    return np.hypot(x, y) - (0.66 + 0.3 * np.cos(5 * np.arctan2(x, -y)))


def _triangle(x: Array, y: Array) -> Array:
    return np.maximum(0.866 * np.abs(x) - 0.5 * y, y) - 0.5


# Signed distances, negative inside, in units of the object's radius; y points down as in the image.
SHAPES: dict[str, Callable[[Array, Array], Array]] = {
    "disc": lambda x, y: np.hypot(x, y) - 0.85,
    "square": lambda x, y: _box(x, y, 0.75, 0.75),
    "triangle": _triangle,
    "plus": lambda x, y: np.minimum(_box(x, y, 0.9, 0.28), _box(x, y, 0.28, 0.9)),
    "ring": lambda x, y: np.abs(np.hypot(x, y) - 0.68) - 0.24,
    "star": _star,
    "crescent": lambda x, y: np.maximum(np.hypot(x, y) - 0.9, 0.7 - np.hypot(x - 0.5, y)),
    "half_disc": lambda x, y: np.maximum(np.hypot(x, y - 0.4) - 0.95, y - 0.4),
    "bar": lambda x, y: _box(x, y, 0.95, 0.28),
    "corner": lambda x, y: np.minimum(_box(x + 0.5, y, 0.28, 0.85), _box(x, y - 0.57, 0.78, 0.28)),
}
UNSEEN_SHAPES: dict[str, Callable[[Array, Array], Array]] = {
    "frame": lambda x, y: np.abs(_box(x, y, 0.6, 0.6)) - 0.2,
    "tee": lambda x, y: np.minimum(_box(x, y + 0.55, 0.85, 0.25), _box(x, y - 0.1, 0.25, 0.75)),
    "hourglass": lambda x, y: np.maximum(np.abs(y) - 0.8, np.abs(x) - 0.9 * np.abs(y) - 0.1),
    "chevron": lambda x, y: np.maximum(np.abs(y - np.abs(x) + 0.35) - 0.32, np.abs(x) - 0.85),
    "two_dots": lambda x, y: np.hypot(np.abs(x) - 0.5, y) - 0.36,
}


def _ellipse(x: Array, y: Array, half_height: float) -> Array:
    return (np.hypot(x / 0.95, y / half_height) - 1) * min(half_height, 0.95)


def _crescent(x: Array, y: Array, shift: float) -> Array:
    return np.maximum(np.hypot(x, y) - 0.9, 0.8 - np.hypot(x - shift, y))


def _ring(x: Array, y: Array, half_width: float) -> Array:
    return np.abs(np.hypot(x, y) - (0.92 - half_width)) - half_width


def _at(function: Callable[[Array, Array, float], Array], value: float, x: Array, y: Array) -> Array:
    return function(x, y, value)


def _variants(
    functions: dict[str, Callable[[Array, Array, float], Array]], values: tuple[tuple[float, ...], ...]
) -> dict[str, Callable[[Array, Array], Array]]:
    """Each outline at each of its values, as "ring 0.1"."""
    return {
        f"{name} {value:g}": partial(_at, function, value)
        for (name, function), own in zip(functions.items(), values, strict=True)
        for value in own
    }


# Fine-grained: ten variants of two shapes, told apart by a proportion.
PROPORTIONS = (0.22, 0.36, 0.52, 0.7, 0.9)
OVALS = _variants({"bar": lambda x, y, h: _box(x, y, 0.95, h), "ellipse": _ellipse}, (PROPORTIONS, PROPORTIONS))
MOONS = _variants({"crescent": _crescent, "ring": _ring}, ((0.15, 0.3, 0.45, 0.65, 0.9), (0.1, 0.17, 0.25, 0.34, 0.44)))
FAMILIES = {"shapes": SHAPES, "unseen shapes": UNSEEN_SHAPES, "ovals": OVALS, "moons": MOONS}


def _grid(n: int, size: int) -> tuple[Array, Array]:
    """Pixel centres x and y, each [n, size, size], with the origin in the middle of the image."""
    along = np.arange(size, dtype=np.float32) - (size - 1) / 2
    return np.broadcast_to(along, (n, size, size)), np.broadcast_to(along[:, None], (n, size, size))


def _distances(labels: NDArray[np.int64], family: str, rng: np.random.Generator) -> Array:
    """Signed distance in pixels [N, H, W] from the outline of each object in a random pose."""
    n = len(labels)
    x, y = _grid(n, SHAPES_SIZE)
    radius = rng.uniform(4.8, 6.4, (n, 1, 1)).astype(np.float32)
    shift = (SHAPES_SIZE / 2 - 0.5 - radius) * rng.uniform(-1, 1, (2, n, 1, 1)).astype(np.float32)
    angle = rng.uniform(-0.4, 0.4, (n, 1, 1)).astype(
        np.float32
    )  # below 23 degrees: a square never turns into a diamond
    x, y = x - shift[0], y - shift[1]
    x, y = (np.cos(angle) * x + np.sin(angle) * y) / radius, (np.cos(angle) * y - np.sin(angle) * x) / radius
    distance = np.empty_like(x)
    for label, function in enumerate(FAMILIES[family].values()):
        chosen = labels == label
        distance[chosen] = function(x[chosen], y[chosen])
    return distance * radius


def _background(n: int, rng: np.random.Generator) -> Array:
    """Dark bluish ground [N, H, W, 3] with three faint blobs as clutter."""
    colour = np.array([0.2, 0.22, 0.34]) + rng.uniform(-0.06, 0.06, (n, 1, 1, 3))
    x, y = _grid(n, SHAPES_SIZE)
    clutter = np.zeros_like(x)
    for _ in range(3):
        centre = rng.uniform(-SHAPES_SIZE / 2, SHAPES_SIZE / 2, (2, n, 1, 1)).astype(np.float32)
        strength = rng.uniform(-0.12, 0.2, (n, 1, 1)).astype(np.float32)
        clutter = clutter + strength * np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / 3)
    return (colour + clutter[..., None]).astype(np.float32)


def shapes(n: int, seed: int, family: str = "shapes") -> ImageSet:
    """`n` scenes [n, 3, 16, 16], one bright object each on dark cluttered ground, with exact masks and boxes.

    Object and ground keep their polarity: with random polarity a thousand images teach nothing. Classes are
    balanced. Equal arguments give equal scenes; other seeds, others.

    Args:
        n: number of scenes.
        seed: decides everything.
        family: of `FAMILIES`: the ten shapes; five others, labelled 0 to 4 among themselves; or ten variants of two.
    """
    rng = np.random.default_rng(stream_seed(seed, family))
    names = tuple(FAMILIES[family])
    labels = rng.permutation(np.arange(n, dtype=np.int64) % len(names))
    distance = _distances(labels, family, rng)
    cover = np.clip(0.5 - distance, 0, 1)[..., None]  # of the pixel by the object: an antialiased outline
    colour = np.array([0.88, 0.74, 0.5]) + rng.uniform(-0.1, 0.1, (n, 1, 1, 3))
    scene = cover * colour + (1 - cover) * _background(n, rng) + rng.normal(0, 0.02, (*distance.shape, 3))
    pixels = np.rint(np.clip(scene, 0, 1) * 255).astype(np.uint8).transpose(0, 3, 1, 2)
    masks = torch.from_numpy((distance < 0).astype(np.uint8))
    return ImageSet(
        images=torch.from_numpy(np.ascontiguousarray(pixels)),
        labels=torch.from_numpy(labels),
        num_classes=len(names),
        mean=SHAPES_MEAN,
        std=SHAPES_STD,
        masks=masks,
        boxes=boxes_of(masks),
        class_names=names,
    )
