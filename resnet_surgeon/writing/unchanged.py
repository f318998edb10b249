"""Whether a file is already, byte for byte, what would be written; and the digest of one that was. Writes nothing."""

from __future__ import annotations

import zlib
from pathlib import Path

from resnet_surgeon.errors import AccessError
from resnet_surgeon.formats.files import OpenFile
from resnet_surgeon.formats.tensors import LazyTensor, chunks, prepare
from resnet_surgeon.sources.progress import Advance, Progress, silent
from resnet_surgeon.sources.sidecar import manifest_path
from resnet_surgeon.writing.document import Document
from resnet_surgeon.writing.forms import form_of


def is_written(content: Document, path: Path, progress: Progress) -> bool:
    """Whether `path`, the manifest beside it and its companions are what `write` would make of them.

    Sizes are looked at first, then the source is read for its digest; then every byte is compared, so that it does not
    matter when a file was written, nor by whom. Raises CheckpointError for a damaged source.
    """
    layout = form_of(path).layout(content)
    file = _opened(path)
    beside = {path.with_name(name): data for name, data in content.companions.items()}
    if file is None or file.size != layout.size or not all(_holds(name, data) for name, data in beside.items()):
        return False
    content = content.read_through()
    if not _holds(manifest_path(path), content.manifest.encode()):
        return False

    def checksum(position: int, size: int) -> int:
        crc = 0
        for chunk in file.chunks(position, size):
            crc = zlib.crc32(chunk, crc)
        return crc

    prepare(content.tensors.values())
    with progress(f"comparing {path.name}", layout.size) as advance:
        same = all(file.read(position, len(data)) == data for position, data in layout.frame(content, checksum))
        same = same and all(_is_at(file, position, tensor, advance) for position, tensor in layout.tensors)
    content.check_unchanged()
    file.check_unchanged()
    return same


def digest(path: Path, progress: Progress = silent) -> tuple[int, str]:
    """The size and SHA-256 of a file. Raises AccessError."""
    file = OpenFile.at(path)
    with progress(f"hashing {path.name}", file.size) as advance:
        return file.size, file.sha256(advance)


def _opened(path: Path) -> OpenFile | None:
    try:
        return OpenFile.at(path)
    except AccessError:
        return None


def _holds(path: Path, data: bytes) -> bool:
    file = _opened(path)
    return file is not None and file.size == len(data) and file.read(0, file.size) == data


def _is_at(file: OpenFile, position: int, tensor: LazyTensor, advance: Advance) -> bool:
    for chunk in chunks(tensor):
        if file.read(position, len(chunk)) != bytes(chunk):
            return False
        position += len(chunk)
        advance(len(chunk))
    return True
