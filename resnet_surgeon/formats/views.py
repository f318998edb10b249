"""From a torch pickle's description (views over storages) to lazy tensors: each checked, then stored or strided.

Shared by the containers of torch; knows none of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from resnet_surgeon.errors import CheckpointError, printable
from resnet_surgeon.formats.tensors import BITS, LARGEST_SIZE, LazyTensor, Stored, Strided
from resnet_surgeon.formats.unpickle import Global, Opaque, Parameter, Storage, View

# A node of what a checkpoint holds: a tensor, a mapping of nodes, or plain data.
Node = object

_DEEPEST = 20  # levels of nested dicts
_DESCRIPTIONS = {dict, View, Parameter, Storage, Global, Opaque}  # all else is plain data already


def tree(root: object, record: Callable[[Storage], Stored], swapped: bool = False) -> Node:
    """`root` with every view made a lazy tensor; `record` gives a storage's bytes, which are big-endian if `swapped`.

    Raises CheckpointError for a view that reaches outside of its storage.
    """
    made: dict[int, Node] = {}

    def node(value: object, depth: int, where: str) -> Node:
        if depth > _DEEPEST:
            raise CheckpointError("it is nested too deeply")
        if isinstance(value, Parameter):
            value = value.data
        if isinstance(value, View):
            return tensor(value, where, record, swapped)
        if isinstance(value, Storage | Global | Opaque):
            return None
        if type(value) is not dict:
            return value
        # What is referred to twice is made once, whatever a hostile file weaves.
        if id(value) not in made:
            made[id(value)] = {}
            made[id(value)] = {
                key: node(item, depth + 1, key if type(key) is str else type(key).__name__)
                if type(item) in _DESCRIPTIONS
                else item
                for key, item in value.items()
            }
        return made[id(value)]

    return node(root, 0, "")


def tensor(view: View, name: str, record: Callable[[Storage], Stored], swapped: bool) -> LazyTensor:
    """The tensor that `view` describes, once its numbers are checked: stored where it is contiguous, else strided."""
    storage = view.storage
    first, count = storage.part or (0, storage.count)
    if max((*view.shape, *view.strides), default=0) > LARGEST_SIZE:
        raise CheckpointError(f"tensor {printable(name)} has larger dimensions than torch knows")
    if (
        min((first, count, view.offset, *view.shape, *view.strides)) < 0
        or len(view.shape) != len(view.strides)
        or first + count > storage.count
        or math.prod(view.shape) > count
        or (0 not in view.shape and _last_element(view) >= count)
    ):
        raise CheckpointError(f"tensor {printable(name)} reaches outside of its storage of {storage.count} numbers")
    if 0 not in view.shape and _overlaps(view):
        raise CheckpointError(
            f"tensor {printable(name)} has strides that overlap: it takes numbers of its storage twice, or in a weave",
            hint="save it with `.contiguous()`",
        )
    whole = record(storage)
    itemsize = BITS[storage.dtype] // 8
    offset = first + view.offset
    if _is_contiguous(view) and (not swapped or itemsize == 1):
        return Stored(storage.dtype, view.shape, whole.file, whole.offset + offset * itemsize)
    return Strided(storage.dtype, view.shape, whole.file, whole.offset + offset * itemsize, view.strides, swapped)


def _last_element(view: View) -> int:
    return view.offset + sum((size - 1) * stride for size, stride in zip(view.shape, view.strides, strict=True))


def _overlaps(view: View) -> bool:
    """Whether the elements along one axis reach beyond the next element along another."""
    reach = 0
    for stride, size in sorted(zip(view.strides, view.shape, strict=True)):
        if size > 1 and stride <= reach:
            return True
        reach += (size - 1) * stride
    return False


def _is_contiguous(view: View) -> bool:
    expected = 1
    for size, stride in zip(reversed(view.shape), reversed(view.strides), strict=True):
        if size != 1 and stride != expected:
            return 0 in view.shape
        expected *= size
    return True
