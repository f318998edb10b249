"""New files that get their names whole or not at all: temporary files beside them, room on the disk, renaming, syncing.

Knows neither tensors nor manifests, only descriptors and paths.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import secrets
import signal
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

_TURN = 1.0  # seconds to wait for others who are naming files in the same folder
_OWN_NAME = 128  # bytes of the target's name in a temporary one: some file systems take no more than 143 in all
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# What a file system answers that has no such thing: no syncing of folders, no modes.
_MISSING = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF, errno.EPERM, errno.EACCES}


class Temporaries:
    """New files beside their targets, which nobody sees until they get their names. Whatever happens, they are closed
    at the end, and removed if they got none.

    Entered twice, it tidies up twice: a signal may raise in the middle of the first time. Tidying raises nothing of its
    own, so that what went wrong before is what is heard of.
    """

    def __init__(self) -> None:
        self._paths: list[Path] = []
        self._files: list[io.FileIO] = []

    def __enter__(self) -> Temporaries:
        return self

    def __exit__(self, *_: object) -> None:
        for path in self._paths:
            with contextlib.suppress(OSError):
                path.unlink()
        for file in self._files:
            with contextlib.suppress(OSError):
                file.close()
        self._paths.clear()

    def make(self, target: Path) -> tuple[Path, int]:
        """The path and descriptor of a new file, with the mode that `target` has. It is locked as long as its writer
        lives; those of writers that were killed go now.
        """
        _remove_abandoned(target)
        while True:
            path = target.with_name(f"{_beginning(target)}{secrets.token_hex(4)}.tmp")
            self._paths.append(path)  # before it is there: a signal may come while it is made
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            self._files.append(io.FileIO(descriptor, "r+"))
            with contextlib.suppress(BlockingIOError):
                _lock(descriptor)
                if os.fstat(descriptor).st_nlink:
                    break
            # Else another writer took it for abandoned before it was locked.
        with contextlib.suppress(FileNotFoundError), _where_there_is_such_a_thing():
            os.fchmod(descriptor, stat.S_IMODE(target.stat().st_mode))
        return path, descriptor


def _beginning(target: Path) -> str:
    """How the names of a target's temporary files begin."""
    name = target.name
    while len(os.fsencode(name)) > _OWN_NAME:
        name = name[:-1]
    return f".{name}."


def _remove_abandoned(target: Path) -> None:
    """Removes temporary files of this output whose writers were killed: nobody holds their lock any more."""
    name = re.compile(rf"{re.escape(_beginning(target))}[0-9a-f]{{8}}\.tmp")
    try:
        found = [Path(entry.path) for entry in os.scandir(target.parent) if name.fullmatch(entry.name)]
    except OSError:
        return
    for path in found:
        with contextlib.suppress(OSError):  # BlockingIOError: its writer lives
            descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                if _lock(descriptor):
                    path.unlink(missing_ok=True)
            finally:
                os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """Takes the lock, which goes with the descriptor or the process; False where the file system has none. Never waits:
    raises BlockingIOError if another holds it.
    """
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except (ImportError, OSError):
        return False
    return True


def _is_locked_by_another(descriptor: int) -> bool:
    """Takes the lock, unless another holds it."""
    try:
        _lock(descriptor)
    except BlockingIOError:
        return True
    return False


def reserve(descriptor: int, size: int) -> None:
    """Takes the room on the disk at once, so that a full disk is told before anything is written."""
    if not hasattr(os, "posix_fallocate"):
        return
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise OSError(error.errno, f"{os.strerror(error.errno)} ({size} bytes are needed)") from None


@contextlib.contextmanager
def turn(folder: Path) -> Iterator[int | None]:
    """Files get their names in here, one writer after the other, if that does not take too long.

    Yields the folder's descriptor, for `sync_folder`; None for one that may be written but not read.
    """
    with contextlib.ExitStack() as stack:
        descriptor = None
        with contextlib.suppress(PermissionError):
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, descriptor)
            deadline = time.monotonic() + _TURN
            while _is_locked_by_another(descriptor) and time.monotonic() < deadline:
                time.sleep(0.01)
        yield descriptor


@contextlib.contextmanager
def signals_wait() -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP that come in here do what they do when it is left.

    Masking them would not do: with a second thread the kernel hands them to that one, and Python runs the handler in
    the main thread. In other threads than that nothing is changed, as Python lets only the main one set handlers.
    """
    came: list[int] = []
    before: dict[signal.Signals, signal._HANDLER] = {}
    if threading.current_thread() is threading.main_thread():
        handlers = {number: signal.getsignal(number) for number in _ENDING}
        before = {number: handler for number, handler in handlers.items() if handler not in (None, signal.SIG_IGN)}

    def remember(number: int, _: FrameType | None) -> None:
        if number not in came:
            came.append(number)

    def restore() -> None:
        for number, handler in before.items():
            if signal.getsignal(number) is remember:  # a handler that is back already may have chosen another
                signal.signal(number, handler)

    try:
        for number in before:
            signal.signal(number, remember)
        yield
    finally:
        try:
            restore()
        finally:
            restore()  # again: a handler that is back may raise before the others are
            _raise_signals(came)


def _raise_signals(numbers: list[int]) -> None:
    """Each of them, though the handler of one may raise an exception."""
    with contextlib.ExitStack() as stack:
        for number in reversed(numbers):
            stack.callback(signal.raise_signal, number)


def publish(temporary: Path, target: Path, force: bool) -> None:
    """Gives the file its name; without `force`, only if nobody took it meanwhile."""
    if not force:
        try:
            os.link(temporary, target)
            return
        except FileExistsError:
            raise
        except OSError:  # a file system without hard links
            if target.exists():
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from None
    os.replace(temporary, target)


def publish_pair(temporary: Path, target: Path, manifest_temporary: Path, sidecar: Path, force: bool) -> None:
    """The file, then its manifest. If the second fails, the file goes too; where it replaced another, it stays, which
    has its own manifest embedded, but not the old one's beside it.
    """
    publish(temporary, target, force)
    try:
        publish(manifest_temporary, sidecar, force)
    except (OSError, MemoryError):
        with contextlib.suppress(OSError):
            (sidecar if force else target).unlink(missing_ok=True)
        raise


def sync_folder(descriptor: int | None) -> None:
    """Makes the new names last, where the file system can. Raises OSError if the disk fails."""
    if descriptor is not None:
        with _where_there_is_such_a_thing():
            os.fsync(descriptor)


@contextlib.contextmanager
def _where_there_is_such_a_thing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _MISSING:
            raise
