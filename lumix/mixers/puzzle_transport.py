"""Puzzle-Mix's transport (Kim et al. 2020, Puzzle Mix): salient cells of an image move to where the mask shows it.

The published plan is a 0/1 matrix of all cells by all cells, found in n dense rounds and multiplied with the image.
Only its visible targets reach the mixed image. For them it is a game that is played here on short lists of claims:

* A cell i that moves to the visible target j pays eps d_ij^2 / (n - 1)^2 - s_i; a hidden target costs at least 0.
* In each of n rounds every cell claims its cheapest target and the cheapest claim holds it. Each loser's cost of that
  target rises by 1. As shares s_i are at most 1, that puts it at 0 or above.
* A claim of 0 or more wins no visible target: the cell in that place claims it for -s_j < 0, and a target once held for
  less than 0 stays so. Such claims and hidden targets can be left out; a loser goes to the next of its list.

Shape legend: B images, n x n cells, numbered row by row.
"""

from functools import lru_cache

import torch
from torch import Tensor

from lumix.mixers.patches import patch_grid


@lru_cache(maxsize=16)
def _distances(side: int, eps: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Costs of moving from each of n^2 cells [cells, cells] float32, ascending by target, and those targets int64."""
    index = torch.arange(side, device=device)
    square = (index.unsqueeze(0) - index.unsqueeze(1)).square()
    distance = square[:, None, :, None] + square[None, :, None, :]
    cost = eps * (distance.view(side**2, side**2).float() / max(side - 1, 1) ** 2)
    return cost.sort(dim=1, stable=True)


def transport_plan(visible: Tensor, share: Tensor, eps: float = 0.8, rounds: int | None = None) -> Tensor:
    """Which cell of an image stands where.

    Every visible target has exactly one source (for eps above 0), no source has two targets, and a source can be
    dropped. Among equal costs the first cell wins, as published; two distances whose costs differ by less than float32
    resolves next to a share (eps below 1e-4) stay in the order of distance.

    Args:
        visible: [B, n, n] bool, where the image shows.
        share: [B, n, n] in [0, 1], share of the saliency; 0 counts as the smallest positive number, since the published
            rule leaves visible targets without saliency empty.
        eps: price of distance, at least 0.
        rounds: n as published where None.

    Returns:
        [B, n * n] int64, the source of each target; -1 where the target is hidden.
    """
    size, side = share.shape[:2]
    cells = side**2
    costs, targets = _distances(side, eps, share.device)
    share = share.reshape(size, cells).float().clamp(min=torch.finfo(torch.float32).tiny)
    # The claims that can win, cell after cell, each from its cheapest on: those below 0, of visible targets.
    near = torch.searchsorted(costs, share.mT.contiguous()).mT.flatten()
    claimant = torch.repeat_interleave(near)
    place = torch.arange(len(claimant), device=near.device) - (near.cumsum(0) - near)[claimant]
    cell = claimant % cells
    target = claimant - cell + targets[cell, place]
    price = costs[cell, place] - share.flatten()[claimant]
    shown = visible.reshape(-1)[target]
    length = claimant[shown].bincount(minlength=size * cells)
    holder = _play(target[shown], price[shown], length, rounds or side).view(size, cells)
    return torch.where(holder < 0, -1, holder % cells)


def _play(target: Tensor, price: Tensor, length: Tensor, rounds: int) -> Tensor:
    """Who holds each target [N] int64 after so many rounds, -1 for nobody.

    `target` and `price` are the claims of N cells one after the other, `length` [N] says how many each has.
    """
    count = len(length)
    following = length.cumsum(0)
    claim = following - length
    holder = torch.full_like(length, count)
    held_price = torch.full((count,), torch.inf, device=price.device)
    active = length.nonzero().squeeze(1)
    for _ in range(rounds):
        if len(active) == 0:
            break  # nobody has anything left to claim: further rounds repeat this one
        wanted, offered = target[claim[active]], price[claim[active]]
        best = held_price.scatter_reduce(0, wanted, offered, "amin")
        bidder = torch.where(offered == best[wanted], active, count)
        rival = torch.where(held_price == best, holder, count)
        winner = rival.scatter_reduce(0, wanted, bidder, "amin")
        outbid = holder[(holder != winner) & (holder < count)]
        losers = torch.cat([active[winner[wanted] != active], outbid])
        claim[losers] += 1
        active = losers[claim[losers] < following[losers]]
        holder, held_price = winner, best
    return torch.where(holder < count, holder, -1)


def transport(images: Tensor, plan: Tensor, cell: int) -> Tensor:
    """Images [B, C, H, W] whose square cell j is their old cell plan[:, j]; zeros where `plan` [B, cells] is -1.

    Raises:
        ValueError: where cells of this side do not tile the image.
    """
    height, width = images.shape[-2:]
    rows, columns = patch_grid(height, width, cell)
    source = plan.clamp(min=0).view(-1, rows, columns)
    corner = (source // columns) * (cell * width) + (source % columns) * cell
    inside = torch.arange(cell, device=plan.device)
    inside = inside.unsqueeze(1) * width + inside
    pixel = (corner[:, :, None, :, None] + inside[None, None, :, None, :]).view(len(plan), 1, -1)
    moved = images.flatten(2).gather(2, pixel.expand(-1, images.shape[1], -1)).view(images.shape)
    empty = (plan < 0).view(-1, 1, rows, columns)
    return moved.masked_fill_(empty.repeat_interleave(cell, 2).repeat_interleave(cell, 3), 0)
