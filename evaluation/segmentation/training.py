"""Fine-tuning for segmentation: crops of resized scenes, SGD with polynomial decay, reproducible from a seed.

A crop depends on the seed and its position in training alone, so neither worker processes nor what came before change
it. Layers that draw by themselves (dropout, drop path, new decoders) do so under a seeded copy of the global state.
"""

import os

import torch
from timm.scheduler import PolyLRScheduler
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate, pad
from torch.utils.data import Dataset
from torchvision.transforms.v2 import functional as photometry

from evaluation.images import Card, Device, batches, normalised
from evaluation.segmentation.data import IGNORE, Scenes
from evaluation.segmentation.models import build
from evaluation.segmentation.recipe import Recipe
from training.optim import Updater
from training.rng import epoch_order, stream_seed

LARGEST_SHARE, TRIES = 0.75, 10  # a crop that one class fills further is drawn again
AUXILIARY_WEIGHT = 0.4
POWER, MOMENTUM = 0.9, 0.9


def training_crop(image: Tensor, mask: Tensor, recipe: Recipe, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A random crop of a scene uint8 [3, H, W] and [H, W], resized, mirrored and distorted as the recipe says.

    Its sides are at most `recipe.crop`: less where the resized image is smaller.
    """
    image, mask = _resized(image, mask, recipe, generator)
    image, mask = _cropped(image, mask, recipe.crop, generator)
    if _uniform(0, 1, generator) < 0.5:
        image, mask = image.flip(2), mask.flip(1)
    return (distorted(image, generator) if recipe.photometric else image), mask


def _uniform(low: float, high: float, generator: torch.Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))


def _resized(image: Tensor, mask: Tensor, recipe: Recipe, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    height, width = mask.shape
    factor = recipe.base / max(height, width) * _uniform(recipe.scale_low, recipe.scale_high, generator)
    size = (max(1, int(height * factor + 0.5)), max(1, int(width * factor + 0.5)))
    larger = interpolate(image[None].float(), size, mode="bilinear", align_corners=False)[0]
    # Labels are picked, never blended.
    return larger.round().to(torch.uint8), interpolate(mask[None, None], size, mode="nearest-exact")[0, 0]


def _cropped(image: Tensor, mask: Tensor, side: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    height, width = mask.shape
    if height <= side and width <= side:
        return image, mask
    for _ in range(TRIES):
        y, x = (int(torch.randint(max(0, length - side) + 1, (), generator=generator)) for length in (height, width))
        part = mask[y : y + side, x : x + side]
        counts = torch.bincount(part.flatten(), minlength=IGNORE + 1)[:IGNORE]
        if int(counts.max()) < LARGEST_SHARE * int(counts.sum()):
            break
    return image[:, y : y + side, x : x + side], part


def distorted(image: Tensor, generator: torch.Generator) -> Tensor:
    """SSD's photometric distortion, each step with probability 1/2: brightness ±32, contrast and saturation 0.5 to 1.5,
    hue ±0.1 of the circle; contrast comes before or after the two steps of colour. uint8 [3, H, W] -> the same."""

    def sometimes() -> bool:
        return _uniform(0, 1, generator) < 0.5

    pixels = image.float()
    contrast_first = sometimes()
    if sometimes():
        pixels = (pixels + _uniform(-32, 32, generator)).clamp(0, 255)
    contrast = _uniform(0.5, 1.5, generator) if sometimes() else 1.0
    if contrast_first:
        pixels = (pixels * contrast).clamp(0, 255)
    colours = pixels / 255
    if sometimes():
        colours = photometry.adjust_saturation(colours, _uniform(0.5, 1.5, generator))
    if sometimes():
        colours = photometry.adjust_hue(colours, _uniform(-0.1, 0.1, generator))
    if not contrast_first:
        colours = (colours * contrast).clamp(0, 1)
    return (colours * 255).round().to(torch.uint8)


class Crops(Dataset[tuple[Tensor, Tensor]]):
    """Position of training -> normalised crop float32 [3, crop, crop] and its mask, padded with 0 and `IGNORE`.

    Positions visit all scenes once, in a fresh order, before any for a second time.
    """

    def __init__(self, scenes: Scenes, recipe: Recipe, card: Card, seed: int) -> None:
        self.scenes, self.recipe, self.card, self.seed = scenes, recipe, card, seed
        self.epoch, self.order = -1, torch.empty(0)

    def __len__(self) -> int:
        return self.recipe.iterations * self.recipe.batch_size

    def __getitem__(self, position: int) -> tuple[Tensor, Tensor]:
        epoch, place = divmod(position, len(self.scenes))
        if epoch != self.epoch:
            self.epoch, self.order = epoch, epoch_order(len(self.scenes), self.seed, epoch)
        image, mask = self.scenes[int(self.order[place])]
        generator = torch.Generator().manual_seed(stream_seed(self.seed, position, "crop"))
        image, mask = training_crop(image, mask, self.recipe, generator)
        right, below = self.recipe.crop - mask.shape[1], self.recipe.crop - mask.shape[0]
        pixels = normalised(image[None], self.card)[0]
        return pad(pixels, (0, right, 0, below)), pad(mask, (0, right, 0, below), value=IGNORE)


def segmentation_loss(outputs: Tensor | tuple[Tensor, Tensor], masks: Tensor) -> Tensor:
    """Cross entropy [] averaged over the pixels that count, plus 0.4 of the auxiliary head's, if there is one.

    Logits are [B, K, H, W], the auxiliary ones [B, K, h, w]. A batch without a counted pixel costs 0.
    """
    if isinstance(outputs, tuple):
        logits, auxiliary = outputs
        larger = interpolate(auxiliary.float(), masks.shape[1:], mode="bilinear", align_corners=False)
        return segmentation_loss(logits, masks) + AUXILIARY_WEIGHT * segmentation_loss(larger, masks)
    total = cross_entropy(outputs.float(), masks.long(), ignore_index=IGNORE, reduction="sum")
    return total / (masks != IGNORE).sum().clamp(min=1)


def fine_tune(model: nn.Module, card: Card, recipe: Recipe, scenes: Scenes, device: Device) -> nn.Module:
    """A segmentation model trained from the weights of `model`; `card["seed"]` decides every draw."""
    seed = stream_seed(int(card["seed"]), "segmentation")
    device = torch.device(device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.random.default_generator.manual_seed(seed)
        if device.type == "cuda":
            torch.cuda.manual_seed(seed)
        network = build(model, card, recipe, scenes.num_classes).to(device).train()
        _train(network, Crops(scenes, recipe, card, seed), device)
    return network.eval()


def _train(network: nn.Module, crops: Crops, device: torch.device) -> None:
    recipe = crops.recipe
    optimizer = torch.optim.SGD(network.parameters(), lr=recipe.lr, momentum=MOMENTUM, weight_decay=recipe.weight_decay)
    schedule = PolyLRScheduler(
        optimizer, t_initial=recipe.iterations, power=POWER, lr_min=recipe.min_lr, t_in_epochs=False
    )
    updater = Updater(optimizer, precision=recipe.precision)

    def loss_of(batch: list[Tensor]) -> Tensor:
        images, masks = (part.to(device, non_blocking=True) for part in batch)
        return segmentation_loss(network(images), masks)

    workers = min(8, os.cpu_count() or 1) if recipe.photometric else 0  # small plain crops are made in no time
    for iteration, batch in enumerate(batches(crops, recipe.batch_size, workers=workers)):
        schedule.step_update(iteration)
        updater.update(loss_of, batch)
