"""Boxes of CutMix: where they lie, and what they leave visible.

Two rules for the edges of a box of odd side are in use, and papers before mid-2026 used the older one: "legacy" runs
from centre - side // 2 to centre + side // 2 and so loses a pixel; "full" (timm from 1.0.31) keeps it.
"""

import torch
from torch import Tensor

from lumix.batch import box_area

BOX_RULES = ("legacy", "full")


def box_around(own_weight: Tensor, centre: Tensor, height: int, width: int, rule: str = "legacy") -> Tensor:
    """Boxes [D, 4] (top, bottom, left, right) of area share 1 - own_weight [D] around `centre` [D, 2], clipped.

    `centre` holds int64 rows and columns.
    """
    lengths = torch.tensor([height, width], device=own_weight.device)
    side = (lengths * torch.sqrt(1 - own_weight).unsqueeze(1)).long()
    upper = side >> 1 if rule == "legacy" else (side + 1) >> 1
    corners = torch.stack([centre - (side >> 1), centre + upper], dim=2)
    return torch.minimum(corners.clamp_(min=0), lengths.unsqueeze(1)).view(-1, 4)


def visible_share(box: Tensor, height: int, width: int) -> Tensor:
    """Share [D] float64 of the own image that boxes [D, 4] leave visible."""
    return 1 - box_area(box).double() / (height * width)
