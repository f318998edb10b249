"""numpy's `.npz`: a zip archive with a member `<name>.npy` for each array, read in place or inflated, without numpy."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator

from resnet_surgeon.errors import CheckpointError, printable
from resnet_surgeon.formats import zip_directory
from resnet_surgeon.formats.container import Checksum, Container
from resnet_surgeon.formats.deflate import MOST_RATIO, SMALL
from resnet_surgeon.formats.files import OpenFile
from resnet_surgeon.formats.numpy_dtypes import DTYPES
from resnet_surgeon.formats.tensors import BITS, MOST_DIMENSIONS, LazyTensor, Stored, Strided
from resnet_surgeon.formats.unread import Unread
from resnet_surgeon.formats.wrapped import unpacked

_ENDING = ".npy"
_LONGEST_HEADER = 4096
_HEADER = re.compile(
    r"\{'descr': '([<>|=])([a-zA-Z]\d{1,3})', 'fortran_order': (True|False), 'shape': "
    r"\(((?:\d{1,18}, ?)*(?:\d{1,18})?)\), \}\s*"
)


def read(file: OpenFile) -> Container:
    """The arrays by their names. Raises CheckpointError for damage, and for what numpy does not write."""
    members = zip_directory.members(file)
    places = zip_directory.places(file, members)
    compressed = [member for member in members.values() if member.method != zip_directory.STORED]
    total = sum(member.size for member in compressed)
    if total > SMALL and total > MOST_RATIO * file.size:
        raise CheckpointError(f"{file.size} bytes would expand to {total}, far more than a checkpoint's do")
    pieces = (piece for member in compressed for piece in unpacked(file, member, places[member.name]))
    spool = OpenFile.spooled(pieces, file.name) if compressed else file
    ends = itertools.accumulate((member.size for member in compressed), initial=0)
    spooled = dict(zip((member.name for member in compressed), ends, strict=False))
    found: dict[str, LazyTensor | Unread] = {}
    checksums = []
    for name, member in members.items():
        if name not in spooled:
            checksums.append(Checksum(places[name], member.size, member.crc, name, file))
        source, begin = (spool, spooled[name]) if name in spooled else (file, places[name])
        found[name.removesuffix(_ENDING)] = _array(source, begin, member.size, name)
    return Container("npz", file, found, checksums=tuple(checksums))


def _array(file: OpenFile, begin: int, size: int, name: str) -> LazyTensor | Unread:
    """As numpy.lib.format 1.0 to 3.0 describes it: magic, version, length of the header, header, numbers."""
    head = file.read(begin, min(size, _LONGEST_HEADER))
    if head[:6] != b"\x93NUMPY" or len(head) < 12:
        raise CheckpointError(f"its member {printable(name)} is not a numpy array")
    width = 2 if head[6] == 1 else 4
    start = 8 + width + int.from_bytes(head[8 : 8 + width], "little")
    match = _HEADER.fullmatch(head[8 + width : start].decode("latin-1"))
    if match is None or match[2] not in DTYPES:
        return Unread(f"an array of numpy, {printable(name)}, of other things than numbers")
    dtype, swapped = DTYPES[match[2]], match[1] == ">"
    shape = tuple(int(number) for number in re.findall(r"\d+", match[4]))
    if len(shape) > MOST_DIMENSIONS or start + math.prod(shape) * BITS[dtype] // 8 != size:
        raise CheckpointError(f"its member {printable(name)} has another length than its header says")
    if match[3] == "False" and (not swapped or BITS[dtype] == 8):
        return Stored(dtype, shape, file, begin + start)
    return Strided(dtype, shape, file, begin + start, tuple(_strides(shape, match[3] == "True")), swapped)


def _strides(shape: tuple[int, ...], fortran: bool) -> Iterator[int]:
    sizes = shape if fortran else shape[::-1]
    steps = [*itertools.accumulate((1, *sizes[:-1]), int.__mul__)] if shape else []
    return iter(steps if fortran else steps[::-1])
