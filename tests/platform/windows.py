"""`python -m tests.platform.windows adapt ...`: the command as on Windows.

Files are text unless they are opened as O_BINARY, and standard streams until msvcrt says otherwise; folders cannot be
opened, and what is open can be neither removed, renamed nor replaced. There is no reading or writing at an offset, no
copying in the kernel, no lock, no mode, no SIGHUP and no SIGPIPE.

HOLD names a file that another program has open meanwhile.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import sys
import types
from pathlib import Path
from typing import Any

from tests.platform.elsewhere import Call, import_what_asks, is_by_tempfile, is_ours, run, take_away

O_BINARY = 1 << 40  # unlike any flag of Linux
_CALLS = (
    "copy_file_range", "sendfile", "splice", "posix_fallocate", "posix_fadvise", "pread", "preadv", "pwrite", "pwritev",
    "readv", "writev", "fchmod", "fchown", "chown", "fork", "mkfifo", "geteuid", "getuid", "statvfs", "fdatasync",
    "O_CLOEXEC", "O_NONBLOCK", "O_NOFOLLOW", "O_DIRECTORY", "O_NOCTTY", "O_SYNC",
)  # fmt: skip
_SIGNALS = ("SIGHUP", "SIGPIPE", "SIGALRM", "SIGKILL", "SIGUSR1", "SIGQUIT", "SIGCHLD", "pthread_sigmask", "alarm")


def become(with_torch: bool = True) -> None:
    import_what_asks(with_torch)
    take_away(os, _CALLS)
    take_away(signal, _SIGNALS)
    for module in ("fcntl", "termios", "pwd", "grp", "resource"):
        sys.modules[module] = None  # type: ignore[assignment]
    os.O_BINARY = O_BINARY  # type: ignore[attr-defined]
    binary: set[int] = set()
    msvcrt = types.ModuleType("msvcrt")
    vars(msvcrt)["setmode"] = lambda descriptor, mode: binary.add(descriptor)
    sys.modules["msvcrt"] = msvcrt
    _open_as_there(binary)
    for call, paths in (("replace", 2), ("rename", 2), ("unlink", 1), ("remove", 1)):
        setattr(os, call, _while_closed(getattr(os, call), paths))
    type.__setattr__(Path, "unlink", _unlink)
    library = ctypes.CDLL

    def cdll(name: str | None, *arguments: Any, **options: Any) -> Any:
        if name is None:
            raise TypeError("LoadLibrary() argument 1 must be str, not None")
        return library(name, *arguments, **options)

    ctypes.CDLL = cdll  # type: ignore[assignment, misc]


def _open_as_there(binary: set[int]) -> None:
    open_, read, write, close = os.open, os.read, os.write, os.close

    def opened(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
        if os.path.isdir(path) and is_ours():
            raise PermissionError(errno.EACCES, "Permission denied")
        descriptor = open_(path, flags & ~O_BINARY, *arguments, **options)
        if flags & O_BINARY or not is_ours():
            binary.add(descriptor)
        return descriptor

    def closed(descriptor: int) -> None:
        binary.discard(descriptor)
        close(descriptor)

    def as_text(call: Call) -> Call:
        def transfer(descriptor: int, *arguments: Any) -> Any:
            if is_ours() and descriptor in (0, 1) and descriptor not in binary:
                raise AssertionError("bytes go through a descriptor that is open for text")
            return call(descriptor, *arguments)

        return transfer

    for name, call in (("open", opened), ("close", closed), ("read", as_text(read)), ("write", as_text(write))):
        setattr(os, name, call)


def _is_open(path: Any) -> bool:
    try:
        there = os.stat(path)
    except OSError:
        return False
    for name in os.listdir("/proc/self/fd"):
        try:
            if os.path.samestat(os.stat(f"/proc/self/fd/{name}"), there):
                return True
        except OSError:
            pass
    return False


def _while_closed(call: Call, paths: int) -> Call:
    def checked(*arguments: Any, **options: Any) -> Any:
        if not is_by_tempfile() and any(_is_open(path) for path in arguments[:paths]):
            raise PermissionError(errno.EACCES, "The process cannot access the file: it is used by another process")
        return call(*arguments, **options)

    return checked


def _unlink(path: Path, missing_ok: bool = False) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        if not missing_ok:
            raise


PLATFORM = "win32"

if __name__ == "__main__":
    become()
    run(PLATFORM)
