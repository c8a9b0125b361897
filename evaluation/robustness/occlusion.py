"""Patch-drop occlusion (LUMix Table 9; Naseer et al. 2021): accuracy when patches of the image are set to zero.

Patches go at random, the most attended first (salient) or the least attended first (non-salient), where the attention
is that of a second model. Losses count attention mass, as published, or patches. One pass over the data serves all.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from evaluation.attention.localisation import foreground, token_side
from evaluation.evaluation import Outcome
from evaluation.images import Card, Device
from evaluation.models import public_model, second_model
from evaluation.robustness.accuracy import DRAWS, count_correct, normaliser, percent, pixel_batches
from evaluation.robustness.grids import ATTENDED, LOSSES, VARIANTS
from lumix.checks import check_choice
from training.attention import check_class_attention, class_attention
from training.rng import stream_seed


def foreground_mask(attention: Tensor, mass: float) -> Tensor:
    """`foreground` of attention [B, N] over N = n x n patches row by row: bool [B, n, n], on the CPU."""
    side = token_side(attention.shape[-1])
    kept = torch.from_numpy(foreground(attention.double().cpu().numpy(), mass))
    return kept.unflatten(-1, (side, side))


def strongest_mask(attention: Tensor, count: int) -> Tensor:
    """The `count` most attended patches of attention [B, N], bool [B, n, n] on the CPU."""
    side = token_side(attention.shape[-1])
    chosen = attention.cpu().argsort(dim=-1, descending=True, stable=True)[:, :count]
    mask = torch.zeros(attention.shape, dtype=torch.bool).scatter_(-1, chosen, True)
    return mask.unflatten(-1, (side, side))


def attended_mask(attention: Tensor, variant: str, loss: int) -> Tensor:
    """Which patches stay, bool [B, n, n], when `loss` per cent go by a variant of `ATTENDED`."""
    check_choice("variant", variant, ATTENDED)
    patches = attention.shape[-1]
    dropped = loss * patches // 100
    if variant == "non_salient":
        return foreground_mask(attention, 1 - loss / 100)
    if variant == "salient":
        return ~foreground_mask(attention, loss / 100)
    if variant == "non_salient_by_count":
        return strongest_mask(attention, patches - dropped)
    return ~strongest_mask(attention, dropped)


def random_mask(side: int, loss: int, sets: int, generator: torch.Generator) -> Tensor:
    """Which patches stay, bool [sets, side, side], when floor(loss side^2 / 100) random ones go."""
    patches = side * side
    order = torch.rand(sets, patches, generator=generator).argsort(dim=1)
    return (order >= loss * patches // 100).view(sets, side, side)


def apply_drop(images: Tensor, keep: Tensor) -> Tensor:
    """Images [B, C, H, W] with zeros where keep [B or 1, n, n] bool is false; ValueError where n divides no side."""
    height, width = images.shape[-2:]
    rows, columns = keep.shape[-2:]
    if height % rows or width % columns:
        raise ValueError(f"a grid of {rows} x {columns} patches does not divide an image of {height} x {width} pixels")
    mask = keep.to(images.device).unsqueeze(1)
    mask = mask.repeat_interleave(height // rows, 2).repeat_interleave(width // columns, 3)
    return images * mask.to(images.dtype)


def drive(model: nn.Module, card: Card, arguments: Mapping[str, Any], device: Device) -> Outcome:
    """Top-1 as <variant>_<loss> for each of `VARIANTS` and `LOSSES`, and <variant>_average, the mean of the ten.

    Arguments: "source", the model whose attention decides, a run or {"timm": name}; "head" of its last block; "draw",
    whether a batch shares its random patches or each image has its own; "repetitions" of these draws; "seed" of them;
    "batch" in images.
    """
    check_choice("draw", arguments["draw"], DRAWS)
    source = attention_source(arguments["source"], card, device)
    normalise = normaliser(card, device)
    hits: Counter[str] = Counter()
    for place, images, labels in pixel_batches(card, device, arguments["batch"]):
        with torch.inference_mode():
            attention = class_attention(source, normalise(images))
        if arguments["head"] >= attention.shape[1]:
            raise ValueError(f"the attention source has {attention.shape[1]} heads, hence no head {arguments['head']}")
        clean = count_correct(model, normalise(images), labels)
        hits["samples"] += len(labels)
        for name, keep in _masks(attention[:, arguments["head"]], images, place, arguments):
            whole = bool(keep.all())
            hits[name] += clean if whole else count_correct(model, normalise(apply_drop(images, keep)), labels)
    return Outcome(_values(hits, arguments["repetitions"]), hits["samples"])


def _masks(attention: Tensor, images: Tensor, place: int, arguments: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    """Every (name, patches that stay) of one batch; random ones once for each repetition."""
    side = token_side(attention.shape[-1])
    sets = 1 if arguments["draw"] == "per_batch" else len(images)
    for loss in LOSSES:
        for variant in ATTENDED:
            yield f"{variant}_{loss}", attended_mask(attention, variant, loss)
        for repetition in range(arguments["repetitions"]):
            seed = stream_seed(arguments["seed"], repetition, place, loss, "occlusion")
            yield f"random_{loss}", random_mask(side, loss, sets, torch.Generator().manual_seed(seed))


def _values(hits: Mapping[str, int], repetitions: int) -> dict[str, float]:
    values: dict[str, float] = {}
    for variant in VARIANTS:
        samples = hits["samples"] * (repetitions if variant == "random" else 1)
        curve = {f"{variant}_{loss}": percent(hits[f"{variant}_{loss}"], samples) for loss in LOSSES}
        values |= curve | {f"{variant}_average": sum(curve.values()) / len(curve)}
    return values


def attention_source(source: Mapping[str, Any], card: Card, device: Device) -> nn.Module:
    """The model whose class attention ranks the patches of the images that `card` names."""
    model = public_model(source["timm"]) if "timm" in source else second_model(source, card, device)
    check_class_attention(model)
    return model.to(device).eval()
