"""Names of files: who is writing a file that does not have its final name yet, and how it gets that.

Where there is flock, a file that is being written is locked. Windows has no such lock, and needs none: there a file
that is open can be neither removed nor renamed.
"""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

from resnet_surgeon.platform import opening

try:
    import fcntl
except ImportError:
    fcntl = None  # type: ignore[assignment]

OPEN_FILES_MOVE = fcntl is not None


def hold(descriptor: int) -> bool:
    """Takes the lock, which goes with the descriptor or the process; False where the file system has none. Never waits:
    raises BlockingIOError if another holds it.
    """
    if fcntl is None:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        return False
    return True


def is_held_by_another(descriptor: int) -> bool:
    """Takes the lock, unless another holds it."""
    try:
        hold(descriptor)
    except BlockingIOError:
        return True
    return False


def remove_unless_held(path: Path) -> None:
    """Removes a file whose writer is gone. Raises OSError if it lives (BlockingIOError or PermissionError), or the file
    cannot be removed.
    """
    if not OPEN_FILES_MOVE:
        path.unlink(missing_ok=True)
        return
    descriptor = opening.existing(path)
    try:
        if hold(descriptor):
            path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def give_name(path: Path, target: Path, replacing: bool) -> None:
    """Moves the file to `target`: in place of what is there, if `replacing`. Raises OSError, FileExistsError if it is
    not and something is.
    """
    if not replacing:
        try:
            os.link(path, target)
        except FileExistsError:
            raise
        except OSError:  # a file system without hard links
            if target.exists():
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from None
        else:
            with contextlib.suppress(OSError):
                path.unlink()
            return
    os.replace(path, target)
