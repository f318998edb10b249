"""The lazy tensor: Stored bytes of an open file, Computed from other lazy tensors, or Initialised by a law and a seed.

Nothing is read or computed until somebody asks for the content. Knows no names, no networks and no container.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from resnet_surgeon.architecture.initialisation import Law
from resnet_surgeon.formats.files import OpenFile

# Bits of one element, for every dtype of the safetensors format.
BITS = {
    "F64": 64, "I64": 64, "U64": 64, "C64": 64,
    "F32": 32, "I32": 32, "U32": 32,
    "F16": 16, "BF16": 16, "I16": 16, "U16": 16,
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4,
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Stored:
    """A contiguous, row-major, little-endian tensor in an open file."""

    dtype: str
    shape: tuple[int, ...]
    file: OpenFile
    offset: int


@dataclass(frozen=True, eq=False)
class Computed:
    """A small tensor worked out from the contents of others. `formula` says how, for people."""

    dtype: str
    shape: tuple[int, ...]
    inputs: tuple[LazyTensor, ...]
    formula: str
    compute: Callable[..., bytes]


@dataclass(frozen=True, eq=False)
class Initialised:
    """A fresh tensor drawn from `law`. The numbers depend on the law, the shape, `seed` and `stream` (its first name),
    on nothing else.
    """

    dtype: str
    shape: tuple[int, ...]
    law: Law
    seed: int
    stream: str


LazyTensor = Stored | Computed | Initialised


def byte_size(tensor: LazyTensor) -> int:
    """The bytes that the tensor's content takes."""
    return math.prod(tensor.shape) * BITS[tensor.dtype] // 8


def content(tensor: LazyTensor) -> bytes:
    """The whole content, row-major and little-endian: for small tensors."""
    return b"".join(bytes(chunk) for chunk in chunks(tensor))


def chunks(tensor: LazyTensor) -> Iterator[bytes | memoryview]:
    """The content piece by piece; a piece is valid until the next one is asked for."""
    if isinstance(tensor, Stored):
        yield from tensor.file.chunks(tensor.offset, byte_size(tensor))
    elif isinstance(tensor, Computed):
        yield tensor.compute(*(content(source) for source in tensor.inputs))
    else:
        from resnet_surgeon.formats.sampling import sample

        yield from sample(tensor.law, math.prod(tensor.shape), tensor.dtype, tensor.seed, tensor.stream)
