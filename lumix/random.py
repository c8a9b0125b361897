"""Random draws from an explicit generator, on its device; D draws, B samples."""

from hashlib import blake2b
from multiprocessing.reduction import ForkingPickler
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from lumix.inputs import shown


def for_worker(generator: torch.Generator) -> torch.Generator:
    """The generator as it is; in a worker of a DataLoader seeded anew at its first use there.

    The workers of every epoch begin with equal copies of the main process's generator. The new seed is made of the
    copy's state and of the worker's seed, which torch draws anew for each worker and epoch from the loader's generator
    or from torch.manual_seed: equal seeds of both give equal draws again. A call of a mixer, as in a collate_fn, begins
    with this; its `draw` and all other functions take their generator as it is.
    """
    worker = get_worker_info()
    if worker is None:
        return generator
    if device_of(generator).type != "cpu":
        raise ValueError(
            f"a generator on {generator.device} cannot draw in a DataLoader's worker: give the mixer of a collate_fn a "
            "torch.Generator() on the CPU, or mix in the training loop"
        )
    # Upper bits that the worker's seed gives say that this has been done; the CPU's generator reads the lower ones.
    name = str(worker.seed).encode()
    mark = _hash(name) >> 1
    if generator.initial_seed() >> 32 != mark:
        generator.manual_seed(mark << 32 | _hash(name + _state(generator)))
    return generator


def _hash(text: bytes) -> int:
    return int.from_bytes(blake2b(text, digest_size=4).digest(), "little")


def _state(generator: torch.Generator) -> bytes:
    return bytes(generator.get_state().tolist())


def _restored(device: torch.device, state: bytes) -> torch.Generator:
    return torch.Generator(device).set_state(torch.tensor(list(state), dtype=torch.uint8, device="cpu"))


# torch sends a generator's state through shared memory that is gone before a spawned worker opens it.
ForkingPickler.register(torch.Generator, lambda generator: (_restored, (generator.device, _state(generator))))

RATIOS = (0.1, 1e30)  # alphas whose Gamma draws neither underflow nor overflow


def device_of(generator: Any) -> torch.device:
    """The device of a torch.Generator; ValueError for anything else."""
    if not isinstance(generator, torch.Generator):
        raise ValueError(f"generator must be a torch.Generator, not {shown(generator)}: use torch.Generator()")
    if generator.device.type == "mps":
        raise ValueError("a generator on MPS cannot draw float64: use torch.Generator() on the CPU")
    return generator.device


def wide(device: torch.device) -> torch.dtype:
    """float64, but float32 on Apple's GPU (MPS), which has nothing wider."""
    return torch.float32 if device.type == "mps" else torch.float64


def moved(values: Tensor, device: torch.device) -> Tensor:
    """The values on a device: a GPU takes them when it comes to it, as the host would wait for all that is queued."""
    values = values.to(wide(device)) if values.dtype == torch.float64 else values
    return values.to(device, non_blocking=device.type == "cuda")


def draw_uniform(count: int, generator: torch.Generator) -> Tensor:
    """[D] float64 in [0, 1), on the generator's device."""
    return torch.rand(count, generator=generator, device=device_of(generator), dtype=torch.float64)


def draw_normal(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Standard normal draws in float64, on the generator's device."""
    return torch.randn(shape, generator=generator, device=device_of(generator), dtype=torch.float64)


def draw_integers(high: Tensor, generator: torch.Generator) -> Tensor:
    """[D] int64, uniform on 0 .. high - 1 for each entry of `high` [D] int64, which are at least 1."""
    return torch.minimum((draw_uniform(len(high), generator) * high).long(), high - 1)


def draw_beta(alpha: float, count: int, generator: torch.Generator) -> Tensor:
    """[D] float64 from Beta(alpha, alpha), on the generator's device, for any finite alpha above 0.

    A Beta is a ratio of Gammas. torch.distributions takes no generator; the sampler beneath it does. For small alpha
    both Gammas underflow, so their logarithms are drawn: a Gamma(alpha) is a Gamma(alpha + 1) times a uniform draw to
    the power 1 / alpha (Marsaglia and Tsang 2000).
    """
    direct, device = RATIOS[0] <= alpha <= RATIOS[1], device_of(generator)
    concentration = torch.full((2, count), alpha if direct else alpha + 1, device=device, dtype=torch.float64)
    gamma = torch._standard_gamma(concentration, generator=generator)
    if direct:
        return gamma[0] / gamma.sum(0)
    log_uniform = torch.log1p(-draw_uniform(2 * count, generator)).view(2, count)
    # Both differences are finite before the division, which may overflow to the infinity that it should be.
    return torch.sigmoid(gamma[0].log() - gamma[1].log() + (log_uniform[0] - log_uniform[1]) / alpha)


def draw_partners(size: int, mode: str, pairing: str, generator: torch.Generator) -> tuple[Tensor, Tensor, int]:
    """Who is mixed with whom, and which draw each sample uses: (partner [B], group [B], number of draws).

    "flip" is timm's reversed batch; it needs an even batch. "permutation" serves any size; a sample paired with itself
    stays as it is. In mode "pair" partners are mutual and share a draw.
    """
    device = device_of(generator)
    index = torch.arange(size, device=device)
    if pairing == "flip":
        if size % 2:
            raise ValueError(f"flip pairing needs an even batch, not {size} images: use drop_last=True or permutation")
        partner = index.flip(0)
        pair = torch.minimum(index, partner) if mode == "pair" else index
    else:
        order = torch.randperm(size, generator=generator, device=device)
        partner, pair = order, index
        if mode == "pair":
            even = size - size % 2
            partner, pair = index.clone(), torch.full_like(index, size // 2)
            first, second = order[0:even:2], order[1:even:2]
            partner[first], partner[second] = second, first
            pair[first] = pair[second] = torch.arange(size // 2, device=device)
    if mode == "batch":
        return partner, torch.zeros_like(index), 1
    if mode == "pair":
        return partner, pair, (size + 1) // 2
    return partner, index, size
