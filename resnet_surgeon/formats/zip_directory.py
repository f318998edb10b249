"""The directory of a zip archive, read only where every reader must find the same members in it.

Knows the zip format (PKWARE's APPNOTE 6.3.10, sections 4.3 and 4.4); knows nothing of what the members mean.
"""

from __future__ import annotations

import itertools
import stat
import struct
from collections.abc import Iterator, Mapping
from typing import NamedTuple, NoReturn, Protocol

from resnet_surgeon.errors import CheckpointError, printable

STORED, DEFLATED = 0, 8  # methods of compression
_MOST_MEMBERS = 1 << 15  # ResNet-152 with a twin and Adam has 3,271
_LARGEST = 1 << 24  # bytes of the directory
_ENTRY = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_END = struct.Struct("<4s4H2LH")
_END_64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR_64 = struct.Struct("<4sLQL")
_UNKNOWN_16, _UNKNOWN_32 = 0xFFFF, 0xFFFFFFFF  # the true value is 64 bits long and stands elsewhere
_SIZES_64, _OTHER_NAME = 0x0001, 0x7075  # extra fields: 64-bit values, and a name that some readers prefer
_ENCODED = 0x2061  # flags: bit 0 encrypted, 5 a patch, 6 and 13 encrypted in other ways
_SIZES_FOLLOW, _UTF_8 = 0x0008, 0x0800  # flags
_FOLDER = 0x10  # among the attributes that MS-DOS gives a file


class Readable(Protocol):
    """A file, or a part of one that is an archive by itself."""

    @property
    def size(self) -> int: ...

    def read(self, offset: int, size: int) -> bytes:
        """Exactly `size` bytes from `offset`."""
        ...


class Member(NamedTuple):
    """One member, as the directory describes it: `compressed` bytes, which are `size` ones with this CRC-32.

    `header` is where its own header begins.
    """

    name: str
    raw_name: bytes
    flags: int
    method: int
    crc: int
    compressed: int
    size: int
    header: int


def members(file: Readable) -> dict[str, Member]:
    """The members by name. Raises CheckpointError for a directory that is damaged or can be read in two ways."""
    count, size, start = _end(file)
    if count > _MOST_MEMBERS or size > _LARGEST:
        raise CheckpointError(f"its zip archive has {count} members in {size} bytes, more than any checkpoint")
    found: dict[str, Member] = {}
    for member in _entries(file.read(start, size), count):
        if member.name in found:
            raise CheckpointError(f"its zip archive holds the member {printable(member.name)} twice")
        found[member.name] = member
    if not found or min(member.header for member in found.values()) != 0:
        _refuse_beginning()
    return found


def places(file: Readable, found: Mapping[str, Member]) -> dict[str, int]:
    """Where the bytes of each member begin. Raises CheckpointError unless the members' own headers agree with the
    directory, and each has bytes of its own.
    """
    _, _, end = _end(file)
    begins = {name: _data_offset(file, member, end) for name, member in found.items()}
    in_order = sorted(found.values(), key=lambda member: member.header)
    for member, following in itertools.pairwise(in_order):
        if begins[member.name] + member.compressed > following.header:
            raise CheckpointError(
                f"its members {printable(member.name)} and {printable(following.name)} overlap in the zip archive"
            )
    return begins


def _end(file: Readable) -> tuple[int, int, int]:
    """The number of members, and the size and offset of the directory, which ends where its end record begins.

    torch writes neither a comment nor anything behind the archive; what does is another file in disguise.
    """
    position = file.size - _END.size
    if position < 0:
        _refuse()
    signature, *stated, comment = _END.unpack(file.read(position, _END.size))
    if signature != b"PK\5\6" or comment:
        _refuse()
    numbers = stated
    locator = position - _LOCATOR_64.size
    if locator >= _END_64.size and file.read(locator, 4) == b"PK\6\7":
        _, disk, offset, all_disks = _LOCATOR_64.unpack(file.read(locator, _LOCATOR_64.size))
        position = locator - _END_64.size
        signature, length, _, _, *numbers = _END_64.unpack(file.read(position, _END_64.size))
        if (signature, length, disk, all_disks) != (b"PK\6\6", _END_64.size - 12, 0, 1) or offset > position:
            _refuse()
        if offset < position:
            _refuse_beginning()
    unknown = (_UNKNOWN_16,) * 4 + (_UNKNOWN_32,) * 2
    if not all(one in pair for one, *pair in zip(stated, numbers, unknown, strict=True)):
        _refuse()
    disk, directory_disk, here, count, size, start = numbers
    if disk or directory_disk or here != count:
        _refuse()
    if start + size < position:
        _refuse_beginning()
    if start + size > position:
        _refuse()
    return count, size, start


def _entries(data: bytes, count: int) -> Iterator[Member]:
    """Exactly `count` members, which take up the whole directory."""
    position = 0
    for _ in range(count):
        if position + _ENTRY.size > len(data):
            _refuse()
        signature, _, _, flags, method, _, _, crc, compressed, size, *lengths, disk, _, attributes, header = (
            _ENTRY.unpack_from(data, position)
        )
        name_end = position + _ENTRY.size + lengths[0]
        extra_end = name_end + lengths[1]
        raw_name, extra = data[position + _ENTRY.size : name_end], data[name_end:extra_end]
        position = extra_end + lengths[2]
        if signature != b"PK\1\2" or disk not in (0, _UNKNOWN_16) or position > len(data):
            _refuse()
        name = _decoded(raw_name, flags)
        size, compressed, header = _widened((size, compressed, header), extra)
        # torch takes what is marked as a folder for an empty file, and then reads memory that was never written.
        is_folder = name.endswith("/") and not size  # nothing of it can be taken for data
        if not is_folder and (attributes & _FOLDER or stat.S_IFMT(attributes >> 16) not in (0, stat.S_IFREG)):
            raise CheckpointError(f"its member {printable(name)} is not marked as a file")
        yield Member(name, raw_name, flags, method, crc, compressed, size, header)
    if position != len(data):
        _refuse()


def _decoded(raw_name: bytes, flags: int) -> str:
    """A member's name. One that ends early for readers in C is refused."""
    try:
        name = raw_name.decode("utf-8" if flags & _UTF_8 else "cp437")
    except UnicodeDecodeError:
        _refuse()
    if not name or "\0" in name:
        _refuse()
    return name


def _widened(numbers: tuple[int, ...], extra: bytes) -> Iterator[int]:
    """Size, compressed size and offset, with those that do not fit into 32 bits taken from the extra fields."""
    wide = b""
    position, seen = 0, set()
    while position < len(extra):
        kind, length = struct.unpack_from("<2H", extra.ljust(position + 4, b"\0"), position)
        position += 4 + length
        if position > len(extra) or kind in seen or kind == _OTHER_NAME:
            _refuse()
        seen.add(kind)
        if kind == _SIZES_64:
            wide = extra[position - length : position]
    for number in numbers:
        if number == _UNKNOWN_32:
            if len(wide) < 8:
                _refuse()
            number, wide = int.from_bytes(wide[:8], "little"), wide[8:]
        yield number


def _data_offset(file: Readable, member: Member, end: int) -> int:
    """Where a member's bytes begin, by its own header, which must agree with the directory."""
    is_stored = member.method == STORED and member.size == member.compressed
    if not (is_stored or member.method == DEFLATED) or member.flags & _ENCODED:
        raise CheckpointError(
            f"its member {printable(member.name)} is encrypted or compressed in a way that is not read",
            hint="save it again with torch.save",
        )
    damaged = CheckpointError(f"it is truncated or damaged at its member {printable(member.name)}")
    length = _LOCAL.size + len(member.raw_name)
    if member.header + length > end:
        raise damaged
    header = file.read(member.header, length)
    signature, _, flags, method, _, _, *numbers, name_size, extra_size = _LOCAL.unpack_from(header)
    offset: int = member.header + _LOCAL.size + name_size + extra_size
    if signature != b"PK\3\4" or offset + member.compressed > end:
        raise damaged
    if name_size != len(member.raw_name) or header[_LOCAL.size :] != member.raw_name:
        raise CheckpointError(f"its member {printable(member.name)} has another name in its own header")
    unstated = (0, _UNKNOWN_32) if flags & _SIZES_FOLLOW else (_UNKNOWN_32,)
    directory = (member.crc, member.compressed, member.size)
    if (flags, method) != (member.flags, member.method) or any(
        number != expected and number not in unstated for number, expected in zip(numbers, directory, strict=True)
    ):
        raise CheckpointError(f"its member {printable(member.name)} has another size or checksum in its own header")
    return offset


def _refuse() -> NoReturn:
    raise CheckpointError("it is a truncated or damaged zip archive", hint="copy or download the file again")


def _refuse_beginning() -> NoReturn:
    raise CheckpointError("its zip archive does not begin at the beginning of the file")
