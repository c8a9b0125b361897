"""Mini scale: every role as a tiny net of its own architecture, on 300 real 8x8 digits, on one CPU thread.

Base runs (Mixup 0.8 and CutMix 1.0 in turn, smoothing 0.1) with 4 seeds each, test top-1 of the last epoch in percent,
mean and standard deviation; CPU milliseconds per update and CPU seconds per run, evaluation and checkpoints included.
One thread of a virtual core of an AMD EPYC, torch 2.15, shared with other work, so that the times are upper bounds:

    role       parameters  top-1      updates   ms     s
    deit_s       18.2 k    90.6 ± 1.6      300      14    4.2
    deit_b       39.6 k    93.9 ± 1.1      300      16    4.7
    swin_t       29.4 k    94.7 ± 0.8      300      13    4.0
    swin_s       34.3 k    95.5 ± 0.2      300      17    5.1
    swin_b       60.1 k    95.2 ± 0.7      240      18    4.3
    convnext_t   25.7 k    93.8 ± 0.5      300      15    4.6
    convnext_s   37.7 k    95.2 ± 0.9      300      18    5.4
    convnext_b   78.8 k    94.0 ± 0.7      240      23    5.5
    xcit_s        7.7 k    94.3 ± 0.6      300      14    4.3
    xcit_m       15.7 k    95.9 ± 0.9      300      15    4.4
    xcit_l       35.9 k    95.6 ± 1.0      240      20    4.7
    resnet50     38.2 k    93.9 ± 0.5      300      17    5.0

Small, base and large differ in width and depth as the real ones do. ResNet keeps timm's initialisation, which suits
narrow convolutions. XCiT knows patches of 8 and 16 only, so its digits are enlarged to 16 pixels.
"""

from functools import partial

from experiments.learning import learning
from experiments.methods import PLAIN, SWITCH
from experiments.protocols import PER_IMAGE, robustness
from experiments.scale import Scale, Setting
from experiments.scales.mini_models import MODELS, STEM, vit
from lumix.evaluate.evaluation import Evaluation
from lumix.evaluate.segmentation.recipe import Recipe
from lumix.train.config import Data, Mix, Model, Optim, Run

TRAIN_SIZE = 300
BATCH_SIZE = 50
DIGITS_TRAIN = 1000  # of lumix.train.embedded, which imports torch


LEARNING_RATE = {role: 5e-3 if role.startswith("convnext") else 8e-3 for role in MODELS}
EPOCHS = {role: 40 if role in ("convnext_b", "swin_b", "xcit_l") else 50 for role in MODELS}


def run(role: str) -> Run:
    """The base run of a role: Mixup 0.8 and CutMix 1.0 in turn, flip pairing, legacy boxes, smoothing 0.1."""
    return Run(
        data=Data("digits", image_size=16 if role.startswith("xcit") else 8, train_size=TRAIN_SIZE),
        model=MODELS[role],
        optim=Optim(lr=LEARNING_RATE[role], weight_decay=0.05, warmup_epochs=5, warmup_lr=1e-6, min_lr=1e-5),
        mix=Mix(choices=SWITCH),
        epochs=EPOCHS[role],
        batch_size=BATCH_SIZE,
        evaluate_every=10,
        median_last=5,
    )


def plain_run(role: str) -> Run:
    """The base run of a role of Decoupled Mixup under SGD with cosine to 0: nothing mixed or smoothed."""
    return Run(
        data=Data("digits", image_size=8, train_size=TRAIN_SIZE),
        model=MODELS[role],
        optim=Optim(lr=0.1, name="momentum", weight_decay=1e-4, min_lr=0.0),
        loss=PLAIN,
        epochs=40,
        batch_size=BATCH_SIZE,
        evaluate_every=10,
    )


def scenes_run(name: str, role: str) -> Run:
    """The same for 12 epochs on 1000 scenes of 16x16 pixels (shapes, or ten variants of two), with the ordinary stem.

    At 0.2 and 0.1 DM(CE) with eta 2 loses 20 to 55 points to divergence on shapes, at 0.05 under 10 (two seeds).
    """
    run = plain_run(role)
    arguments = {key: value for key, value in run.model.arguments.items() if key not in STEM}
    return run.replace(
        data=Data(name, image_size=16, train_size=1000),
        model=run.model.replace(arguments=arguments),
        optim=run.optim.replace(lr=0.05),
        epochs=12,
        evaluate_every=12,
        median_last=3,
    )


def rsb_run(role: str) -> Run:
    """The base run of a role under LAMB, as RSB A3."""
    optim = Optim(lr=2e-2, name="lamb", weight_decay=0.02, warmup_epochs=5, min_lr=1e-6)
    return plain_run(role).replace(optim=optim, epochs=50)


def learned(run: Run, name: str) -> Run:
    """AutoMix or SAMix with masks of 4x4 cells, of the layer that has so many; at 224 pixels they have 14x14."""
    stage = {"resnet50": 0, "resnet18": 2, "resnet34": 2, "resnext50": 2, "wrn28_8": 2}.get(run.model.role)
    return learning(run, name, stage=1 if run.data.image_size == 16 else stage)


SHAPES_EPOCHS = {"deit_s": 16, "resnet50": 8}
SHAPES_MODELS: dict[str, Model] = {
    "deit_s": Model("deit_s", "deit_small_patch16_224", {**vit(48, 3), "patch_size": 4}, init="small"),
    "resnet50": MODELS["resnet50"],
}


def shapes_run(role: str) -> Run:
    """The base run of a role on 2000 scenes of shapes, which have exact masks, boxes and unseen classes.

    Tokens are 4x4 pixels: 2x2, as for the digits, takes three times as long and stays below 80 %. Test top-1 over three
    seeds and CPU seconds of a run, measured as above: DeiT-S 88.9 ± 1.4 in 8 s, ResNet 93.6 ± 1.2 in 6 s.
    """
    return run(role).replace(
        data=Data("shapes", image_size=16, train_size=2000),
        model=SHAPES_MODELS[role],
        optim=Optim(lr=6e-3, weight_decay=0.05, warmup_epochs=2, warmup_lr=1e-6, min_lr=1e-5),
        epochs=SHAPES_EPOCHS[role],
        evaluate_every=8,
    )


# CPU milliseconds for one training image under LUMix, one thread, measured once: long runs are started first.
MILLISECONDS = {
    "deit_s": 0.28,
    "deit_b": 0.34,
    "swin_t": 0.28,
    "swin_s": 0.39,
    "swin_b": 0.41,
    "convnext_t": 0.34,
    "convnext_s": 0.34,
    "convnext_b": 0.47,
    "xcit_s": 0.32,
    "xcit_m": 0.34,
    "xcit_l": 0.45,
    "resnet50": 0.36,
    "resnet18": 0.36,
    "resnet34": 0.4,
    "resnext50": 0.4,
    "wrn28_8": 0.2,
}


def hours(run: Run) -> float:
    """Estimated CPU-hours of one seed."""
    images = run.data.train_size or round(run.data.share * DIGITS_TRAIN)
    passes = 4 if run.task.name != "mix" else 1  # plain steps in one of a task that learns to mix, measured
    return run.epochs * images * passes * MILLISECONDS[run.model.role] / 3.6e6


# Learning rates and sizes were chosen on seed 0 of the runs without LUMix, for what 8 CPU-seconds can give.
SCENES = Recipe("shapes", batch_size=8, scale_low=1.0, scale_high=1.4, photometric=False, test_size=100)
SEGMENTER = SCENES.replace(
    base=24, crop=24, stride=16, iterations=320, lr=5e-3, min_lr=5e-5, drop_path=0.0, dropout=0.0
)
DEEPLAB = SCENES.replace(
    decoder="deeplabv3plus",
    base=32,
    crop=32,
    stride=21,
    iterations=200,
    lr=0.2,
    min_lr=5e-3,
    weight_decay=1e-4,
    width=32,
    dilation=1,
)
# Fresh scenes of 8 shapes, and scenes of untrained shapes, filtered by a ResNet of seed 0: one test set for all seeds.
STAND_INS = {
    "classes": list(range(8)),
    "known_classes": list(range(2, 10)),
    "pool": 10_000,
    "unknown_pool": 1000,
    "share": 0.2,
    "reference": {"key": shapes_run("resnet50").key, "seed": 0},
}
PATCH = 2  # one token of the nets with patch 2, as 16 pixels are at 224
DIGITS = (
    "scikit-learn's 8x8 digits, 300 of them or the stated share of 1000, a tiny ResNet-18 under the CIFAR recipe with "
    "40 epochs, one CPU thread. This exercises the mechanics and says nothing about CIFAR-100."
)
VARIANTS = (
    "Two fine-grained sets of 1000 procedural scenes, 16x16 pixels: ten bars and ellipses by proportion for CUB, "
    "ten crescents and rings by width for Aircraft; tiny ResNets under SGD with 12 epochs from scratch, one CPU "
    "thread. This exercises the mechanics and says nothing about birds or aircraft."
)
SETTINGS = {
    "deit": Setting(
        run,
        evaluations=robustness(run("deit_s"), PATCH, {"key": run("deit_s").key}, PER_IMAGE),
        notes={"attention": "the baseline of the same seed, a stand-in for DINO"},
        unavailable={"fast_input": "its images are held in memory: there is nothing to decode"},
        learning=learned,
    ),
    "cifar100": Setting(plain_run, DIGITS, learning=learned),
    "cifar100_half": Setting(plain_run, DIGITS, learning=learned),
    "tiny_imagenet": Setting(
        partial(scenes_run, "shapes"),
        "1000 procedural scenes of ten shapes, 16x16 pixels, tiny ResNets under SGD with 12 epochs, one CPU thread. "
        "This exercises the mechanics and says nothing about Tiny-ImageNet.",
        learning=learned,
    ),
    "cub200": Setting(partial(scenes_run, "ovals"), VARIANTS, learning=learned),
    "aircraft": Setting(partial(scenes_run, "moons"), VARIANTS, learning=learned),
    "pytorch": Setting(
        plain_run,
        f"{TRAIN_SIZE} training images of scikit-learn's 8x8 digits, tiny ResNets under SGD with 40 epochs, one CPU "
        "thread. This exercises the mechanics and says nothing about ImageNet.",
        learning=learned,
    ),
    "rsb_a3": Setting(
        rsb_run,
        f"{TRAIN_SIZE} training images of scikit-learn's 8x8 digits, a tiny ResNet-50 under LAMB, one CPU thread. This "
        "exercises the mechanics and says nothing about ImageNet.",
        learning=learned,
    ),
    "objects": Setting(
        shapes_run,
        "2000 procedural scenes of ten shapes, 16x16 pixels, a tiny DeiT-S with 4x4 tokens, one CPU thread; exact "
        "masks and boxes of 1000 test scenes. This exercises the mechanics and says nothing about ImageNet.",
        {
            "boxes": Evaluation("weak_localisation", {"setting": "0.9/best/all"}),
            "masks": Evaluation("weak_segmentation", {"mass": 0.9}),
        },
    ),
    "segmentation": Setting(
        lambda role: shapes_run("resnet50" if role == "resnet101" else role),
        "Ten shapes and background in procedural scenes of 16x16 pixels, a tiny DeiT-S (4-pixel patches, images "
        "enlarged to 24) and a tiny ResNet (images enlarged to 32), both pre-trained and fine-tuned on these scenes "
        "on one CPU thread, tested on 100 of them. This exercises the mechanics and says nothing about Pascal Context.",
        {
            name: Evaluation("segmentation", {"recipe": r.to_dict()})
            for name, r in (("segmenter", SEGMENTER), ("deeplab", DEEPLAB))
        },
        notes={
            "deeplab": "stand-in: the library's DeepLabV3+, 32 channels wide, dilations 1, 2, 3, on the tiny ResNet of "
            "this scale"
        },
    ),
    "adversarial": Setting(
        shapes_run,
        "2000 procedural scenes of ten shapes, 16x16 pixels, a tiny DeiT-S, one CPU thread. In place of "
        "ImageNet-A, fresh scenes of 8 shapes that a tiny ResNet gets wrong; in place of ImageNet-O, those scenes "
        "of 5 untrained shapes that it is surest about, against test scenes of 8 shapes. This says nothing about "
        "ImageNet.",
        {"natural": Evaluation("natural_adversarial", STAND_INS)},
        sources=("resnet50",),
    ),
}
SCALE = Scale(
    name="mini",
    text=(
        f"{TRAIN_SIZE} training images of scikit-learn's 8x8 digits, a tiny net of its own architecture for every "
        "role, one CPU thread: this exercises the mechanics and says nothing about ImageNet."
    ),
    seeds=3,
    headline_seeds=8,
    more_seeds=5,
    settings=SETTINGS,
    patch=PATCH,
    hours=hours,
    retrain_on_code_change=True,
)
