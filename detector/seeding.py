"""Every random choice is a pure function of the seed and of what is being chosen.

Nothing random is ever saved: a resumed run asks for the same numbers again. Nobody else makes a generator.
"""

import hashlib

import numpy as np
import torch


def derive_seed(seed: int, *what: object) -> int:
    """A 63-bit seed for one purpose, for example `seed_for(config.seed, "augment", epoch, index)`.

    Purposes with different words are independent; the same words always give the same seed, on every machine.
    """
    text = "\x1f".join(str(part) for part in (seed, *what))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def generator(seed: int) -> torch.Generator:
    """A CPU generator for one purpose."""
    return torch.Generator().manual_seed(seed)


def seed_torch(seed: int) -> None:
    """Seeds the generators that torchvision's samplers and dropout draw from, on the CPU and on every GPU."""
    torch.manual_seed(seed)


def random_order(seed: int, count: int) -> np.ndarray:
    """A permutation of `range(count)`: int64 [count].

    Sorts raw PCG64 words, the one stream that numpy promises never to change (NEP 19; `Generator.permutation` may).
    """
    return np.argsort(np.random.PCG64(seed).random_raw(count), kind="stable")


def numpy_random_state(seed: int) -> np.random.RandomState:
    """A numpy generator for pictures that are drawn on the CPU; RandomState's streams are frozen for good."""
    return np.random.RandomState(seed % 2**32)
