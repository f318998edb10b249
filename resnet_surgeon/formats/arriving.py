"""A file that arrives: a stream whose bytes come once and in order, which can be read as a file all the same.

Knows nothing of containers, nor why bytes are passed on, held or skipped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from resnet_surgeon.errors import AccessError, CheckpointError
from resnet_surgeon.formats.files import CHUNK, OpenFile
from resnet_surgeon.platform import transfer

_IN_MEMORY = 1 << 20  # bytes that are held there, before a temporary file is made
_MOST = 1 << 18  # bytes that are taken at once


class ArrivingFile(OpenFile):
    """A stream that is read as a file. `arrived` says how many of its bytes have come.

    What is read ahead of its turn is held, with all that stands before it, and can be read again; what was passed on or
    skipped has gone by. How long the file is, its own header promises (`check_end`): `check_unchanged` looks whether
    that came, and nothing more.
    """

    def __init__(self, descriptor: int, name: str) -> None:
        super().__init__(descriptor, name)
        self.arrived = 0
        self._end: int | None = None
        self._held = _Held(name)

    @property
    def size(self) -> int:
        """The bytes that its header promises; before that was read, those that have come."""
        return self.arrived if self._end is None else self._end

    def reaches(self, size: int) -> bool:
        while self.arrived < size:
            if not self._hold_some(size):
                return False
        return True

    def beginning(self, size: int) -> bytes:
        self.reaches(size)
        return self.read(0, min(size, self.arrived))

    def check_end(self, end: int) -> None:
        self._end = end

    def read_into(self, offset: int, buffer: bytearray | memoryview) -> None:
        """Fills `buffer` from `offset`; what has not arrived yet is held. Raises CheckpointError for what has gone by,
        and where the stream breaks off.
        """
        view = memoryview(buffer)
        self.hold(offset + len(view))
        while view:
            count = self._held.read_into(offset, view)
            if count == 0:
                raise CheckpointError("its bytes have gone by, and can be read only once", subject=self.name)
            view, offset = view[count:], offset + count

    def check_unchanged(self) -> None:
        """Takes what is left of the stream. Raises CheckpointError unless it ends where it should."""
        self.skip(self.size)
        if self._take(1):
            raise CheckpointError("more bytes follow its last tensor", subject=self.name)

    def whole(self, advance: Callable[[int], None] = lambda count: None) -> OpenFile:
        """The stream in a temporary file, when nothing has gone by yet. `advance` hears how many bytes each step took.
        Raises AccessError where there is no room.
        """

        def pieces() -> Iterator[bytes]:
            yield from map(bytes, self.chunks(0, self.arrived))
            while data := self._take(CHUNK):
                advance(len(data))
                yield data

        return OpenFile.spooled(pieces(), self.name)

    def hold(self, end: int) -> None:
        """Holds what comes before `end`."""
        while self.arrived < end:
            if not self._hold_some(end):
                raise self._broken_off()

    def skip(self, end: int) -> None:
        """Forgets what comes before `end`."""
        while self.arrived < end:
            data = self._take(end - self.arrived)
            if not data:
                raise self._broken_off()
            self.arrived += len(data)

    def pass_on(self, end: int, target: int, position: int | None) -> int:
        """Passes some of the bytes before `end` on to a file, at `position`, or to a stream; returns how many. Raises
        OSError if they cannot be written.
        """
        count = transfer.pass_on(self.descriptor, target, position, end - self.arrived)
        if count == 0:
            raise self._broken_off()
        self.arrived += count
        return count

    def pass_on_and_hold(self, end: int, target: int, position: int | None) -> int:
        """As `pass_on`, and holds them."""
        data = self._hold_some(end)
        if not data:
            raise self._broken_off()
        transfer.write(target, data, position)
        return len(data)

    def release(self, begin: int, end: int, target: int, position: int | None) -> int:
        """Writes some of the held bytes from `begin` on, and returns how many. Raises OSError."""
        return self._held.send(begin, end, target, position)

    def forget(self, begin: int, end: int) -> None:
        """Holds these bytes no longer."""
        self._held.drop(begin, end)

    def _hold_some(self, end: int) -> bytes:
        """Holds some of the bytes before `end`, and returns them; none where the stream has ended."""
        data = self._take(end - self.arrived)
        try:
            self._held.add(self.arrived, data)
        except OSError as error:
            raise AccessError(
                f"it could not be held in a temporary file: {error.strerror}", subject=self.name
            ) from None
        self.arrived += len(data)
        return data

    def _take(self, size: int) -> bytes:
        try:
            return transfer.take(self.descriptor, min(size, _MOST))
        except OSError as error:
            raise AccessError(f"reading failed: {error.strerror}", subject=self.name) from None

    def _broken_off(self) -> CheckpointError:
        missing = "" if self._end is None else f": {self._end - self.arrived} bytes are missing"
        hint = "the command before it in the pipe may have failed"
        return CheckpointError(f"it is truncated{missing}", subject=self.name, hint=hint)


class _Piece(NamedTuple):
    """Neighbouring bytes, in memory, or in the temporary file at their own place."""

    begin: int
    end: int
    data: bytearray | None


class _Held:
    """Bytes of a stream by their places in it: in memory while they are few, else in an unnamed temporary file."""

    def __init__(self, name: str) -> None:
        self._name = name  # of the stream
        self._pieces: list[_Piece] = []  # in the order of the stream
        self._in_memory = 0
        self._spool: OpenFile | None = None

    def add(self, begin: int, data: bytes) -> None:
        """Bytes that follow all that were added before. Raises OSError where there is no room."""
        end = begin + len(data)
        last = self._pieces[-1] if self._pieces and self._pieces[-1].end == begin else None
        if self._in_memory + len(data) <= _IN_MEMORY:
            self._in_memory += len(data)
            if last and last.data is not None and len(last.data) < CHUNK:
                last.data.extend(data)
                self._pieces[-1] = last._replace(end=end)
            else:
                self._pieces.append(_Piece(begin, end, bytearray(data)))
            return
        transfer.write_at(self._file(), data, begin)
        if last and last.data is None:
            self._pieces[-1] = last._replace(end=end)
        else:
            self._pieces.append(_Piece(begin, end, None))

    def drop(self, begin: int, end: int) -> None:
        around = ((_cut(piece, piece.begin, begin), _cut(piece, end, piece.end)) for piece in self._pieces)
        self._pieces = [part for parts in around for part in parts if part.begin < part.end]
        self._in_memory = sum(len(piece.data) for piece in self._pieces if piece.data is not None)

    def read_into(self, offset: int, view: memoryview) -> int:
        """Reads some bytes from `offset`, and returns how many; 0 if they are not here."""
        piece = self._at(offset)
        if piece is None:
            return 0
        count = min(len(view), piece.end - offset)
        if piece.data is None:
            return transfer.read_at(self._file(), view[:count], offset)
        view[:count] = memoryview(piece.data)[offset - piece.begin :][:count]
        return count

    def send(self, begin: int, end: int, target: int, position: int | None) -> int:
        """Writes some of these bytes to a file, at `position`, or to a stream; returns how many. Raises OSError."""
        piece = self._at(begin)
        assert piece is not None, "what is released was held"
        count = min(end, piece.end) - begin
        if piece.data is None and position is None:
            return transfer.send(self._file(), begin, target, count)
        if piece.data is None and position is not None:
            return transfer.copy(self._file(), begin, target, position, count)
        transfer.write(target, memoryview(piece.data or b"")[begin - piece.begin :][:count], position)
        return count

    def _at(self, offset: int) -> _Piece | None:
        return next((piece for piece in self._pieces if piece.begin <= offset < piece.end), None)

    def _file(self) -> int:
        """The descriptor of the temporary file."""
        if self._spool is None:
            self._spool = OpenFile.spooled(b"", self._name)
        return self._spool.descriptor


def _cut(piece: _Piece, begin: int, end: int) -> _Piece:
    """The part of the piece between two places, which may be empty."""
    begin, end = max(piece.begin, begin), min(piece.end, end)
    if (begin, end) == (piece.begin, piece.end):
        return piece
    if piece.data is None or begin >= end:
        return _Piece(begin, max(begin, end), None)
    return _Piece(begin, end, piece.data[begin - piece.begin : end - piece.begin])
