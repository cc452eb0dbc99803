"""Random numbers as pure functions of a key."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def seed_from(*key: int | str) -> int:
    """A 63-bit seed from a key such as ``(seed, "order", epoch)``; the same key gives the same seed.

    >>> seed_from(0, "order", 1) == seed_from(0, "order", 1)
    True
    >>> seed_from(0, "order", 1) == seed_from(0, "order", 2)
    False
    """
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator(*key: int | str) -> torch.Generator:
    """A CPU generator, seeded with a key."""
    return torch.Generator().manual_seed(seed_from(*key))


def uniform(rows: int, columns: int, *key: int | str, first_row: int = 0) -> np.ndarray:
    """Uniform random numbers in [0, 1), float64 [rows, columns], of the counter-based Philox (Salmon et al. 2011).

    Row ``r`` is a function of the key, ``columns`` and ``first_row + r``. A part of a batch therefore has the same
    numbers as in the whole batch.

    >>> whole = uniform(6, 5, 0, "view")
    >>> bool((uniform(2, 5, 0, "view", first_row=3) == whole[3:5]).all())
    True
    """
    blocks = -(-columns // 4)  # Philox makes four numbers per count
    philox = np.random.Philox(key=seed_from(*key)).advance(first_row * blocks)
    return np.random.Generator(philox).random((rows, 4 * blocks))[:, :columns]


@contextmanager
def seeded(*key: int | str) -> Iterator[None]:
    """Seed torch's global CPU generator inside the block, and restore it afterwards.

    This is for code that takes no generator: layer initialisation and torchvision's RandAugment.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed_from(*key))
        yield
