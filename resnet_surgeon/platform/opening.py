"""Opening files, without what each system adds unasked: waiting for a pipe, inheriting, translating line ends."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

# Windows has O_BINARY and O_NOINHERIT, and no path leads to a pipe there; the others have O_CLOEXEC and O_NONBLOCK.
_BYTES = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOINHERIT", 0)
_NO_WAITING = getattr(os, "O_NONBLOCK", 0)  # opening a FIFO that nobody writes to must not hang
_NO_LINKS = getattr(os, "O_NOFOLLOW", 0)


def to_read(path: str) -> int:
    """A descriptor of what is at `path`. Raises OSError or ValueError; IsADirectoryError where folders cannot be
    opened.
    """
    try:
        return os.open(path, os.O_RDONLY | _BYTES | _NO_WAITING)
    except PermissionError as error:
        if os.path.isdir(path):
            raise IsADirectoryError(error.errno, error.strerror) from None
        raise


def new(path: Path) -> int:
    """A descriptor of a file that was not there before. Raises OSError."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _BYTES, 0o666)


def existing(path: Path) -> int:
    """A descriptor of the file itself, not of one that it links to. Raises OSError."""
    return os.open(path, os.O_RDWR | _BYTES | _NO_LINKS | _NO_WAITING)


def folder(path: Path) -> int | None:
    """A descriptor of a folder, to lock and to sync it; None where it may not be read, or folders cannot be opened."""
    with contextlib.suppress(PermissionError):
        return os.open(path, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | _BYTES)
    return None


def standard_streams() -> None:
    """Standard input and output carry bytes as they are, on Windows too."""
    with contextlib.suppress(ImportError, AttributeError, OSError):
        import msvcrt

        for descriptor in (0, 1):
            msvcrt.setmode(descriptor, os.O_BINARY)  # type: ignore[attr-defined]
