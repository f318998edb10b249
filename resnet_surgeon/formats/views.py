"""From a pickle's description (views over storages) to lazy tensors: each checked, then stored or strided.

Shared by the containers of torch; knows none of them.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from resnet_surgeon.errors import CheckpointError, printable
from resnet_surgeon.formats.arrays import array, embedded, is_embedded
from resnet_surgeon.formats.constructors import KINDS
from resnet_surgeon.formats.files import OpenFile
from resnet_surgeon.formats.modules import ModuleNode, StateDictNode, is_module, rebuilt, visits
from resnet_surgeon.formats.pickled import Global, OddKey, Opaque, Parameter, Span, Storage, View
from resnet_surgeon.formats.tensors import BITS, LARGEST_SIZE, LazyTensor, Stored, Strided
from resnet_surgeon.formats.unpickle import Ledger
from resnet_surgeon.formats.unread import Unread

# A node of what a checkpoint holds: a tensor, a mapping of nodes, plain data, or what was not read.
Node = object

_LONGEST = 10_000  # of a list or tuple that is looked into
_MOST_ARGUMENTS = 10  # of an object that are looked at
_CLOSED = {dict, list, tuple, View, Parameter, Storage, Global, Opaque}  # all else is plain data already


class Tree(NamedTuple):
    """What a pickle describes, and the classes of the modules that were read for it."""

    root: Node
    walked: frozenset[Global]


def tree(
    root: object,
    record: Callable[[Storage], Stored],
    file: OpenFile,
    ledger: Ledger,
    swapped: bool = False,
) -> Tree:
    """`root` with every view made a lazy tensor; `record` gives a storage's bytes, which are big-endian if `swapped`.

    By the `ledger`, state_dicts of which torch noted the modules tell these, and modules the texts of their classes.

    Tensors whose bytes are in the pickle lie in `file`, or in an unnamed temporary one if the pickle has them as text.

    Lists and tuples with more in them than plain data become dicts of their places ("0", "1"), or of the pairs that
    they hold; objects into which items were put, dicts of these; and modules, their state_dicts. Keys that are no text
    or number are passed over; of two that read alike the first counts. What is referred to twice is made once, and may
    lie in itself.

    Raises CheckpointError for a view that reaches outside of its storage.
    """
    made: dict[int, Node] = {}
    walked: set[Global] = set()
    plain: set[int] = set()  # attributes of objects that were looked through, and have no modules among them
    allowed = visits()
    top: dict[Any, Node] = {}
    waiting: deque[tuple[dict[Any, Node], Mapping[Any, object]]] = deque([(top, {"": root})])
    inside: list[tuple[dict[Any, Node], object, View]] = []  # tensors whose bytes were read with the pickle

    encoded: dict[int, bytes] = {}
    storages: dict[int, Storage] = {}

    def over(view: View, closed: Opaque) -> View:
        """The view over the storage in an object, which is read once."""
        if id(closed) not in storages:
            storages[id(closed)] = embedded(closed, file.read)
        return replace(view, storage=storages[id(closed)])

    def node(value: object, where: str) -> Node | View:
        if type(value) is Parameter:
            value = value.data
        if isinstance(value, Opaque):
            value = array(value, encoded) or value
        if isinstance(value, View) and isinstance(value.storage, Opaque):
            value = over(value, value.storage) if is_embedded(value.storage) else value.storage
        if isinstance(value, View):
            return value if _is_inside(value) else tensor(value, where, _placed(value, record, file), swapped)
        if id(value) in made:
            return made[id(value)]
        if isinstance(value, Opaque) and is_module(value):
            module = rebuilt(value, allowed, ledger.sources)
            if module is None:
                return Unread(f"a module of the class {value.kind}, of more layers than any checkpoint has")
            walked.update(module.kinds)
            made[id(value)] = state = ModuleNode(module.layers)
            waiting.append((state.tensors, module.tensors))
            return state
        items = _items(value, plain)
        if items is None:
            if isinstance(value, (list, tuple)):
                made[id(value)] = value  # looked through once, however often the file refers to it
            return _closed(value)
        mapping: dict[Any, Node] = StateDictNode(noted.modules) if (noted := ledger.noted.get(id(value))) else {}
        made[id(value)] = mapping
        waiting.append((mapping, items))
        return mapping

    while waiting:
        mapping, items = waiting.popleft()
        for key, item in items.items():
            name = str(key) if type(key) is int else key
            if type(name) is not OddKey and name not in mapping:
                where = name if type(name) is str else type(name).__name__
                found = node(item, where) if type(item) in _CLOSED else item
                mapping[name] = found
                if isinstance(found, View):
                    inside.append((mapping, name, found))
    spooled = _spooled(inside, file)
    for mapping, name, view in inside:
        mapping[name] = tensor(view, str(name), spooled, swapped)
    return Tree(top[""], frozenset(walked))


def _is_inside(view: View) -> bool:
    return isinstance(_content(view), bytes)


def _placed(view: View, record: Callable[[Storage], Stored], file: OpenFile) -> Callable[[Storage], Stored]:
    """What gives the storage's bytes, if these are not in memory."""
    content = _content(view)
    if not isinstance(content, Span):
        return record
    return lambda storage: Stored(storage.dtype, (storage.count,), file, content.offset)


def _spooled(inside: list[tuple[dict[Any, Node], object, View]], file: OpenFile) -> Callable[[Storage], Stored]:
    """What gives storages of which the bytes are in memory: all are put into one unnamed temporary file."""
    contents = {id(content): content for *_, view in inside if isinstance(content := _content(view), bytes)}
    offsets = dict(zip(contents, itertools.accumulate(map(len, contents.values()), initial=0), strict=False))
    spool = OpenFile.spooled(iter(contents.values()), file.name) if contents else file
    return lambda storage: Stored(storage.dtype, (storage.count,), spool, offsets[id(storage.content)])


def _content(view: View) -> bytes | Span | None:
    return view.storage.content if isinstance(view.storage, Storage) else None


def _items(value: object, plain: set[int]) -> dict[object, object] | None:
    """What lies in a dict, a list, a tuple or an object that items were put into, by key; the modules of an object;
    None for plain data.
    """
    if isinstance(value, Opaque):
        value = value.held if value.held is not None else _modules_of(value, plain)
    if isinstance(value, dict):
        return value
    if not isinstance(value, (list, tuple)) or len(value) > _LONGEST or _CLOSED.isdisjoint(map(type, value)):
        return None
    if all(type(pair) in (list, tuple) and len(pair) == 2 and type(pair[0]) is str for pair in value):
        return dict(value)
    return {str(place): item for place, item in enumerate(value)}


def _modules_of(value: Opaque, plain: set[int]) -> dict[Any, object] | None:
    """The modules that an object was made of or has as attributes, such as the one that `torch.compile` wraps."""
    attributes = value.state if isinstance(value.state, dict) and id(value.state) not in plain else {}
    found = {name: item for name, item in attributes.items() if is_module(item)}
    if not found:
        plain.add(id(value.state))
    made_of = enumerate(value.arguments[:_MOST_ARGUMENTS])
    return {**found, **{str(place): item for place, item in made_of if is_module(item)}} or None


def _closed(value: object) -> Node:
    """Plain data as it is; of anything else, what it was."""
    if type(value) is Opaque:
        kind = KINDS.get(value.kind.name) if value.kind.module.startswith("torch.") else None
        return Unread(kind or f"an object of the class {value.kind}")
    if type(value) is Global and value.module == "torch" and value.name.startswith(("qint", "quint")):
        return Unread(f"quantised ({value})")
    if type(value) is Global:
        return Unread(f"the class or function {value}")
    if type(value) is Storage:
        return Unread("a storage without a tensor")
    return Unread("a parameter without a tensor") if type(value) is Parameter else value


def tensor(view: View, name: str, record: Callable[[Storage], Stored], swapped: bool = False) -> LazyTensor | Unread:
    """The tensor that `view` describes, once its numbers are checked: stored where it is contiguous, else strided.

    Unread for a dtype that safetensors has not, and for strides that overlap. Raises CheckpointError for what reaches
    outside of its storage.
    """
    storage = view.storage
    assert isinstance(storage, Storage)
    swapped = storage.swapped if storage.content is not None else swapped
    first, count = storage.part or (0, storage.count)
    if max((*view.shape, *view.strides), default=0) > LARGEST_SIZE:
        raise CheckpointError(f"tensor {printable(name)} has larger dimensions than torch supports")
    if (
        min((first, count, view.offset, *view.shape, *view.strides)) < 0
        or len(view.shape) != len(view.strides)
        or first + count > storage.count
    ):
        raise CheckpointError(f"tensor {printable(name)} reaches outside of its storage of {storage.count} numbers")
    if 0 not in view.shape and _last_element(view) >= count:
        raise CheckpointError(f"tensor {printable(name)} reaches outside of its storage of {storage.count} numbers")
    if storage.dtype not in BITS:
        return Unread(f"a tensor of {storage.dtype}, which the safetensors format does not have")
    is_contiguous = _is_contiguous(view)
    if not is_contiguous and _overlaps(view):
        return Unread(
            "a tensor with overlapping strides, whose numbers share or interleave places in its storage",
            "save it with `.contiguous()`",
        )
    whole = record(storage)
    offset = first + view.offset
    if is_contiguous and (not swapped or storage.itemsize == 1):
        return Stored(storage.dtype, view.shape, whole.file, whole.offset + offset * storage.itemsize)
    return Strided(
        storage.dtype, view.shape, whole.file, whole.offset + offset * storage.itemsize, view.strides, swapped
    )


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
