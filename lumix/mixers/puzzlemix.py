"""Puzzle-Mix (Kim et al. 2020): a mask of blocks that keeps what the network looks at in both images, and moves it.

Each step asks the network for the gradient of its loss at the clean pixels, finds the mask that hides least of it (a
minimum cut), and moves salient cells of each image to where the mask shows them (transport). The adversarial training
that the authors' code also offers is off in the published tables and not built.

Shape legend: B images, n x n blocks or cells, numbered row by row, L = 3 labels.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lumix.batch import Kind, MixedBatch
from lumix.inputs import Positive, is_transformed, logits_of
from lumix.mixers.base import IMAGENET_STD, BatchDraws, WholeBatchMixer, evaluating, in_precision_of, unwrapped
from lumix.mixers.paste import blend, mixed_batch, permute_grid
from lumix.random import draw_beta, draw_integers, moved
from lumix.registry import register

# Published constants.
LABELS = 3  # label i of L gives a block the own share 1 - i / (L - 1): 1, 1/2 and 0
BETA, GAMMA = 1.2, 0.5  # weights of equal labels of neighbours, and of equal colours at borders
ETA = 0.2  # weight of the drawn share
COLOUR_CELL = 4  # side in pixels of the cells over which colours are averaged, or its largest divisor of a block below
EPSILON = 0.8  # price of moving over a distance
LARGEST_FLOW = 2**30  # scipy counts in int32; half of it leaves room for the residual of an edge used backwards


@dataclass(frozen=True)
class PuzzleDraws(BatchDraws):
    """The own image's share in [0, 1], and the number of blocks per side."""

    lam: float
    grid: int


@register("mixer", "puzzlemix", "Puzzle-Mix", pixels="cut", dynamic=True, needs="the network")
@dataclass(frozen=True)
class PuzzleMix(WholeBatchMixer):
    """Mix square images by blocks, with a mask and a label weight for each sample.

    Attributes:
        alpha: of the Beta(alpha, alpha) that the batch's own share is drawn from.
        transport: whether salient cells move; then `moved` is set in the MixedBatch.
        transport_size: side in pixels of the cells that move where blocks are larger; -1 (as for ImageNet) moves whole
            blocks. The published CIFAR runs use 4.
        std: of the normalisation that the images went through; None is ImageNet's for 3 channels and 1 for others. It
            only scales gamma. The mean is not asked for: it cancels in every difference of colours.
    """

    alpha: Positive = 1.0
    transport: bool = True
    transport_size: int = -1
    std: tuple[Positive, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.transport_size == 0 or self.transport_size < -1:
            raise ValueError(f"transport_size must be a number of pixels or -1 for blocks, not {self.transport_size}")
        if not self.transport:
            self.refuse("transport", "transport_size")

    def suitable_grids(self, side: int) -> tuple[int, ...]:
        """The numbers of blocks per side to draw from for images of side x side pixels, one of them for each batch.

        All of 2, 4, 8, 16 whose blocks are divided by `COLOUR_CELL` or smaller; where there are none, all of them that
        tile the image, and for odd sides the divisors up to 16.
        """
        tiling = [grid for grid in range(2, side // 2 + 1) if side % grid == 0]  # blocks have a side of 2 or more
        published = [grid for grid in tiling if grid in (2, 4, 8, 16)]
        suitable = [grid for grid in published if colour_cell(side // grid) == min(COLOUR_CELL, side // grid)]
        suitable = suitable or published or [grid for grid in tiling if grid <= 16] or tiling
        if not suitable:
            remedy = f"blocks must tile the image with a side of 2 or more; resize or crop to {side // 16 * 16 or 4}"
            raise ValueError(f"no grid suits {side} pixels: {remedy}")
        return tuple(suitable)

    def check_shape(self, shape: tuple[int, ...]) -> None:
        super().check_shape(shape)
        if shape[-2] != shape[-1]:
            raise ValueError(f"PuzzleMix needs square images, not {shape[-2]} x {shape[-1]}: crop them")
        if self.std is not None and len(self.std) != shape[1]:
            raise ValueError(f"std has {len(self.std)} values for images of {shape[1]} channels")

    def draw_mixed(self, partner: Tensor, shape: tuple[int, ...], generator: torch.Generator) -> PuzzleDraws:
        grids = self.suitable_grids(shape[-1])
        lam = float(draw_beta(self.alpha, 1, generator))
        index = draw_integers(torch.tensor([len(grids)], device=generator.device), generator)
        return PuzzleDraws(partner, lam, grids[int(index)])

    def mix(
        self, images: Tensor, labels: Tensor, draws: PuzzleDraws, model: Any, saliency: Tensor | None = None
    ) -> MixedBatch:
        """The batch mixed, for floating images [B, C, H, H] seen by `model`; given `saliency` [B, H, H] needs none."""
        if not images.is_floating_point():
            raise ValueError(f"PuzzleMix needs the normalised images that the network takes, not {images.dtype}")
        if images.device.type == "mps":
            raise ValueError("PuzzleMix weighs its masks in float64, which MPS does not have: train on another device")
        partner, side, grid = draws.partner, images.shape[-1], draws.grid
        own, other = images, images[partner]
        saliency = input_saliency(model, images, labels) if saliency is None else saliency
        mask = self.mask(images.detach(), partner, draws.lam, grid, saliency)
        if self.transport:
            block = side // grid
            cell = block if self.transport_size == -1 else min(self.transport_size, block)
            if block % cell:
                raise ValueError(f"transport_size {cell} does not divide blocks of {block} pixels: use a divisor or -1")
            mask = upsample(mask, block // cell)
            share = saliency_share(saliency, cell)
            # A block of share 1/2 shows both images: it is a target for each.
            visible, share = torch.cat([mask > 0, mask < 1]), torch.cat([share, share[partner]])
            own_plan, other_plan = transport_plan(visible, share).chunk(2)
            own, other = transport(own, own_plan, cell), transport(other, other_plan, cell)
        pixels = upsample(mask, side // mask.shape[-1]).unsqueeze(1)
        mixed = blend(own, other, pixels)
        if images.is_contiguous(memory_format=torch.channels_last) and not images.is_contiguous():
            mixed = mixed.contiguous(memory_format=torch.channels_last)
        return mixed_batch(mixed, labels, partner, mask.mean((1, 2)), Kind.MASK, mask=pixels, moved=self.transport)

    def mask(self, images: Tensor, partner: Tensor, lam: float, grid: int, saliency: Tensor) -> Tensor:
        """[B, n, n] float32, the own image's share of each block."""
        block = images.shape[-1] // grid
        colours = F.avg_pool2d(images.double(), colour_cell(block))
        brightest = colours.amax() if self.std is None and images.device.type == "cpu" and not is_transformed() else 0
        if brightest > 25:  # ten times the brightest pixel that ImageNet's normalisation leaves
            found = f"PuzzleMix sees floats around {float(brightest):g}, no normalised ones"
            raise ValueError(f"{found}: give std=, 1 / 255 for each channel where pixels are 0 to 255")
        std = self.std or (IMAGENET_STD if images.shape[1] == 3 else (1.0,) * images.shape[1])
        colours *= moved(torch.tensor(std, dtype=torch.float64, device="cpu"), images.device).view(-1, 1, 1)
        energy = mask_energy(saliency_share(saliency, block), colours, partner, lam)
        return 1 - solve(energy).float() / (energy.unary.shape[-1] - 1)


def colour_cell(block: int) -> int:
    """Side of the cells whose colours are averaged: the largest divisor of a block's side up to `COLOUR_CELL`."""
    return max(cell for cell in range(1, min(COLOUR_CELL, block) + 1) if block % cell == 0)


def upsample(mask: Tensor, factor: int) -> Tensor:
    """[B, n f, n f]: every entry of `mask` [B, n, n] as a square of f x f."""
    return mask.repeat_interleave(factor, dim=1).repeat_interleave(factor, dim=2)


def input_saliency(model: torch.nn.Module | None, images: Tensor, labels: Tensor) -> Tensor:
    """Puzzle-Mix, saliency: s, root mean square over channels [B, H, W] float32 of the loss's gradient at the images.

    The network, possibly wrapped, is in eval mode meanwhile; its weights get no gradient. The loss is cross entropy,
    summed: a mean would push the gradients of half precision below its smallest number, and only shares matter.
    """
    if model is None:
        raise ValueError("PuzzleMix looks at the images through the network: pass model=")
    if torch.is_inference_mode_enabled():
        raise ValueError("PuzzleMix takes a gradient, which torch.inference_mode() forbids: mix outside of it")
    model = unwrapped(model)
    with torch.enable_grad(), evaluating(model):
        pixels = images.detach().requires_grad_()
        logits = logits_of(model(in_precision_of(model, pixels))).float()
        try:
            loss = F.cross_entropy(logits, labels, reduction="sum")
        except (IndexError, RuntimeError) as error:
            found = f"labels {labels.min()} .. {labels.max()} do not fit the network's output {list(logits.shape)}"
            raise ValueError(f"{found}, which must be logits [B, C] of these classes") from error
        return torch.autograd.grad(loss, pixels)[0].float().square().mean(1).sqrt()


def saliency_share(saliency: Tensor, cell: int) -> Tensor:
    """[B, n, n] float64, each square cell's share of its image's saliency [B, H, W]; equal where there is none."""
    pooled = F.avg_pool2d(saliency.double().nan_to_num(0.0, 0.0, 0.0), cell)
    total = pooled.sum((1, 2), keepdim=True)
    return torch.where(total > 0, pooled / total, 1 / pooled[0].numel())


class Energy(NamedTuple):
    """The energy sum_p unary[p, l_p] + sum_pq w_pq (l_p - l_q)^2 / (L - 1)^2 of B label grids, in whole numbers.

    unary [B, n, n, L] int32; down [B, n - 1, n] and right [B, n, n - 1] int32 at least 0, w between a block and the one
    below it or to its right.
    """

    unary: Tensor
    down: Tensor
    right: Tensor


def mask_energy(share: Tensor, colours: Tensor, partner: Tensor, lam: float, labels: int = LABELS) -> Energy:
    """Puzzle-Mix, mask objective: of mixing each image with its partner, in units of 1 / (1000 n^2), truncated.

    unary(l) = (1 - t) s_partner + t s_own + `colour_breaks` + `label_prior`(l), t = l / (L - 1), for the blocks' share
    [B, n, n] float64 of the saliency s, colours [B, C, n k, n k] float64, un-normalised, averaged over k x k cells of
    every block, and the drawn share `lam` of the own image.
    """
    grid = share.shape[-1]
    beta = BETA / grid / 16
    # Showing the own image costs the saliency of the partner that it hides, and the other way round.
    own_cost, partner_cost = share[partner], share.clone()
    other = colours[partner]
    down = colour_breaks(own_cost, partner_cost, colours, other, beta * GAMMA)
    turned = own_cost.mT, partner_cost.mT, colours.mT, other.mT  # views: the costs are added to in place
    right = colour_breaks(*turned, beta * GAMMA).mT
    steps = torch.arange(labels, dtype=torch.float64, device=share.device) / max(labels - 1, 1)
    prior = moved(label_prior(lam, labels), share.device) * ETA / grid**2
    unary = own_cost.unsqueeze(-1) * (1 - steps) + partner_cost.unsqueeze(-1) * steps + prior
    # No cut exists for negative weights; they need colours outside [0, 1] (erased with noise).
    pairs = ((1000 * grid**2 * (weight + beta)).to(torch.int32).clamp(min=0) for weight in (down, right))
    return Energy((1000 * grid**2 * unary).to(torch.int32), *pairs)


def label_prior(lam: float, labels: int = LABELS) -> Tensor:
    """Puzzle-Mix, prior: -log(C(L - 1, i) lam^(L - 1 - i) (1 - lam)^i + 1e-8) of the own share lam, [L] float64."""
    top = labels - 1
    chances = [math.comb(top, i) * lam ** (top - i) * (1 - lam) ** i for i in range(labels)]
    return torch.tensor([-math.log(chance + 1e-8) for chance in chances], dtype=torch.float64, device="cpu")


def colour_breaks(own_cost: Tensor, partner_cost: Tensor, own: Tensor, other: Tensor, scale: float) -> Tensor:
    """Puzzle-Mix, colour breaks: between each block and the one below, in all four cases of who is shown.

    Linear parts are added to both costs [B, n, n] in place, the rest are weights of unequal labels [B, n - 1, n].
    """
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


def solve(energy: Energy, limit: int = LARGEST_FLOW) -> Tensor:
    """Labels [B, n, n] int64 of least energy; of several minima the one that shows most of the own image.

    One minimum cut for the whole batch, or several where its costs reach the `limit`. Descents from both ends enclose
    every minimum; only blocks on which they disagree enter the graph. A block with labels low .. high becomes a chain
    of nodes, node a on the source's side where its label is at least a.
    """
    top = energy.unary.shape[-1] - 1
    zeros = torch.zeros(energy.unary.shape[:-1], dtype=torch.int64, device=energy.unary.device)
    low, high = descend(energy, zeros), descend(energy, zeros + top, highest=True)
    if torch.equal(low, high):
        return low
    energy, low, high = Energy(*(values.cpu() for values in energy)), low.cpu(), high.cpu()
    level = torch.arange(1, top + 1, device="cpu")
    step = energy.unary.long().diff(dim=-1) * top**2
    pairs = energy.down.long(), energy.right.long()
    degree, fixed = _neighbour_sum(pairs, torch.ones_like(low)), _neighbour_sum(pairs, low + high)
    # What raising the label from a - 1 to a costs, all that is settled included: (l_p - l_q)^2 is the number of unequal
    # pairs of chain nodes plus terms of one block each; settled nodes of a neighbour turn into such terms too.
    rise = step + degree.unsqueeze(-1) * (2 * level - 1) - fixed.unsqueeze(-1)
    is_open = (level > low.unsqueeze(-1)) & (level <= high.unsqueeze(-1))
    return (low + _cut_open_nodes(energy, rise, is_open, limit)).to(zeros.device)


def descend(energy: Energy, labels: Tensor, highest: bool = False, sweeps: int = 3) -> Tensor:
    """Iterated conditional modes from `labels` [B, n, n] int64, the colours of a chessboard in turn.

    Among equally good labels the lowest is taken, or the `highest`. As the energy is submodular, a block's best label
    never falls when a neighbour's rises; hence from all 0 the lowest answers stay at or below every global minimum, and
    from all L - 1 the highest answers at or above. A few sweeps settle most of what sweeps can settle.
    """
    top = energy.unary.shape[-1] - 1
    labels = labels.double()  # exact up to 2^53, and quicker than int64 on the CPU
    pairs = energy.down.double(), energy.right.double()
    degree = _neighbour_sum(pairs, torch.ones_like(labels))
    curves = [energy.unary[..., i].double() * top**2 + degree * i**2 for i in range(top + 1)]
    index = torch.arange(labels.shape[-1], device=labels.device)
    black = (index.unsqueeze(0) + index.unsqueeze(1)) % 2 == 0
    for _ in range(sweeps):
        for colour in (black, ~black):
            pull = 2 * _neighbour_sum(pairs, labels)
            best, cost = torch.zeros_like(labels), curves[0]
            for i in range(1, top + 1):
                rival = curves[i] - i * pull
                better = rival <= cost if highest else rival < cost
                best, cost = torch.where(better, i, best), torch.where(better, rival, cost)
            labels = torch.where(colour, best, labels)
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


def _cut_open_nodes(energy: Energy, rise: Tensor, is_open: Tensor, limit: int) -> Tensor:
    """[B, n, n] int64, how far above its lower bound each label lies, from the graph of the open nodes."""
    if int(rise[is_open].neg().clamp(min=0).sum()) >= limit:
        if len(rise) == 1:
            raise ValueError("the mask's costs exceed the 32 bits of scipy's maximum flow")
        halves = zip(*(values.chunk(2) for values in (*energy, rise, is_open)), strict=True)
        return torch.cat([_cut_open_nodes(Energy(*half[:3]), half[3], half[4], limit) for half in halves])
    node = (is_open.flatten().cumsum(0) - 1).view_as(is_open)
    # A label of at least a + 1 is one of at least a: edges that no cut can afford.
    both = is_open[..., 1:] & is_open[..., :-1]
    tail = node[..., 1:][both]
    edges = [(tail, node[..., :-1][both], torch.full_like(tail, LARGEST_FLOW))]
    for axis, weight in ((1, energy.down), (2, energy.right)):  # both ways between open nodes of neighbouring blocks
        size = node.shape[axis] - 1
        near, far = (node.narrow(axis, start, size) for start in (0, 1))
        near_open, far_open = (is_open.narrow(axis, start, size) for start in (0, 1))
        both = near_open.unsqueeze(-1) & far_open.unsqueeze(-2) & (weight > 0)[..., None, None]
        tail, head = (t.expand_as(both)[both] for t in (near.unsqueeze(-1), far.unsqueeze(-2)))
        capacity = weight.long()[..., None, None].expand_as(both)[both]
        edges += [(tail, head, capacity), (head, tail, capacity)]
    tail, head, capacity = (torch.cat(column) for column in zip(*edges, strict=True))
    chosen = torch.zeros_like(is_open)
    chosen[is_open] = _source_side(rise[is_open], tail, head, capacity.clamp(max=LARGEST_FLOW))
    return chosen.sum(-1)


def _source_side(rise: Tensor, tail: Tensor, head: Tensor, capacity: Tensor) -> Tensor:
    """[nodes] bool, the smallest source side of a minimum cut, which no choice of the flow can change."""
    try:
        from scipy.sparse import csgraph, csr_matrix
    except ImportError as error:
        raise ImportError("PuzzleMix cuts graphs with SciPy: pip install scipy") from error
    source, sink = len(rise), len(rise) + 1
    own = torch.arange(len(rise), device="cpu")
    rows = torch.cat([tail, torch.where(rise < 0, source, own)])
    columns = torch.cat([head, torch.where(rise < 0, own, sink)])
    values = torch.cat([capacity, rise.abs().clamp(max=LARGEST_FLOW)]).to(torch.int32)
    graph = csr_matrix((values.numpy(), (rows.numpy(), columns.numpy())), shape=(sink + 1, sink + 1))
    residual = graph - csgraph.maximum_flow(graph, source, sink).flow
    residual.eliminate_zeros()
    reached = csgraph.breadth_first_order(residual, source, return_predecessors=False)
    side = torch.zeros(sink + 1, dtype=torch.bool, device="cpu")
    side[torch.from_numpy(reached).long()] = True
    return side[:source]


# ------------------------------------------------------------------------------------------------- transport
# The published plan is a 0/1 matrix of all cells by all cells, found in n dense rounds. Only its visible targets reach
# the mixed image, and for them it is a game on short lists of claims. A cell i that moves to the visible target j pays
# eps d_ij^2 / (n - 1)^2 - s_i. In each of n rounds every cell claims its cheapest target, the cheapest claim holds it,
# and each loser's cost of it rises by 1, to 0 or above. A claim of 0 or more wins nothing, as the cell in that place
# claims it for -s_j < 0: such claims and hidden targets are left out, and a loser goes to the next of its list.


@lru_cache(maxsize=16)
def _distances(side: int, eps: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Costs of moving from each of n^2 cells [cells, cells] float32, ascending by target, and those targets int64."""
    index = torch.arange(side, device=device)
    square = (index.unsqueeze(0) - index.unsqueeze(1)).square()
    distance = square[:, None, :, None] + square[None, :, None, :]
    cost = eps * (distance.view(side**2, side**2).float() / max(side - 1, 1) ** 2)
    return cost.sort(dim=1, stable=True)


def transport_plan(visible: Tensor, share: Tensor, eps: float = EPSILON) -> Tensor:
    """Puzzle-Mix, transport objective: which cell of an image stands where, for cost eps C_ij - s_i [visible_j].

    `visible` [B, n, n] bool is where the image shows, `share` [B, n, n] in [0, 1] that of the saliency s; 0 counts as
    the smallest positive number, since the published rule leaves visible targets without saliency empty. Returns the
    source [B, n * n] int64 of each target, -1 where it is hidden. Every visible target has exactly one source (for eps
    above 0), no source has two targets, and a source can be dropped. Among equal costs the first cell wins.
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
    holder = _play(target[shown], price[shown], length, side).view(size, cells)
    return torch.where(holder < 0, -1, holder % cells)


def _play(target: Tensor, price: Tensor, length: Tensor, rounds: int) -> Tensor:
    """Who holds each target [N] int64 after so many rounds, -1 for nobody: of N cells with `length` [N] claims each."""
    count = len(length)
    following = length.cumsum(0)
    claim = following - length
    holder = torch.full_like(length, count)
    held_price = price.new_full((count,), torch.inf)
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
    """Images [B, C, H, W] whose square cell j is their old cell plan[:, j]; zeros where `plan` [B, cells] is -1."""
    rows, columns = images.shape[-2] // cell, images.shape[-1] // cell
    moved = permute_grid(images, plan.clamp(min=0), rows, columns)
    return moved.masked_fill(upsample((plan < 0).view(-1, rows, columns), cell).unsqueeze(1), 0)
