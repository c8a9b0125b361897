"""The tiny nets of mini scale: small, base and large differ in width and depth as the real ones do.

They train stacked (docs/architecture.md), so batch normalisation is group normalisation, pooling is a plain mean, and
stems are as narrow as the first stage. Residual nets are of version 2 where timm has them so: with so few updates those
learn faster.
"""

from typing import Any

from training.config import Model

MEAN = {"global_pool": "fastavg"}  # an adaptive pooling cannot be stacked


def vit(width: int, heads: int) -> dict[str, Any]:
    return {"patch_size": 2, "embed_dim": width, "depth": 2, "num_heads": heads, "mlp_ratio": 2.0}


def _swin(width: int, depths: list[int]) -> dict[str, Any]:
    shape = {"patch_size": 2, "window_size": 2, "embed_dim": width, "depths": depths, "num_heads": [2, 2]}
    return {**shape, "mlp_ratio": 2.0, "drop_path_rate": 0.0, **MEAN}


def _convnext(widths: list[int], depths: list[int]) -> dict[str, Any]:
    return {"patch_size": 1, "dims": widths, "depths": depths, "ls_init_value": None, **MEAN}


def _xcit(width: int, depth: int) -> dict[str, Any]:
    return {"patch_size": 8, "embed_dim": width, "depth": depth, "num_heads": 2, "cls_attn_layers": 1, "mlp_ratio": 2.0}


def _residual(stem: int, widths: list[int], depths: list[int], name: str = "resnetv2_18") -> tuple[str, dict[str, Any]]:
    return name, {"stem_chs": stem, "channels": widths, "layers": depths, **MEAN}


STEM = {"cifar_stem": True}
_RESNEXT = {
    "channels": [8, 16, 24, 32],
    "layers": [1, 1, 1, 1],
    "stem_type": "deep",  # for its width alone: a single convolution takes its place
    "stem_width": 4,
    "cardinality": 2,
    "base_width": 32,
    "zero_init_last": False,
    **MEAN,
}
# For images of 8 pixels, with the CIFAR stem; those of 16 have the ordinary one.
_RESIDUAL = {
    "resnet18": _residual(8, [8, 16, 24], [1, 1, 1]),
    "resnet34": _residual(8, [8, 16, 24], [1, 2, 1]),
    "resnet50": _residual(8, [16, 32, 48], [1, 1, 1], "resnetv2_50"),
    "wrn28_8": _residual(8, [16, 24, 32], [1, 1, 1]),
    "resnext50": ("resnext50_32x4d", _RESNEXT),
}
MODELS: dict[str, Model] = {
    model.role: model
    for model in (
        Model("deit_s", "deit_small_patch16_224", vit(32, 4), init="small"),
        Model("deit_b", "deit_base_patch16_224", vit(48, 6), init="small"),
        Model("swin_t", "swin_tiny_patch4_window7_224", _swin(24, [1, 1]), init="small"),
        Model("swin_s", "swin_small_patch4_window7_224", _swin(24, [2, 1]), init="small"),
        Model("swin_b", "swin_base_patch4_window7_224", _swin(32, [2, 1]), init="small"),
        Model("convnext_t", "convnext_tiny", _convnext([8, 16, 24, 32], [1, 1, 1, 1]), init="small"),
        Model("convnext_s", "convnext_small", _convnext([8, 16, 24, 32], [1, 1, 3, 1]), init="small"),
        Model("convnext_b", "convnext_base", _convnext([12, 24, 36, 48], [1, 1, 3, 1]), init="small"),
        Model("xcit_s", "xcit_small_12_p16_224", _xcit(16, 1), init="small", norm="group"),
        Model("xcit_m", "xcit_medium_24_p16_224", _xcit(24, 1), init="small", norm="group"),
        Model("xcit_l", "xcit_large_24_p16_224", _xcit(32, 2), init="small", norm="group"),
        *(Model(role, name, {**arguments, **STEM}, norm="group") for role, (name, arguments) in _RESIDUAL.items()),
    )
}
# For scenes of 16 pixels.
SCENE_MODELS: dict[str, Model] = {
    "resnet18": Model("resnet18", *_residual(16, [16, 24, 32], [1, 1, 1]), norm="group"),
    "resnext50": Model("resnext50", "resnext50_32x4d", _RESNEXT, norm="group"),
    # The encoder of DeepLabV3+ and the judge of natural adversarial scenes, trained by itself.
    "resnet50": Model("resnet50", "resnet50", {"channels": [4, 8, 16, 32], "layers": [1, 1, 1, 1]}),
    "deit_s": Model("deit_s", "deit_small_patch16_224", {**vit(48, 6), "patch_size": 4}, init="small"),
}
