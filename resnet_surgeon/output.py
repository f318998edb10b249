"""Writes a network's file and manifest so that at any moment the old file or the whole new one stands; or streams it.

Bytes that no operation touched go from file to file inside the kernel. Knows tensors and the manifest, no operation.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, TypeVar

from resnet_surgeon.errors import AccessError, CheckpointError, UsageError
from resnet_surgeon.formats import safetensors
from resnet_surgeon.formats.files import OpenFile
from resnet_surgeon.formats.tensors import LazyTensor, Stored, byte_size, chunks
from resnet_surgeon.manifest import METADATA_KEY, Manifest
from resnet_surgeon.sources.progress import Progress
from resnet_surgeon.sources.source import Source

_SLICE = 1 << 24  # how much is copied between two looks at signals and progress
_UNKNOWN_DIGEST = "0" * 64


@dataclass(frozen=True)
class Document:
    """All that goes into a file: tensors by name, their manifest, and the source that both are from.

    Where the source's SHA-256 is not known yet, the manifest lacks it; it is filled in while or before the tensors are written.
    """

    tensors: Mapping[str, LazyTensor]
    manifest: Manifest
    source: Source

    @property
    def needs_digest(self) -> bool:
        return self.manifest.source.container is not None and self.manifest.source.sha256 is None

    def identified(self, digest: str | None) -> Document:
        return replace(self, manifest=replace(self.manifest, source=replace(self.manifest.source, sha256=digest))) if digest else self

    def header(self) -> bytes:
        metadata = {**self.source.metadata, "format": "pt", METADATA_KEY: self.manifest.to_json()}
        return safetensors.header(self.tensors, metadata)

    def size(self) -> int:
        return sum(byte_size(tensor) for tensor in self.tensors.values())


def document(tensors: Mapping[str, LazyTensor], manifest: Manifest, source: Source) -> Document:
    return Document(safetensors.in_file_order(tensors), manifest, source)


@dataclass(frozen=True)
class Written:
    """The two files of a network."""

    path: Path
    manifest: Path


def manifest_path(path: Path) -> Path:
    """`model.json` for `model.safetensors`."""
    return path.with_name(path.name.removesuffix(".safetensors") + ".json")


def check_target(path: Path, force: bool) -> None:
    """Raises AccessError or UsageError for what cannot be written, before anything is read."""
    sidecar = manifest_path(path)
    if sidecar.name == path.name:
        raise UsageError("the output is a safetensors file; its manifest gets the .json name", subject=str(path), hint="end its name in .safetensors")
    for target in (path, sidecar):
        try:
            mode = target.stat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, ValueError) as error:
            raise _cannot_write(target, error) from None
        if not stat.S_ISREG(mode):
            kind = "a folder" if stat.S_ISDIR(mode) else "not a regular file"
            raise AccessError(f"it is {kind}", subject=str(target), hint="name a file, or `-` for a stream on standard output")
        if not force:
            raise AccessError("it exists already", subject=str(target), hint="use `--force` to replace it, or `--output` to write elsewhere")
    folder = path.resolve().parent
    if not folder.is_dir():
        raise AccessError(f"the folder {folder} does not exist" if not folder.exists() else f"{folder} is not a folder", subject=str(path))
    if not os.access(folder, os.W_OK | os.X_OK):
        raise AccessError(f"no permission to write into {folder}", subject=str(path))


def write(content: Document, path: Path, *, force: bool, progress: Progress) -> Written:
    """Writes the file, then its manifest, each to a temporary file beside it that is synced and renamed.

    Raises AccessError (target exists and not `force`, no room, no permission), CheckpointError (the source is damaged or changed).
    """
    check_target(path, force)
    target, sidecar = path.resolve(), manifest_path(path).resolve()
    total = content.size()
    with contextlib.ExitStack() as cleanup:
        try:
            _check_room(target.parent, total)
            digest = _Background(lambda: content.source.identified().sha256) if content.needs_digest else None
            temporary, descriptor = _temporary(target, cleanup)
            provisional = content.identified(_UNKNOWN_DIGEST) if digest else content
            _write_all(descriptor, provisional.header())
            with progress(f"writing {path.name}", total) as advance:
                for run in _runs(content.tensors.values()):
                    run.write(descriptor, advance)
            if digest:
                content = content.identified(digest.result())
                _write_all(descriptor, content.header(), at_start=True)
            os.fsync(descriptor)
            manifest_temporary, manifest_descriptor = _temporary(sidecar, cleanup)
            _write_all(manifest_descriptor, content.manifest.to_json().encode())
            os.fsync(manifest_descriptor)
            _publish(temporary, target, force)
            _publish(manifest_temporary, sidecar, force)
            _sync_folder(target.parent)
        except OSError as error:
            raise _cannot_write(path, error) from None
    return Written(path, manifest_path(path))


def stream(content: Document, descriptor: int, progress: Progress) -> None:
    """Sends the file to a descriptor, such as a pipe's. Raises BrokenPipeError if the reader has gone, AccessError for other failures."""
    if content.needs_digest:
        content = content.identified(content.source.identified().sha256)
    _widen_pipe(descriptor)
    try:
        _write_all(descriptor, content.header())
        with progress("streaming", content.size()) as advance:
            for run in _runs(content.tensors.values()):
                run.write(descriptor, advance)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise AccessError(f"writing failed: {error.strerror}", subject="standard output") from None
    if content.source.container:
        content.source.container.file.check_unchanged()


@dataclass(frozen=True)
class _Copy:
    """Neighbouring stored tensors: one run of bytes."""

    file: OpenFile
    offset: int
    size: int

    def write(self, descriptor: int, advance: Callable[[int], None]) -> None:
        offset, end = self.offset, self.offset + self.size
        while offset < end:
            count = _copy(self.file, offset, min(end - offset, _SLICE), descriptor)
            if count == 0:
                raise CheckpointError("the file became shorter while it was read", subject=self.file.name)
            offset += count
            advance(count)


@dataclass(frozen=True)
class _Make:
    """A tensor whose bytes are made here."""

    tensor: LazyTensor

    def write(self, descriptor: int, advance: Callable[[int], None]) -> None:
        for chunk in chunks(self.tensor):
            _write_all(descriptor, chunk)
            advance(len(chunk))


def _runs(tensors: Iterable[LazyTensor]) -> Iterator[_Copy | _Make]:
    copy: _Copy | None = None
    for tensor in tensors:
        if isinstance(tensor, Stored) and copy and (copy.file, copy.offset + copy.size) == (tensor.file, tensor.offset):
            copy = replace(copy, size=copy.size + byte_size(tensor))
            continue
        if copy:
            yield copy
        copy = _Copy(tensor.file, tensor.offset, byte_size(tensor)) if isinstance(tensor, Stored) else None
        if copy is None:
            yield _Make(tensor)
    if copy:
        yield copy


# What a kernel or file system answers when it cannot copy between these two descriptors: another way may.
_TRY_ANOTHER_WAY = {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.EBADF, errno.ETXTBSY}


def _copy(file: OpenFile, offset: int, count: int, descriptor: int) -> int:
    """Copies up to `count` bytes to the descriptor's position: between files, to a pipe, or by hand. Returns how many."""
    for way in (_copy_file_range, _sendfile):
        try:
            return way(file.descriptor, offset, count, descriptor)
        except (AttributeError, OSError) as error:
            if isinstance(error, OSError) and error.errno not in _TRY_ANOTHER_WAY:
                raise
    for chunk in file.chunks(offset, count):
        _write_all(descriptor, chunk)
    return count


def _copy_file_range(source: int, offset: int, count: int, descriptor: int) -> int:
    return os.copy_file_range(source, descriptor, count, offset_src=offset)


def _sendfile(source: int, offset: int, count: int, descriptor: int) -> int:
    return os.sendfile(descriptor, source, offset, count)


def _write_all(descriptor: int, data: bytes | memoryview, at_start: bool = False) -> None:
    view, position = memoryview(data), 0
    while view:
        count = os.pwrite(descriptor, view, position) if at_start else os.write(descriptor, view)
        view, position = view[count:], position + count


T = TypeVar("T")


class _Background(Generic[T]):
    """A function at work in a second thread; `result` waits for it and gives its value or raises its exception."""

    def __init__(self, function: Callable[[], T]) -> None:
        self._function = function
        self._value: T | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._value = self._function()
        except BaseException as error:
            self._error = error

    def result(self) -> T | None:
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._value


def _temporary(target: Path, cleanup: contextlib.ExitStack) -> tuple[Path, int]:
    """A new file beside `target`, with the mode that it will have; closed and, unless it was renamed, removed by `cleanup`."""
    path = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    cleanup.callback(os.close, descriptor)
    cleanup.callback(path.unlink, missing_ok=True)
    with contextlib.suppress(FileNotFoundError):
        os.fchmod(descriptor, stat.S_IMODE(target.stat().st_mode))
    return path, descriptor


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


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _check_room(folder: Path, size: int) -> None:
    space = os.statvfs(folder)
    free = space.f_bavail * space.f_frsize
    if free < size:
        raise AccessError(f"the disk is full: {size} bytes are needed, {free} are free", subject=str(folder))


def _widen_pipe(descriptor: int) -> None:
    """A pipe of 1 MiB instead of 64 KiB: fewer turns between writer and reader."""
    with contextlib.suppress(ImportError, AttributeError, OSError):
        import fcntl

        fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, 1 << 20)


def _cannot_write(path: Path, error: Exception) -> AccessError:
    reason = getattr(error, "strerror", None) or str(error)
    return AccessError(f"writing failed: {reason[:1].lower()}{reason[1:]}", subject=str(path))
