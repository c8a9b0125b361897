"""Mini scale: every role as a tiny net of its own architecture, on 300 or 500 real 8x8 digits, on one CPU thread.

It goes through everything that both papers do, in minutes, and judges neither: 90 to 400 updates of 20 images are no
training. Whatever can be stacked trains in ensembles. Rates were chosen on base runs alone. XCiT knows patches of 8 and
16 only, so its digits are enlarged to 16 pixels.
"""

from functools import partial

from evaluation.arguments import Recipe
from evaluation.evaluation import Evaluation
from experiments.learning import learning, semi_supervised
from experiments.methods import PLAIN, SWITCH
from experiments.scale import PER_IMAGE, Scale, Setting, robustness, segmentation
from experiments.scales.mini_models import MODELS, SCENE_MODELS
from lumix.registry import name_of, part_of
from training.config import Data, Mix, Optim, Run
from training.parts import FixMatch, SelfTuning

TRAIN_SIZE = 500  # of the digits, in the recipe of LUMix's tables
PLAIN_SHARE = 0.3  # of all of them, in those of Decoupled Mixup
BATCH_SIZE = 20  # more would bind a stack of nets to the arithmetic of one core
SCENES_SIZE = 600
TUNED_LABELS = 90  # 15 % of them
DIGITS_TRAIN = 1000  # as training/data/sets.py splits them, which imports torch


def run(role: str) -> Run:
    """The base run of a role: Mixup 0.8 and CutMix 1.0 in turn, flip pairing, legacy boxes, smoothing 0.1."""
    rate = 5e-3 if role.startswith("convnext") else 8e-3
    return Run(
        data=Data("digits", image_size=16 if role.startswith("xcit") else 8, train_size=TRAIN_SIZE),
        model=MODELS[role],
        optim=Optim(lr=rate, weight_decay=0.05, warmup_epochs=1, min_lr=1e-5),
        mix=Mix(choices=SWITCH),
        epochs=6,
        batch_size=BATCH_SIZE,
        evaluate_every=3,
        median_last=2,
    )


def plain_run(role: str) -> Run:
    """The base run of a role of Decoupled Mixup with cosine to 0: nothing mixed or smoothed.

    AdamW in place of SGD, under which nets with group normalisation learn little in so few updates.
    """
    return Run(
        data=Data("digits", image_size=8, share=PLAIN_SHARE),
        model=MODELS[role],
        optim=Optim(lr=1e-2, weight_decay=0.05, warmup_epochs=1, min_lr=0.0),
        loss=PLAIN,
        epochs=8,
        batch_size=BATCH_SIZE,
        evaluate_every=4,
        median_last=2,
    )


def scenes_run(name: str, role: str) -> Run:
    """The same for 4 epochs on 600 scenes of 16x16 pixels (shapes, or ten variants of two)."""
    run = plain_run(role)
    data = Data(name, image_size=16, train_size=SCENES_SIZE)
    return run.replace(data=data, model=SCENE_MODELS[role], epochs=4, evaluate_every=2)


def rsb_run(role: str) -> Run:
    """The base run of a role under LAMB, as RSB A3.

    Without the prior, 90 updates under a sigmoid loss end near chance.
    """
    optim = Optim(lr=4e-2, name="lamb", weight_decay=0.02, warmup_epochs=1, min_lr=1e-6)
    model = MODELS[role].replace(init="prior")
    return plain_run(role).replace(model=model, optim=optim, epochs=6, evaluate_every=3)


def semi_run(role: str) -> Run:
    """FixMatch's recipe for 100 updates of 8 labelled and 16 unlabelled digits, a net with batch normalisation."""
    net = MODELS["wrn28_8"]
    return Run(
        data=Data("digits", image_size=8, labels=40, strong="rand-m5-n1-mstd101-inc1", cutout=0.5),
        model=net.replace(role=role, norm=""),
        optim=Optim(
            lr=0.1, name="sgd", weight_decay=5e-4, schedule="cosine_7_16", min_lr=0.0, ema_decay=0.98, ema_reported=True
        ),
        loss=PLAIN,
        task=FixMatch(ratio=2),
        epochs=5,
        epoch_steps=20,
        batch_size=8,
        evaluate_every=5,
        median_last=2,
    )


def tuned_run(name: str, role: str) -> Run:
    """Self-Tuning on procedural scenes, 120 updates from weights of other scenes: ten shapes in full variety."""
    run = scenes_run(name, role)
    return run.replace(
        data=run.data.replace(flip=True, crop_padding=1, labels=TUNED_LABELS),
        model=run.model.replace(weights="shapes"),
        optim=Optim(lr=5e-3, name="sgd", weight_decay=5e-4, decayed="all", min_lr=0.0),
        task=SelfTuning(places=8, features=32, momentum=0.99),
        epochs=4,
        epoch_steps=30,
        batch_size=10,
    )


def learned(run: Run, name: str) -> Run:
    """AutoMix or SAMix with masks of 4x4 cells, of the layer that has so many; at 224 pixels they have 14x14."""
    convolutional = run.model.role.startswith(("res", "wrn"))
    return learning(run, name, stage=1 if run.data.image_size == 16 else 2 if convolutional else None)


def shapes_run(role: str) -> Run:
    """The base run of a role on 2000 scenes of shapes, which have exact masks, boxes and unseen classes.

    Tokens are 4x4 pixels: 2x2, as for the digits, takes three times as long and stays below 80 %.
    """
    transformer = role == "deit_s"
    return run(role).replace(
        data=Data("shapes", image_size=16, train_size=2000),
        model=SCENE_MODELS[role],
        optim=Optim(lr=5e-3 if transformer else 6e-3, weight_decay=0.05, warmup_epochs=1, min_lr=1e-5),
        epochs=4,
        batch_size=BATCH_SIZE if transformer else 50,
        evaluate_every=4,
    )


# Architectures, by data and role, of which there are many runs; of the others there are two, with and without LUMix.
MANY = {("digits", role) for role in ("deit_s", "resnet18", "resnet34", "resnet50")} | {
    (name, "resnet18") for name in ("shapes", "ovals")
}


def stack(run: Run) -> int:
    """Networks in the stack that a run trains in, a multiple of 8 so that no kernel has a remainder; 1 trains it alone.

    Mixing that runs through each network by itself takes longer than to train it, and batch norms know no stack.
    """
    if run.model.role in ("resnet50", "wrn28_2") and not run.model.norm:
        return 1
    if any(part_of(mixer).needs == "the network" for mixer, _ in run.mix.choices):
        return 1
    return 16 if (run.data.name, run.model.role) in MANY and not run.data.labels else 8


# CPU milliseconds for a step of one network, by role, task or mixer, measured once: long runs are started first.
MILLISECONDS = {"deit_b": 5, "swin_s": 6, "swin_b": 8, "convnext_t": 6, "convnext_s": 8, "convnext_b": 10, "xcit_l": 6}
MILLISECONDS |= {"manifoldmix": 7, "puzzlemix": 18, "automix": 24, "samix": 24}
MILLISECONDS |= {"pseudo_label": 10, "mixmatch": 12, "fixmatch": 13, "self_tuning": 25}


def hours(run: Run) -> float:
    """Estimated CPU-hours of one seed."""
    images = run.data.train_size or round(run.data.share * DIGITS_TRAIN)
    steps = run.epochs * (run.epoch_steps or images / run.batch_size)
    return (
        steps * max(MILLISECONDS.get(name, 4) for name in (run.model.role, name_of(run.task), *run.mix.names)) / 3.6e6
    )


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
# Fresh scenes of 8 shapes, and scenes of untrained shapes, filtered by the nearest of some training images.
STAND_INS = {
    "classes": list(range(8)),
    "known_classes": list(range(2, 10)),
    "seen": 300,
    "pool": 4000,
    "unknown_pool": 1000,
    "share": 0.2,
}
PATCH = 2  # one token of the nets with patch 2, as 16 pixels are at 224
NOTHING = "one CPU thread. This exercises the mechanics and says nothing about"
DIGITS = (
    f"scikit-learn's 8x8 digits, 30 % or the stated share of {DIGITS_TRAIN}, tiny residual nets under AdamW with 8 "
    f"epochs, {NOTHING} CIFAR-100."
)
VARIANTS = (
    f"Two fine-grained sets of {SCENES_SIZE} procedural scenes, 16x16 pixels: ten bars and ellipses by proportion for "
    "CUB, ten crescents and rings by width for Aircraft; tiny residual nets under AdamW with 4 epochs from scratch, "
    f"{NOTHING} birds or aircraft."
)
TUNED = (
    f"The two fine-grained sets of {SCENES_SIZE} scenes, of which 15 % keep their label, and a tiny residual net that "
    f"was trained on scenes of ten other shapes; 120 updates, {NOTHING} birds or aircraft."
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
    "semi_cifar10": Setting(
        semi_run,
        f"scikit-learn's 8x8 digits, {DIGITS_TRAIN} of them without labels beside the stated number of labelled ones, "
        f"a tiny wide residual net, 100 updates, {NOTHING} CIFAR-10.",
        learning=partial(semi_supervised, mixmatch_weight=10.0),
        labels=(40, 100),
    ),
    **{
        f"tuned_{name}": Setting(
            partial(tuned_run, family),
            TUNED,
            unavailable={"resnet50": "one network is enough for the mechanics"},
            labels=(TUNED_LABELS,),
        )
        for name, family in (("cub200", "ovals"), ("aircraft", "moons"))
    },
    "cifar100_half": Setting(plain_run, DIGITS, learning=learned),
    "tiny_imagenet": Setting(
        partial(scenes_run, "shapes"),
        f"{SCENES_SIZE} procedural scenes of ten shapes, 16x16 pixels, tiny residual nets under AdamW with 4 epochs, "
        f"{NOTHING} Tiny-ImageNet.",
        learning=learned,
    ),
    "cub200": Setting(partial(scenes_run, "ovals"), VARIANTS, learning=learned),
    "aircraft": Setting(partial(scenes_run, "moons"), VARIANTS, learning=learned),
    "pytorch": Setting(
        plain_run,
        "300 training images of scikit-learn's 8x8 digits, tiny residual nets under AdamW with 8 epochs, "
        f"{NOTHING} ImageNet.",
        learning=learned,
    ),
    "rsb_a3": Setting(
        rsb_run,
        "300 training images of scikit-learn's 8x8 digits, tiny residual nets under LAMB, whose classifier begins at a "
        f"probability of 1/10, {NOTHING} ImageNet.",
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
        segmentation(segmenter=SEGMENTER, deeplab=DEEPLAB),
        notes={
            "deeplab": "stand-in: the library's DeepLabV3+, 32 channels wide, dilations 1, 2, 3, on the tiny ResNet of "
            "this scale"
        },
    ),
    "adversarial": Setting(
        shapes_run,
        "2000 procedural scenes of ten shapes, 16x16 pixels, a tiny DeiT-S, one CPU thread. In place of "
        "ImageNet-A, fresh scenes of 8 shapes whose nearest training image shows another; in place of ImageNet-O, "
        "those scenes of 5 untrained shapes that are nearest to one, against test scenes of 8 shapes. This says "
        "nothing about ImageNet.",
        {"natural": Evaluation("natural_adversarial", STAND_INS)},
    ),
}
SCALE = Scale(
    name="mini",
    text=(
        f"{TRAIN_SIZE} training images of scikit-learn's 8x8 digits, a tiny net of its own architecture for every "
        "role, one CPU thread: this exercises the mechanics and says nothing about ImageNet."
    ),
    seeds=4,
    headline_seeds=4,
    alone_seeds=2,
    stack=stack,
    settings=SETTINGS,
    patch=PATCH,
    hours=hours,
    retrain_on_code_change=True,
    exercises=(
        "This scale exercises every method, loss, evaluation and table of both papers on images of 8 and 16 pixels. It "
        "judges no claim: mixing itself does not help there."
    ),
)
