"""What `torch.save` wrote in 2016 and 2017: a tar archive of pickles and storages, which torch itself refuses today.

The first published `resnet18-5c106cde.pth` and `resnet50-19c8e357.pth` still circulate in it. Read in place, never
unpacked. Knows nothing of networks.
"""

from __future__ import annotations

import struct
import tarfile
from collections.abc import Iterator
from typing import NoReturn

from resnet_surgeon.errors import CheckpointError, printable
from resnet_surgeon.formats import tar_members
from resnet_surgeon.formats.constructors import storage_dtype
from resnet_surgeon.formats.container import Container
from resnet_surgeon.formats.files import OpenFile
from resnet_surgeon.formats.pickled import Global, Storage, View, is_key
from resnet_surgeon.formats.tensors import MOST_DIMENSIONS, Stored
from resnet_surgeon.formats.torch_legacy import check_system
from resnet_surgeon.formats.unpickle import Ledger, Pickles
from resnet_surgeon.formats.views import tree

_PARTS = ("sys_info", "pickle", "storages", "tensors")
_MOST_MEMBERS = 16  # torch wrote four, and perhaps their folder
_MOST_ENTRIES = 100_000  # tensors or storages


def read(file: OpenFile) -> Container:
    """What the archive holds. Its members are `sys_info`, `storages`, `tensors` (views of them) and `pickle`.

    Raises CheckpointError for archives with other members, and for damage of any kind.
    """
    ledger = Ledger()
    parts = _parts(file, ledger)
    check_system(parts["sys_info"].next())
    try:
        storages, places = _storages(parts["storages"])
        tensors = _tensors(parts["tensors"], storages)
    except (TypeError, ValueError):
        raise CheckpointError("its tensors or storages are damaged") from None

    def resolve(identity: object) -> View | Global:
        # The pickle names a tensor by text, the list of tensors by a number; a class with its file and its source.
        if type(identity) is tuple and len(identity) == 3 and type(identity[0]) is Global:
            return ledger.take_source(identity[0], identity[2])
        number = identity if type(identity) is int else _number(identity)
        found = None if number is None else tensors.get(number)
        if found is None:
            name = identity if isinstance(identity, str) else "it refers to"
            raise CheckpointError(f"it is incomplete: the tensor {printable(name)} is missing")
        return found

    root = parts["pickle"].next(resolve)

    def record(storage: Storage) -> Stored:
        return Stored(storage.dtype, (storage.count,), file, places[storage.key])

    found = tree(root, record, file, ledger)
    return Container("torch_tar", file, found.root, not_loaded=ledger.not_loaded(found.walked))


def _number(text: object) -> int | None:
    return int(text) if isinstance(text, str) and len(text) < 30 and text.lstrip("-").isdecimal() else None


def _parts(file: OpenFile, ledger: Ledger) -> dict[str, Pickles]:
    """Each member as a stretch of the file."""

    def refuse(reason: str) -> NoReturn:
        raise CheckpointError(f"its tar archive {reason}")

    parts: dict[str, Pickles] = {}
    for count, member in enumerate(tar_members.members(file)):
        if count == _MOST_MEMBERS:
            refuse(f"has more than {_MOST_MEMBERS} members")
        name = member.name.removeprefix("./")
        if name in ("", "."):
            continue
        if name not in _PARTS or member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
            refuse(f"holds {printable(member.name)}, which torch never wrote")
        if name in parts:
            refuse(f"holds {name} twice")
        if not 0 <= member.size <= file.size - member.offset_data:
            refuse(f"is truncated in {name}")
        parts[name] = Pickles(file.read, member.offset_data, member.offset_data + member.size, ledger)
    for name in _PARTS:
        if name not in parts:
            refuse(f"lacks {name}")
    return parts


def _entries(pickles: Pickles) -> Iterator[tuple[int, object, object]]:
    """A number, and then so many triples, each with a key of its own; what lies behind each is for the caller to take.

    Keys are numbers: whatever else a file has there may take for ever to hash or to print.
    """
    seen = set()
    count = pickles.next()
    if type(count) is not int or not 0 <= count <= _MOST_ENTRIES:
        raise TypeError
    for _ in range(count):
        entry = pickles.next()
        if type(entry) is not tuple or len(entry) != 3 or not _is_key(entry[0]) or entry[0] in seen:
            raise TypeError
        seen.add(entry[0])
        yield entry


def _is_key(number: object) -> bool:
    return type(number) is int and is_key(number)


def _storages(pickles: Pickles) -> tuple[dict[int, Storage], dict[str, int]]:
    """The storages, and the views of them that count as storages too, by key; and where each one's bytes begin."""
    storages: dict[int, Storage] = {}
    places: dict[str, int] = {}
    for key, _, kind in _entries(pickles):
        count = int.from_bytes(pickles.take(8), "little", signed=True)
        storages[key] = storage = Storage(storage_dtype(kind), str(key), count)
        places[storage.key] = pickles.position
        pickles.skip(count * storage.itemsize)
    views = pickles.next()
    if type(views) is not list:
        raise TypeError
    for view in views:
        key, root_key, first, count = view
        if not all(map(_is_key, view)) or root_key not in storages:
            raise TypeError
        root = storages[root_key]
        storages[key] = Storage(root.dtype, root.key, root.count, (first, count))
    return storages, places


def _tensors(pickles: Pickles, storages: dict[int, Storage]) -> dict[int, View]:
    """Key -> view. Each is (key, storage's key, type) and then ndim, four bytes of noise, sizes, strides, offset."""
    tensors: dict[int, View] = {}
    for key, storage_key, _ in _entries(pickles):
        storage = storages.get(storage_key) if type(storage_key) is int else None
        dimensions = int.from_bytes(pickles.take(4), "little", signed=True)
        pickles.take(4)
        if storage is None or not 0 <= dimensions <= MOST_DIMENSIONS:
            raise TypeError
        numbers = struct.unpack(f"<{2 * dimensions + 1}q", pickles.take(8 * (2 * dimensions + 1)))
        tensors[key] = View(storage, numbers[-1], numbers[:dimensions], numbers[dimensions:-1])
    return tensors
