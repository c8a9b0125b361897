"""CUB-200, Cars and Aircraft as lab and paper scale have them: the paper's own recipes, which take one GPU an hour."""

from functools import partial

from evaluation.evaluation import Evaluation
from experiments import learning, recipes
from experiments.scale import Setting, semi_images
from training.config import Run

NAMES = {"resnet18": "resnet18", "resnet50": "resnet50", "resnext50": "resnext50_32x4d"}
# A100-hours of a run, assumed.
HOURS = {"cub200": {"resnet18": 0.2, "resnext50": 0.6}, "aircraft": {"resnet18": 0.3, "resnext50": 0.6}}
IMAGES_PER_HOUR = {"resnet18": 6e6, "resnet50": 3e6}  # with gradient, assumed
# 15, 30 and 50 % of the training images, as many of each class: 4, 9, 15 of CUB-200's 29 or 30, and so on.
LABELS = {"cub200": (800, 1800, 3000), "cars": (1176, 2352, 4116), "aircraft": (1000, 2000, 3300)}


def run(data_set: str, role: str) -> Run:
    """The base run of a role on one of the two sets."""
    return recipes.fine_grained(data_set, role, NAMES[role])


def tuned_run(data_set: str, role: str) -> Run:
    """Self-Tuning's base run of a role on one of the sets."""
    return recipes.self_tuning(data_set, role, NAMES[role], LABELS[data_set][0])


def hours(run: Run) -> float:
    """Assumed hours of one seed."""
    if run.data.labels:
        return semi_images(run) / IMAGES_PER_HOUR[run.model.role]
    return HOURS[run.data.name][run.model.role]


SETTINGS = {
    name: Setting(
        partial(run, name),
        "CUB-200-2011 and FGVC-Aircraft at 224 pixels, ResNet-18 and ResNeXt-50 from torchvision's ImageNet weights, "
        "200 epochs of SGD at batch 16.",
        learning=learning.fine_grained,
    )
    for name in ("cub200", "aircraft")
} | {
    f"tuned_{name}": Setting(
        partial(tuned_run, name),
        "CUB-200-2011, Stanford Cars and FGVC-Aircraft at 224 pixels, 15, 30 and 50 % of the training images with "
        "their labels, as many of each class; torchvision's ImageNet weights, 27 000 updates, tested on ten crops.",
        evaluations={"ten_crop": Evaluation("ten_crop", {"resize": 256})},
        labels=labels,
    )
    for name, labels in LABELS.items()
}
