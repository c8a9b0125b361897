"""Semantic segmentation (LUMix Table 4): a decoder is fine-tuned on a run's network and scored as mmseg counts.

A crop depends on the run's seed and its position in training alone; layers that draw by themselves (dropout, drop path,
new decoders) do so under a seeded copy of the global state.
"""

import itertools
import math
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import timm
import torch
from timm.models import ResNet
from timm.models.vision_transformer import Block, VisionTransformer
from timm.scheduler import PolyLRScheduler
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate, normalize, pad
from torch.utils.data import Dataset, default_collate
from torchvision.models.segmentation.fcn import FCNHead
from torchvision.transforms.v2 import functional as photometry

from evaluation.arguments import Recipe
from evaluation.evaluation import Outcome
from evaluation.images import Card, Device, batches, normalised
from evaluation.scenes import IGNORE, Scenes, load_scenes
from training.loop import seed_global_state
from training.optim import Updater
from training.rng import epoch_order, stream_seed

AUXILIARY_STAGE, AUXILIARY_WEIGHT = 4, 0.4  # of the encoder's feature maps: layer3, as in mmseg
LARGEST_SHARE, TRIES = 0.75, 10  # a crop that one class fills further is drawn again
POWER, MOMENTUM = 0.9, 0.9
RATIOS = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)  # of mIoU (MS), each also mirrored
SHOWN, SHOWN_PIXELS = 6, 64  # segmentations kept for a figure, thinned out to so many pixels a side
PIXELS = 2**20  # of one batch of windows, which bounds the memory that testing takes

Weights = dict[str, Tensor]
Segment = Callable[[Tensor], Tensor]  # images [B, 3, H, W] -> logits [B, classes, H, W]


def drive(model: nn.Module, card: Card, arguments: Mapping[str, Any], device: Device) -> Outcome:
    """Fine-tune a copy of a run's network by the `Recipe` in "recipe": "macc", "miou", "miou_ms" in percent."""
    recipe = Recipe.from_dict(arguments["recipe"])
    train, test = load_scenes(recipe.data)
    return score(fine_tune(model, card, recipe, train, device), test, recipe, card, device)


class MaskTransformer(nn.Module):
    """Segmenter's decoder (Strudel et al. 2021): class tokens attend with the patches of `width` features, whose scores
    are cosines; `small` initialises for small widths, as Model.init "small" does."""

    def __init__(self, width: int, heads: int, num_classes: int, dropout: float = 0.1, small: bool = False) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.embed = nn.Linear(width, width)
        self.class_tokens = nn.Parameter(torch.zeros(1, num_classes, width))
        self.blocks = nn.Sequential(
            *(Block(width, heads, qkv_bias=True, proj_drop=dropout, attn_drop=dropout) for _ in range(2))
        )
        self.norm = nn.LayerNorm(width)
        self.project_patches = nn.Linear(width, width, bias=False)
        self.project_classes = nn.Linear(width, width, bias=False)
        self.score_norm = nn.LayerNorm(num_classes)
        # Segmenter's distribution, or one for widths below a hundred, where its 0.02 lets signals fade.
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight) if small else nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.trunc_normal_(self.class_tokens, std=0.2 if small else 0.02)
        for projection in (self.project_patches, self.project_classes):
            nn.init.normal_(projection.weight, std=projection.in_features**-0.5)

    def forward(self, patches: Tensor) -> Tensor:
        """Scores [B, P, num_classes] of patch features [B, P, width]."""
        tokens = torch.cat((self.embed(patches), self.class_tokens.expand(len(patches), -1, -1)), dim=1)
        tokens = self.norm(self.blocks(tokens))
        seen, classes = tokens.split((patches.shape[1], self.num_classes), dim=1)
        seen = normalize(self.project_patches(seen), dim=-1)
        classes = normalize(self.project_classes(classes), dim=-1)
        return self.score_norm(seen @ classes.transpose(1, 2))


class Segmenter(nn.Module):
    """A ViT and a mask transformer: images [B, C, H, W] of any size -> logits [B, num_classes, H, W]."""

    def __init__(self, encoder: VisionTransformer, decoder: MaskTransformer) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def forward(self, images: Tensor) -> Tensor:
        rows, columns = self.encoder.patch_embed.patch_size
        height, width = images.shape[2:]
        # Padded below and on the right with zeros, the mean of normalised images; cut off again at the end.
        images = pad(images, (0, -width % columns, 0, -height % rows))
        full = (images.shape[2], images.shape[3])
        tokens = self.encoder.forward_features(images)[:, self.encoder.num_prefix_tokens :]
        maps = self.decoder(tokens).transpose(1, 2).unflatten(2, (full[0] // rows, full[1] // columns))
        return interpolate(maps, full, mode="bilinear", align_corners=False)[:, :, :height, :width]


class DeepLab(nn.Module):
    """DeepLabV3+ of segmentation-models-pytorch with mmseg's auxiliary head: images -> logits [B, num_classes, H, W];
    in training with those of the auxiliary head, from the third stage at its own resolution."""

    def __init__(self, network: nn.Module, channels: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.network = network
        self.auxiliary = FCNHead(channels, num_classes)
        self.auxiliary[3] = nn.Dropout2d(dropout)  # as in mmseg, in place of single values

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        height, width = images.shape[2:]
        padded = pad(images, (0, -width % 16, 0, -height % 16))
        features = self.network.encoder(padded)  # type: ignore[operator]
        maps = self.network.decoder(features)  # type: ignore[operator]
        logits = self.network.segmentation_head(maps)[:, :, :height, :width]  # type: ignore[operator]
        return (logits, self.auxiliary(features[AUXILIARY_STAGE])) if self.training else logits


def build(model: nn.Module, card: Card, recipe: Recipe, num_classes: int) -> nn.Module:
    """The recipe's segmentation model: encoder from a pre-trained network, decoder drawn from the global generator."""
    wanted = VisionTransformer if recipe.decoder == "segmenter" else ResNet
    if not isinstance(model, wanted):
        raise ValueError(
            f"decoder {recipe.decoder} needs a {wanted.__name__} of timm, not {type(model).__name__} "
            f"({card['model']['name']}): choose another run or decoder"
        )
    weights = {name: value for name, value in model.state_dict().items() if name.split(".")[0] not in ("head", "fc")}
    if isinstance(model, VisionTransformer):
        return _segmenter(model, weights, card, recipe, num_classes)
    return _deeplab(weights, card, recipe, num_classes)


def _segmenter(model: VisionTransformer, weights: Weights, card: Card, recipe: Recipe, num_classes: int) -> Segmenter:
    """Segmenter on the ViT of a run, whose position embedding is resampled (bicubic) to the crop of the recipe."""
    rows, columns = model.patch_embed.patch_size
    if recipe.crop % rows or recipe.crop % columns:
        raise ValueError(f"Recipe.crop {recipe.crop} must be a multiple of the patch of {rows}x{columns} pixels")
    arguments = {**card["model"]["arguments"], "drop_path_rate": recipe.drop_path, "img_size": card["image_size"]}
    arguments |= {"num_classes": 0, "in_chans": card["in_chans"], "dynamic_img_size": True}
    encoder = timm.create_model(card["model"]["name"], **arguments)
    assert isinstance(encoder, VisionTransformer)
    encoder.load_state_dict(weights)
    encoder.set_input_size(img_size=(recipe.crop, recipe.crop))
    heads, small = model.blocks[0].attn.num_heads, card["model"]["init"] == "small"  # type: ignore[union-attr]
    decoder = MaskTransformer(encoder.embed_dim, heads, num_classes, recipe.dropout, small)  # type: ignore[arg-type]
    return Segmenter(encoder, decoder)


def _deeplab(weights: Weights, card: Card, recipe: Recipe, num_classes: int) -> DeepLab:
    """DeepLabV3+ with output stride 8 on the ResNet of a run."""
    try:
        import segmentation_models_pytorch as smp
    except ImportError as error:
        raise ValueError("DeepLabV3+ needs segmentation-models-pytorch: pip install 'lumix[seg]'") from error
    arguments = card["model"]["arguments"]
    if arguments.get("cifar_stem"):
        raise ValueError("DeepLabV3+ needs a ResNet with the ordinary stem: train the run without cifar_stem")
    network = smp.DeepLabV3Plus(
        f"tu-{card['model']['name']}",
        encoder_weights=None,
        encoder_output_stride=8,
        decoder_channels=recipe.width,
        decoder_atrous_rates=tuple(recipe.dilation * factor for factor in (1, 2, 3)),
        decoder_aspp_dropout=recipe.dropout,
        in_channels=card["in_chans"],
        classes=num_classes,
        **arguments,
    )
    network.encoder.model.load_state_dict(weights)
    return DeepLab(network, network.encoder.out_channels[AUXILIARY_STAGE], num_classes, recipe.dropout)


# ------------------------------------------------------------------------------------------------- training


def training_crop(image: Tensor, mask: Tensor, recipe: Recipe, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A random crop of a scene uint8 [3, H, W] and [H, W], resized, mirrored and distorted as the recipe says, of sides
    of at most `recipe.crop`."""
    height, width = mask.shape
    factor = recipe.base / max(height, width) * _uniform(recipe.scale_low, recipe.scale_high, generator)
    size = (max(1, int(height * factor + 0.5)), max(1, int(width * factor + 0.5)))
    larger = interpolate(image[None].float(), size, mode="bilinear", align_corners=False)[0]
    image = larger.round().to(torch.uint8)
    mask = interpolate(mask[None, None], size, mode="nearest-exact")[0, 0]  # labels are picked, never blended
    if max(size) > recipe.crop:
        image, mask = _cropped(image, mask, recipe.crop, generator)
    if _uniform(0, 1, generator) < 0.5:
        image, mask = image.flip(2), mask.flip(1)
    return (distorted(image, generator) if recipe.photometric else image), mask


def _uniform(low: float, high: float, generator: torch.Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))


def _cropped(image: Tensor, mask: Tensor, side: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    for _ in range(TRIES):
        y, x = (int(torch.randint(max(0, length - side) + 1, (), generator=generator)) for length in mask.shape)
        part = mask[y : y + side, x : x + side]
        counts = torch.bincount(part.flatten(), minlength=IGNORE + 1)[:IGNORE]
        if int(counts.max()) < LARGEST_SHARE * int(counts.sum()):
            break
    return image[:, y : y + side, x : x + side], part


def distorted(image: Tensor, generator: torch.Generator) -> Tensor:
    """SSD's photometric distortion as mmseg has it, uint8 [3, H, W] -> the same, each step with probability 1/2:
    brightness ±32, contrast and saturation 0.5 to 1.5, hue ±0.1 of the circle; contrast comes before or after colour.

    torchvision's has relative brightness, contrast about the mean, permuted channels, and global draws.
    """

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
    """Position of training -> normalised crop float32 [3, crop, crop] and its mask, padded with 0 and `IGNORE`; all
    scenes are visited once, in a fresh order, before any for a second time."""

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
    """Cross entropy [] averaged over the pixels that count, 0 without one, plus 0.4 of the auxiliary head's: logits
    [B, K, H, W], or with auxiliary ones [B, K, h, w]."""
    if isinstance(outputs, tuple):
        logits, auxiliary = outputs
        larger = interpolate(auxiliary.float(), masks.shape[1:], mode="bilinear", align_corners=False)
        return segmentation_loss(logits, masks) + AUXILIARY_WEIGHT * segmentation_loss(larger, masks)
    total = cross_entropy(outputs.float(), masks.long(), ignore_index=IGNORE, reduction="sum")
    return total / (masks != IGNORE).sum().clamp(min=1)


def fine_tune(model: nn.Module, card: Card, recipe: Recipe, scenes: Scenes, device: Device) -> nn.Module:
    """A segmentation model trained from the weights of `model`; `card["seed"]` decides every draw."""
    seed, device = stream_seed(int(card["seed"]), "segmentation"), torch.device(device)
    workers = min(8, os.cpu_count() or 1) if recipe.photometric else 0  # small plain crops are made in no time

    def loss_of(batch: list[Tensor]) -> Tensor:
        images, masks = (part.to(device, non_blocking=True) for part in batch)
        return segmentation_loss(network(images), masks)

    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.random.default_generator.manual_seed(seed)
        seed_global_state(device, seed)
        network = build(model, card, recipe, scenes.num_classes).to(device).train()
        optimizer = torch.optim.SGD(network.parameters(), recipe.lr, MOMENTUM, weight_decay=recipe.weight_decay)
        schedule = PolyLRScheduler(optimizer, recipe.iterations, POWER, recipe.min_lr, t_in_epochs=False)
        updater = Updater(optimizer, precision=recipe.precision)
        crops = Crops(scenes, recipe, card, seed)
        for iteration, batch in enumerate(batches(crops, recipe.batch_size, workers=workers)):
            schedule.step_update(iteration)
            updater.update(loss_of, batch)
    return network.eval()


# ------------------------------------------------------------------------------------------------- testing


def confusion(prediction: Tensor, truth: Tensor, num_classes: int) -> Tensor:
    """Pixels by true (rows) and predicted class (columns), int64 [classes, classes]; those that count, not `IGNORE`."""
    counted = truth != IGNORE
    places = truth[counted].long() * num_classes + prediction[counted]
    return torch.bincount(places, minlength=num_classes**2).view(num_classes, num_classes)


def class_means(matrix: Tensor) -> tuple[float, float]:
    """mAcc in percent, over the classes that are true somewhere, and mIoU, over those true or predicted somewhere."""
    shared, area = matrix.diagonal().double(), matrix.sum(1)
    union = matrix.sum(0) + area - shared
    return tuple(float((shared / of)[of > 0].mean() * 100) for of in (area, union))  # type: ignore[return-value]


def target_size(height: int, width: int, base: float, window: int) -> tuple[int, int]:
    """The size an image is resized to: longer side `base`, or shorter side `window` where that side would be below."""
    larger, smaller = (
        (int(height * factor + 0.5), int(width * factor + 0.5))
        for factor in (window / min(height, width), base / max(height, width))
    )
    return larger if min(smaller) < window else smaller


def window_starts(length: int, window: int, stride: int) -> list[int]:
    """Where windows begin along a side, not shorter than one; the last one ends at the last pixel."""
    return [min(i * stride, length - window) for i in range(math.ceil((length - window) / stride) + 1)]


def slide(model: Segment, images: Tensor, window: int, stride: int) -> Tensor:
    """Logits [B, K, H, W] of images [B, C, H, W] from square windows, averaged where windows overlap."""
    batch, _, height, width = images.shape
    places = [(y, x) for y in window_starts(height, window, stride) for x in window_starts(width, window, stride)]
    crops = torch.cat([images[:, :, y : y + window, x : x + window] for y, x in places])
    logits = torch.cat([model(part) for part in crops.split(max(1, PIXELS // window**2))])
    total = logits.new_zeros(batch, logits.shape[1], height, width)
    count = logits.new_zeros(1, 1, height, width)
    for (y, x), part in zip(places, logits.split(batch), strict=True):
        total[:, :, y : y + window, x : x + window] += part
        count[:, :, y : y + window, x : x + window] += 1
    return total / count


def probabilities(model: Segment, images: Tensor, size: tuple[int, int], flip: bool, recipe: Recipe) -> Tensor:
    """Softmax maps [B, K, H, W] of images shown resized to `size`, mirrored if `flip`, and brought back as logits."""
    shape = (images.shape[2], images.shape[3])
    seen = images if size == shape else interpolate(images, size, mode="bilinear", align_corners=False)
    logits = slide(model, seen.flip(3) if flip else seen, recipe.crop, recipe.stride)
    if bool(logits.isnan().any()):
        raise ValueError("the segmentation model gives NaN: its training diverged, lower Recipe.lr")
    logits = (logits.flip(3) if flip else logits).float()
    # Before the softmax, as in Segmenter and mmseg.
    logits = logits if size == shape else interpolate(logits, shape, mode="bilinear", align_corners=False)
    return logits.softmax(dim=1)


def segment(model: Segment, images: Tensor, recipe: Recipe) -> tuple[Tensor, Tensor]:
    """Segmentations of normalised images at one scale, and over all `RATIOS`, mirrored and not; both int64 [B, H, W].

    Ratios that give equal sizes are computed once and weigh as many times.
    """
    height, width = images.shape[2:]
    single = target_size(height, width, recipe.base, recipe.crop)
    sizes = Counter(target_size(height, width, recipe.base * ratio, recipe.crop) for ratio in RATIOS)
    first = probabilities(model, images, single, False, recipe)
    total = torch.zeros_like(first)
    for size, weight in sizes.items():
        plain = first if size == single else probabilities(model, images, size, False, recipe)
        total += weight * (plain + probabilities(model, images, size, True, recipe))
    return first.argmax(1), total.argmax(1)


def equal_sizes(scenes: Scenes, count: int, limit: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The first `count` scenes in order, at most `limit` neighbours of equal size together: images and masks uint8."""
    for _, neighbours in itertools.groupby((scenes[i] for i in range(count)), key=lambda scene: scene[1].shape):
        while group := list(itertools.islice(neighbours, limit)):
            yield default_collate(group)


def thinning(shape: Sequence[int]) -> int:
    """Distance between the pixels of a segmentation that are kept for a figure."""
    return math.ceil(max(shape) / SHOWN_PIXELS)


def stacked(maps: Sequence[Tensor]) -> np.ndarray:
    """Maps [h, w] of any sizes as one array [N, H, W] of the largest, `IGNORE` below and on the right."""
    height, width = (max(shape) for shape in zip(*(each.shape for each in maps), strict=True))
    padded = [pad(each, (0, width - each.shape[1], 0, height - each.shape[0]), value=IGNORE) for each in maps]
    return torch.stack(padded).numpy()


@torch.no_grad()
def score(model: nn.Module, scenes: Scenes, recipe: Recipe, card: Card, device: Device) -> Outcome:
    """mAcc, mIoU and mIoU (MS) of a trained segmentation model on the first `recipe.test_size` scenes."""
    count = min(recipe.test_size or len(scenes), len(scenes))
    single = several = torch.zeros(scenes.num_classes, scenes.num_classes, dtype=torch.int64)
    shown: list[Tensor] = []
    for images, masks in equal_sizes(scenes, count, max(1, PIXELS // 4 // recipe.base**2)):
        pixels = normalised(images.to(device), card)
        plain, averaged = (labels.cpu() for labels in segment(model, pixels, recipe))
        single = single + confusion(plain, masks, scenes.num_classes)
        several = several + confusion(averaged, masks, scenes.num_classes)
        for labels in plain[: SHOWN - len(shown)]:
            step = thinning(labels.shape)
            shown.append(labels[::step, ::step].to(torch.uint8))
    (macc, miou), (_, miou_ms) = class_means(single), class_means(several)
    values = {"macc": macc, "miou": miou, "miou_ms": miou_ms}
    return Outcome(values, count, {"examples": stacked(shown), "confusion": single.numpy()})
