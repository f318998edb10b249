"""The lazy tensor: Stored bytes of an open file, Computed from other lazy tensors, or Initialised by a law and a seed.

Nothing is read or computed until somebody asks for the content. Knows no names, no networks and no container.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from resnet_surgeon.architecture.initialisation import Law
from resnet_surgeon.errors import CheckpointError
from resnet_surgeon.formats.files import OpenFile

if TYPE_CHECKING:
    import numpy

    Array = numpy.ndarray[Any, numpy.dtype[Any]]

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
    """A fresh tensor drawn from `law`. The numbers depend on the law, the shape, `seed` and `stream` (its first name), on nothing else."""

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

        for values in sample(tensor.law, math.prod(tensor.shape), tensor.seed, tensor.stream):
            yield encode(values, tensor.dtype)


_NUMPY_NAMES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8"}


def decode(data: bytes, dtype: str, shape: tuple[int, ...]) -> Array:
    """The numbers of a floating point tensor, in float32 at least (float64 for F64).

    Raises CheckpointError for a dtype that has no arithmetic here (integers, 8-bit floats).
    """
    import numpy

    if dtype == "BF16":
        return (numpy.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4").reshape(shape)
    if dtype not in ("F64", "F32", "F16"):
        raise CheckpointError(f"no arithmetic is done on dtype {dtype}")
    array = numpy.frombuffer(data, _NUMPY_NAMES[dtype]).reshape(shape)
    return array.astype("<f4") if dtype == "F16" else array


def encode(array: Array, dtype: str) -> bytes:
    """The array's numbers as `dtype`, each rounded to nearest even once."""
    import numpy

    if dtype == "BF16":
        bits = array.astype("<f4").view("<u4")
        rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        return numpy.where(numpy.isnan(array), (bits >> 16) | 0x40, rounded).astype("<u2").tobytes()
    with numpy.errstate(over="ignore"):  # beyond float16's range is infinity, as in torch
        return array.astype(_NUMPY_NAMES[dtype]).tobytes()
