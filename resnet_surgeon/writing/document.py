"""All that goes into a file: its tensors in order, their manifest, and the digest that is still being computed.

Knows the formats' headers; writes nothing.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace

from resnet_surgeon.errors import CheckpointError
from resnet_surgeon.formats import safetensors
from resnet_surgeon.formats.tensors import LazyTensor, byte_size, files
from resnet_surgeon.manifest import Manifest
from resnet_surgeon.sources.source import MANIFEST_KEY, Source


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
        """The bytes of all tensors."""
        return sum(byte_size(tensor) for tensor in self.tensors.values())


def document(tensors: Mapping[str, LazyTensor], manifest: Manifest, source: Source) -> Document:
    """The document of these tensors, with a place for the source's digest where that is not known."""
    place = None
    if manifest.source.container is not None and manifest.source.sha256 is None:
        place = secrets.token_hex(32)  # unlike any text that is there already
        manifest = replace(manifest, source=replace(manifest.source, sha256=place))
    return Document(safetensors.in_file_order(tensors), manifest.to_json(), source, place)
