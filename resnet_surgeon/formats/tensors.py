"""The lazy tensor: Stored in an open file (or there but Strided), Computed from others, or Initialised by law and seed.

Nothing is read or computed until somebody asks for the content. Knows no names, no networks and no container.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from resnet_surgeon.architecture.initialisation import Law
from resnet_surgeon.formats.files import OpenFile, TiedToFile
from resnet_surgeon.formats.memory import import_numpy

# Bits of one element, for every dtype of the safetensors format.
BITS = {
    "F64": 64, "I64": 64, "U64": 64, "C64": 64,
    "F32": 32, "I32": 32, "U32": 32,
    "F16": 16, "BF16": 16, "I16": 16, "U16": 16,
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4,
}  # fmt: skip

MOST_DIMENSIONS = 64  # of a tensor, as in torch; a product of endless sizes would take for ever
LARGEST_SIZE = 2**63 - 1  # of one dimension


@dataclass(frozen=True, eq=False)
class Stored(TiedToFile):
    """A contiguous, row-major, little-endian tensor in an open file."""

    dtype: str
    shape: tuple[int, ...]
    file: OpenFile
    offset: int


@dataclass(frozen=True, eq=False)
class Strided(TiedToFile):
    """A tensor in an open file that is not contiguous, or big-endian if `swapped`: `strides` count elements."""

    dtype: str
    shape: tuple[int, ...]
    file: OpenFile
    offset: int
    strides: tuple[int, ...]
    swapped: bool


@dataclass(frozen=True, eq=False)
class Computed(TiedToFile):
    """A tensor worked out, piece by piece, from the whole contents of small others. `formula` says how, for people."""

    dtype: str
    shape: tuple[int, ...]
    inputs: tuple[LazyTensor, ...]
    formula: str
    compute: Callable[..., Iterable[bytes]]


@dataclass(frozen=True, eq=False)
class Initialised(TiedToFile):
    """A fresh tensor drawn from `law`. The numbers depend on the law, the shape, `seed` and `stream` (its first name),
    on nothing else.
    """

    dtype: str
    shape: tuple[int, ...]
    law: Law
    seed: int
    stream: str


LazyTensor = Stored | Strided | Computed | Initialised


def byte_size(tensor: LazyTensor) -> int:
    """The bytes that the tensor's content takes."""
    return math.prod(tensor.shape) * BITS[tensor.dtype] // 8


def files(tensors: Iterable[LazyTensor]) -> set[OpenFile]:
    """The open files that the tensors' contents come from."""
    found: set[OpenFile] = set()
    for tensor in tensors:
        if isinstance(tensor, (Stored, Strided)):
            found.add(tensor.file)
        elif isinstance(tensor, Computed):
            found |= files(tensor.inputs)
    return found


def prepare(tensors: Iterable[LazyTensor]) -> None:
    """Imports what the tensors' contents will take, before anything hangs on it. Raises MemoryError where there is no
    room.
    """
    for tensor in tensors:
        if isinstance(tensor, (Strided, Initialised)):
            import_numpy()
        elif isinstance(tensor, Computed):
            prepare(tensor.inputs)


def content(tensor: LazyTensor) -> bytes:
    """The whole content, row-major and little-endian: for small tensors."""
    return b"".join(bytes(chunk) for chunk in chunks(tensor))


def chunks(tensor: LazyTensor) -> Iterator[bytes | memoryview]:
    """The content piece by piece; a piece is valid until the next one is asked for."""
    if isinstance(tensor, Stored):
        yield from tensor.file.chunks(tensor.offset, byte_size(tensor))
    elif isinstance(tensor, Strided):
        yield from _gathered(tensor)
    elif isinstance(tensor, Computed):
        yield from tensor.compute(*(content(source) for source in tensor.inputs))
    else:
        import_numpy()
        from resnet_surgeon.formats.sampling import sample

        yield from sample(tensor.law, math.prod(tensor.shape), tensor.dtype, tensor.seed, tensor.stream)


def pieces(tensor: LazyTensor, size: int) -> Iterator[bytes]:
    """The content in pieces of exactly `size` bytes, but for the last: two tensors of one layout come in step."""
    waiting = bytearray()
    for chunk in chunks(tensor):
        waiting += chunk
        while len(waiting) >= size:
            yield bytes(waiting[:size])
            del waiting[:size]
    if waiting:
        yield bytes(waiting)


def _gathered(tensor: Strided) -> Iterator[bytes]:
    """Row-major content: slice by slice of the first axis where each lies together (channels_last), else at once."""
    if 0 in tensor.shape:
        return
    itemsize = BITS[tensor.dtype] // 8
    rest, stride = tensor.shape[1:], (tensor.strides or (1,))[0]
    slices = tensor.shape[0] if tensor.shape else 1
    span = 1 + sum((size - 1) * step for size, step in zip(rest, tensor.strides[1:], strict=True))
    if span > 2 * math.prod(rest) + 1024:
        rest, slices, span = tensor.shape, 1, span + (slices - 1) * stride
    strides = tensor.strides[len(tensor.strides) - len(rest) :]
    for index in range(slices):
        data = tensor.file.read(tensor.offset + index * stride * itemsize, span * itemsize)
        yield _row_major(data, rest, strides, itemsize, tensor.swapped)


def _row_major(data: bytes, shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int, swapped: bool) -> bytes:
    import_numpy()
    import numpy

    # Elements of 8 bytes are whole numbers here: no ResNet has complex ones, whose halves would be swapped apart.
    elements = numpy.frombuffer(data, f"{'>' if swapped else '<'}u{itemsize}")
    in_bytes = [stride * itemsize for stride in strides]
    strided = numpy.lib.stride_tricks.as_strided(elements, shape, in_bytes, writeable=False)
    return strided.astype(f"<u{itemsize}").tobytes()
