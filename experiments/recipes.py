"""The recipes of LUMix Tables 1 to 12, and below those of Decoupled Mixup, as functions that return a base run.

Stated by the paper: ImageNet-1k at 224 pixels, learning rate 1e-3, linear warm-up from 1e-6 over 20 epochs (DeiT: 5),
300 epochs (XCiT: 400), Mixup 0.8, CutMix, RandAugment, drop path, 8 A100. All else is what the named original recipe
does; the total batch of 1024 is our choice, at which each original scales its learning rate to 1e-3.
"""

from typing import Any

from experiments.methods import PLAIN, SWITCH
from training.config import Data, Mix, Model, Optim, Run
from training.parts import FixMatch, SelfTuning

RAND_AUGMENT = "rand-m9-mstd0.5-inc1"  # which switches colour jitter off
IMAGENET = Data("imagenet", image_size=224, flip=True, crop_scale=0.08, test_crop=0.875)  # random resized crop and flip
AUGMENTED = IMAGENET.replace(rand_augment=RAND_AUGMENT, erasing=0.25)


def _base(data: Data, model: Model, optim: Optim, epochs: int, channels_last: bool = False) -> Run:
    return Run(
        data=data,
        model=model,
        optim=optim,
        mix=Mix(choices=SWITCH),
        epochs=epochs,
        batch_size=1024,  # 8 x 128
        precision="bfloat16",
        channels_last=channels_last,
    )


def deit(role: str, name: str, **arguments: Any) -> Run:
    """DeiT: 3 repeats of each image, clipping at 1 (table A1 of Decoupled Mixup), a tracked average of the weights."""
    optim = Optim(lr=1e-3, weight_decay=0.05, warmup_epochs=5, min_lr=1e-5, clip_grad=1.0, ema_decay=0.99996)
    arguments = {"drop_path_rate": 0.1, **arguments}
    return _base(AUGMENTED.replace(repeats=3), Model(role, name, arguments), optim, epochs=300)


def deit_recipe_resnet(role: str, name: str) -> Run:
    """A ResNet under the DeiT recipe, without drop path."""
    run = deit(role, name, drop_path_rate=0.0)
    return run.replace(channels_last=True)


def plain_resnet(role: str, name: str) -> Run:
    """The classic recipe: 100 epochs of SGD at 0.1 with cosine decay, crop and flip, nothing mixed or smoothed."""
    optim = Optim(lr=0.1, name="sgd", weight_decay=1e-4, decayed="all", min_lr=0.0)
    run = _base(IMAGENET, Model(role, name), optim, epochs=100, channels_last=True)
    return run.replace(mix=Mix(), loss=PLAIN, batch_size=256)


def swin(role: str, name: str, drop_path_rate: float) -> Run:
    """Swin: clipping at 5, the paper's warm-up start of 1e-6 (Swin's own: 5e-7)."""
    optim = Optim(lr=1e-3, weight_decay=0.05, warmup_epochs=20, min_lr=1e-5, clip_grad=5.0)
    return _base(AUGMENTED, Model(role, name, {"drop_path_rate": drop_path_rate}), optim, epochs=300)


def convnext(role: str, name: str, drop_path_rate: float) -> Run:
    """ConvNeXt: layer scale 1e-6, no clipping, and the moving average of the weights is what is reported."""
    optim = Optim(lr=1e-3, weight_decay=0.05, warmup_epochs=20, min_lr=1e-6, ema_decay=0.9999, ema_reported=True)
    arguments = {"drop_path_rate": drop_path_rate, "ls_init_value": 1e-6}
    return _base(AUGMENTED, Model(role, name, arguments), optim, epochs=300, channels_last=True)


def xcit(role: str, name: str, drop_path_rate: float, eta: float) -> Run:
    """XCiT: 400 epochs, 3 repeats, layer scale `eta`, a tracked average, tested without cropping."""
    optim = Optim(lr=1e-3, weight_decay=0.05, warmup_epochs=20, min_lr=1e-5, ema_decay=0.99996)
    arguments = {"drop_path_rate": drop_path_rate, "eta": eta}
    return _base(AUGMENTED.replace(repeats=3, test_crop=1.0), Model(role, name, arguments), optim, epochs=400)


# ------------------------------------------------------------------------------------------------- Decoupled Mixup


def pytorch_style(role: str, name: str) -> Run:
    """100 epochs of SGD with plain momentum at 0.1, batch 256, cosine to 0, crop and flip (D-14)."""
    run = plain_resnet(role, name)
    return run.replace(optim=run.optim.replace(name="momentum"), median_last=5)


def rsb_a3(role: str, name: str) -> Run:
    """RSB A3: LAMB, RandAugment 6, 100 epochs of batch 2048, trained at 160 and tested at 224 pixels (D-12)."""
    augmented = {"rand_augment": "rand-m6-mstd0.5-inc1", "test_crop": 0.95}
    data = IMAGENET.replace(image_size=160, test_size=224, **augmented)
    optim = Optim(lr=8e-3, name="lamb", weight_decay=0.02, warmup_epochs=5, min_lr=1e-6)
    run = _base(data, Model(role, name), optim, epochs=100, channels_last=True)
    return run.replace(mix=Mix(), loss=PLAIN, batch_size=2048, median_last=5)


WIDE = {"layers": [4, 4, 4], "channels": [128, 256, 512], "stem_chs": 16}  # WRN-28-8 as a ResNet of version 2


def cifar100(role: str, name: str, **arguments: Any) -> Run:
    """800 epochs of SGD at 0.1 with cosine to 0, batch 100, flip and padded crop, the CIFAR stem."""
    data = Data(name="cifar100", image_size=32, flip=True, crop_padding=4)
    optim = Optim(lr=0.1, name="momentum", weight_decay=1e-4, decayed="all", min_lr=0.0)
    run = _base(data, Model(role, name, {"cifar_stem": True, **arguments}), optim, epochs=800, channels_last=True)
    return run.replace(mix=Mix(), loss=PLAIN, batch_size=100)


def wide(role: str) -> Run:
    """WRN-28-8 on CIFAR-100: 400 epochs at 0.03 and decay 1e-3, as its published benchmark (D-13)."""
    run = cifar100(role, "resnetv2_18", **WIDE)
    return run.replace(epochs=400, optim=run.optim.replace(lr=0.03, weight_decay=1e-3))


NARROW = {**WIDE, "channels": [32, 64, 128]}  # WRN-28-2
STRONG = "rand-m10-n3-p1-mstd101-inc1"  # three operations of any strength up to the full one


def semi_supervised(data_set: str, role: str) -> Run:
    """FixMatch as its toolbox has it, 2^20 updates (D-19) of 64 labelled and 448 unlabelled images, by SGD at 0.03.

    WRN-28-2 with decay 5e-4 on CIFAR-10 and WRN-28-8 with decay 1e-3 on CIFAR-100; `Data.labels` is the table's.
    """
    arguments, decay = (NARROW, 5e-4) if data_set == "cifar10" else (WIDE, 1e-3)
    run, average = cifar100(role, "resnetv2_18", **arguments), dict[str, Any](ema_decay=0.999, ema_reported=True)
    return run.replace(
        data=run.data.replace(name=data_set, labels=400, strong=STRONG, cutout=0.5),
        optim=Optim(lr=0.03, name="sgd", weight_decay=decay, schedule="cosine_7_16", min_lr=0.0, **average),
        task=FixMatch(),
        epochs=1024,
        epoch_steps=1024,
        batch_size=64,
        evaluate_every=5,
    )


def tiny_imagenet(role: str, name: str) -> Run:
    """400 epochs of SGD at 0.2 on Tiny-ImageNet at 64 pixels; all else as on CIFAR-100."""
    run = cifar100(role, name)
    return run.replace(
        data=run.data.replace(name="tiny_imagenet", image_size=64), epochs=400, optim=run.optim.replace(lr=0.2)
    )


def fine_grained(data_set: str, role: str, name: str) -> Run:
    """200 epochs of SGD at 1e-3, batch 16, from torchvision's ImageNet weights, at 224 of 256 pixels."""
    data = Data(data_set, image_size=224, flip=True, crop_scale=0.5, test_crop=0.875)
    optim = Optim(lr=1e-3, name="momentum", weight_decay=5e-4, decayed="all", min_lr=0.0)
    model = Model(role, f"{name}.tv_in1k", weights="imagenet")
    run = _base(data, model, optim, epochs=200, channels_last=True)
    return run.replace(mix=Mix(), loss=PLAIN, batch_size=16)


def self_tuning(data_set: str, role: str, name: str, labels: int) -> Run:
    """Self-Tuning: 27 000 updates of 24 labelled and 24 unlabelled images, with Nesterov's momentum and a cosine."""
    run = fine_grained(data_set, role, name)
    return run.replace(
        data=run.data.replace(labels=labels),
        optim=run.optim.replace(name="sgd"),
        task=SelfTuning(),
        epochs=27,
        epoch_steps=1000,
        batch_size=24,
    )
