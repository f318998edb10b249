"""What every container yields, whatever its bytes look like: named lazy tensors, text metadata, and the checksums it
carries.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import field
from typing import Literal

from resnet_surgeon.dataclass import dataclass
from resnet_surgeon.errors import CheckpointError, printable
from resnet_surgeon.formats.files import OpenFile

ContainerKind = Literal[
    "safetensors",
    "torch_zip",
    "torchscript",
    "torch_legacy",
    "torch_tar",
    "pickle",
    "npz",
    "safetensors_index",
    "torch_distributed",
    "onnx",
]


@dataclass(frozen=True)
class Checksum:
    """The CRC-32 that a container gives for `size` bytes of the file from `offset`, filed under `name`."""

    offset: int
    size: int
    crc: int
    name: str
    file: OpenFile


@dataclass(frozen=True)
class Container:
    """What one file holds: `root` maps names to tensors, or is whatever else was saved, with tensors in it."""

    kind: ContainerKind
    file: OpenFile
    root: object
    metadata: Mapping[str, str] = field(default_factory=dict)
    checksums: tuple[Checksum, ...] = ()
    warnings: tuple[str, ...] = ()  # what is odd, and was passed over
    not_loaded: tuple[str, ...] = ()  # classes and functions that the file names, whose objects stayed closed
    others: tuple[OpenFile, ...] = ()  # of a checkpoint in several files: the others; `file` is their index

    @property
    def files(self) -> tuple[OpenFile, ...]:
        return (self.file, *self.others)

    def sha256(self, advance: Callable[[int], None] = lambda count: None) -> str:
        """The digest of the whole file (and then its shards), in hexadecimal; checksums are tested in the same pass.

        `advance` hears how many bytes each step read. Raises CheckpointError for a checksum that does not hold, or a
        file that changed since it was opened.
        """
        if not self.checksums and not self.others:
            whole = self.file.sha256(advance)
            self.check_unchanged()
            return whole
        digest = hashlib.sha256()

        def read(chunks: Iterator[memoryview]) -> None:
            for chunk in chunks:
                digest.update(chunk)
                advance(len(chunk))

        for file in self.files:
            position = 0
            checksums = (checksum for checksum in self.checksums if checksum.file is file)
            for checksum in sorted(checksums, key=lambda item: item.offset):
                read(file.chunks(position, checksum.offset - position))
                read(_tested(checksum))
                position = checksum.offset + checksum.size
            read(file.chunks(position, file.size - position))
        self.check_unchanged()
        return digest.hexdigest()

    def check(self) -> None:
        """Raises CheckpointError for a checksum that does not hold, or a file that changed since it was opened."""
        for checksum in self.checksums:
            for _ in _tested(checksum):
                pass
        self.check_unchanged()

    def check_unchanged(self) -> None:
        """Raises CheckpointError if the file, or a shard, was written to since it was opened."""
        for file in self.files:
            file.check_unchanged()


def _tested(checksum: Checksum) -> Iterator[memoryview]:
    crc = 0
    for chunk in checksum.file.chunks(checksum.offset, checksum.size):
        crc = zlib.crc32(chunk, crc)
        yield chunk
    if crc != checksum.crc:
        reason = f"it is damaged: the checksum of {printable(checksum.name)} does not hold"
        raise CheckpointError(reason, subject=checksum.file.name)
