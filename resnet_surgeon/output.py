"""Writes a network's file and manifest so that at any moment the old file or the whole new one stands; or streams it.

Bytes that no operation touched go from file to file inside the kernel. Knows tensors and the manifest, no operation.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import signal
import stat
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, TypeVar, cast

from resnet_surgeon.errors import AccessError, CheckpointError
from resnet_surgeon.formats import safetensors
from resnet_surgeon.formats.files import OpenFile, write_all
from resnet_surgeon.formats.tensors import LazyTensor, Stored, byte_size, chunks
from resnet_surgeon.manifest import Manifest
from resnet_surgeon.sources.progress import Advance, Progress
from resnet_surgeon.sources.source import MANIFEST_KEY, Source
from resnet_surgeon.targets import cannot_write, checked_page, checked_pair

_TURN = 1.0  # seconds to wait for others who are naming files in the same folder
_SLICE = 1 << 24  # how much is copied between two looks at signals and progress


@dataclass(frozen=True)
class Document:
    """All that goes into a file: its tensors in the file's order, and the text of their manifest.

    Where the source's SHA-256 is not known yet, `digest_place` stands for it in the text, and `source` can tell it.
    """

    tensors: Mapping[str, LazyTensor]
    manifest: str
    source: Source
    digest_place: str | None

    def digest(self) -> str:
        """The source's SHA-256, for which the source is read once. Raises CheckpointError."""
        return self.source.identified().sha256 or ""

    def identified(self, digest: str) -> Document:
        """The document with the digest in its place, exactly as long as before."""
        assert self.digest_place is not None
        return replace(self, manifest=self.manifest.replace(self.digest_place, digest), digest_place=None)

    def header(self) -> bytes:
        """The file's first bytes. Raises CheckpointError if nobody could open a file that begins so."""
        metadata = {**self.source.metadata, "format": "pt", MANIFEST_KEY: self.manifest}
        try:
            return safetensors.header(self.tensors, metadata)
        except CheckpointError as error:
            raise error.about(self.source.subject) from None

    def size(self) -> int:
        return sum(byte_size(tensor) for tensor in self.tensors.values())


def document(tensors: Mapping[str, LazyTensor], manifest: Manifest, source: Source) -> Document:
    place = None
    if manifest.source.container is not None and manifest.source.sha256 is None:
        place = secrets.token_hex(32)  # unlike any text that is there already
        manifest = replace(manifest, source=replace(manifest.source, sha256=place))
    return Document(safetensors.in_file_order(tensors), manifest.to_json(), source, place)


def write(content: Document, path: Path, *, force: bool, progress: Progress) -> Path:
    """Writes the file, then its manifest, each to a temporary file beside it that is synced and renamed. Returns it.

    Raises AccessError (target exists and not `force`, no room, no permission), CheckpointError (the source is damaged
    or changed).
    """
    container = content.source.container
    places = checked_pair(path, force, (container.file, *container.others) if container else ())
    target, sidecar = places.output, places.manifest
    total = content.size()
    header = content.header()
    start, place = len(header), header.find((content.digest_place or "").encode())
    with contextlib.ExitStack() as cleanup:
        try:
            digest = _Background(content.digest) if content.digest_place else None
            temporary, descriptor = _temporary(target, cleanup)
            _reserve(descriptor, start + total)
            _write_at(descriptor, header, 0)
            del header  # which may be long
            with progress(f"writing {path.name}", total) as advance:
                _write_runs(descriptor, _runs(content.tensors.values(), start), advance)
            if digest:
                content = content.identified(digest.result())
                _write_at(descriptor, digest.result().encode(), place)
            os.fsync(descriptor)
            manifest_temporary, manifest_descriptor = _temporary(sidecar, cleanup)
            _write_at(manifest_descriptor, content.manifest.encode(), 0)
            os.fsync(manifest_descriptor)
            with _publishing(target.parent):
                _publish_pair(temporary, target, manifest_temporary, sidecar, force)
        except OSError as error:
            raise cannot_write(path, error) from None
    return path


def write_page(text: str, path: Path, *, force: bool) -> Path:
    """Writes a page as `write` writes its manifest. Raises the errors of `checked_page`."""
    target = checked_page(path, force)
    with contextlib.ExitStack() as cleanup:
        try:
            temporary, descriptor = _temporary(target, cleanup)
            _write_at(descriptor, text.encode(), 0)
            os.fsync(descriptor)
            with _publishing(target.parent):
                _publish(temporary, target, force)
        except OSError as error:
            raise cannot_write(path, error) from None
    return path


def stream(content: Document, descriptor: int, progress: Progress) -> None:
    """Sends the file to a descriptor, such as a pipe's. Raises BrokenPipeError if the reader has gone, AccessError for
    other failures.
    """
    if content.digest_place:
        content = content.identified(content.digest())
    _widen_pipe(descriptor)
    try:
        write_all(descriptor, content.header())
        with progress("streaming", content.size()) as advance:
            for run in _runs(content.tensors.values(), start=0):
                run.send(descriptor, advance)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise AccessError(f"writing failed: {error.strerror}", subject="standard output") from None
    if content.source.container:
        content.source.container.check_unchanged()


@dataclass(frozen=True)
class _Copy:
    """Neighbouring stored tensors: one run of bytes, to stand at `position` of the new file."""

    position: int
    file: OpenFile
    offset: int
    size: int

    def write(self, descriptor: int, advance: Advance) -> None:
        """Into a file: inside the kernel where it can, else by hand."""

        def copy(done: int, count: int) -> int:
            position = self.position + done
            try:
                return os.copy_file_range(self.file.descriptor, descriptor, count, self.offset + done, position)
            except (AttributeError, OSError) as error:
                _raise_unless_unsupported(error)
            for chunk in self.file.chunks(self.offset + done, count):
                position = _write_at(descriptor, chunk, position)
            return count

        self._in_slices(copy, advance)

    def send(self, descriptor: int, advance: Advance) -> None:
        """Into a pipe: inside the kernel where it can, else by hand."""

        def copy(done: int, count: int) -> int:
            try:
                return os.sendfile(descriptor, self.file.descriptor, self.offset + done, count)
            except (AttributeError, OSError) as error:
                _raise_unless_unsupported(error)
            for chunk in self.file.chunks(self.offset + done, count):
                write_all(descriptor, chunk)
            return count

        self._in_slices(copy, advance)

    def _in_slices(self, copy: Callable[[int, int], int], advance: Advance) -> None:
        """Calls `copy` with what is done and how much to do next, until all is; it says how much it did."""
        done = 0
        while done < self.size:
            count = copy(done, min(self.size - done, _SLICE))
            if count == 0:
                raise CheckpointError("the file became shorter while it was read", subject=self.file.name)
            done += count
            advance(count)


@dataclass(frozen=True)
class _Make:
    """A tensor whose bytes are made here, to stand at `position` of the new file."""

    position: int
    tensor: LazyTensor

    def write(self, descriptor: int, advance: Advance) -> None:
        position = self.position
        for chunk in chunks(self.tensor):
            position = _write_at(descriptor, chunk, position)
            advance(len(chunk))

    def send(self, descriptor: int, advance: Advance) -> None:
        for chunk in chunks(self.tensor):
            write_all(descriptor, chunk)
            advance(len(chunk))


def _runs(tensors: Iterable[LazyTensor], start: int) -> Iterator[_Copy | _Make]:
    """The contents of `tensors` one after the other from position `start`, in as few runs as they come in."""
    position = start
    copy: _Copy | None = None
    for tensor in tensors:
        size = byte_size(tensor)
        if isinstance(tensor, Stored) and copy and (copy.file, copy.offset + copy.size) == (tensor.file, tensor.offset):
            copy = replace(copy, size=copy.size + size)
        else:
            if copy:
                yield copy
            copy = _Copy(position, tensor.file, tensor.offset, size) if isinstance(tensor, Stored) else None
            if copy is None:
                yield _Make(position, tensor)
        position += size
    if copy:
        yield copy


def _write_runs(descriptor: int, runs: Iterable[_Copy | _Make], advance: Advance) -> None:
    """Writes all runs: first what the kernel copies, which it then syncs in a second thread while this one makes what
    has to be made.
    """
    made: list[_Make] = []
    for run in runs:
        if isinstance(run, _Copy):
            run.write(descriptor, advance)
        else:
            made.append(run)
    syncing = _Background(lambda: os.fsync(descriptor))
    for run in made:
        run.write(descriptor, advance)
    syncing.result()


# What a kernel or file system answers when it cannot copy between these two descriptors: reading and writing may work.
_UNSUPPORTED = {
    errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.EBADF, errno.ETXTBSY,
    errno.ENOTSOCK, errno.ENOTSUP,  # macOS: its sendfile wants a socket
}  # fmt: skip


def _raise_unless_unsupported(error: Exception) -> None:
    if isinstance(error, OSError) and error.errno not in _UNSUPPORTED:
        raise error


def _write_at(descriptor: int, data: bytes | memoryview, position: int) -> int:
    """Writes all of `data` at `position`; returns where it ends."""
    view = memoryview(data)
    while view:
        count = os.pwrite(descriptor, view, position)
        view, position = view[count:], position + count
    return position


T = TypeVar("T")


class _Background(Generic[T]):
    """A function at work in a second thread; `result` waits for it and gives its value or raises its exception."""

    def __init__(self, function: Callable[[], T]) -> None:
        self._function = function
        self._value: T | None = None
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = threading.Thread(target=self._run, daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # no memory or no number for another thread: then at once, in this one
            self._thread = None
            self._run()

    def _run(self) -> None:
        try:
            self._value = self._function()
        except BaseException as error:
            self._error = error

    def result(self) -> T:
        if self._thread:
            self._thread.join()
        if self._error is not None:
            raise self._error
        return cast(T, self._value)


def _temporary(target: Path, cleanup: contextlib.ExitStack) -> tuple[Path, int]:
    """A new file beside `target`, with the mode that it will have; closed and, unless it was renamed, removed by
    `cleanup`. It is locked as long as its writer lives; those of writers that were killed go now.
    """
    _remove_abandoned(target)
    while True:
        path = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
        cleanup.callback(path.unlink, missing_ok=True)  # before it is there: a signal may come while it is made
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        cleanup.callback(os.close, descriptor)
        with contextlib.suppress(BlockingIOError):
            _lock(descriptor)
            if os.fstat(descriptor).st_nlink:
                break
        # Else another writer took it for abandoned before it was locked.
    with contextlib.suppress(FileNotFoundError):
        os.fchmod(descriptor, stat.S_IMODE(target.stat().st_mode))
    return path, descriptor


def _remove_abandoned(target: Path) -> None:
    """Removes temporary files of this output whose writers were killed: nobody holds their lock any more."""
    name = re.compile(rf"\.{re.escape(target.name)}\.[0-9a-f]{{8}}\.tmp")
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


def _publish(temporary: Path, target: Path, force: bool) -> None:
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


def _publish_pair(temporary: Path, target: Path, manifest_temporary: Path, sidecar: Path, force: bool) -> None:
    """The file, then its manifest. If the second fails, the file goes too; where it replaced another, it stays, which
    has its own manifest embedded, but not the old one's beside it.
    """
    _publish(temporary, target, force)
    try:
        _publish(manifest_temporary, sidecar, force)
    except OSError:
        with contextlib.suppress(OSError):
            (sidecar if force else target).unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def _publishing(folder: Path) -> Iterator[None]:
    """Files get their names in here, together: signals wait, and so do others who write into the folder, for a while.
    Then the folder is synced.
    """
    signals = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        deadline = time.monotonic() + _TURN
        while _is_locked_by_another(descriptor) and time.monotonic() < deadline:
            time.sleep(0.01)
        masked = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        try:
            yield
            os.fsync(descriptor)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, masked)
    finally:
        os.close(descriptor)


def _reserve(descriptor: int, size: int) -> None:
    """Takes the room on the disk at once, so that a full disk is told before anything is written."""
    if not hasattr(os, "posix_fallocate"):
        return
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise OSError(error.errno, f"{os.strerror(error.errno)} ({size} bytes are needed)") from None


def _widen_pipe(descriptor: int) -> None:
    """A pipe of 1 MiB instead of 64 KiB: fewer turns between writer and reader."""
    with contextlib.suppress(ImportError, AttributeError, OSError):
        import fcntl

        fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, 1 << 20)
