"""The wire format of Protocol Buffers: a message in a file as its fields, read where they are and never as a whole.

Knows no schema. Counts what it reads, so that no file takes for ever.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from resnet_surgeon.errors import CheckpointError
from resnet_surgeon.formats.files import OpenFile

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types; 3 and 4, groups, are of protobuf's first version
_SIZES = {FIXED64: 8, FIXED32: 4}
_LONGEST_VARINT = 10
_LARGEST_TAG = (1 << 32) - 1
_WINDOW = 1 << 12  # bytes that are read at once: between a model's tensors there are few
_MOST_FIELDS = 200_000  # in a file: an unoptimised ResNet-152 has some 40,000


class Field(NamedTuple):
    """A field of a message: `number` by its wire type, the value of a varint, and where in the file its bytes are."""

    number: int
    wire: int
    value: int
    begin: int
    end: int

    @property
    def size(self) -> int:
        return self.end - self.begin


class Wire:
    """Messages in an open file. Every method raises CheckpointError for what is not one, and for too many fields."""

    def __init__(self, file: OpenFile) -> None:
        self._file = file
        self._window, self._start = b"", 0
        self._left = _MOST_FIELDS

    def fields(self, begin: int, end: int) -> Iterator[Field]:
        """The fields of the message between these offsets, in the order of the file."""
        position = begin
        while position < end:
            self._count()
            tag, position = self._varint(position, end)
            number, wire = tag >> 3, tag & 7
            value, start = 0, position
            if wire == VARINT:
                value, position = self._varint(position, end)
            elif wire == BYTES:
                size, start = self._varint(position, end)
                position = start + size
            elif wire in _SIZES:
                position += _SIZES[wire]
            else:
                raise _damaged(begin)
            if position > self._file.size == end:
                raise CheckpointError(f"it is truncated: {position - end} bytes are missing")
            if tag > _LARGEST_TAG or number == 0 or position > end:
                raise _damaged(begin)
            yield Field(number, wire, value, start, position)

    def content(self, field: Field, most: int) -> bytes:
        """The bytes of a field that has at most so many."""
        if field.wire == VARINT or field.size > most:
            raise _damaged(field.begin)
        return self._take(field.begin, field.size)

    def text(self, field: Field, most: int) -> str:
        """The text of a field, of at most so many bytes."""
        if field.wire != BYTES:
            raise _damaged(field.begin)
        try:
            return self.content(field, most).decode()
        except UnicodeDecodeError:
            raise _damaged(field.begin) from None

    def integers(self, field: Field) -> Iterator[int]:
        """The signed whole numbers of a field, one or several in a row."""
        if field.wire == VARINT:
            yield _signed(field.value)
        elif field.wire == BYTES:
            position = field.begin
            while position < field.end:
                self._count()
                value, position = self._varint(position, field.end)
                yield _signed(value)
        else:
            raise _damaged(field.begin)

    def _count(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise CheckpointError(f"it has more than {_MOST_FIELDS} parts, far more than a ResNet's has")

    def _varint(self, position: int, end: int) -> tuple[int, int]:
        """The number at `position`, seven bits a byte, the lowest first; and the offset behind it."""
        first = position - self._start
        if position < end and 0 <= first < len(self._window) and self._window[first] < 0x80:
            return self._window[first], position + 1  # as most are
        value = 0
        for count, byte in enumerate(self._take(position, min(_LONGEST_VARINT, end - position)), start=1):
            value |= (byte & 0x7F) << 7 * (count - 1)
            if byte < 0x80:
                return value & (1 << 64) - 1, position + count
        raise _damaged(position)

    def _take(self, position: int, size: int) -> bytes:
        begin = position - self._start
        if not 0 <= begin <= begin + size <= len(self._window):
            if position + size > self._file.size:
                raise _damaged(position)
            self._start = position
            self._window = self._file.read(position, min(max(size, _WINDOW), self._file.size - position))
            begin = 0
        return self._window[begin : begin + size]


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _damaged(position: int) -> CheckpointError:
    return CheckpointError(f"it is damaged: no message of protobuf is at byte {position}")
