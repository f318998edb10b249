"""Bytes between descriptors and memory: at an offset, and from file to file or to a pipe inside the kernel, or by hand
where the kernel cannot.

Never `mmap`: a mapped file that somebody else cuts ends the process.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
import sys
import threading
import zlib
from collections.abc import Callable

_PIECE = 1 << 20  # bytes that are moved by hand at once
_MOST = 1 << 30  # bytes of one call: macOS refuses 2 GiB

_FICLONERANGE = 0x4020940D  # <linux/fs.h>: an ioctl with two descriptors, two places and a length
# What a kernel or file system answers when it cannot copy between these two descriptors: reading and writing may work.
# ENOTSOCK: on macOS `sendfile` sends to sockets only.
_UNSUPPORTED = {
    getattr(errno, name)
    for name in ("EXDEV", "EINVAL", "ENOSYS", "EOPNOTSUPP", "ENOTSUP", "EPERM", "EBADF", "ETXTBSY", "ENOTSOCK")
    if hasattr(errno, name)
}
_position = threading.Lock()  # of files on systems that read and write only where a descriptor stands


def read_at(descriptor: int, buffer: memoryview, offset: int) -> int:
    """Reads into `buffer` from `offset`; returns how many bytes came, 0 at the end. Raises OSError."""
    part = buffer[:_MOST]
    if hasattr(os, "preadv"):
        return os.preadv(descriptor, [part], offset)
    with _position:
        os.lseek(descriptor, offset, os.SEEK_SET)
        data = os.read(descriptor, len(part))
    part[: len(data)] = data
    return len(data)


def write_at(descriptor: int, data: bytes | memoryview, position: int) -> int:
    """Writes all of `data` at `position`; returns where it ends. Raises OSError."""
    view = memoryview(data)
    while view:
        count = _write_some(descriptor, view[:_MOST], position)
        view, position = view[count:], position + count
    return position


def _write_some(descriptor: int, data: memoryview, position: int) -> int:
    if hasattr(os, "pwrite"):
        return os.pwrite(descriptor, data, position)
    with _position:
        os.lseek(descriptor, position, os.SEEK_SET)
        return os.write(descriptor, data)


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Writes all of `data` where the descriptor stands, however little each call takes. Raises OSError."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view[:_MOST]) :]


def copy(source: int, offset: int, target: int, position: int, count: int) -> int:
    """Copies at most `count` bytes from one file into another; returns how many, 0 at the end. Raises OSError."""
    try:
        return os.copy_file_range(source, target, count, offset, position)
    except (AttributeError, OSError) as error:
        _raise_unless_unsupported(error)

    def write(piece: memoryview, done: int) -> None:
        write_at(target, piece, position + done)

    return _by_hand(source, offset, count, write)


def share(source: int, offset: int, target: int, position: int, count: int) -> bool:
    """Lets one file have `count` bytes of another by having the same blocks, where the file system can (on Linux: XFS,
    btrfs and others) and these are whole blocks of both. Returns whether it does; if not, nothing was done.
    """
    if sys.platform == "linux":
        with contextlib.suppress(ImportError, OSError):  # which copying will hear of too
            import fcntl

            fcntl.ioctl(target, _FICLONERANGE, struct.pack("=qQQQ", source, offset, count, position))
            return True
    return False


def send(source: int, offset: int, target: int, count: int) -> int:
    """Sends at most `count` bytes of a file to a pipe; returns how many, 0 at the end. Raises OSError."""
    try:
        return os.sendfile(target, source, offset, count)
    except (AttributeError, OSError) as error:
        _raise_unless_unsupported(error)
    return _by_hand(source, offset, count, lambda piece, _: write_all(target, piece))


def _by_hand(source: int, offset: int, count: int, write: Callable[[memoryview, int], object]) -> int:
    """Reads `count` bytes, or as many as there are, piece by piece in one buffer, and gives each to `write`."""
    buffer = memoryview(bytearray(min(count, _PIECE)))
    done = 0
    while done < count:
        size = read_at(source, buffer[: count - done], offset + done)
        if size == 0:
            break
        write(buffer[:size], done)
        done += size
    return done


def checksum(descriptor: int, position: int, size: int) -> int:
    """The CRC-32 of `size` bytes from `position`, or of as many as there are. Raises OSError."""
    crc = 0

    def add(piece: memoryview, _: int) -> None:
        nonlocal crc
        crc = zlib.crc32(piece, crc)

    _by_hand(descriptor, position, size, add)
    return crc


def take(source: int, count: int) -> bytes:
    """Reads at most `count` bytes of a stream; none at its end. Raises OSError."""
    return os.read(source, count)


def write(target: int, data: bytes | memoryview, position: int | None) -> None:
    """Writes all of `data` to a file, at `position`, or to a stream. Raises OSError."""
    if position is None:
        write_all(target, data)
    else:
        write_at(target, data, position)


def pass_on(source: int, target: int, position: int | None, count: int) -> int:
    """Moves at most `count` bytes of a stream to a file, at `position`, or to another stream: inside the kernel where
    it can (Linux, where one of the two is a pipe), else by reading. Returns how many, 0 at its end. Raises OSError.
    """
    try:
        return os.splice(source, target, count, offset_dst=position)
    except (AttributeError, OSError) as error:
        _raise_unless_unsupported(error)
    data = os.read(source, min(count, _PIECE))
    write(target, data, position)
    return len(data)


def drain(source: int, target: int) -> None:
    """Moves everything from one descriptor to another: inside the kernel where it can (Linux, from a pipe), else by
    reading. Raises OSError.
    """
    if hasattr(os, "splice"):
        with contextlib.suppress(OSError):  # not a pipe: read it
            while os.splice(source, target, _PIECE):
                pass
            return
    while chunk := os.read(source, _PIECE):
        write_all(target, chunk)


def widen_pipe(descriptor: int) -> None:
    """A pipe of 1 MiB instead of 64 KiB, where it can be had: fewer turns between writer and reader."""
    with contextlib.suppress(ImportError, AttributeError, OSError):
        import fcntl

        fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, 1 << 20)


def _raise_unless_unsupported(error: Exception) -> None:
    if isinstance(error, OSError) and error.errno not in _UNSUPPORTED:
        raise error
