"""What a formula is given: a tensor that can be read piece by piece. Does not know where it comes from."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from resnet_surgeon.dataclass import dataclass


@dataclass(frozen=True)
class Operand:
    """An input of a formula. `pieces` reads it, little-endian and row-major, in pieces of exactly so many bytes but for
    the last.
    """

    dtype: str
    shape: tuple[int, ...]
    pieces: Callable[[int], Iterator[bytes]]
