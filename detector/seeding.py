"""Seeds and random generators. Only this module creates generators.

Every random decision is a pure function of the seed and a purpose, such as ("augment", epoch, index). No generator
state is saved: a resumed run derives the same seeds again.
"""

import hashlib

import numpy as np
import torch


def derive_seed(seed: int, *purpose: object) -> int:
    """Returns a 63-bit seed for one purpose, for example `derive_seed(config.seed, "augment", epoch, index)`.

    Different purposes give independent seeds. The result is the same on every machine.
    """
    text = "\x1f".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def generator(seed: int) -> torch.Generator:
    """Returns a new CPU generator with this seed."""
    return torch.Generator().manual_seed(seed)


def seed_torch(seed: int) -> None:
    """Seeds torch's default generators on the CPU and on every GPU, which torchvision's samplers and dropout use."""
    torch.manual_seed(seed)


def random_order(seed: int, count: int) -> np.ndarray:
    """Returns a permutation of `range(count)`, int64 [count].

    Sorts the raw output of PCG64, the one stream that numpy guarantees not to change (NEP 19); `Generator.permutation`
    may change between versions.
    """
    return np.argsort(np.random.PCG64(seed).random_raw(count), kind="stable")


def numpy_random_state(seed: int) -> np.random.RandomState:
    """Returns a numpy generator for drawing images on the CPU; the streams of RandomState never change (NEP 19)."""
    return np.random.RandomState(seed % 2**32)
