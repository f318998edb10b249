"""The forms that a file can have, each with the endings of its name: where everything of a document stands in it.

Knows the formats; opens and writes nothing.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from resnet_surgeon.dataclass import dataclass
from resnet_surgeon.errors import CheckpointError, UsageError
from resnet_surgeon.formats import torch_pickle, zip_frame
from resnet_surgeon.formats.tensors import LazyTensor, byte_size
from resnet_surgeon.sources.sidecar import ending
from resnet_surgeon.writing.document import Document
from resnet_surgeon.writing.placement import starts

# (position, size) -> the CRC-32 of these bytes of the file
Checksum = Callable[[int, int], int]


@dataclass(frozen=True)
class Layout:
    """Where everything stands: the tensors with their positions, and the bytes in all.

    `frame` gives all the other bytes with their positions, when the document is complete and the tensors' bytes are in
    their places, of which it may ask for checksums.
    """

    tensors: tuple[tuple[int, LazyTensor], ...]
    size: int
    frame: Callable[[Document, Checksum], Iterator[tuple[int, bytes]]]


@dataclass(frozen=True)
class Form:
    """A container that is written. `layout` raises CheckpointError for a document that it cannot hold."""

    endings: tuple[str, ...]
    layout: Callable[[Document], Layout]


def _safetensors(document: Document) -> Layout:
    arrangement = document.arrangement
    header = document.header(arrangement)

    def frame(complete: Document, _: Checksum) -> Iterator[tuple[int, bytes]]:
        yield 0, header if complete is document else complete.header(arrangement)

    placed = tuple(_from(len(header), arrangement.tensors))
    return Layout(placed, len(header) + document.size(), frame)


def _from(position: int, tensors: Mapping[str, LazyTensor]) -> Iterator[tuple[int, LazyTensor]]:
    """The tensors one after the other."""
    for tensor in tensors.values():
        yield position, tensor
        position += byte_size(tensor)


_ROOT = "archive"
_ALIGNED = {".format_version": b"1", ".storage_alignment": b"%d" % zip_frame.ALIGNMENT}


def _torch(document: Document) -> Layout:
    """As torch.save writes, with the manifest as one more member, which torch passes over."""
    before, after = _small_members(document)
    tensors = {f"{_ROOT}/data/{number}": tensor for number, tensor in enumerate(document.tensors.values())}
    storages = [(name, byte_size(tensor)) for name, tensor in tensors.items()]
    places = starts(tensors) if document.shares_blocks else {}
    members = zip_frame.places([*_sizes(before), *storages, *_sizes(after)], places)
    stored = members[len(before) : len(before) + len(storages)]

    def frame(document: Document, checksum: Checksum) -> Iterator[tuple[int, bytes]]:
        small = {f"{_ROOT}/{name}".encode(): data for part in _small_members(document) for name, data in part.items()}
        for place in members:
            if place.name in small:
                yield place.begin, small[place.name]

        def crc(place: zip_frame.Place) -> int:
            data = small.get(place.name)
            return checksum(place.begin, place.size) if data is None else zlib.crc32(data)

        yield from zip_frame.frame(members, crc)

    placed = tuple((place.begin, tensor) for place, tensor in zip(stored, document.tensors.values(), strict=True))
    try:
        return Layout(placed, zip_frame.size(members), frame)
    except CheckpointError as error:
        raise error.about(document.source.subject) from None


def _small_members(document: Document) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """What stands before the storages, and what after them."""
    before = {
        "data.pkl": torch_pickle.state_dict(document.tensors),
        # By these torch works out where storages stand, if it is told to: not where they share blocks.
        **({} if document.shares_blocks else _ALIGNED),
        "byteorder": b"little",
    }
    embedded = {f"extra/{key}": text.encode() for key, text in document.embedded.items()}
    return before, {"version": b"3\n", **embedded}


def _sizes(members: Mapping[str, bytes]) -> list[tuple[str, int]]:
    return [(f"{_ROOT}/{name}", len(data)) for name, data in members.items()]


SAFETENSORS = Form((".safetensors",), _safetensors)
TORCH = Form((".pth", ".pt", ".pth.tar", ".ckpt", ".bin"), _torch)
_FORMS = {ending: form for form in (SAFETENSORS, TORCH) for ending in form.endings}


def form_of(path: Path) -> Form:
    """The form that a file's name asks for. Raises UsageError for any other name."""
    name = ending(path)
    if name is None:
        what = f"a name that ends in {path.suffix}" if path.suffix else "a name without an ending"
        reason = f"{what} does not say what to write"
        if path.suffix == ".json":
            reason = "the output holds tensors; its manifest gets the .json name"
        raise UsageError(
            reason,
            subject=str(path),
            hint=f"end its name in .safetensors, or in {', '.join(TORCH.endings)} for a file like torch.save's",
        )
    return _FORMS[name]
