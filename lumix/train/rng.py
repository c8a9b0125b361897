"""Randomness by address: every draw of training has a seed made from where it is used, never from what came before.

A run can so be resumed at any step, and runs of different methods with equal seeds see the same images in the same
order. The address is hashed, since generators seeded with neighbouring integers may start alike.
"""

import hashlib

import torch
from torch import Tensor


def stream_seed(*address: int | str) -> int:
    """A seed in [0, 2**63) for an address such as (seed, rank, step, "mix"), the same on every machine."""
    digest = hashlib.blake2b(repr(address).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def step_generator(seed: int, rank: int, step: int, stream: str, device: torch.device | str = "cpu") -> torch.Generator:
    """The generator of one stream ("augment", "mix", "label", ...) at one step of one process."""
    return torch.Generator(device).manual_seed(stream_seed(seed, rank, step, stream))


def epoch_order(n: int, seed: int, epoch: int) -> Tensor:
    """Permutation [n] int64 in which an epoch visits its n samples; on the CPU and equal for all methods and ranks."""
    generator = torch.Generator().manual_seed(stream_seed(seed, epoch, "order"))
    return torch.randperm(n, generator=generator)
