"""What every container yields, whatever its bytes look like: named lazy tensors, text metadata, and the checksums it
carries.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from resnet_surgeon.errors import CheckpointError, printable
from resnet_surgeon.formats.files import OpenFile

ContainerKind = Literal[
    "safetensors", "torch_zip", "torchscript", "torch_legacy", "torch_tar", "pickle", "npz", "safetensors_index"
]


@dataclass(frozen=True)
class Checksum:
    """The CRC-32 that a container gives for `size` bytes from `offset`, filed under `name`."""

    offset: int
    size: int
    crc: int
    name: str


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
    others: tuple[OpenFile, ...] = ()  # of a sharded checkpoint: the shards; `file` is the index

    @property
    def files(self) -> tuple[OpenFile, ...]:
        return (self.file, *self.others)

    def sha256(self) -> str:
        """The digest of the whole file (and then its shards), in hexadecimal; checksums are tested in the same pass.

        Raises CheckpointError for a checksum that does not hold, or a file that changed since it was opened.
        """
        digest = hashlib.sha256()
        position = 0
        for checksum in sorted(self.checksums, key=lambda item: item.offset):
            for chunk in self.file.chunks(position, checksum.offset - position):
                digest.update(chunk)
            for chunk in self._tested(checksum):
                digest.update(chunk)
            position = checksum.offset + checksum.size
        for file, start in [(self.file, position), *((file, 0) for file in self.others)]:
            for chunk in file.chunks(start, file.size - start):
                digest.update(chunk)
        self.check_unchanged()
        return digest.hexdigest()

    def check(self) -> None:
        """Raises CheckpointError for a checksum that does not hold, or a file that changed since it was opened."""
        for checksum in self.checksums:
            for _ in self._tested(checksum):
                pass
        self.check_unchanged()

    def _tested(self, checksum: Checksum) -> Iterator[memoryview]:
        crc = 0
        for chunk in self.file.chunks(checksum.offset, checksum.size):
            crc = zlib.crc32(chunk, crc)
            yield chunk
        if crc != checksum.crc:
            reason = f"it is damaged: the checksum of {printable(checksum.name)} does not hold"
            raise CheckpointError(reason, subject=self.file.name)

    def check_unchanged(self) -> None:
        """Raises CheckpointError if the file, or a shard, was written to since it was opened."""
        for file in self.files:
            file.check_unchanged()
