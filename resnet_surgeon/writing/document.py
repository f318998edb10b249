"""All that goes into a file: its tensors in order, their manifest, and the digest that is still being computed.

Knows the formats' headers; writes nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import field, replace

from resnet_surgeon.dataclass import dataclass
from resnet_surgeon.errors import CheckpointError
from resnet_surgeon.formats import safetensors
from resnet_surgeon.formats.arriving import ArrivingFile
from resnet_surgeon.formats.safetensors import in_file_order
from resnet_surgeon.formats.tensors import LazyTensor, byte_size, files
from resnet_surgeon.manifest import Manifest
from resnet_surgeon.sources.origin import Origin
from resnet_surgeon.sources.sidecar import MANIFEST_KEY, NAMES_KEY
from resnet_surgeon.sources.source import Source
from resnet_surgeon.writing.names import Names
from resnet_surgeon.writing.placement import Arrangement, arranged
from resnet_surgeon.writing.spelling import Change, spelled


@dataclass(frozen=True)
class Document:
    """All that goes into a file: its tensors by their names in it, and the text of their manifest, which stands in
    the file and beside it, and whose names they have. `companions` are the contents of more files that stand beside it,
    by their names; `file_names`, if there are any, are those that it may have then. `check_manifest` raises
    CheckpointError if nobody could read the manifest again; it takes long enough to be done while the disk is busy.

    If it `shares_blocks`, its bytes are placed so that a file system can share them with the sources. Where the SHA-256
    of one of these is not known yet, the text that is its key in `digest_places` stands for it in the manifest, and the
    value there can tell it. The first source is that whose metadata the file carries on.
    """

    tensors: Mapping[str, LazyTensor]
    manifest: str
    sources: tuple[Source, ...]
    digest_places: Mapping[str, Callable[[], Origin]]
    check_manifest: Callable[[], None]
    names: Names = "torchvision"
    companions: Mapping[str, bytes] = field(default_factory=dict)
    file_names: tuple[str, ...] = ()
    shares_blocks: bool = False

    @property
    def source(self) -> Source:
        return self.sources[0]

    @property
    def is_arriving(self) -> bool:
        """Whether the source is a stream whose bytes are still coming, and can be taken once."""
        container = self.source.container
        return container is not None and isinstance(container.file, ArrivingFile)

    def read_through(self) -> Document:
        """The document with the digests in their places, exactly as long as before: for that each source is read once,
        and for the checksums that it carries, unless it was when it was opened. Raises CheckpointError.
        """
        text, read = self.manifest, set()
        for place, identified in self.digest_places.items():
            digest = identified().sha256 or ""
            read.add(digest)
            text = text.replace(place, digest)
        for source in self.sources:
            is_read = source.origin.sha256 is not None or source.known.sha256 in read
            if source.container is not None and source.container.checksums and not is_read:
                source.container.check()
        return replace(self, manifest=text, digest_places={}) if self.digest_places else self

    def check_unchanged(self) -> None:
        """Raises CheckpointError if a file that the tensors or the digests come from was written to since it was
        opened.
        """
        containers = [source.container for source in self.sources if source.container is not None]
        for file in files(self.tensors.values()) | {file for container in containers for file in container.files}:
            file.check_unchanged()

    @property
    def arrangement(self) -> Arrangement:
        """The tensors as they follow each other in a safetensors file."""
        return arranged(self.tensors) if self.shares_blocks else Arrangement(in_file_order(self.tensors))

    def header(self, arrangement: Arrangement) -> bytes:
        """The first bytes of a safetensors file. Raises CheckpointError if nobody could open a file that begins so."""
        others = {key: text for key, text in self.source.metadata.items() if key not in (MANIFEST_KEY, NAMES_KEY)}
        metadata = {**others, "format": "pt", **self.embedded}
        try:
            return safetensors.header(arrangement.tensors, metadata, arrangement.start)
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
    change: Change,
    manifest: Manifest,
    names: Names = "torchvision",
    *,
    share_blocks: bool = False,
) -> Document:
    """The document of a network under `names`, placed to share blocks if that is wanted; with places for the sources'
    digests where these are not known. Raises the errors of `spelled`.
    """
    written = spelled(change, manifest, names)
    if written.tensors.keys() == change.after.keys():
        names = "torchvision"
    places: dict[str, Callable[[], Origin]] = {}

    def placed(origin: Origin, source: Source) -> Origin:
        if origin.container is None or origin.sha256 is not None:
            return origin
        place = os.urandom(32).hex()  # unlike any text that is there already
        places[place] = source.identified
        return replace(origin, sha256=place)

    known = len(manifest.other_sources) - len(change.others)
    others = (
        replace(other, origin=placed(other.origin, source))
        for other, source in zip(manifest.other_sources[known:], change.others, strict=True)
    )
    manifest = replace(
        manifest,
        share_blocks=share_blocks,
        source=placed(manifest.source, change.source),
        other_sources=(*manifest.other_sources[:known], *others),
    )
    return Document(
        written.tensors,
        manifest.to_json(),
        (change.source, *change.others),
        places,
        manifest.check,
        names,
        written.companions,
        written.file_names,
        share_blocks,
    )
