"""The lazy tensor: Stored in an open file (or there but Strided, or Joined of pieces), Computed from others, or
Initialised by law and seed.

Nothing is read or computed until somebody asks for the content. Knows no names, no networks and no container.
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from resnet_surgeon.arithmetic.evaluation import evaluate, needs_numpy
from resnet_surgeon.arithmetic.formulas import Formula
from resnet_surgeon.arithmetic.laws import Law
from resnet_surgeon.arithmetic.operand import Operand
from resnet_surgeon.arithmetic.philox import FEW, few, is_few
from resnet_surgeon.dataclass import dataclass
from resnet_surgeon.errors import CheckpointError
from resnet_surgeon.formats.files import CHUNK, OpenFile, TiedToFile
from resnet_surgeon.formats.memory import import_numpy

if TYPE_CHECKING:
    import numpy

    Elements = numpy.ndarray[Any, numpy.dtype[Any]]

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
class Joined(TiedToFile):
    """A tensor in several pieces, one after the other along an axis; each may be in pieces along another one."""

    dtype: str
    shape: tuple[int, ...]
    parts: tuple[Stored | Strided | Joined, ...]
    axis: int = 0


@dataclass(frozen=True, eq=False)
class Computed(TiedToFile):
    """A tensor worked out from others, by a formula that takes them."""

    dtype: str
    shape: tuple[int, ...]
    inputs: tuple[LazyTensor, ...]
    formula: Formula


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


@dataclass(frozen=True, eq=False)
class Trained(TiedToFile):
    """What training made of the tensor `began`: `numbers`, if they are here, since nobody can work them out again."""

    dtype: str
    shape: tuple[int, ...]
    began: LazyTensor
    numbers: memoryview | None = None


LazyTensor = Stored | Strided | Joined | Computed | Initialised | Trained


def byte_size(tensor: LazyTensor) -> int:
    """The bytes that the tensor's content takes."""
    return math.prod(tensor.shape) * BITS[tensor.dtype] // 8


def origins(tensor: LazyTensor) -> Iterator[Stored | Strided]:
    """What in open files the tensor's content is, or comes from."""
    if isinstance(tensor, (Stored, Strided)):
        yield tensor
    elif isinstance(tensor, (Computed, Joined)):
        for part in tensor.inputs if isinstance(tensor, Computed) else tensor.parts:
            yield from origins(part)


def files(tensors: Iterable[LazyTensor]) -> set[OpenFile]:
    """The open files that the tensors' contents come from."""
    return {origin.file for tensor in tensors for origin in origins(tensor)}


def is_known(tensor: LazyTensor) -> bool:
    """Whether its content can be had: not if training made it what it is, elsewhere."""
    if isinstance(tensor, Computed):
        return all(map(is_known, tensor.inputs))
    return not isinstance(tensor, Trained) or tensor.numbers is not None


def operand(tensor: LazyTensor) -> Operand:
    """The tensor as arithmetic takes it."""
    return Operand(tensor.dtype, tensor.shape, functools.partial(pieces, tensor))


def prepare(tensors: Iterable[LazyTensor]) -> None:
    """Imports what the tensors' contents will take, before anything hangs on it. Raises MemoryError where there is no
    room.
    """
    wanted = [*tensors]
    drawn = sum(math.prod(tensor.shape) for tensor in wanted if isinstance(tensor, Initialised) and _is_few(tensor))
    if drawn > FEW or any(map(_takes_numpy, wanted)):
        import_numpy()


def _takes_numpy(tensor: LazyTensor) -> bool:
    if isinstance(tensor, Computed):
        return needs_numpy(tensor.formula) or any(map(_takes_numpy, tensor.inputs))
    if isinstance(tensor, Joined):
        return any(map(_takes_numpy, tensor.parts))
    return isinstance(tensor, Strided) or (isinstance(tensor, Initialised) and not _is_few(tensor))


def _is_few(tensor: Initialised) -> bool:
    return is_few(tensor.law, math.prod(tensor.shape), tensor.dtype)


def content(tensor: LazyTensor) -> bytes:
    """The whole content, row-major and little-endian: for small tensors."""
    return b"".join(bytes(chunk) for chunk in chunks(tensor))


def chunks(tensor: LazyTensor) -> Iterator[bytes | memoryview]:
    """The content piece by piece; a piece is valid until the next one is asked for."""
    if isinstance(tensor, Stored):
        yield from tensor.file.chunks(tensor.offset, byte_size(tensor))
    elif isinstance(tensor, Strided):
        yield from _gathered(tensor)
    elif isinstance(tensor, Joined):
        yield from _joined(tensor)
    elif isinstance(tensor, Computed):
        if needs_numpy(tensor.formula):
            import_numpy()
        yield from evaluate(tensor.formula, tensor.dtype, tensor.shape, [*map(operand, tensor.inputs)])
    elif isinstance(tensor, Trained):
        if tensor.numbers is None:
            raise CheckpointError("trained tensors cannot be recomputed: give the file that holds them")
        for start in range(0, len(tensor.numbers), CHUNK):
            yield tensor.numbers[start : start + CHUNK]
    else:
        yield from _drawn(tensor)


def _drawn(tensor: Initialised) -> Iterator[bytes]:
    """The numbers are the same whoever draws them."""
    count = math.prod(tensor.shape)
    if is_few(tensor.law, count, tensor.dtype) and "numpy" not in sys.modules:
        yield few(tensor.law, count, tensor.dtype, tensor.seed, tensor.stream)
        return
    import_numpy()
    from resnet_surgeon.arithmetic.sampling import sample

    yield from sample(tensor.law, count, tensor.dtype, tensor.seed, tensor.stream)


def _joined(tensor: Joined) -> Iterator[bytes | memoryview]:
    """The pieces' content; along another axis than the first in turns, a run of each."""
    if tensor.axis == 0:
        for part in tensor.parts:
            yield from chunks(part)
        return
    turns = math.prod(tensor.shape[: tensor.axis])
    filled = [part for part in tensor.parts if byte_size(part)]
    runs = [pieces(part, byte_size(part) // turns) for part in filled]
    made = bytearray()
    for _ in range(turns if filled else 0):
        for run in runs:
            made += next(run)
        if len(made) >= CHUNK:
            yield bytes(made)
            made.clear()
    yield bytes(made)


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


_PART = 1 << 21  # bytes of content that are gathered at once
_MOST_PARTS = 64  # of a tensor that is larger than so many: each may have to read all that lies between its elements
_GAP = 1 << 13  # bytes that take longer to skip than to read
_WINDOW = 1 << 20  # bytes that are read at once, of which few may be wanted


def _gathered(tensor: Strided) -> Iterator[memoryview]:
    """Row-major content, in parts that are each read in the order of the file.

    Memory is twice a part. A part takes a read for each gap or window between its first and its last byte at most,
    since `views` admits only strides that set neighbours apart.
    """
    if 0 in tensor.shape:
        return
    itemsize = BITS[tensor.dtype] // 8
    whole, in_bytes = tensor.shape, tuple(stride * itemsize for stride in tensor.strides)
    if tensor.dtype == "C64":  # two numbers, each with a byte order of its own
        itemsize //= 2
        whole, in_bytes = (*whole, 2), (*in_bytes, itemsize)
    most = max(_PART, byte_size(tensor) // _MOST_PARTS) // itemsize
    kind = f"{'>' if tensor.swapped else '<'}u{itemsize}"
    for offset, shape, strides in _parts(tensor.offset, whole, in_bytes, most):
        yield _row_major(tensor.file, offset, shape, strides, kind)


def _parts(
    offset: int, shape: tuple[int, ...], strides: tuple[int, ...], most: int
) -> Iterator[tuple[int, tuple[int, ...], tuple[int, ...]]]:
    """Neighbouring rows of at most `most` elements: where each part begins, and its shape and strides."""
    row = math.prod(shape[1:])
    if not shape:
        yield offset, shape, strides
    elif row > most:
        for index in range(shape[0]):
            yield from _parts(offset + index * strides[0], shape[1:], strides[1:], most)
    else:
        for first in range(0, shape[0], most // row):
            rows = min(most // row, shape[0] - first)
            yield offset + first * strides[0], (rows, *shape[1:]), strides


def _row_major(file: OpenFile, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], kind: str) -> memoryview:
    import_numpy()
    import numpy

    order = sorted(range(len(shape)), key=lambda axis: -strides[axis])
    gathered = numpy.empty([shape[axis] for axis in order], kind)
    _fill(gathered, file, offset, [strides[axis] for axis in order])
    in_order = gathered.transpose(numpy.argsort(order)).astype(kind.replace(">", "<"), order="C", copy=False)
    return memoryview(in_order.reshape(-1).view("u1"))


def _fill(target: Elements, file: OpenFile, offset: int, strides: Sequence[int]) -> None:
    """Reads the elements from `offset` with these strides, in bytes and descending: what lies together directly, what
    lies near each other through a window, the rest one after the other.
    """
    import numpy

    while target.ndim and len(target) == 1:
        target, strides = target[0:1].reshape(target.shape[1:]), strides[1:]
    if tuple(strides) == target.strides:
        file.read_into(offset, target.reshape(-1).view("u1").data)
        return
    inner = target.itemsize + sum((size - 1) * step for size, step in zip(target.shape[1:], strides[1:], strict=True))
    if inner > _WINDOW or strides[0] - inner > _GAP:
        for index in range(len(target)):
            _fill(target[index : index + 1].reshape(target.shape[1:]), file, offset + index * strides[0], strides[1:])
        return
    count = max(1, _WINDOW // strides[0])
    for first in range(0, len(target), count):
        part = target[first : first + count]
        window = file.read(offset + first * strides[0], (len(part) - 1) * strides[0] + inner)
        part[...] = numpy.ndarray(part.shape, target.dtype, window, 0, strides)
