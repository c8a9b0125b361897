"""Puzzle-Mix's mask problem (Kim et al. 2020, Puzzle Mix): which share of each block is the own image's.

The image is cut into n x n blocks. Label i of L gives a block the own share 1 - i / (L - 1). A labelling costs the
saliency that it hides, the break of colours at the borders of blocks, the change of labels between neighbours, and its
distance from the drawn lambda. Costs are whole numbers, as in the published code, so that a minimum is exact.

Shape legend: B images, n x n blocks, L labels.
"""

import math
from dataclasses import dataclass
from itertools import count
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

SOLVERS = ("maxflow", "icm", "gco")
LARGEST_FLOW = 2**30  # scipy counts in int32; half of it leaves room for the residual of an edge used backwards


@dataclass(frozen=True)
class CutEnergy:
    """The energy sum_p unary[p, l_p] + sum_pq w_pq (l_p - l_q)^2 / (L - 1)^2 of B label grids.

    Attributes:
        unary: [B, n, n, L] int32.
        down: [B, n - 1, n] int32 at least 0, w between a block and the one below it.
        right: [B, n, n - 1] int32 at least 0, w between a block and the one to its right.
    """

    unary: Tensor
    down: Tensor
    right: Tensor

    @property
    def num_labels(self) -> int:
        return self.unary.shape[-1]

    def to(self, device: torch.device | str) -> "CutEnergy":
        return CutEnergy(self.unary.to(device), self.down.to(device), self.right.to(device))

    def __call__(self, labels: Tensor) -> Tensor:
        """[B] int64, (L - 1)^2 times the energy of `labels` [B, n, n] int64: a whole number."""
        unary = self.unary.gather(-1, labels.unsqueeze(-1)).sum((1, 2, 3), dtype=torch.int64)
        down = (self.down * labels.diff(dim=1).square()).sum((1, 2))
        right = (self.right * labels.diff(dim=2).square()).sum((1, 2))
        return unary * (self.num_labels - 1) ** 2 + down + right


# ------------------------------------------------------------------------------------------------- energy


def saliency_share(saliency: Tensor, cell: int) -> Tensor:
    """[B, n, n] float64, each square cell's share of its image's saliency [B, H, W]; every image's sums to 1.

    An image without saliency, or with a gradient that overflowed, gets equal shares.
    """
    pooled = F.avg_pool2d(saliency.double().nan_to_num(0.0, 0.0, 0.0), cell)
    total = pooled.sum((1, 2), keepdim=True)
    return torch.where(total > 0, pooled / total, 1 / pooled[0].numel())


def label_prior(lam: float, num_labels: int) -> Tensor:
    """[L] float64, -log(Binomial(L - 1, i) lam^(L - 1 - i) (1 - lam)^i + 1e-8); `lam` is the own image's share."""
    top = num_labels - 1
    chances = [math.comb(top, i) * lam ** (top - i) * (1 - lam) ** i for i in range(num_labels)]
    return torch.tensor([-math.log(chance + 1e-8) for chance in chances], dtype=torch.float64)


def cut_energy(
    share: Tensor,
    pixels: Tensor,
    partner: Tensor,
    lam: float,
    num_labels: int = 3,
    beta: float = 1.2,
    gamma: float = 0.5,
    eta: float = 0.2,
) -> CutEnergy:
    """The published energy of mixing each image with its partner.

    Args:
        share: [B, n, n] float64, the blocks' share of the saliency.
        pixels: [B, C, n k, n k] float64, un-normalised colours averaged over k x k cells of every block.
        partner: [B] int64.
        lam: drawn share of the own image.
        num_labels, beta, gamma, eta: L; weight of equal labels, of equal colours, and of the drawn share.
    """
    grid = share.shape[-1]
    beta = beta / grid / 16
    # Showing the own image costs the saliency of the partner that it hides, and the other way round.
    own_cost, partner_cost = share[partner], share.clone()
    other = pixels[partner]
    down = _fold_borders(own_cost, partner_cost, pixels, other, beta * gamma)
    turned = own_cost.mT, partner_cost.mT, pixels.mT, other.mT  # views: the costs are added to in place
    right = _fold_borders(*turned, beta * gamma).mT
    steps = torch.arange(num_labels, dtype=torch.float64, device=share.device) / max(num_labels - 1, 1)
    prior = label_prior(lam, num_labels).to(share.device) * eta / grid**2
    unary = own_cost.unsqueeze(-1) * (1 - steps) + partner_cost.unsqueeze(-1) * steps + prior
    # No cut exists for negative weights; they need colours outside [0, 1] (erased with noise) or a gamma above 1.
    pairs = ((1000 * grid**2 * (weight + beta)).to(torch.int32).clamp(min=0) for weight in (down, right))
    return CutEnergy((1000 * grid**2 * unary).to(torch.int32), *pairs)


def _fold_borders(own_cost: Tensor, partner_cost: Tensor, own: Tensor, other: Tensor, scale: float) -> Tensor:
    """Colour breaks between each block and the one below: linear parts added in place, pair weights returned."""
    grid, cells = own_cost.shape[-1], own.shape[-1] // own_cost.shape[-1]

    def breaks(near: Tensor, far: Tensor) -> Tensor:
        difference = (near[..., cells - 1 : -1 : cells, :] - far[..., cells::cells, :]).abs().mean(1)
        return difference.unflatten(-1, (grid, cells)).mean(-1) * (scale / 2)

    own_own, own_other = breaks(own, own), breaks(own, other)
    other_own, other_other = breaks(other, own), breaks(other, other)
    own_cost[:, :-1] += own_other + own_own
    own_cost[:, 1:] += other_own + own_own
    partner_cost[:, :-1] += other_own + other_other
    partner_cost[:, 1:] += own_other + other_other
    return own_other + other_own - own_own - other_other


# ------------------------------------------------------------------------------------------------- solvers


def solve(energy: CutEnergy, solver: str = "maxflow") -> Tensor:
    """Labels [B, n, n] int64 of low energy, on the energy's device.

    "maxflow" is exact, and of several minima takes the one that shows most of the own image. "icm" is a descent in
    block-wise steps, without leaving the device. "gco" is the published swap moves, exact for two labels.

    Raises:
        ImportError: where the solver's library is missing.
    """
    if solver == "icm":
        return solve_icm(energy)
    return solve_maxflow(energy) if solver == "maxflow" else solve_gco(energy)


def solve_icm(energy: CutEnergy) -> Tensor:
    """The best of three descents: from all blocks own, from all blocks partner, from each block's own wish."""
    wish = energy.unary.argmin(-1)
    starts = (torch.zeros_like(wish), torch.full_like(wish, energy.num_labels - 1), wish)
    ends = torch.stack([descend(energy, start) for start in starts])
    best = torch.stack([energy(labels) for labels in ends]).argmin(0)
    return ends[best, torch.arange(len(wish), device=wish.device)]


def descend(energy: CutEnergy, labels: Tensor, highest: bool = False, sweeps: int | None = None) -> Tensor:
    """Iterated conditional modes from `labels` [B, n, n] int64 to a fixed point, the colours of a chessboard in turn.

    It ends earlier after so many `sweeps`. Among equally good labels the lowest is taken, or the `highest`. As the
    energy is submodular, a block's best label never falls when a neighbour's rises; hence from all 0 the lowest answers
    stay at or below every global minimum, and from all L - 1 the highest answers at or above.
    """
    top = energy.num_labels - 1
    labels = labels.double()  # exact up to 2^53, and quicker than int64 on the CPU
    pairs = energy.down.double(), energy.right.double()
    degree = _neighbour_sum(pairs, torch.ones_like(labels))
    curves = [energy.unary[..., i].double() * top**2 + degree * i**2 for i in range(top + 1)]
    index = torch.arange(labels.shape[-1], device=labels.device)
    black = (index.unsqueeze(0) + index.unsqueeze(1)) % 2 == 0
    for _ in count() if sweeps is None else range(sweeps):
        before = labels
        for colour in (black, ~black):
            pull = 2 * _neighbour_sum(pairs, labels)
            best, cost = torch.zeros_like(labels), curves[0]
            for i in range(1, top + 1):
                rival = curves[i] - i * pull
                better = rival <= cost if highest else rival < cost
                best, cost = torch.where(better, i, best), torch.where(better, rival, cost)
            labels = torch.where(colour, best, labels)
        if torch.equal(before, labels):
            break
    return labels.long()


def _neighbour_sum(pairs: tuple[Tensor, Tensor], values: Tensor) -> Tensor:
    """[B, n, n], sum over the neighbours q of w_pq values_q; `pairs` are w downwards and to the right, of one dtype."""
    down, right = pairs
    total = torch.zeros_like(values)
    total[:, :-1].addcmul_(down, values[:, 1:])
    total[:, 1:].addcmul_(down, values[:, :-1])
    total[:, :, :-1].addcmul_(right, values[:, :, 1:])
    total[:, :, 1:].addcmul_(right, values[:, :, :-1])
    return total


def solve_maxflow(energy: CutEnergy, limit: int = LARGEST_FLOW) -> Tensor:
    """A global minimum, by one minimum cut for the whole batch, or several where its costs reach the `limit`.

    Descents from both ends enclose every minimum; only blocks on which they disagree enter the graph. A block with
    labels low .. high becomes a chain of nodes, node a on the source's side where its label is at least a.

    Raises:
        ImportError: without SciPy.
        ValueError: for one image whose costs exceed int32.
    """
    top = energy.num_labels - 1
    device = energy.unary.device
    zeros = torch.zeros(energy.unary.shape[:-1], dtype=torch.int64, device=device)
    # A few sweeps settle most of what sweeps can settle.
    low, high = descend(energy, zeros, sweeps=3), descend(energy, zeros + top, highest=True, sweeps=3)
    if torch.equal(low, high):
        return low
    energy, low, high = energy.to("cpu"), low.cpu(), high.cpu()
    level = torch.arange(1, top + 1)
    step = energy.unary.long().diff(dim=-1) * top**2
    pairs = energy.down.long(), energy.right.long()
    degree, fixed = _neighbour_sum(pairs, torch.ones_like(low)), _neighbour_sum(pairs, low + high)
    # What raising the label from a - 1 to a costs, all that is settled included: (l_p - l_q)^2 is the number of unequal
    # pairs of chain nodes plus terms of one block each; settled nodes of a neighbour turn into such terms too.
    rise = step + degree.unsqueeze(-1) * (2 * level - 1) - fixed.unsqueeze(-1)
    is_open = (level > low.unsqueeze(-1)) & (level <= high.unsqueeze(-1))
    return (low + _cut_open_nodes(energy, rise, is_open, limit)).to(device)


def _cut_open_nodes(energy: CutEnergy, rise: Tensor, is_open: Tensor, limit: int) -> Tensor:
    """[B, n, n] int64, how far above its lower bound each label lies, from the graph of the open nodes."""
    pull = rise[is_open].neg().clamp(min=0).sum()
    if int(pull) >= limit:
        half = len(rise) // 2
        if half == 0:
            raise ValueError("the mask's costs exceed the 32 bits of scipy's maximum flow: use solver='icm'")
        parts = (slice(None, half), slice(half, None))
        energies = (CutEnergy(energy.unary[part], energy.down[part], energy.right[part]) for part in parts)
        return torch.cat([_cut_open_nodes(e, rise[p], is_open[p], limit) for e, p in zip(energies, parts, strict=True)])
    node = (is_open.flatten().cumsum(0) - 1).view_as(is_open)
    edges = [_chain_edges(node, is_open), *_pair_edges(energy, node, is_open)]
    tail, head, capacity = (torch.cat(column) for column in zip(*edges, strict=True))
    chosen = torch.zeros_like(is_open)
    chosen[is_open] = _source_side(rise[is_open], tail, head, capacity.clamp(max=LARGEST_FLOW))
    return chosen.sum(-1)


def _chain_edges(node: Tensor, is_open: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A label of at least a + 1 is one of at least a: edges that no cut can afford."""
    both = is_open[..., 1:] & is_open[..., :-1]
    tail = node[..., 1:][both]
    return tail, node[..., :-1][both], torch.full_like(tail, LARGEST_FLOW)


def _pair_edges(energy: CutEnergy, node: Tensor, is_open: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Edges both ways between all open nodes of neighbouring blocks."""
    edges = []
    for axis, weight in ((1, energy.down), (2, energy.right)):
        size = node.shape[axis] - 1
        near, far = (node.narrow(axis, start, size) for start in (0, 1))
        near_open, far_open = (is_open.narrow(axis, start, size) for start in (0, 1))
        both = near_open.unsqueeze(-1) & far_open.unsqueeze(-2) & (weight > 0)[..., None, None]
        tail, head = (t.expand_as(both)[both] for t in (near.unsqueeze(-1), far.unsqueeze(-2)))
        capacity = weight.long()[..., None, None].expand_as(both)[both]
        edges += [(tail, head, capacity), (head, tail, capacity)]
    return edges


def _source_side(rise: Tensor, tail: Tensor, head: Tensor, capacity: Tensor) -> Tensor:
    """[nodes] bool, the smallest source side of a minimum cut, which no choice of the flow can change."""
    sparse = _import("scipy.sparse", "solver='maxflow' needs SciPy: pip install scipy, or use solver='icm'")
    graphs = _import("scipy.sparse.csgraph", "solver='maxflow' needs SciPy: pip install scipy, or use solver='icm'")
    source, sink = len(rise), len(rise) + 1
    own = torch.arange(len(rise))
    rows = torch.cat([tail, torch.where(rise < 0, source, own)])
    columns = torch.cat([head, torch.where(rise < 0, own, sink)])
    values = torch.cat([capacity, rise.abs().clamp(max=LARGEST_FLOW)]).to(torch.int32)
    entries = (values.numpy(), (rows.numpy(), columns.numpy()))
    graph = sparse.csr_matrix(entries, shape=(sink + 1, sink + 1))
    residual = graph - graphs.maximum_flow(graph, source, sink).flow
    residual.eliminate_zeros()
    reached = graphs.breadth_first_order(residual, source, return_predecessors=False)
    side = torch.zeros(sink + 1, dtype=torch.bool)
    side[torch.from_numpy(reached).long()] = True
    return side[:source]


def solve_gco(energy: CutEnergy) -> Tensor:
    """The published alpha-beta swap, image by image; whole costs, so that none of them overflows in its conversion."""
    gco = _import("gco", "solver='gco' needs the authors' graph cut: pip install gco-wrapper, or use solver='maxflow'")
    level = torch.arange(energy.num_labels, dtype=torch.int32)
    curve = (level.unsqueeze(0) - level.unsqueeze(1)).square().numpy()
    on_cpu = energy.to("cpu")
    unary, down, right = (t.numpy() for t in (on_cpu.unary * (energy.num_labels - 1) ** 2, on_cpu.down, on_cpu.right))
    labels = [
        torch.from_numpy(gco.cut_grid_graph(u, curve, d, r, algorithm="swap")).long()
        for u, d, r in zip(unary, down, right, strict=True)
    ]
    return torch.stack(labels).view(energy.unary.shape[:-1]).to(energy.unary.device)


def _import(name: str, missing: str) -> Any:
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError as error:
        raise ImportError(missing) from error
