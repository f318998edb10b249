"""Uniform numbers of the Philox generator without numpy: for so few of them, importing numpy takes longer.

Philox4x64 with ten rounds (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"), as `numpy.random.Philox`
has it: the same numbers as `sampling` draws, to the bit.
"""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Iterator
from typing import TypeGuard

from resnet_surgeon.arithmetic.laws import Law, Uniform
from resnet_surgeon.arithmetic.numbers import SIZES, encode

FEW = 1 << 15  # numbers: the linear layer of sixteen classes behind 2048 features
_WORD = (1 << 64) - 1
_MULTIPLIERS = 0xD2E7470EE14C6C93, 0xCA5A826395121157
_WEYL = 0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B
_ROUNDS = 10


def is_few(law: Law, count: int, dtype: str) -> TypeGuard[Uniform]:
    """Whether so many numbers of this law are drawn sooner than numpy is imported."""
    return isinstance(law, Uniform) and count <= FEW and dtype in SIZES


def few(law: Uniform, count: int, dtype: str, seed: int, stream: str) -> bytes:
    """`count` numbers of the law as little-endian `dtype`, equal to those of `sampling.sample`."""
    words = itertools.islice(_words(key(seed, stream)), count)
    return encode(array("d", (((word >> 8) * 2.0**-23 - 1.0) * law.bound for word in words)), dtype)


def key(seed: int, stream: str) -> int:
    """The 128 bits that set the sequences of one seed apart."""
    from hashlib import sha256

    return int.from_bytes(sha256(f"{seed}/{stream}".encode()).digest()[:16], "little")


def _words(key: int) -> Iterator[int]:
    """The generator's output, 32 bits at a time, the lower half of each number first."""
    keys = [tuple((half + turn * step) & _WORD for half, step in zip((key & _WORD, key >> 64), _WEYL, strict=True))
            for turn in range(_ROUNDS)]  # fmt: skip
    first, second = _MULTIPLIERS
    for counter in itertools.count(1):
        a, b, c, d = counter, 0, 0, 0
        for one, other in keys:
            low, high = a * first, c * second
            a, b, c, d = high >> 64 ^ b ^ one, high & _WORD, low >> 64 ^ d ^ other, low & _WORD
        for number in (a, b, c, d):
            yield number & 0xFFFFFFFF
            yield number >> 32
