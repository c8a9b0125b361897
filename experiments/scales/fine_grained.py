"""CUB-200 and Aircraft as lab and paper scale have them: the paper's own recipe, which takes one GPU under an hour."""

from functools import partial

from experiments import learning, recipes
from experiments.scale import Setting
from lumix.train.config import Run

NAMES = {"resnet18": "resnet18", "resnext50": "resnext50_32x4d"}
# A100-hours of a run, assumed.
HOURS = {
    ("cub200", "resnet18"): 0.2,
    ("cub200", "resnext50"): 0.6,
    ("aircraft", "resnet18"): 0.3,
    ("aircraft", "resnext50"): 0.6,
}


def run(data_set: str, role: str) -> Run:
    """The base run of a role on one of the two sets."""
    return recipes.fine_grained(data_set, role, NAMES[role])


SETTINGS = {
    name: Setting(
        partial(run, name),
        "CUB-200-2011 and FGVC-Aircraft at 224 pixels, ResNet-18 and ResNeXt-50 from torchvision's ImageNet weights, "
        "200 epochs of SGD at batch 16.",
        learning=learning.fine_grained,
    )
    for name in ("cub200", "aircraft")
}
