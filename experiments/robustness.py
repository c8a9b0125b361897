"""The robustness evaluations of Tables 7 and 9 as each scale can make them."""

from typing import Any

from experiments.methods import HEADLINE_ROLE
from experiments.scale import Scale
from lumix.evaluate.evaluation import Evaluation
from lumix.evaluate.robustness.grids import fitting_grids

DINO = "vit_small_patch16_224.dino"


def _draws(scale: Scale) -> dict[str, Any]:
    """A batch of 256 shares its random patches as published; small test sets draw for each image, for less noise."""
    paper = scale.name == "paper"
    return {"draw": "per_batch" if paper else "per_image", "repetitions": 3, "seed": 0, "batch": 256 if paper else 1000}


def occlusion(scale: Scale) -> Evaluation:
    """All ways of dropping patches. The attention is DINO's at paper scale, else that of the baseline of equal seed."""
    source = {"timm": DINO} if scale.name == "paper" else {"key": scale.run(HEADLINE_ROLE).key}
    return Evaluation("occlusion", {"source": source, "head": 1, **_draws(scale)})


def grids(scale: Scale) -> list[int]:
    """The grid sizes of this scale: those that divide its images and cut no token of its DeiT-S."""
    return fitting_grids(scale.run(HEADLINE_ROLE).data.image_size, scale.patch(HEADLINE_ROLE))


def shuffling(scale: Scale) -> Evaluation:
    """All grid sizes of this scale."""
    return Evaluation("shuffling", {"grids": grids(scale), **_draws(scale)})
