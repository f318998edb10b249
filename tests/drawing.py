"""The random numbers of large tensors are drawn once in each process: tests ask for the same ones again and again, and
drawing a ResNet-18 takes a second. How they are drawn is the subject of `tests/arithmetic/test_sampling.py`, which asks
anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, lru_cache

import resnet_surgeon as rs
from resnet_surgeon.arithmetic import sampling
from resnet_surgeon.arithmetic.laws import Law
from resnet_surgeon.formats.tensors import chunks

_LARGE = 1 << 15  # numbers
_sample = sampling.sample


def drawn_once(law: Law, count: int, dtype: str, seed: int, stream: str) -> Iterator[bytes]:
    """What `sampling.sample` gives, which this stands for."""
    if count < _LARGE:
        return _sample(law, count, dtype, seed, stream)
    return iter(_kept(law, count, dtype, seed, stream))


@lru_cache(maxsize=100)  # five times what a ResNet-18 has
def _kept(law: Law, count: int, dtype: str, seed: int, stream: str) -> tuple[bytes, ...]:
    return tuple(_sample(law, count, dtype, seed, stream))


@cache
def draw_ahead() -> None:
    """Draws a ResNet-18 of random weights, for the processes that are forked from this one."""
    sampling.sample = drawn_once
    for tensor in rs.open("resnet18", weights="random").tensors.values():
        for _ in chunks(tensor):
            pass
