"""Writes a network's file and manifest so that at any moment the old file or the whole new one stands; or streams it.

Bytes that no operation touched go from file to file inside the kernel. Knows tensors and the manifest, no operation.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, TypeVar, cast

from resnet_surgeon.errors import AccessError, CheckpointError
from resnet_surgeon.formats import safetensors
from resnet_surgeon.formats.files import OpenFile, write_all, write_at
from resnet_surgeon.formats.tensors import LazyTensor, Stored, byte_size, chunks, files, prepare
from resnet_surgeon.manifest import Manifest
from resnet_surgeon.sources.progress import Advance, Progress
from resnet_surgeon.sources.source import MANIFEST_KEY, Source
from resnet_surgeon.writing.publish import Temporaries, publish, publish_pair, reserve, signals_wait, sync_folder, turn
from resnet_surgeon.writing.targets import cannot_write, checked_page, checked_pair

_LOOK = 0.1  # seconds of waiting at a stretch: a signal that comes just before it begins does not interrupt it
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

    def check_unchanged(self) -> None:
        """Raises CheckpointError if a file that the tensors or the digest come from was written to since it was
        opened.
        """
        container = self.source.container
        for file in files(self.tensors.values()) | set(container.files if container else ()):
            file.check_unchanged()

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
    places = checked_pair(path, force, container.files if container else ())
    target, sidecar = places.output, places.manifest
    total = content.size()
    header = content.header()
    start, place = len(header), header.find((content.digest_place or "").encode())
    prepare(content.tensors.values())
    with Temporaries() as temporaries, temporaries:
        try:
            digest = _Background(content.digest) if content.digest_place else None
            temporary, descriptor = temporaries.make(target)
            reserve(descriptor, start + total)
            write_at(descriptor, header, 0)
            del header  # which may be long
            with progress(f"writing {path.name}", total) as advance:
                _write_runs(descriptor, _runs(content.tensors.values(), start), advance)
            if digest:
                content = content.identified(digest.result())
                write_at(descriptor, digest.result().encode(), place)
            os.fsync(descriptor)
            manifest_temporary, manifest_descriptor = temporaries.make(sidecar)
            write_at(manifest_descriptor, content.manifest.encode(), 0)
            os.fsync(manifest_descriptor)
            with turn(target.parent) as folder:
                content.check_unchanged()
                with signals_wait():
                    publish_pair(temporary, target, manifest_temporary, sidecar, force)
                    sync_folder(folder)
        except OSError as error:
            raise cannot_write(path, error) from None
    return path


def write_page(text: str, path: Path, *, force: bool) -> Path:
    """Writes a page as `write` writes its manifest. Raises the errors of `checked_page`."""
    target = checked_page(path, force)
    with Temporaries() as temporaries, temporaries:
        try:
            temporary, descriptor = temporaries.make(target)
            write_at(descriptor, text.encode(), 0)
            os.fsync(descriptor)
            with turn(target.parent) as folder, signals_wait():
                publish(temporary, target, force)
                sync_folder(folder)
        except OSError as error:
            raise cannot_write(path, error) from None
    return path


def stream(content: Document, descriptor: int, progress: Progress) -> None:
    """Sends the file to a descriptor, such as a pipe's. Raises BrokenPipeError if the reader has gone, AccessError for
    other failures, CheckpointError if the source changed; then what was sent is not whole, and its reader notices.
    """
    prepare(content.tensors.values())
    if content.digest_place:
        content = content.identified(content.digest())
    _widen_pipe(descriptor)
    try:
        write_all(descriptor, content.header())
        with progress("streaming", content.size()) as advance:
            *runs, last = _runs(content.tensors.values(), start=0)
            for run in runs:
                run.send(descriptor, advance)
            end = last.send_but_for_the_end(descriptor, advance)
            content.check_unchanged()
            write_all(descriptor, end)
            advance(len(end))
    except BrokenPipeError:
        raise
    except OSError as error:
        raise AccessError(f"writing failed: {error.strerror}", subject="standard output") from None


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
                position = write_at(descriptor, chunk, position)
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

    def send_but_for_the_end(self, descriptor: int, advance: Advance) -> bytes:
        """Sends the run but for its last byte, and returns that."""
        replace(self, size=self.size - 1).send(descriptor, advance)
        return self.file.read(self.offset + self.size - 1, 1)

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
            position = write_at(descriptor, chunk, position)
            advance(len(chunk))

    def send(self, descriptor: int, advance: Advance) -> None:
        for chunk in chunks(self.tensor):
            write_all(descriptor, chunk)
            advance(len(chunk))

    def send_but_for_the_end(self, descriptor: int, advance: Advance) -> bytes:
        """Sends the tensor but for its last piece, and returns that."""
        end = b""
        for chunk in chunks(self.tensor):
            write_all(descriptor, end)
            advance(len(end))
            end = bytes(chunk)
        return end


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
        while self._thread and self._thread.is_alive():
            self._thread.join(_LOOK)
        if self._error is not None:
            raise self._error
        return cast(T, self._value)


def _widen_pipe(descriptor: int) -> None:
    """A pipe of 1 MiB instead of 64 KiB: fewer turns between writer and reader."""
    with contextlib.suppress(ImportError, AttributeError, OSError):
        import fcntl

        fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, 1 << 20)
