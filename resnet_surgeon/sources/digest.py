"""The SHA-256 of a source's files, which shows itself while it is worked out. Knows no network."""

from __future__ import annotations

from pathlib import PurePath

from resnet_surgeon.formats.container import Container
from resnet_surgeon.sources.progress import Progress


def sha256(container: Container, progress: Progress) -> str:
    """The digest of the whole file (and then its shards), in hexadecimal. Raises CheckpointError if it is damaged or
    has changed.
    """
    size = sum(file.size for file in container.files)
    with progress(f"hashing {PurePath(container.file.name).name}", size) as advance:
        return container.sha256(advance)
