"""Tensors whose bytes are in the pickle itself: numpy's arrays, and storages of torch that `pickle.dump` wrote.

Reads their descriptions, imports no numpy. Knows nothing of where the pickle lies.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

from resnet_surgeon.errors import CheckpointError
from resnet_surgeon.formats import numpy_dtypes
from resnet_surgeon.formats.pickled import Opaque, Span, Storage, View
from resnet_surgeon.formats.tensors import BITS
from resnet_surgeon.formats.unpickle import Ledger, Pickles

_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
_LONGEST_HEADER = 4096  # bytes before a storage's own


def array(value: Opaque, encoded: dict[int, bytes]) -> View | None:
    """The tensor that an object of numpy describes: an array (of protocol 5 and of joblib too) or a number. None for
    any other, and for arrays of other things than numbers.

    `encoded` keeps the bytes that texts of Python 2 stood for, by the texts' ids. As `numpy.ndarray.__reduce__`,
    `numpy.core.numeric._frombuffer` and `numpy.core.multiarray.scalar` write them.
    """
    parts: tuple[object, object, object, bool] | None = None
    if value.kind == numpy_dtypes.WRAPPER and isinstance(value.state, dict) and len(value.arguments) == 1:
        shape, order = value.state.get("shape"), value.state.get("order")
        parts = (value.arguments[0], value.state.get("dtype"), shape, type(order) is str and order == "F")
    elif not value.kind.module.startswith("numpy."):
        return None
    elif value.kind.name == "_reconstruct" and isinstance(value.state, tuple) and len(value.state) == 5:
        _, shape, dtype, fortran, content = value.state
        parts = (content, dtype, shape, fortran is True)
    elif value.kind.name == "_frombuffer" and len(value.arguments) == 4:
        content, dtype, shape, order = value.arguments
        parts = (content, dtype, shape, type(order) is str and order == "F")
    elif value.kind.name == "scalar" and len(value.arguments) == 2:
        dtype, content = value.arguments
        parts = (content, dtype, (), False)
    return _view(*parts, encoded) if parts else None


def _view(content: object, dtype: object, shape: object, fortran: bool, encoded: dict[int, bytes]) -> View | None:
    found = numpy_dtypes.dtype(dtype)
    if found is None or type(shape) is not tuple or not numpy_dtypes.is_shape(shape):
        return None
    name, swapped = found
    count = math.prod(shape)
    size = count * BITS[name] // 8
    if type(content) is str:
        content = encoded.setdefault(id(content), encoded.get(id(content)) or _bytes_of_python_2(content, size))
    if not isinstance(content, (bytes, Span)) or len(content) != size:
        return None
    sizes = shape if fortran else shape[::-1]
    steps = [*itertools.accumulate((1, *sizes[:-1]), int.__mul__)] if shape else []
    strides = tuple(steps if fortran else steps[::-1])
    return View(Storage(name, "", count, content=content, swapped=swapped), 0, shape, strides)


def _bytes_of_python_2(text: str, size: int) -> bytes:
    """What text was before it was decoded: as UTF-8 where that was possible, which shows by the length; or latin-1."""
    return text.encode("latin-1") if len(text) == size and max(text, default="") <= "\xff" else text.encode("utf-8")


def is_embedded(value: object) -> bool:
    """Whether an object that stayed closed is a storage of torch with its bytes."""
    return (
        isinstance(value, Opaque)
        and value.kind.qualified == "torch.storage._load_from_bytes"
        and len(value.arguments) == 1
        and isinstance(value.arguments[0], (bytes, Span))
    )


def embedded(value: Opaque, read: Callable[[int, int], bytes]) -> Storage:
    """The storage in what `torch.storage._load_from_bytes` is given: a file of stacked pickles, of one storage.

    `read` gives bytes of the file in which a Span lies. Raises CheckpointError for anything else.
    """
    content = value.arguments[0]
    assert isinstance(content, (bytes, Span))
    begin = content.offset if isinstance(content, Span) else 0
    source = read if isinstance(content, Span) else lambda offset, size: content[offset : offset + size]
    pickles = Pickles(source, begin, begin + min(len(content), _LONGEST_HEADER), Ledger())
    if pickles.next() != _MAGIC_NUMBER:
        raise CheckpointError("a storage in its pickle is damaged")
    pickles.next()
    pickles.next()
    storage, keys = pickles.next(), pickles.next()
    if not isinstance(storage, Storage) or type(keys) is not list or keys != [storage.key]:
        raise CheckpointError("a storage in its pickle is damaged")
    start = pickles.position - begin + 8  # behind the number of elements
    size = storage.count * storage.itemsize
    if int.from_bytes(pickles.take(8), "little", signed=True) != storage.count or start + size != len(content):
        raise CheckpointError("a storage in its pickle has another length than it says")
    inner = Span(begin + start, size) if isinstance(content, Span) else content[start:]
    return Storage(storage.dtype, "", storage.count, storage.part, content=inner)
