"""Boxes of CutMix: where they lie, and what they leave visible.

Two rules for the edges of a box of odd side are in use, and papers before mid-2026 used the older one: "legacy" runs
from centre - side // 2 to centre + side // 2 and so loses a pixel; "full" (timm from 1.0.31) keeps it.
"""

import math
from typing import Any

import torch
from torch import Tensor

from lumix.batch import box_area

BOX_RULES = ("legacy", "full")


def box_around(own_weight: Tensor, centre: Tensor, height: int, width: int, rule: str = "legacy") -> Tensor:
    """Boxes [D, 4] (top, bottom, left, right) of area share 1 - own_weight [D] around `centre` [D, 2], clipped.

    `centre` holds int64 rows and columns. Of a signal, which is one pixel high or wide, a part of that length is cut.
    """
    one, thin = is_one(own_weight), min(height, width) == 1 < max(height, width)
    root: Any = 1 - (own_weight.item() if one else own_weight)
    if not thin:
        root = math.sqrt(root) if one else torch.sqrt(root)
    odd = int(rule == "full")
    edges: list[Any] = []
    for middle, length in zip(centre[0].tolist() if one else centre.unbind(1), (height, width), strict=True):
        if thin and length == 1:
            edges += [0, 1] if one else [torch.zeros_like(middle), torch.ones_like(middle)]
            continue
        side = int(length * root) if one else (length * root).long()
        for edge in (middle - (side >> 1), middle + ((side + odd) >> 1)):
            edges.append(min(max(edge, 0), length) if one else edge.clamp(0, length))
    return torch.tensor([edges]) if one else torch.stack(edges, dim=1)


def visible_share(box: Tensor, height: int, width: int) -> Tensor:
    """Share [D] float64 of the own image that boxes [D, 4] leave visible."""
    if is_one(box):
        top, bottom, left, right = box[0].tolist()
        return torch.tensor([1 - (bottom - top) * (right - left) / (height * width)], dtype=torch.float64)
    return 1 - box_area(box).double() / (height * width)


def is_one(draws: Tensor) -> bool:
    """Whether draws [D, ...] are one on the CPU, where Python numbers are much faster than tensors of one number."""
    return len(draws) == 1 and draws.device.type == "cpu"
