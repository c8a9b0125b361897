"""Lab scale: CIFAR-100 at 32 pixels, real small nets for every role, one GPU.

Every role keeps its architecture and the paper's mixing, smoothing and schedule shape; width, depth and patch are cut
down to 32 pixels and 3 to 23 million parameters, and RandAugment, erasing, repeated augmentation and EMA give way to
flip and padded crop. Its numbers are evidence about the method on small images. They are not the paper's, and 30 epochs
leave every net short of what it can reach on CIFAR-100: raise EPOCHS for more, which makes new runs.
"""

from functools import partial
from typing import Any

from evaluation.arguments import Recipe
from evaluation.evaluation import Evaluation
from experiments import learning, recipes
from experiments.methods import PLAIN, SWITCH
from experiments.scale import PER_IMAGE, Scale, Setting, robustness, segmentation, semi_images
from experiments.scales import fine_grained
from lumix.registry import name_of
from training.config import Data, Execution, Mix, Model, Optim, Run

EPOCHS = 30
CIFAR100 = Data(name="cifar100", image_size=32, flip=True, crop_padding=4)
TINY_EPOCHS = 100
TINY_IMAGENET = Data(name="tiny_imagenet", image_size=64, flip=True, crop_padding=8)
SMALL = {"img_size": 32, "drop_path_rate": 0.1}


def _vit(width: int, depth: int, heads: int) -> dict[str, Any]:
    return {**SMALL, "patch_size": 4, "embed_dim": width, "depth": depth, "num_heads": heads}


def _swin(width: int, depths: tuple[int, ...], drop_path_rate: float) -> dict[str, Any]:
    heads = [width // 32 * 2**stage for stage in range(len(depths))]
    shape = {"patch_size": 2, "window_size": 4, "embed_dim": width, "depths": list(depths), "num_heads": heads}
    return {**SMALL, **shape, "drop_path_rate": drop_path_rate}


def _convnext(width: int, depths: tuple[int, ...], drop_path_rate: float) -> dict[str, Any]:
    widths = [width * 2**stage for stage in range(len(depths))]
    # A stem of stride 1 keeps the last of four stages at 4x4, as 224 pixels with stride 4 keep it at 7x7.
    return {"patch_size": 1, "depths": list(depths), "dims": widths, "drop_path_rate": drop_path_rate}


def _xcit(width: int, depth: int, heads: int, eta: float) -> dict[str, Any]:
    # timm's XCiT knows patches of 8 and 16 only: 32 pixels are 4x4 tokens, coarser than the other roles.
    shape = {"patch_size": 8, "embed_dim": width, "depth": depth, "num_heads": heads}
    return {**SMALL, **shape, "eta": eta, "drop_path_rate": 0.05}


# Of each role a network, and assumed, not measured, training images per second of one H100-class GPU in bfloat16.
MODELS: dict[str, tuple[str, dict[str, Any], int]] = {
    "deit_s": ("deit_small_patch16_224", _vit(192, 9, 3), 30_000),
    "deit_b": ("deit_base_patch16_224", _vit(288, 9, 6), 16_000),
    "swin_t": ("swin_tiny_patch4_window7_224", _swin(64, (2, 2, 4), 0.1), 8_000),
    "swin_s": ("swin_small_patch4_window7_224", _swin(64, (2, 2, 8), 0.15), 6_000),
    "swin_b": ("swin_base_patch4_window7_224", _swin(96, (2, 2, 8), 0.2), 4_000),
    "convnext_t": ("convnext_tiny", _convnext(48, (2, 2, 4, 2), 0.05), 8_000),
    "convnext_s": ("convnext_small", _convnext(48, (2, 2, 8, 2), 0.1), 6_000),
    "convnext_b": ("convnext_base", _convnext(64, (2, 2, 8, 2), 0.1), 4_000),
    "xcit_s": ("xcit_small_12_p16_224", _xcit(192, 6, 4, 1.0), 25_000),
    "xcit_m": ("xcit_medium_24_p16_224", _xcit(192, 12, 4, 1e-5), 14_000),
    "xcit_l": ("xcit_large_24_p16_224", _xcit(256, 12, 8, 1e-5), 10_000),
    "resnet50": ("resnet18", {"cifar_stem": True}, 25_000),
    "resnet18": ("resnet18", {"cifar_stem": True}, 25_000),
    "resnet34": ("resnet34", {"cifar_stem": True}, 14_000),
    "resnext50": ("resnext50_32x4d", {"cifar_stem": True}, 5_000),
    "wrn28_8": (
        "resnetv2_18",
        {**recipes.WIDE, "layers": [2, 2, 2], "channels": [64, 128, 256], "cifar_stem": True},
        20_000,
    ),
}


def run(role: str) -> Run:
    """The base run of a role."""
    name, arguments, _ = MODELS[role]
    convolutional = role.startswith(("convnext", "resnet"))
    return Run(
        data=CIFAR100,
        model=Model(role, name, arguments),
        optim=Optim(lr=1e-3, weight_decay=0.05, warmup_epochs=3, min_lr=1e-5, clip_grad=1.0),
        mix=Mix(choices=SWITCH),
        epochs=EPOCHS,
        batch_size=256,
        precision="bfloat16",
        channels_last=convolutional,
        evaluate_every=5,
    )


def plain_run(role: str) -> Run:
    """The CIFAR recipe of Decoupled Mixup, 200 epochs in place of 800: SGD with cosine to 0, nothing mixed."""
    optim = Optim(lr=0.1, name="momentum", weight_decay=1e-4, decayed="all", min_lr=0.0)
    return run(role).replace(optim=optim, mix=Mix(), loss=PLAIN, epochs=200, batch_size=100)


def plain_tiny_run(role: str) -> Run:
    """Its recipe for Tiny-ImageNet, 100 epochs in place of 400."""
    data = TINY_IMAGENET.replace(crop_padding=4)
    run = plain_run(role)
    return run.replace(data=data, optim=run.optim.replace(lr=0.2), epochs=TINY_EPOCHS)


def rsb_run(role: str) -> Run:
    """RSB A3's optimizer: LAMB at 8e-3, 100 epochs; images, crop and batch are the lab's."""
    optim = Optim(lr=8e-3, name="lamb", weight_decay=0.02, warmup_epochs=5, min_lr=1e-6)
    return run(role).replace(optim=optim, mix=Mix(), loss=PLAIN, epochs=100)


def tiny_run(role: str) -> Run:
    """The base run of DeiT-S on Tiny-ImageNet, whose objects have boxes: 16x16 tokens of 4x4 pixels."""
    if role != "deit_s":
        raise ValueError(f"only deit_s is trained on Tiny-ImageNet, not {role!r}")
    name, arguments, _ = MODELS[role]
    model = Model(role, name, {**arguments, "img_size": 64})
    return run(role).replace(data=TINY_IMAGENET, model=model, epochs=TINY_EPOCHS)


def semi_run(role: str) -> Run:
    """FixMatch's recipe for CIFAR-100 with 2^15 updates in place of 2^20."""
    base = recipes.semi_supervised("cifar100", role)
    name, arguments, _ = MODELS[role]
    return base.replace(model=Model(role, name, arguments), epochs=32)


LEARNED = {"automix": 3.0, "samix": 3.0}  # plain steps in one, by their count of passes


def hours(run: Run) -> float:
    """Estimated GPU-hours of one seed: epochs over all images, 20 s for start and evaluation.

    Tiny-ImageNet counts as complete, with 100 000 images of four times as many tokens. Puzzle-Mix cuts its graphs on
    the CPU meanwhile: 0.35 ms an image, measured at 32 pixels, in every other batch.
    """
    if run.data.name in fine_grained.LABELS:
        return fine_grained.hours(run)
    if run.data.labels:
        return (semi_images(run) / MODELS[run.model.role][2] + 20) / 3600
    images = (400_000 if run.data.name == "tiny_imagenet" else 50_000) * run.data.share
    seconds = LEARNED.get(name_of(run.task), 1) / MODELS[run.model.role][2]
    seconds += 0.35e-3 / 2 if "puzzlemix" in run.mix.names else 0
    return (run.epochs * images * seconds + 20) / 3600


def segmentation_run(role: str) -> Run:
    """DeiT-S as ever; at 32 pixels a ResNet with the ordinary stem, which DeepLabV3+ needs, would end in one pixel."""
    if role == "deit_s":
        return run(role)
    data = CIFAR100.replace(image_size=64, crop_padding=8)
    return run("resnet50").replace(data=data, model=Model("resnet50", "resnet18"))


SEGMENTER = Recipe("camvid", base=240, crop=96, stride=64, iterations=4000, lr=1e-2, min_lr=1e-4, precision="bfloat16")
DEEPLAB = SEGMENTER.replace(decoder="deeplabv3plus", min_lr=1e-3, weight_decay=1e-4, width=256)
STAND_INS = {
    "classes": [index for index in range(100) if index % 4 in (0, 1)],
    "known_classes": [index for index in range(100) if index % 4 in (1, 2)],
    "unknown_pool": 5000,
    "share": 0.2,
    "reference": {"key": run("resnet50").key, "seed": 0},
}
PATCH = 4  # one token of the nets with patch 4, as 16 pixels are at 224
SETTINGS = {
    "deit": Setting(
        run,
        evaluations=robustness(run("deit_s"), PATCH, {"key": run("deit_s").key}, PER_IMAGE),
        notes={"attention": "the baseline of the same seed, a stand-in for DINO"},
        unavailable={"fast_input": "its images are held in memory: there is nothing to decode"},
    ),
    "cifar100": Setting(
        plain_run,
        "CIFAR-100 at 32 pixels or the stated share of its training images, ResNet-18 with the CIFAR stem, the paper's "
        "recipe with 200 epochs in place of 800, one GPU.",
        learning=learning.on_cifar100,
    ),
    "cifar100_half": Setting(
        lambda role: plain_run(role).replace(epochs=100),
        "CIFAR-100 at 32 pixels, ResNet-18 with the CIFAR stem, the paper's recipe with 100 epochs in place of 400, "
        "one GPU.",
        learning=learning.on_cifar100,
    ),
    "tiny_imagenet": Setting(
        plain_tiny_run,
        f"Tiny-ImageNet at 64 pixels, the paper's recipe with {TINY_EPOCHS} epochs in place of 400, one GPU.",
        learning=learning.on_tiny_imagenet,
    ),
    "semi_cifar100": Setting(
        semi_run,
        "CIFAR-100 at 32 pixels, all training images without labels beside the stated number of labelled ones, a small "
        "wide residual net for WRN-28-8, the toolbox's recipe with 2^15 updates in place of 2^20, one GPU.",
        learning=partial(learning.semi_supervised, mixmatch_weight=150.0),
        labels=(400, 2500, 10_000),
    ),
    **fine_grained.SETTINGS,
    "pytorch": Setting(
        lambda role: plain_run(role).replace(epochs=100),
        "CIFAR-100 at 32 pixels, ResNet-18 and -34 and a ResNet-18 for ResNet-50, 100 epochs of SGD, one GPU. Not "
        "ImageNet.",
    ),
    "rsb_a3": Setting(
        rsb_run, "CIFAR-100 at 32 pixels, a ResNet-18 for ResNet-50, LAMB for 100 epochs, one GPU. Not ImageNet."
    ),
    "objects": Setting(
        tiny_run,
        f"Tiny-ImageNet at 64 pixels, a small DeiT-S with 16x16 tokens, {TINY_EPOCHS} epochs, one GPU; the "
        "annotated boxes of the validation images of those classes that are there.",
        {"boxes": Evaluation("weak_localisation", {"setting": "0.9/best/all"})},
        unavailable={"masks": "Tiny-ImageNet has boxes and no masks"},
    ),
    "segmentation": Setting(
        segmentation_run,
        "CamVid street scenes at 240x180, 11 classes, 367 training and 233 test images; a small DeiT-S (patches of "
        "4 pixels) and a ResNet-18 pre-trained on CIFAR-100, 4000 updates of crops of 96 pixels, one "
        "GPU. Not Pascal Context.",
        segmentation(segmenter=SEGMENTER, deeplab=DEEPLAB),
        notes={"deeplab": "stand-in: the library's DeepLabV3+, 256 channels wide, on a ResNet-18"},
    ),
    "adversarial": Setting(
        run,
        "CIFAR-100 at 32 pixels, a small DeiT-S, one GPU. In place of ImageNet-A, CIFAR-100 test images of 50 "
        "classes that a ResNet-18 gets wrong; in place of ImageNet-O, those Tiny-ImageNet images of classes "
        "foreign to CIFAR-100 that it is surest about, against test images of 50 classes.",
        {"natural": Evaluation("natural_adversarial", STAND_INS)},
        sources=("resnet50",),
    ),
}
SCALE = Scale(
    name="lab",
    text=f"CIFAR-100 at 32 pixels, nets of 3 to 23 M parameters for every role, {EPOCHS} epochs, one GPU.",
    seeds=3,
    headline_seeds=3,
    more_seeds=5,
    settings=SETTINGS,
    patch=PATCH,
    hours=hours,
    execution=Execution(device="cuda"),
    gpus=1,
    processes=1,
    dollars_per_gpu_hour=2.0,  # a round figure for a rented GPU, not a quote: put your own here
)
