"""All that goes into a file: its tensors in order, their manifest, and the digest that is still being computed.

Knows the formats' headers; writes nothing.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from resnet_surgeon.errors import CheckpointError
from resnet_surgeon.formats import safetensors
from resnet_surgeon.formats.arriving import ArrivingFile
from resnet_surgeon.formats.tensors import LazyTensor, byte_size, files
from resnet_surgeon.manifest import Manifest
from resnet_surgeon.sources.origin import Origin
from resnet_surgeon.sources.sidecar import MANIFEST_KEY, NAMES_KEY
from resnet_surgeon.sources.source import Source
from resnet_surgeon.writing.names import Names
from resnet_surgeon.writing.spelling import Change, spelled


@dataclass(frozen=True)
class Document:
    """All that goes into a file: its tensors by their names in it, and the text of their manifest, which stands in
    the file and beside it, and whose names they have. `companions` are the contents of more files that stand beside it,
    by their names; `file_names`, if there are any, are those that it may have then.

    Where the source's SHA-256 is not known yet, `digest_place` stands for it in the text, and `identified` can tell it.
    """

    tensors: Mapping[str, LazyTensor]
    manifest: str
    source: Source
    digest_place: str | None
    identified: Callable[[], Origin]
    names: Names = "torchvision"
    companions: Mapping[str, bytes] = field(default_factory=dict)
    file_names: tuple[str, ...] = ()

    @property
    def is_arriving(self) -> bool:
        """Whether the source is a stream whose bytes are still coming, and can be taken once."""
        container = self.source.container
        return container is not None and isinstance(container.file, ArrivingFile)

    def read_through(self) -> Document:
        """The document with the digest in its place, exactly as long as before: for that the source is read once, and
        for the checksums that it carries, unless it was when it was opened. Raises CheckpointError.
        """
        if self.digest_place is not None:
            digest = self.identified().sha256 or ""
            return replace(self, manifest=self.manifest.replace(self.digest_place, digest), digest_place=None)
        container = self.source.container
        if container is not None and container.checksums and self.source.origin.sha256 is None:
            container.check()
        return self

    def check_unchanged(self) -> None:
        """Raises CheckpointError if a file that the tensors or the digest come from was written to since it was
        opened.
        """
        container = self.source.container
        for file in files(self.tensors.values()) | set(container.files if container else ()):
            file.check_unchanged()

    def header(self) -> bytes:
        """The first bytes of a safetensors file. Raises CheckpointError if nobody could open a file that begins so."""
        others = {key: text for key, text in self.source.metadata.items() if key not in (MANIFEST_KEY, NAMES_KEY)}
        try:
            return safetensors.header(
                safetensors.in_file_order(self.tensors), {**others, "format": "pt", **self.embedded}
            )
        except CheckpointError as error:
            raise error.about(self.source.subject) from None

    @property
    def embedded(self) -> dict[str, str]:
        """The texts that stand in the file itself, by their keys."""
        return {MANIFEST_KEY: self.manifest} | ({} if self.names == "torchvision" else {NAMES_KEY: self.names})

    def size(self) -> int:
        """The bytes of all tensors."""
        return sum(byte_size(tensor) for tensor in self.tensors.values())


def document(
    change: Change, manifest: Manifest, names: Names = "torchvision", identified: Callable[[], Origin] | None = None
) -> Document:
    """The document of a network under `names`; with a place for the source's digest where that is not known, which
    `identified` gives when it is wanted. Raises the errors of `spelled`.
    """
    source, written = change.source, spelled(change, manifest, names)
    if written.tensors.keys() == change.after.keys():
        names = "torchvision"
    place = None
    if manifest.source.container is not None and manifest.source.sha256 is None:
        place = secrets.token_hex(32)  # unlike any text that is there already
        manifest = replace(manifest, source=replace(manifest.source, sha256=place))
    text, known = manifest.to_json(), identified or source.identified
    return Document(written.tensors, text, source, place, known, names, written.companions, written.file_names)
