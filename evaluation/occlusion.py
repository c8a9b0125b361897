"""Patch-drop occlusion (LUMix Table 9; Naseer et al. 2021): accuracy when patches of the image are set to zero.

Patches go at random, the most attended first (salient) or the least attended first (non-salient), by the attention of a
second model. Losses count attention mass, as published, or patches. One pass over the data serves all.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from evaluation.arguments import ATTENDED, LOSSES, VARIANTS
from evaluation.evaluation import Outcome
from evaluation.foreground import foreground, token_side
from evaluation.images import Card, Device, accuracies, normaliser
from evaluation.models import public_model, second_model
from lumix.inputs import checked
from lumix.integrations.attention import check_class_attention, class_attention
from lumix.random import moved
from training.rng import stream_seed


def attended_mask(attention: Tensor, variant: str, loss: int) -> Tensor:
    """Which patches stay, bool [B, n, n] on the CPU, when `loss` per cent go by a variant; attention is [B, n * n]."""
    checked("variant", variant, Annotated[str, ATTENDED])
    patches, salient = attention.shape[-1], variant.startswith("salient")
    if variant.endswith("by_count"):
        dropped = loss * patches // 100
        order = attention.cpu().argsort(dim=-1, descending=True, stable=True)
        chosen = order[:, : dropped if salient else patches - dropped]
        strongest = torch.zeros(attention.shape, dtype=torch.bool).scatter_(-1, chosen, True)
    else:
        mass = loss / 100 if salient else 1 - loss / 100
        strongest = torch.from_numpy(foreground(attention.double().cpu().numpy(), mass))
    side = token_side(patches)
    return (~strongest if salient else strongest).unflatten(-1, (side, side))


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
    mask = moved(keep, images.device).unsqueeze(1)
    mask = mask.repeat_interleave(height // rows, 2).repeat_interleave(width // columns, 3)
    return images * mask.to(images.dtype)


def masks(attention: Tensor, place: int, arguments: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    """Every (name, patches that stay) of one batch with attention [B, n * n]."""
    for loss in LOSSES:
        for variant in ATTENDED:
            yield f"{variant}_{loss}", attended_mask(attention, variant, loss)
    yield from random_masks(token_side(attention.shape[-1]), len(attention), place, arguments)


def random_masks(side: int, size: int, place: int, arguments: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    """The random ones of `size` images of side x side patches, once for each repetition."""
    sets = 1 if arguments["draw"] == "per_batch" else size
    for loss in LOSSES:
        for repetition in range(arguments["repetitions"]):
            seed = stream_seed(arguments["seed"], repetition, place, loss, "occlusion")
            yield f"random_{loss}", random_mask(side, loss, sets, torch.Generator().manual_seed(seed))


def drive(model: nn.Module, card: Card, arguments: Mapping[str, Any], device: Device) -> Outcome:
    """Top-1 as <variant>_<loss> for each of `VARIANTS` and `LOSSES`, and <variant>_average, the mean of the ten.

    Arguments: "source", the model whose attention decides, a run or {"timm": name}, and "head" of its last block; in
    their place "side", so many patches along an image, for random ones alone where there is no attention; "draw",
    whether a batch shares its random patches or each image has its own; "repetitions" of these draws; "seed" of them;
    "batch" in images.
    """
    checked("draw", arguments["draw"], Annotated[str, ("per_batch", "per_image")])
    side: int = arguments.get("side", 0)
    source = None if side else attention_source(arguments["source"], card, device)
    normalise = normaliser(card, device)

    def occluded(place: int, images: Tensor, labels: Tensor) -> Iterator[tuple[str, Tensor]]:
        if source is None:
            found = random_masks(side, len(images), place, arguments)
        else:
            with torch.inference_mode():
                attention = class_attention(source, normalise(images))
            if (head := arguments["head"]) >= attention.shape[1]:
                raise ValueError(f"the attention source has {attention.shape[1]} heads, hence no head {head}")
            found = masks(attention[:, head], place, arguments)
        for name, keep in found:
            yield name, images if bool(keep.all()) else apply_drop(images, keep)

    top1, samples = accuracies(model, card, device, arguments["batch"], occluded)
    values: dict[str, float] = {}
    for variant in VARIANTS if source is not None else ("random",):
        curve = {f"{variant}_{loss}": top1[f"{variant}_{loss}"] for loss in LOSSES}
        values |= curve | {f"{variant}_average": sum(curve.values()) / len(curve)}
    return Outcome(values, samples)


def attention_source(source: Mapping[str, Any], card: Card, device: Device) -> nn.Module:
    """The model whose class attention ranks the patches of the images that `card` names."""
    model = public_model(source["timm"]) if "timm" in source else second_model(source, card, device)
    check_class_attention(model)
    return model.to(device).eval()
