"""Puzzle-Mix as its paper and code describe it, one image and one step at a time: test oracle and benchmark peer.

Nothing here is shared with lumix. Energies and cuts are made image by image; the transport plan is a dense 0/1 matrix
found in n rounds over all cells by all cells, and applied by matrix multiplication, as published. Masks are those of
lumix's solver: the exact minimum that shows most of the own image.
"""

import math
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Array = np.ndarray


def block_means(image: Array, block: int) -> Array:
    """Means [.., H / block, W / block] of square blocks of [.., H, W]."""
    height, width = image.shape[-2:]
    return image.reshape(*image.shape[:-2], height // block, block, width // block, block).mean((-3, -1))


def border_penalty(near: Array, far: Array, cells: int) -> tuple[Array, Array]:
    """Colour breaks [n - 1, n] downwards and [n, n - 1] to the right from image `near` to image `far` [C, n k, n k]."""
    down = np.abs(near[:, :-1, :] - far[:, 1:, :]).mean(0)[cells - 1 :: cells, :]
    right = np.abs(near[:, :, :-1] - far[:, :, 1:]).mean(0)[:, cells - 1 :: cells]
    down = down.reshape(down.shape[0], -1, cells).mean(-1)
    right = right.reshape(-1, cells, right.shape[1]).mean(1)
    return down, right


def image_energy(
    share: Array,
    partner_share: Array,
    pixels: Array,
    partner_pixels: Array,
    lam: float,
    num_labels: int = 3,
    beta: float = 1.2,
    gamma: float = 0.5,
    eta: float = 0.2,
) -> tuple[Array, Array, Array]:
    """Unary [n, n, L], downward [n - 1, n] and rightward [n, n - 1] costs int32 of one pair of images.

    `share` [n, n] are shares of saliency, `pixels` [C, n k, n k] averaged colours, all float64.
    """
    n = len(share)
    beta = beta / n / 16
    both = {1: pixels, 2: partner_pixels}
    cells = pixels.shape[-1] // n
    w = {(p, q): border_penalty(both[p], both[q], cells) for p in both for q in both}
    down = {pq: beta * gamma * pair[0] for pq, pair in w.items()}
    right = {pq: beta * gamma * pair[1] for pq, pair in w.items()}
    u1, u2 = share.copy(), partner_share.copy()
    u2[:-1] += (down[1, 2] + down[1, 1]) / 2
    u1[:-1] += (down[2, 1] + down[2, 2]) / 2
    u2[1:] += (down[2, 1] + down[1, 1]) / 2
    u1[1:] += (down[1, 2] + down[2, 2]) / 2
    u2[:, :-1] += (right[1, 2] + right[1, 1]) / 2
    u1[:, :-1] += (right[2, 1] + right[2, 2]) / 2
    u2[:, 1:] += (right[2, 1] + right[1, 1]) / 2
    u1[:, 1:] += (right[1, 2] + right[2, 2]) / 2
    large = 1000 * n**2
    unary = np.zeros((n, n, num_labels), dtype=np.int32)
    top = num_labels - 1
    for i in range(num_labels):
        t = i / top
        prior = -eta / n**2 * math.log(math.comb(top, i) * lam ** (top - i) * (1 - lam) ** i + 1e-8)
        unary[..., i] = (large * ((1 - t) * u2 + t * u1 + prior)).astype(np.int32)
    weights = [(side[1, 2] + side[2, 1] - side[1, 1] - side[2, 2]) / 2 + beta for side in (down, right)]
    return unary, *[(large * weight).astype(np.int32) for weight in weights]  # type: ignore[return-value]


def image_labels(unary: Array, down: Array, right: Array) -> Array:
    """Labels [n, n] of lowest energy of one image, by a minimum cut; of several minima the lowest labels."""
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import breadth_first_order, maximum_flow

    n, num_labels = unary.shape[0], unary.shape[-1]
    graph = _layered_graph(unary, down, right)
    source = graph.shape[0] - 2
    flow = maximum_flow(csr_matrix(graph), source, source + 1).flow.toarray()
    reached = breadth_first_order(csr_matrix(graph - flow > 0), source, return_predecessors=False)
    side = np.zeros(len(graph), dtype=np.int64)
    side[reached] = 1
    return side[:-2].reshape(n, n, num_labels - 1).sum(-1)


def _layered_graph(unary: Array, down: Array, right: Array) -> Array:
    """Capacities [nodes, nodes] int32: a chain of L - 1 nodes per block, then the source and the sink."""
    n, top = unary.shape[0], unary.shape[-1] - 1
    node = np.arange(n * n * top).reshape(n, n, top)
    source, sink = node.size, node.size + 1
    graph = np.zeros((node.size + 2, node.size + 2), dtype=np.int32)
    cost = unary.astype(np.int64) * top**2
    curve = np.arange(top + 1) ** 2 - top * np.arange(top + 1)
    for weight, near, far in ((down, np.s_[:-1], np.s_[1:]), (right, np.s_[:, :-1], np.s_[:, 1:])):
        # (a - b)^2 = unequal pairs of chain nodes + curve(a) + curve(b)
        cost[near] += weight[..., None] * curve
        cost[far] += weight[..., None] * curve
        for a in range(top):
            for b in range(top):
                graph[node[near][..., a], node[far][..., b]] = weight
                graph[node[far][..., b], node[near][..., a]] = weight
    rise = np.diff(cost, axis=-1)
    graph[source, node] = np.maximum(-rise, 0)
    graph[node, sink] = np.maximum(rise, 0)
    graph[node[..., 1:], node[..., :-1]] = 2**30
    return graph


def batch_mask(
    images: Tensor,
    partner: Tensor,
    lam: float,
    grid: int,
    saliency: Tensor,
    std: Any,
    num_labels: int = 3,
    neighbours: int = 4,
) -> Tensor:
    """Masks [B, n, n] float32, image by image."""
    block = images.shape[-1] // grid
    colours = images.double().numpy() * np.asarray(std, dtype=np.float64).reshape(-1, 1, 1)
    shares = saliency_shares(saliency, block)
    masks = []
    for i, j in enumerate(partner.tolist()):
        pixels = block_means(colours[i], min(neighbours, block)), block_means(colours[j], min(neighbours, block))
        unary, down, right = image_energy(shares[i], shares[j], *pixels, lam, num_labels)
        masks.append(1 - image_labels(unary, down, right) / (num_labels - 1))
    return torch.tensor(np.stack(masks), dtype=torch.float32)


def saliency_shares(saliency: Tensor, cell: int) -> Array:
    """[B, n, n] float64, sums to 1 per image."""
    pooled = block_means(saliency.double().numpy(), cell)
    return pooled / pooled.sum((1, 2), keepdims=True)


@lru_cache(maxsize=8)
def distance_table(side: int) -> Tensor:
    """Squared distances [cells, cells] float32 between the cells of a grid, in units of its side."""
    place = np.stack(np.divmod(np.arange(side**2), side), axis=1).astype(np.float32)
    square = ((place[:, None, :] - place[None, :, :]) ** 2).sum(-1, dtype=np.float32)
    return torch.from_numpy(square / np.float32((side - 1) ** 2))


def transport_matrix(mask: Tensor, share: Tensor, eps: float) -> Tensor:
    """The plan [B, cells (source), cells (target)] of zeros and ones, by n rounds of claims over dense matrices."""
    size, side = mask.shape[:2]
    visible = (mask > 0).float().reshape(size, 1, side**2)
    cost = eps * distance_table(side) - share.reshape(size, side**2, 1) * visible
    for _ in range(side):
        wanted = cost.argmin(dim=2, keepdim=True)
        claims = torch.zeros_like(cost).scatter_(2, wanted, 1)
        cheapest = (claims * cost).argmin(dim=1, keepdim=True)
        wins = torch.zeros_like(cost).scatter_(1, cheapest, 1) * claims
        cost = cost + (1 - wins) * claims
    return wins


def apply_matrix(images: Tensor, plan: Tensor, cell: int) -> Tensor:
    """Images [B, C, H, W] with their cells moved by a plan [B, source, target], as a product of matrices."""
    size, channels, height, width = images.shape
    rows, columns = height // cell, width // cell
    patches = images.reshape(size, channels, rows, cell, columns, cell).permute(0, 1, 3, 5, 2, 4)
    patches = patches.reshape(size, channels, cell, cell, rows * columns, 1)
    moved = plan.transpose(1, 2)[:, None, None, None].matmul(patches)
    moved = moved.reshape(size, channels, cell, cell, rows, columns).permute(0, 1, 4, 2, 5, 3)
    return moved.reshape(images.shape)


def batch_transport(
    images: Tensor, partner: Tensor, mask: Tensor, saliency: Tensor, eps: float = 0.8, transport_size: int = 4
) -> tuple[Tensor, Tensor]:
    """Mixed images [B, C, H, H] and their own weights [B] for masks [B, n, n]."""
    block = images.shape[-1] // mask.shape[-1]
    cell = block if transport_size == -1 else min(transport_size, block)
    mask = F.interpolate(mask.unsqueeze(1), size=images.shape[-1] // cell)
    share = torch.from_numpy(saliency_shares(saliency, cell)).float()
    own = apply_matrix(images, transport_matrix(mask.squeeze(1), share, eps), cell)
    other = apply_matrix(images[partner], transport_matrix(1 - mask.squeeze(1), share[partner], eps), cell)
    pixels = F.interpolate(mask, size=images.shape[-1])
    return pixels * own + (1 - pixels) * other, mask.mean((1, 2, 3))
