"""What `torch.distributed.checkpoint` saves: `.metadata`, a pickle of what there is and where each piece of it lies,
and beside it files of pieces, each of which is an archive as torch.save writes it.

Read in place, from files of that folder alone. Knows nothing of networks.
"""

from __future__ import annotations

import itertools
import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from resnet_surgeon.dataclass import dataclass
from resnet_surgeon.errors import CheckpointError, printable
from resnet_surgeon.formats import zip_directory
from resnet_surgeon.formats.constructors import DTYPES
from resnet_surgeon.formats.container import Checksum, Container
from resnet_surgeon.formats.files import OpenFile
from resnet_surgeon.formats.pickled import Global, OddKey, Opaque, Storage, View
from resnet_surgeon.formats.tensors import Joined, LazyTensor, Stored, Strided
from resnet_surgeon.formats.unpickle import Ledger, unpickle
from resnet_surgeon.formats.unread import Unread
from resnet_surgeon.formats.views import tensor

_CLASS = "torch.distributed.checkpoint.metadata.Metadata"
_MOST_FILES = 1000  # one for each process that saved
_LARGEST_PICKLE = 1 << 16  # bytes of that of one tensor
_MOST_PIECES = 10_000  # of a tensor
_MOST_CUTS = 8  # in each other, of a tensor into slabs
_LONGEST_PATH = 64  # keys on the way to an item
_HINT = "python -m torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER model.pth"


def is_metadata(root: object) -> bool:
    """Whether a pickle is the `.metadata` of such a folder."""
    return isinstance(root, Opaque) and root.kind.qualified == _CLASS


class _Place(NamedTuple):
    """Where a piece lies: a file's name, and its bytes there."""

    name: str
    offset: int
    size: int


class _Piece(NamedTuple):
    """Rows of a tensor along its axes: where they begin, and how many there are."""

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]


@dataclass(frozen=True)
class _Window:
    """A part of a file, for what reads a file of its own."""

    file: OpenFile
    begin: int
    size: int

    def read(self, offset: int, size: int) -> bytes:
        if not 0 <= offset <= offset + size <= self.size:
            raise CheckpointError("a piece of it is truncated")
        return self.file.read(self.begin + offset, size)


def read(root: object, file: OpenFile, ledger: Ledger) -> Container:
    """The tensors that `root`, the object in `file`, describes, under the keys of the state_dict that was saved.

    Raises CheckpointError for damage, for pieces that lie elsewhere than in the folder, and if there is no folder;
    AccessError if a file is missing.
    """
    if file.folder is None:
        raise CheckpointError("it is the `.metadata` of a folder, and came alone", hint="give the path of the folder")
    parts = _fields(root)
    items, paths = parts.get("state_dict_metadata"), parts.get("planner_data")
    if not isinstance(items, dict):
        raise _damaged()
    places = dict(_places(parts.get("storage_data")))
    names = sorted({place.name for place in places.values()})
    if len(names) > _MOST_FILES:
        raise CheckpointError(f"its pieces lie in {len(names)} files")
    files = {name: OpenFile.at(file.folder / name) for name in names}
    _check_apart([*places.values()], files)
    checksums: list[Checksum] = []
    made: dict[object, object] = {}
    for name, item in items.items():
        if type(name) is not str:
            continue
        whole = _item(name, item, places, files, ledger, checksums)
        _enter(made, paths.get(name) if isinstance(paths, dict) else None, name, whole)
    return Container("torch_distributed", file, made, checksums=tuple(checksums), others=tuple(files.values()))


def _fields(value: object, default: object = None) -> dict[object, object]:
    """The attributes of one of the format's dataclasses."""
    state = value.state if isinstance(value, Opaque) else default
    if not isinstance(state, dict):
        raise _damaged()
    return state


def _damaged() -> CheckpointError:
    return CheckpointError("its `.metadata` is damaged, or of a version that is not read", hint=_HINT)


def _places(data: object) -> Iterator[tuple[tuple[object, ...], _Place]]:
    """Where each piece lies, by its tensor's name and where it begins in that."""
    if not isinstance(data, dict):
        raise _damaged()
    for key, info in data.items():
        index, place = _fields(key.value if isinstance(key, OddKey) else key), _fields(info)
        name, offset, size = (place.get(field) for field in ("relative_path", "offset", "length"))
        if type(name) is not str or type(offset) is not int or type(size) is not int or offset < 0 or size < 0:
            raise _damaged()
        if Path(name).name != name or name in ("", "..") or re.search(r"[\\\0]", name):
            raise CheckpointError(f"a piece of it lies in {printable(name)}, which is not a file beside it")
        if type(index.get("fqn")) is not str or not _is_sizes(index.get("offset") or ()):
            raise _damaged()
        if place.get("transform_descriptors"):
            raise CheckpointError("its pieces were transformed when they were saved", hint=_HINT)
        yield (index["fqn"], index.get("offset") or ()), _Place(name, offset, size)


def _is_sizes(value: object) -> bool:
    return type(value) is tuple and all(type(size) is int and 0 <= size < 1 << 63 for size in value)


def _check_apart(places: list[_Place], files: dict[str, OpenFile]) -> None:
    """Raises CheckpointError for pieces that overlap, or reach beyond their file's end."""
    for place in places:
        if place.offset + place.size > files[place.name].size:
            raise CheckpointError("it is truncated", subject=files[place.name].name)
    for one, other in itertools.pairwise(sorted(places)):
        if one.name == other.name and one.offset + one.size > other.offset:
            raise CheckpointError(f"pieces of it overlap in {printable(one.name)}")


def _item(
    name: str,
    item: object,
    places: dict[tuple[object, ...], _Place],
    files: dict[str, OpenFile],
    ledger: Ledger,
    checksums: list[Checksum],
) -> LazyTensor | Unread:
    if not isinstance(item, Opaque) or item.kind.name != "TensorStorageMetadata":
        return Unread("an object that torch.distributed.checkpoint saved")
    state = _fields(item)
    shape, pieces = state.get("size"), _pieces(state.get("chunks"))
    if type(shape) is not tuple or not _is_sizes(shape):
        raise _damaged()
    parts = []
    for piece in pieces:
        place = places.get((name, piece.offsets)) or (places.get((name, ())) if len(pieces) == 1 else None)
        if place is None:
            raise CheckpointError(f"it is incomplete: a piece of {printable(name)} is missing")
        part = _part(name, files[place.name], place, ledger, checksums)
        if not isinstance(part, Stored | Strided):
            return part if isinstance(part, Unread) else Unread("a tensor of pieces")
        if part.shape != piece.sizes:
            raise CheckpointError(f"a piece of {printable(name)} has another shape than its `.metadata` says")
        parts.append(part)
    if len({part.dtype for part in parts}) != 1 or parts[0].dtype != _dtype(state.get("properties")):
        raise CheckpointError(f"pieces of {printable(name)} have another dtype than its `.metadata` says")
    whole = _Piece((0,) * len(shape), shape)
    if len(pieces) > _MOST_PIECES or any(len(piece.offsets) != len(shape) for piece in pieces):
        raise _damaged()
    joined = _joined(whole, [*zip(pieces, parts, strict=True)], _MOST_CUTS)
    return joined or Unread("a tensor whose pieces do not lie in a grid, or are not all of it", _HINT)


def _joined(
    whole: _Piece, pieces: Sequence[tuple[_Piece, Stored | Strided]], cuts: int
) -> Stored | Strided | Joined | None:
    """The part of a tensor that `whole` is: one piece, or slabs along the first axis on which no piece lies across
    where two of them meet. None if there are none, or if pieces leave gaps or overlap.
    """
    if [piece for piece, _ in pieces] == [whole]:
        return pieces[0][1]
    for axis, (offset, size) in enumerate(zip(*whole, strict=True)):
        slabs = _slabs(pieces, axis)
        if len(slabs) < 2 or not cuts:
            continue
        made: list[Stored | Strided | Joined] = []
        begins = [min(piece.offsets[axis] for piece, _ in slab) for slab in slabs]
        ends = [*begins[1:], offset + size]
        if begins[0] != offset:
            return None
        for slab, begin, end in zip(slabs, begins, ends, strict=True):
            part = _joined(
                _Piece(_with(whole.offsets, axis, begin), _with(whole.sizes, axis, end - begin)), slab, cuts - 1
            )
            if part is None:
                return None
            made.append(part)
        return Joined(made[0].dtype, whole.sizes, tuple(made), axis)
    return None


def _slabs(pieces: Sequence[tuple[_Piece, Stored | Strided]], axis: int) -> list[list[tuple[_Piece, Stored | Strided]]]:
    """The pieces between planes across an axis that no piece lies across, in their order."""
    slabs: list[list[tuple[_Piece, Stored | Strided]]] = []
    reached = -1
    for pair in sorted(pieces, key=lambda pair: pair[0].offsets[axis]):
        offset, size = pair[0].offsets[axis], pair[0].sizes[axis]
        if offset >= reached:
            slabs.append([])
        slabs[-1].append(pair)
        reached = max(reached, offset + size)
    return slabs


def _with(numbers: tuple[int, ...], axis: int, number: int) -> tuple[int, ...]:
    return (*numbers[:axis], number, *numbers[axis + 1 :])


def _pieces(chunks: object) -> list[_Piece]:
    """In the order of their rows; empty ones are passed over where there are others."""
    if type(chunks) is not list or not chunks:
        raise _damaged()
    found = []
    for chunk in chunks:
        state = _fields(chunk)
        offsets, sizes = state.get("offsets"), state.get("sizes")
        if not isinstance(offsets, tuple) or not isinstance(sizes, tuple) or not _is_sizes(offsets + sizes):
            raise _damaged()
        found.append(_Piece(offsets, sizes))
    filled = [piece for piece in found if 0 not in piece.sizes] or found[:1]
    if len({piece.offsets for piece in filled}) < len(filled):
        raise _damaged()
    return sorted(filled)


def _dtype(properties: object) -> str | None:
    """That of a tensor: its properties are a tuple that begins with it, or were attributes."""
    state = properties.state if isinstance(properties, Opaque) else None
    kind = state.get("dtype") if isinstance(state, dict) else state[0] if isinstance(state, tuple) and state else None
    return DTYPES.get(kind.name) if isinstance(kind, Global) and kind.module == "torch" else None


def _part(name: str, file: OpenFile, place: _Place, ledger: Ledger, checksums: list[Checksum]) -> LazyTensor | Unread:
    """The tensor in an archive of torch.save that is a piece of a file."""
    window = _Window(file, place.offset, place.size)
    members = zip_directory.members(window)
    begins = zip_directory.places(window, members)
    by_name = {member.name.partition("/")[2]: member for member in members.values()}
    if any(member.method != zip_directory.STORED for member in members.values()) or len(by_name) < len(members):
        raise CheckpointError(f"a piece of {printable(name)} is compressed, or no archive of torch.save")

    def small(inner: str) -> bytes:
        member = by_name.get(inner)
        if member is None or member.size > _LARGEST_PICKLE:
            raise CheckpointError(f"a piece of {printable(name)} is no tensor that torch.save wrote")
        data = window.read(begins[member.name], member.size)
        if zlib.crc32(data) != member.crc:
            raise CheckpointError(f"it is damaged: the checksum of {printable(name)} does not hold")
        return data

    def record(storage: Storage) -> Stored:
        member = by_name.get(f"data/{storage.key}")
        if member is None or member.size != storage.count * storage.itemsize:
            raise CheckpointError(
                f"it is incomplete: the storage of {printable(name)} is missing, or of another length"
            )
        begin = place.offset + begins[member.name]
        checksums.append(Checksum(begin, member.size, member.crc, name, file))
        return Stored(storage.dtype, (storage.count,), file, begin)

    view = unpickle(small("data.pkl"), ledger=ledger)
    if not isinstance(view, View) or not isinstance(view.storage, Storage):
        return Unread("an object that torch.distributed.checkpoint saved")
    return tensor(view, name, record, swapped="byteorder" in by_name and small("byteorder") == b"big")


def _enter(made: dict[object, object], path: object, name: str, item: object) -> None:
    """Puts an item where its path in the state_dict leads; without one, under its name."""
    keys = [str(key) for key in path] if isinstance(path, tuple) and 0 < len(path) <= _LONGEST_PATH else [name]
    if isinstance(path, tuple) and not all(type(key) in (str, int) for key in path):
        keys = [name]
    for key in keys[:-1]:
        inner = made.setdefault(key, {})
        if not isinstance(inner, dict):
            raise _damaged()
        made = inner
    made.setdefault(keys[-1], item)
