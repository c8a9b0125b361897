"""Puzzle-Mix (Kim et al. 2020): a mask of blocks that keeps what the network looks at in both images, and moves it.

Each step asks the network for the gradient of its loss at the clean pixels, finds the mask that hides least of it
(puzzle_cut.py), and moves salient cells of each image to where the mask shows them (puzzle_transport.py). The
adversarial training that the authors' code also offers is off in the published tables and not built.
"""

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lumix.batch import Kind, MixedBatch
from lumix.checks import check_choice, check_flag, check_number, check_numbers, check_positive
from lumix.draws import draw_beta, draw_integers
from lumix.inputs import logits_of
from lumix.mixers.apply import record
from lumix.mixers.base import BatchDraws, Given, WholeBatchMixer
from lumix.mixers.eval_mode import IMAGENET_STD, evaluating, unwrapped
from lumix.mixers.pixels import blend
from lumix.mixers.puzzle_cut import SOLVERS, cut_energy, saliency_share, solve
from lumix.mixers.puzzle_transport import transport, transport_plan
from lumix.registry import register


def input_saliency(model: torch.nn.Module | None, images: Tensor, labels: Tensor) -> Tensor:
    """Root mean square over channels [B, H, W] float32 of the gradient of the cross entropy at the images.

    The network is in eval mode meanwhile. Its weights get no gradient, and none is computed for them. The loss is
    summed: a mean would push the gradients of half precision below its smallest number, and only shares matter.

    Args:
        model: from images to logits [B, classes], possibly wrapped, or to an output with `logits`.
        images: [B, C, H, W] of floating point.
        labels: [B] int64.

    Raises:
        ValueError: without a model.
    """
    if model is None:
        raise ValueError("PuzzleMix looks at the images through the network: pass model=")
    model = unwrapped(model)
    with torch.enable_grad(), evaluating(model):
        pixels = images.detach().requires_grad_()
        loss = F.cross_entropy(logits_of(model(pixels)).float(), labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, pixels)
    return gradient.float().square().mean(1).sqrt()


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
        alpha: of the Beta(alpha, alpha) that the batch's own share is drawn from, above 0.
        num_labels: number of shares that a block can take, at least 2; 3 means 1, 1/2 and 0.
        beta, gamma, eta: weight of equal labels of neighbours, of equal colours across borders, of the drawn share.
        neighbours: side in pixels of the cells over which colours are averaged; where it does not divide a block, its
            largest divisor below.
        grids: numbers of blocks per side, one drawn per batch, which must tile the image. None is all of 2, 4, 8, 16
            whose blocks are divided by `neighbours` or smaller; where there are none, all of them that tile the image,
            and for odd sides the divisors up to 16.
        transport: whether salient cells move; then `moved` is set in the MixedBatch.
        transport_eps: price of distance, above 0.
        transport_size: side in pixels of the cells that move where blocks are larger; -1 (as for ImageNet) moves whole
            blocks. The published CIFAR runs use 4.
        solver: "maxflow" (exact, SciPy, on the CPU), "icm" (a descent on any device) or "gco" (the authors' choice).
        std: of the normalisation that the images went through; None is ImageNet's for 3 channels and 1 for others. It
            only scales gamma. The mean is not asked for: it cancels in every difference of colours.
    """

    alpha: float = 1.0
    num_labels: int = 3
    beta: float = 1.2
    gamma: float = 0.5
    eta: float = 0.2
    neighbours: int = 4
    grids: tuple[int, ...] | None = None
    transport: bool = True
    transport_eps: float = 0.8
    transport_size: int = -1
    solver: str = "maxflow"
    std: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("alpha", self.alpha)
        check_positive("neighbours", self.neighbours, whole=True)
        check_positive("transport_eps", self.transport_eps)
        check_number("num_labels", self.num_labels, 2, 100, whole=True)
        for name in ("beta", "gamma", "eta"):
            check_number(name, getattr(self, name), 0, 1000)  # beyond it the 32 bits of the costs overflow
        check_flag("transport", self.transport)
        check_choice("solver", self.solver, SOLVERS)
        if self.solver == "maxflow" and find_spec("scipy") is None:  # not first at a batch that leaves blocks open
            raise ImportError("solver='maxflow' needs SciPy: pip install scipy, or use solver='icm'")
        check_number("transport_size", self.transport_size, -1, whole=True)
        if self.transport_size == 0:
            raise ValueError("transport_size must be a number of pixels or -1 for blocks, not 0")
        if self.grids is not None:
            check_numbers("grids", self.grids, 2, whole=True)
        if self.std is not None:
            check_numbers("std", self.std, 0, open_low=True)

    def suitable_grids(self, side: int) -> tuple[int, ...]:
        """The grids to draw from for images of side x side pixels.

        Raises:
            ValueError: where one of `grids` does not suit, or none of the default ones does.
        """
        tiling = [grid for grid in range(2, side // 2 + 1) if side % grid == 0]  # blocks have a side of 2 or more
        if self.grids is not None:
            if not set(self.grids) <= set(tiling):
                raise ValueError(f"grids {tuple(self.grids)} do not suit {side} pixels: {self._advice(side, tiling)}")
            return tuple(self.grids)
        published = [grid for grid in tiling if grid in (2, 4, 8, 16)]
        suitable = [grid for grid in published if self._suits(grid, side)] or published
        suitable = suitable or [grid for grid in tiling if grid <= 16] or tiling
        if not suitable:
            raise ValueError(f"no grid suits {side} pixels: {self._advice(side, tiling)}")
        return tuple(suitable)

    def _suits(self, grid: int, side: int) -> bool:
        """Whether `neighbours` is the side of the cells whose colours are compared, not less."""
        return side % grid == 0 and self._cell(side // grid) == min(self.neighbours, side // grid)

    def _cell(self, block: int) -> int:
        """Side of those cells: the largest divisor of a block's side that is at most `neighbours`."""
        return max(cell for cell in range(1, min(self.neighbours, block) + 1) if block % cell == 0)

    def _advice(self, side: int, tiling: list[int]) -> str:
        if tiling:
            return f"blocks must tile the image with a side of 2 or more, so choose among {tuple(tiling)}"
        return f"blocks must tile the image with a side of 2 or more; resize or crop to {side // 16 * 16 or 4}"

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

    @torch.no_grad()
    def mix(
        self, images: Tensor, labels: Tensor, draws: PuzzleDraws, model: Any, saliency: Given = None, mask: Given = None
    ) -> MixedBatch:
        """As the base says, for images [B, C, H, H] of floating point, seen by `model`, which stays as it is.

        Given `saliency` maps [B, H, H] need no model; a given `mask` [B, n, n] is the own image's share of each block.

        Raises:
            ValueError: without a model where it is needed, or for images that are not of floating point.
            ImportError: where the solver's library is missing.
        """
        if not images.is_floating_point():
            raise ValueError(f"PuzzleMix needs the normalised images that the network takes, not {images.dtype}")
        partner = draws.partner
        own, other = images, images[partner]
        if mask is None or self.transport:
            saliency = input_saliency(model, images, labels) if saliency is None else saliency
            mask = self.mask(images, partner, draws.lam, draws.grid, saliency) if mask is None else mask
            if self.transport:
                own, other, mask = self._moved(own, other, mask, partner, saliency)
        pixels = upsample(mask, images.shape[-1] // mask.shape[-1]).unsqueeze(1)
        mixed = blend(own, other, pixels)
        if images.is_contiguous(memory_format=torch.channels_last) and not images.is_contiguous():
            mixed = mixed.contiguous(memory_format=torch.channels_last)
        return record(mixed, labels, partner, mask.mean((1, 2)), Kind.MASK, mask=pixels, moved=self.transport)

    def mask(self, images: Tensor, partner: Tensor, lam: float, grid: int, saliency: Tensor) -> Tensor:
        """[B, n, n] float32, the own image's share of each block."""
        block = images.shape[-1] // grid
        colours = F.avg_pool2d(images.double(), self._cell(block))
        std = self.std or (IMAGENET_STD if images.shape[1] == 3 else (1.0,) * images.shape[1])
        colours *= torch.tensor(std, dtype=torch.float64, device=images.device).view(-1, 1, 1)
        share = saliency_share(saliency, block)
        energy = cut_energy(share, colours, partner, lam, self.num_labels, self.beta, self.gamma, self.eta)
        return 1 - solve(energy, self.solver).float() / (self.num_labels - 1)

    def _moved(
        self, own: Tensor, other: Tensor, mask: Tensor, partner: Tensor, saliency: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Both images with their cells moved to where they show, and the mask on the grid of those cells."""
        block = own.shape[-1] // mask.shape[-1]
        cell = block if self.transport_size == -1 else min(self.transport_size, block)
        if block % cell:
            raise ValueError(f"transport_size {cell} does not divide blocks of {block} pixels: choose a divisor or -1")
        mask = upsample(mask, block // cell)
        share = saliency_share(saliency, cell)
        # A block of share 1/2 shows both images: it is a target for each.
        visible, shares = torch.cat([mask > 0, mask < 1]), torch.cat([share, share[partner]])
        own_plan, other_plan = transport_plan(visible, shares, self.transport_eps).chunk(2)
        return transport(own, own_plan, cell), transport(other, other_plan, cell), mask


def upsample(mask: Tensor, factor: int) -> Tensor:
    """[B, n f, n f]: every entry of `mask` [B, n, n] as a square of f x f."""
    return mask.repeat_interleave(factor, dim=1).repeat_interleave(factor, dim=2)
