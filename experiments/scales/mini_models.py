"""The tiny nets of mini scale: small, base and large differ in width and depth as the real ones do."""

from typing import Any

from lumix.train.config import Model


def vit(width: int, heads: int) -> dict[str, Any]:
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


STEM = {"cifar_stem": True}
SMALL = {"channels": [8, 16, 24, 32], "layers": [1, 1, 1, 1], **STEM}
MODELS: dict[str, Model] = {
    model.role: model
    for model in (
        Model("deit_s", "deit_small_patch16_224", vit(32, 2), init="small"),
        Model("deit_b", "deit_base_patch16_224", vit(48, 3), init="small"),
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
        Model("resnet34", "resnet34", {"channels": [8, 16, 24, 32], "layers": [1, 1, 2, 1], "cifar_stem": True}),
        Model("resnet18", "resnet18", SMALL),
        Model("resnext50", "resnext50_32x4d", {**SMALL, "cardinality": 4, "base_width": 16}),
        Model("wrn28_8", "resnetv2_18", {"layers": [1, 1, 1], "channels": [16, 24, 32], "stem_chs": 8} | STEM),
    )
}
