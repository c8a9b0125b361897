"""Small scale: photographs without a GPU. 15 % of CIFAR-100 at 16 pixels, a ResNet of 1.3 M parameters, two CPU cores.

The protocol, with what is asked, in which order blocks are trained and how they are read, is docs/small-scale.md. The
precision belongs to a run, so it is bfloat16 on every machine: what has no instructions for it gives the same
experiment, only later.
"""

from evaluation.evaluation import Evaluation
from experiments.methods import PLAIN
from experiments.scale import PER_IMAGE, PHOTOGRAPHS, Scale, Setting
from lumix.registry import name_of
from training.config import Data, Model, Optim, Run

SHARE = 0.15
# One block a stage. A deep stem of width 16 gives the first stage's 32 channels; the CIFAR stem takes its place.
RESNET = {"channels": [32, 64, 128, 256], "layers": [1, 1, 1, 1], "stem_type": "deep", "stem_width": 16}
MODELS = {"resnet18": Model("resnet18", "resnet18", {**RESNET, "cifar_stem": True})}


def run(role: str) -> Run:
    """The base run of a role: SGD with cosine to 0 for 100 epochs, nothing mixed or smoothed."""
    return Run(
        data=Data("cifar100", image_size=16, share=SHARE, flip=True, crop_padding=2),
        model=MODELS[role],
        optim=Optim(lr=0.1, name="momentum", weight_decay=5e-4, decayed="all", min_lr=0.0),
        loss=PLAIN,
        epochs=100,
        batch_size=100,
        precision="bfloat16",
        channels_last=True,
        evaluate_every=20,
        median_last=5,
    )


# Milliseconds of one core for a training image, all told; measured, see docs/small-scale.md.
MILLISECONDS = {"puzzlemix": 1.3, "saliencymix": 0.6, "mix_and_clean": 1.1, "automix": 1.7, "samix": 1.8}


def hours(run: Run) -> float:
    """Estimated CPU-hours of one seed."""
    each = max(MILLISECONDS.get(name, 0.55) for name in (*run.mix.names, name_of(run.task)))
    return run.epochs * 50_000 * run.data.share * each / 3.6e6


TEXT = (
    "CIFAR-100 at 16 pixels, 15 % of the training images (7 500) and the full test set, a ResNet of one block a stage "
    "and 1.2 M parameters, SGD for 100 epochs in bfloat16, one CPU core. This is not the paper's setting: its "
    "ResNet-18 sees 32 pixels for 800 epochs."
)
# Every image with patches of its own, once: 10 000 images are draws enough.
ONCE = {**PER_IMAGE, "repetitions": 1}
EVALUATIONS = {
    "calibration": Evaluation("calibration"),
    "fgsm": Evaluation("fgsm", {"radius": 8, "batch": 500}),
    "shuffling": Evaluation("shuffling", {"grids": [4, 16, 64], **ONCE}),
    "occlusion": Evaluation("occlusion", {"side": 8, **ONCE}),
}
SCALE = Scale(
    name="small",
    text=TEXT,
    settings={"cifar100": Setting(run, TEXT, EVALUATIONS)},
    tables=PHOTOGRAPHS,
    seeds=5,
    headline_seeds=12,
    patch=2,
    hours=hours,
    blocks=True,
)
