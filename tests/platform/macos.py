"""`python -m tests.platform.macos adapt ...`: the command as on macOS.

There is no copy_file_range, splice or posix_fallocate, `sendfile` sends to sockets only, no call takes 2 GiB, and what
reaches the disk is a matter of F_FULLFSYNC, which FULLFSYNC=ENOTSUP takes away, as on network drives.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from typing import Any

from tests.platform.elsewhere import Call, import_what_asks, journal, run, take_away

F_FULLFSYNC = 51
_MOST = 2**31 - 1


def become(with_torch: bool = True) -> None:
    import_what_asks(with_torch)
    take_away(os, ["copy_file_range", "splice", "posix_fallocate", "posix_fadvise", "eventfd", "memfd_create"])
    take_away(fcntl, ["F_SETPIPE_SZ", "F_GETPIPE_SZ"])
    fcntl.F_FULLFSYNC = F_FULLFSYNC  # type: ignore[attr-defined]
    control, sync, send = fcntl.fcntl, os.fsync, os.sendfile

    def fcntl_(descriptor: int, command: int, argument: Any = 0) -> Any:
        if command != F_FULLFSYNC:
            return control(descriptor, command, argument)
        if code := os.environ.get("FULLFSYNC"):
            raise OSError(getattr(errno, code), code)
        journal(f"fullfsync {_kind(descriptor)}")
        return sync(descriptor)

    def fsync(descriptor: int) -> None:
        journal(f"fsync {_kind(descriptor)}")
        sync(descriptor)

    def sendfile(target: int, source: int, *arguments: Any) -> int:
        if not stat.S_ISSOCK(os.fstat(target).st_mode):
            raise OSError(errno.ENOTSOCK, "Socket operation on non-socket")
        return send(target, source, *arguments)

    vars(fcntl)["fcntl"] = fcntl_
    vars(os).update(fsync=fsync, sendfile=sendfile)
    for name in ("read", "write", "pwrite", "preadv"):
        setattr(os, name, _bounded(getattr(os, name)))


def _bounded(call: Call) -> Call:
    def bounded(descriptor: int, data: Any, *arguments: Any) -> Any:
        size = data if isinstance(data, int) else sum(map(len, data)) if isinstance(data, list) else len(data)
        if size > _MOST:
            raise OSError(errno.EINVAL, "Invalid argument")
        return call(descriptor, data, *arguments)

    return bounded


def _kind(descriptor: int) -> str:
    return "folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"


PLATFORM = "darwin"

if __name__ == "__main__":
    become()
    run(PLATFORM)
