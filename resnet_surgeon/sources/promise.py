"""What the publisher of a file promises: the beginning of its SHA-256, and what the catalogue says of it."""

from __future__ import annotations

from resnet_surgeon.dataclass import dataclass
from resnet_surgeon.errors import CheckpointError
from resnet_surgeon.formats.container import Container
from resnet_surgeon.formats.files import OpenFile
from resnet_surgeon.sources import catalog
from resnet_surgeon.sources.digest import sha256
from resnet_surgeon.sources.progress import Progress


@dataclass(frozen=True)
class Promise:
    """`digests` begin the file's SHA-256; `entry` is the published file that it claims to be by its name."""

    digests: tuple[str, ...] = ()
    entry: catalog.Entry | None = None

    def kept_by(self, container: Container, progress: Progress) -> str | None:
        """The file's SHA-256, for which it is read through; None where nothing was promised.

        Raises CheckpointError unless it begins as every one of the digests.
        """
        if not self.digests:
            return None
        digest = sha256(container, progress)
        for promised in self.digests:
            if not digest.startswith(promised):
                raise CheckpointError(
                    f"its SHA-256 begins {digest[: len(promised)]}, expected {promised}: it is not the published file",
                    subject=container.file.name,
                    hint="delete it to download it again, or rename it if it is another file",
                )
        return digest

    def shortfall(self, file: OpenFile) -> str:
        """How much of a published file is there, for a message about one that is damaged; empty if all of it may be."""
        if self.entry is None or file.size >= self.entry.megabytes * 0.99 * 2**20:
            return ""
        return f" ({file.size / 2**20:.1f} MiB of {self.entry.megabytes:.1f} MiB)"


def promise(name: str, digest: str | None = None) -> Promise:
    """What is promised of a file called `name`, whose URL gave `digest`."""
    entry = catalog.entry_for_file(name)
    return Promise(tuple(filter(None, (digest, entry.digest if entry else None))), entry)
