"""Randomness by address: every draw of training has a seed made from where it is used, never from what came before.

A run can so be resumed at any step, and runs of different methods with equal seeds see the same images in the same
order. The address is hashed, since generators seeded with neighbouring integers may start alike.
"""

import hashlib
from collections.abc import Iterator

import torch
from torch import Tensor


def stream_seed(*address: int | str) -> int:
    """A seed in [0, 2**63) for an address such as (seed, rank, step, "mix"), the same on every machine."""
    digest = hashlib.blake2b(repr(address).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def step_generator(seed: int, rank: int, step: int, stream: str, device: torch.device | str = "cpu") -> torch.Generator:
    """The generator of one stream ("augment", "mix", "label", ...) at one step of one process."""
    return torch.Generator(device).manual_seed(stream_seed(seed, rank, step, stream))


def epoch_order(n: int, seed: int, epoch: int, stream: str = "order") -> Tensor:
    """Permutation [n] int64 in which an epoch visits its n samples; on the CPU and equal for all methods and ranks."""
    generator = torch.Generator().manual_seed(stream_seed(seed, epoch, stream))
    return torch.randperm(n, generator=generator)


def endless_batches(n: int, size: int, seed: int, start: int, stream: str = "order") -> Iterator[Tensor]:
    """Batches start, start + 1, ... [size] int64 of passes over n samples without end, each in an order of its own.

    A batch goes over the end of a pass, and over several where there are fewer samples than it holds.
    """
    number, done = divmod(start * size, n)
    rest = epoch_order(n, seed, number, stream)[done:]
    while True:
        while len(rest) < size:
            number += 1
            rest = torch.cat([rest, epoch_order(n, seed, number, stream)])
        yield rest[:size]
        rest = rest[size:]
