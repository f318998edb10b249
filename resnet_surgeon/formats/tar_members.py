"""The members of a tar archive, where they stand: none is unpacked. Knows nothing of what they mean."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from typing import Any

from resnet_surgeon.errors import CheckpointError
from resnet_surgeon.formats.files import OpenFile

_LONGEST_HEADER = 1 << 20  # bytes of a long name, or of more attributes, which are taken into memory as a whole


def members(file: OpenFile) -> Iterator[tarfile.TarInfo]:
    """Each with its name, type, size, and where its bytes begin, in their order. Raises CheckpointError for damage, and
    for sizes that lead nowhere; whether a member's bytes are all there is for the caller to see.
    """
    headers: Any = _Headers(file)
    try:
        yield from tarfile.TarFile(fileobj=headers)
    except (tarfile.TarError, EOFError, ValueError, OverflowError, RecursionError):
        raise CheckpointError("its tar archive is damaged") from None


class _Headers:
    """The file as tarfile reads it, which looks at headers alone: within what a header can be."""

    def __init__(self, file: OpenFile) -> None:
        self.file = file
        self.position = 0

    def tell(self) -> int:
        return self.position

    def seek(self, position: int) -> None:
        if position < 0:
            raise tarfile.ReadError("before the beginning")
        self.position = position

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _LONGEST_HEADER:
            raise tarfile.ReadError("no header is so long")
        begin, left = self.position, max(0, self.file.size - self.position)
        self.position += min(size, left)
        return self.file.read(begin, min(size, left))
