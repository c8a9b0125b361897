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

from typing import Any

from lumix.train.config import Data, Model, Optim, Run

TRAIN_SIZE = 300
BATCH_SIZE = 50


def _vit(width: int, heads: int) -> dict[str, Any]:
    return {"patch_size": 2, "embed_dim": width, "depth": 2, "num_heads": heads, "mlp_ratio": 2.0}


def _swin(width: int, depths: list[int]) -> dict[str, Any]:
    return {
        "patch_size": 2,
        "window_size": 2,
        "embed_dim": width,
        "depths": depths,
        "num_heads": [2, 2],
        "mlp_ratio": 2.0,
        "drop_path_rate": 0.0,
    }


def _convnext(widths: list[int], depths: list[int]) -> dict[str, Any]:
    return {"patch_size": 1, "dims": widths, "depths": depths, "ls_init_value": None}


def _xcit(width: int, depth: int) -> dict[str, Any]:
    return {"patch_size": 8, "embed_dim": width, "depth": depth, "num_heads": 2, "cls_attn_layers": 1, "mlp_ratio": 2.0}


MODELS: dict[str, Model] = {
    model.role: model
    for model in (
        Model("deit_s", "deit_small_patch16_224", _vit(32, 2), init="small"),
        Model("deit_b", "deit_base_patch16_224", _vit(48, 3), init="small"),
        Model("swin_t", "swin_tiny_patch4_window7_224", _swin(24, [1, 1]), init="small"),
        Model("swin_s", "swin_small_patch4_window7_224", _swin(24, [2, 1]), init="small"),
        Model("swin_b", "swin_base_patch4_window7_224", _swin(32, [2, 1]), init="small"),
        Model("convnext_t", "convnext_tiny", _convnext([8, 16, 24, 32], [1, 1, 1, 1]), init="small"),
        Model("convnext_s", "convnext_small", _convnext([8, 16, 24, 32], [1, 1, 3, 1]), init="small"),
        Model("convnext_b", "convnext_base", _convnext([12, 24, 36, 48], [1, 1, 3, 1]), init="small"),
        Model("xcit_s", "xcit_small_12_p16_224", _xcit(16, 1), init="small"),
        Model("xcit_m", "xcit_medium_24_p16_224", _xcit(24, 1), init="small"),
        Model("xcit_l", "xcit_large_24_p16_224", _xcit(32, 2), init="small"),
        Model("resnet50", "resnet50", {"channels": [4, 8, 16, 32], "layers": [1, 1, 1, 1]}),
    )
}
LEARNING_RATE = {role: 5e-3 if role.startswith("convnext") else 8e-3 for role in MODELS}
EPOCHS = {role: 40 if role in ("convnext_b", "swin_b", "xcit_l") else 50 for role in MODELS}


def run(role: str) -> Run:
    """The base run of a role: Mixup 0.8 and CutMix 1.0 in turn, flip pairing, legacy boxes, smoothing 0.1."""
    return Run(
        data=Data("digits", image_size=16 if role.startswith("xcit") else 8, train_size=TRAIN_SIZE),
        model=MODELS[role],
        optim=Optim(lr=LEARNING_RATE[role], weight_decay=0.05, warmup_epochs=5, warmup_lr=1e-6, min_lr=1e-5),
        epochs=EPOCHS[role],
        batch_size=BATCH_SIZE,
        evaluate_every=10,
        median_last=5,
    )


SHAPES_EPOCHS = {"deit_s": 16, "resnet50": 8}
SHAPES_MODELS: dict[str, Model] = {
    "deit_s": Model("deit_s", "deit_small_patch16_224", {**_vit(48, 3), "patch_size": 4}, init="small"),
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
