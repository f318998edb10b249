"""What makes files last: room on the disk, syncing of files and of folders, as far as the system and the file system
have it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

_FULL = {getattr(errno, name) for name in ("ENOSPC", "EDQUOT", "EFBIG") if hasattr(errno, name)}
# What a file system answers that has no such thing: no syncing of folders, no modes.
_MISSING = {
    getattr(errno, name)
    for name in ("EINVAL", "ENOTSUP", "EOPNOTSUPP", "ENOSYS", "ENOTTY", "EBADF", "EPERM", "EACCES")
    if hasattr(errno, name)
}

_MUCH = 1 << 18  # bytes with which a disk may as well begin


def reserve(descriptor: int, size: int) -> None:
    """Takes the room on the disk at once, so that a full disk is noticed before anything is written. Raises OSError if
    there is too little.
    """
    if not hasattr(os, "posix_fallocate"):
        return
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        if error.errno in _FULL:
            raise OSError(error.errno, f"{error.strerror} ({size} bytes are needed)") from None


def begin_to_sync(descriptor: int, offset: int, size: int) -> None:
    """Lets the disk begin with what was just written, where the system can: then `sync` has less to wait for.

    On Linux this is what the advice does first; what it is named for, forgetting pages that are on the disk already, is
    no loss.
    """
    if size >= _MUCH and hasattr(os, "posix_fadvise"):
        with contextlib.suppress(OSError):  # advice; an error of the disk's is what `sync` hears of
            os.posix_fadvise(descriptor, offset, size, os.POSIX_FADV_DONTNEED)


def sync(descriptor: int) -> None:
    """Brings a file's content to the disk. Raises OSError if that fails.

    On macOS `fsync` leaves it in the drive's own cache; F_FULLFSYNC does not, where the file system has it.
    """
    try:
        from fcntl import F_FULLFSYNC, fcntl  # type: ignore[attr-defined]
    except ImportError:
        os.fsync(descriptor)
        return
    try:
        fcntl(descriptor, F_FULLFSYNC)
    except OSError as error:
        if error.errno not in _MISSING:
            raise
        os.fsync(descriptor)


def sync_folder(descriptor: int | None) -> None:
    """Makes the new names in a folder last, where the file system can. Raises OSError if the disk fails."""
    if descriptor is not None:
        with _where_there_is_such_a_thing():
            sync(descriptor)


def copy_mode(path: Path, descriptor: int) -> None:
    """Gives an open file the mode of the file at `path`, if one is there and modes can be set. Raises OSError if the
    disk fails.
    """
    if hasattr(os, "fchmod"):
        with contextlib.suppress(FileNotFoundError), _where_there_is_such_a_thing():
            os.fchmod(descriptor, stat.S_IMODE(path.stat().st_mode))


@contextlib.contextmanager
def _where_there_is_such_a_thing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _MISSING:
            raise
