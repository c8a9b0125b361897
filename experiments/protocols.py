"""Evaluations that every scale makes in its own size: robustness (Tables 7 and 9) and segmentation (Table 4)."""

from typing import Any

from evaluation.arguments import Recipe, fitting_grids
from evaluation.evaluation import Evaluation
from training.config import Run

# A batch of 256 shares its random patches as published; small test sets draw for each image, for less noise.
AS_PUBLISHED = {"draw": "per_batch", "repetitions": 3, "seed": 0, "batch": 256}
PER_IMAGE = {"draw": "per_image", "repetitions": 3, "seed": 0, "batch": 1000}


def robustness(run: Run, token: int, source: dict[str, Any], draws: dict[str, Any]) -> dict[str, Evaluation]:
    """Both evaluations of DeiT-S: all ways of dropping patches, and all grids of shuffled ones.

    Args:
        run: its base run, for the size of its images.
        token: side of its patches; no grid cuts one.
        source: whose attention says what is salient: {"timm": name} or {"key": run key}.
        draws: one of the above.
    """
    grids = fitting_grids(run.data.image_size, token)
    return {
        "occlusion": Evaluation("occlusion", {"source": source, "head": 1, **draws}),
        "shuffling": Evaluation("shuffling", {"grids": grids, **draws}),
    }


def segmentation(**recipes: Recipe) -> dict[str, Evaluation]:
    """The evaluation of each named recipe of fine-tuning."""
    return {name: Evaluation("segmentation", {"recipe": recipe.to_dict()}) for name, recipe in recipes.items()}
