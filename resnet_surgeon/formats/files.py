"""A file open for reading by offset, with its identity: the only way in which a checkpoint's bytes are read.

Knows nothing of containers.
"""

from __future__ import annotations

import os
import stat
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, NoReturn, TypeVar

from resnet_surgeon.errors import AccessError, CheckpointError
from resnet_surgeon.platform import opening, transfer
from resnet_surgeon.platform.background import Background

CHUNK = 1 << 20
_HASHED = 1 << 22  # bytes at once: between two pieces, the thread that hashes must wait for its turn
T = TypeVar("T")


class TiedToFile:
    """What reads from an open file, or is known by its identity: a copy is the thing itself, since it never changes,
    and it cannot be pickled, since another process has not opened the file.
    """

    def __copy__(self: T) -> T:
        return self

    def __deepcopy__(self: T, _: object) -> T:
        return self

    def __reduce__(self) -> NoReturn:
        name = type(self).__name__
        raise TypeError(
            f"cannot pickle {name}, which reads from open files: save the network, and open what was saved where it is "
            "needed"
        )


class OpenFile(TiedToFile):
    """A regular file, open for reading. `name` is how messages speak of it; the descriptor closes with the object.

    `folder` is where other files of the same checkpoint may lie: None for what came without a folder of its own.
    """

    def __init__(self, descriptor: int, name: str, folder: Path | None = None) -> None:
        self.descriptor = descriptor
        self.name = name
        self.folder = folder
        self._stat = os.fstat(descriptor)
        self._ahead: _Ahead | None = None
        self._finalizer = weakref.finalize(self, os.close, descriptor)

    @classmethod
    def at(cls, path: str | os.PathLike[str], *, alone: bool = False) -> OpenFile:
        """Opens the regular file at `path`; `alone` if what lies beside it has nothing to do with it.

        Raises AccessError for what is missing, unreadable or not a regular file.
        """
        name = os.fspath(path)
        try:
            descriptor = opening.to_read(name)
        except IsADirectoryError:
            raise _not_regular("a folder", name) from None
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise AccessError(reason[:1].lower() + reason[1:], subject=name) from None
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            os.close(descriptor)
            kind = "a folder" if stat.S_ISDIR(mode) else "not a regular file"
            raise _not_regular(kind, name)
        return cls(descriptor, name, None if alone else Path(name).parent)

    @classmethod
    def spooled(cls, stream: IO[bytes] | int | bytes | Iterator[bytes], name: str) -> OpenFile:
        """The content of a stream, a descriptor, bytes or pieces, in an unnamed temporary file, so that memory stays
        flat.

        Raises AccessError where there is no room or the stream breaks.
        """
        import tempfile

        try:
            with tempfile.TemporaryFile() as spool:
                if isinstance(stream, bytes):
                    spool.write(stream)
                elif isinstance(stream, int):
                    transfer.drain(stream, spool.fileno())
                elif isinstance(stream, Iterator):
                    spool.writelines(stream)
                else:
                    while chunk := stream.read(CHUNK):
                        spool.write(chunk)
                spool.flush()
                return cls(os.dup(spool.fileno()), name)
        except OSError as error:
            raise AccessError(f"it could not be read into a temporary file: {error.strerror}", subject=name) from None

    @property
    def size(self) -> int:
        return self._stat.st_size

    def reaches(self, size: int) -> bool:
        """Whether it has so many bytes."""
        return size <= self.size

    def beginning(self, size: int) -> bytes:
        """Its first `size` bytes, or as many as it has."""
        return self.read(0, min(size, self.size))

    def check_end(self, end: int) -> None:
        """Raises CheckpointError unless it ends there, as its own header says."""
        if end > self.size:
            raise CheckpointError(f"it is truncated: {end - self.size} bytes of its tensors are missing")
        if end < self.size:
            raise CheckpointError(f"{self.size - end} bytes follow its last tensor")

    def read(self, offset: int, size: int) -> bytes:
        """Exactly `size` bytes from `offset`."""
        buffer = bytearray(size)
        self.read_into(offset, buffer)
        return bytes(buffer)

    def read_into(self, offset: int, buffer: bytearray | memoryview) -> None:
        """Fills `buffer` from `offset`. Raises CheckpointError if the file has become shorter since it was opened."""
        view = memoryview(buffer)
        while view:
            try:
                count = transfer.read_at(self.descriptor, view, offset)
            except OSError as error:
                raise AccessError(f"reading failed: {error.strerror}", subject=self.name) from None
            if count == 0:
                raise CheckpointError("the file became shorter while it was read", subject=self.name)
            view, offset = view[count:], offset + count

    def chunks(self, offset: int, size: int, most: int = CHUNK) -> Iterator[memoryview]:
        """The bytes from `offset`, piece by piece in one reused buffer of at most so many."""
        buffer = memoryview(bytearray(min(size, most)))
        while size:
            piece = buffer[: min(size, most)]
            self.read_into(offset, piece)
            yield piece
            offset, size = offset + len(piece), size - len(piece)

    def read_ahead(self) -> None:
        """Begins to read it for its SHA-256, in a second thread."""
        self._ahead = _Ahead(self)

    def sha256(self, advance: Callable[[int], None]) -> str:
        """The digest of all its bytes, in hexadecimal. `advance` hears how many more were read."""
        return self._ahead.result(advance) if self._ahead else _sha256(self, advance)

    def check_unchanged(self) -> None:
        """Raises CheckpointError if the file was written to since it was opened.

        Whoever writes may set the time of that back, but not that of the inode's last change. Losing a name changes
        the latter too, and no byte: when another file was renamed over this one, or we saved over our own source.
        """
        before, now = self._stat, os.fstat(self.descriptor)
        is_written = (now.st_size, now.st_mtime_ns) != (before.st_size, before.st_mtime_ns)
        if is_written or (now.st_ctime_ns != before.st_ctime_ns and now.st_nlink >= before.st_nlink):
            raise CheckpointError(
                "the file was changed while it was read",
                subject=self.name,
                hint="run the command again when nothing is writing to it",
            )
        self._stat = now


class _Ahead:
    """The SHA-256 of a file, worked out in a second thread from now on."""

    def __init__(self, file: OpenFile) -> None:
        self._read, self._told = 0, 0  # bytes
        self._digest = Background(lambda: _sha256(file, self._count))

    def _count(self, read: int) -> None:
        self._read += read

    def result(self, advance: Callable[[int], None]) -> str:
        """Waits for it; `advance` hears how many more bytes were read."""

        def tell() -> None:
            read = self._read
            advance(read - self._told)
            self._told = read

        digest = self._digest.result(tell)
        tell()
        return digest


def _sha256(file: OpenFile, advance: Callable[[int], None]) -> str:
    from hashlib import sha256

    digest = sha256()
    for chunk in file.chunks(0, file.size, _HASHED):
        digest.update(chunk)
        advance(len(chunk))
    return digest.hexdigest()


def _not_regular(kind: str, name: str) -> AccessError:
    hint = "give a checkpoint file, or `-` to read a safetensors stream from standard input"
    return AccessError(f"it is {kind}", subject=name, hint=hint)
