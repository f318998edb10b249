"""What stands between the members of a zip archive as torch writes it: headers, padding, checksums, the directory.

Members are stored, each aligned to 64 bytes, with nothing in them that depends on time or machine. Knows the zip format
(PKWARE's APPNOTE 6.3.10, sections 4.3 and 4.4); knows nothing of what the members mean.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from resnet_surgeon.errors import CheckpointError

ALIGNMENT = 64
_LARGEST = (1 << 32) - 2  # bytes of an archive without 64-bit fields
_MOST_MEMBERS = 1 << 15  # which our own reader takes
_FLAGS = 0x0808  # names are UTF-8, and checksum and sizes follow the bytes
_PADDING = b"FB"  # torch's extra field of nothing
_NOWHERE: Mapping[str, tuple[int, int]] = {}
_LOCAL = struct.Struct("<4s5H3L2H")
_FOLLOWING = struct.Struct("<4s3L")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")


class Place(NamedTuple):
    """Where a member stands: its own header, and its `size` bytes from `begin`."""

    name: bytes
    header: int
    begin: int
    size: int

    @property
    def end(self) -> int:
        """Where its checksum follows."""
        return self.begin + self.size


def places(members: Iterable[tuple[str, int]], starts: Mapping[str, tuple[int, int]] = _NOWHERE) -> tuple[Place, ...]:
    """Where members of these names and sizes stand, one after the other. Those in `starts` have a place that leaves the
    second number when it is divided by the first, which is at most 2**15.
    """
    found: list[Place] = []
    header = 0
    for name, size in members:
        raw_name = name.encode()
        modulus, remainder = starts.get(name, (ALIGNMENT, 0))
        least = header + _LOCAL.size + len(raw_name) + 4
        begin = least + (remainder - least) % modulus
        found.append(Place(raw_name, header, begin, size))
        header = begin + size + _FOLLOWING.size
    return tuple(found)


def size(members: Sequence[Place]) -> int:
    """The bytes of the whole archive. Raises CheckpointError for one that is too large for the format."""
    total = members[-1].end + _FOLLOWING.size + sum(_ENTRY.size + len(place.name) for place in members) + _END.size
    if total > _LARGEST or len(members) > _MOST_MEMBERS:
        raise CheckpointError(
            f"a torch archive of {len(members)} members and {total} bytes would be too large",
            hint="end the output's name in .safetensors",
        )
    return total


def frame(members: Sequence[Place], checksum: Callable[[Place], int]) -> Iterator[tuple[int, bytes]]:
    """All that is not the members' bytes, each with its position; `checksum` gives the CRC-32 of a member's bytes."""
    directory = b""
    for place in members:
        padding = place.begin - place.header - _LOCAL.size - len(place.name)
        extra = _PADDING + struct.pack("<H", padding - 4) + b"Z" * (padding - 4)
        yield (
            place.header,
            _LOCAL.pack(b"PK\3\4", 0, _FLAGS, 0, 0, 0, 0, 0, 0, len(place.name), padding) + place.name + extra,
        )
        crc = checksum(place)
        yield place.end, _FOLLOWING.pack(b"PK\7\x08", crc, place.size, place.size)
        numbers = (0, 0, _FLAGS, 0, 0, 0, crc, place.size, place.size, len(place.name), 0, 0, 0, 0, 0, place.header)
        directory += _ENTRY.pack(b"PK\1\2", *numbers) + place.name
    start = members[-1].end + _FOLLOWING.size
    count = len(members)
    yield start, directory + _END.pack(b"PK\5\6", 0, 0, count, count, len(directory), start, 0)
