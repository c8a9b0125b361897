"""The ImageNet recipes of LUMix Tables 1 to 12 as functions that return a base run.

Stated by the paper: ImageNet-1k at 224 pixels, learning rate 1e-3, linear warm-up from 1e-6 over 20 epochs (DeiT: 5),
300 epochs (XCiT: 400), Mixup 0.8, CutMix, RandAugment, drop path, 8 A100. All else is what the named original recipe
does; the total batch of 1024 is our choice, at which each original scales its learning rate to 1e-3.
"""

from typing import Any

from experiments.methods import SWITCH
from lumix.catalogue import Spec
from lumix.train.config import Data, Loss, Mix, Model, Optim, Run

RAND_AUGMENT = "rand-m9-mstd0.5-inc1"


def imagenet(test_crop: float = 0.875, repeats: int = 1) -> Data:
    """Random resized crop, flip, RandAugment, erasing. RandAugment switches colour jitter off."""
    return Data(
        name="imagenet",
        image_size=224,
        flip=True,
        crop_scale=0.08,
        rand_augment=RAND_AUGMENT,
        erasing=0.25,
        repeats=repeats,
        test_crop=test_crop,
    )


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
    optim = Optim(
        lr=1e-3, weight_decay=0.05, warmup_epochs=5, warmup_lr=1e-6, min_lr=1e-5, clip_grad=1.0, ema_decay=0.99996
    )
    arguments = {"drop_path_rate": 0.1, **arguments}
    return _base(imagenet(repeats=3), Model(role, name, arguments), optim, epochs=300)


def deit_recipe_resnet(role: str, name: str) -> Run:
    """A ResNet under the DeiT recipe, without drop path."""
    run = deit(role, name, drop_path_rate=0.0)
    return run.replace(channels_last=True)


def plain_resnet(role: str, name: str) -> Run:
    """The classic recipe: 100 epochs of SGD at 0.1 with cosine decay, crop and flip, nothing mixed or smoothed."""
    data = Data(name="imagenet", image_size=224, flip=True, crop_scale=0.08, test_crop=0.875)
    optim = Optim(lr=0.1, name="sgd", weight_decay=1e-4, momentum=0.9, min_lr=0.0)
    run = _base(data, Model(role, name), optim, epochs=100, channels_last=True)
    return run.replace(mix=Mix(), loss=Loss(terms=(Spec("cross_entropy"),)), batch_size=256)


def swin(role: str, name: str, drop_path_rate: float) -> Run:
    """Swin: clipping at 5, the paper's warm-up start of 1e-6 (Swin's own: 5e-7)."""
    optim = Optim(lr=1e-3, weight_decay=0.05, warmup_epochs=20, warmup_lr=1e-6, min_lr=1e-5, clip_grad=5.0)
    return _base(imagenet(), Model(role, name, {"drop_path_rate": drop_path_rate}), optim, epochs=300)


def convnext(role: str, name: str, drop_path_rate: float) -> Run:
    """ConvNeXt: layer scale 1e-6, no clipping, and the moving average of the weights is what is reported."""
    optim = Optim(
        lr=1e-3,
        weight_decay=0.05,
        warmup_epochs=20,
        warmup_lr=1e-6,
        min_lr=1e-6,
        ema_decay=0.9999,
        ema_reported=True,
    )
    arguments = {"drop_path_rate": drop_path_rate, "ls_init_value": 1e-6}
    return _base(imagenet(), Model(role, name, arguments), optim, epochs=300, channels_last=True)


def xcit(role: str, name: str, drop_path_rate: float, eta: float) -> Run:
    """XCiT: 400 epochs, 3 repeats, layer scale `eta`, a tracked average, tested without cropping."""
    optim = Optim(lr=1e-3, weight_decay=0.05, warmup_epochs=20, warmup_lr=1e-6, min_lr=1e-5, ema_decay=0.99996)
    arguments = {"drop_path_rate": drop_path_rate, "eta": eta}
    return _base(imagenet(test_crop=1.0, repeats=3), Model(role, name, arguments), optim, epochs=400)
