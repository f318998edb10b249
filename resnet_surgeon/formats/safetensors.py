"""The safetensors format: header in, header out. Knows nothing of the tensors' meaning.

A file is: the header's length (8 bytes, little-endian), the header (JSON: name -> dtype, shape, data_offsets; and text
`__metadata__`), the tensors' bytes without a gap. What the format's own page forbids is refused here, exactly.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

from resnet_surgeon.errors import CheckpointError, printable
from resnet_surgeon.formats.container import Container
from resnet_surgeon.formats.files import OpenFile
from resnet_surgeon.formats.json_text import parsed
from resnet_surgeon.formats.tensors import BITS, LARGEST_SIZE, MOST_DIMENSIONS, LazyTensor, Stored, byte_size

_METADATA, _FIELDS = "__metadata__", {"dtype", "shape", "data_offsets"}
HEADER_LIMIT = 100_000_000  # the safetensors library's own
_WIDE_LIMIT = HEADER_LIMIT // 4  # of text that is not ASCII, of which a character takes up to four bytes in memory
_LENGTH_SIZE = 8
_PIECE = 1 << 20  # characters of metadata that are made JSON at once


def read(file: OpenFile) -> Container:
    """The tensors and metadata of a safetensors file. Raises CheckpointError for anything that breaks the format."""
    header, start = _header(file)
    tensors, metadata = _contents(header, file, start)
    return Container("safetensors", file, tensors, metadata, warnings=tuple(_oddities(header)))


def tensors_and_metadata(file: OpenFile) -> tuple[dict[str, Stored], dict[str, str]]:
    """What a safetensors file holds, by name. Raises CheckpointError as `read` does."""
    header, start = _header(file)
    return _contents(header, file, start)


def _header(file: OpenFile) -> tuple[dict[str, Any], int]:
    """The header, and where the data begin."""
    if not file.reaches(8):
        raise CheckpointError("it is too short to be a safetensors file")
    length = int.from_bytes(file.read(0, 8), "little")
    if length > HEADER_LIMIT:
        raise CheckpointError(
            f"its header would be {length} bytes long, more than safetensors allows: not a safetensors file"
        )
    if not file.reaches(8 + length):
        raise CheckpointError(f"it is truncated: the header says {length} bytes, {file.size - 8} are there")
    return _parse(file, length), 8 + length


def _contents(header: Mapping[str, Any], file: OpenFile, start: int) -> tuple[dict[str, Stored], dict[str, str]]:
    metadata = _metadata(header.get(_METADATA))
    tensors = {name: _tensor(name, entry, file, start) for name, entry in header.items() if name != _METADATA}
    file.check_end(_covered(tensors, start))
    return tensors, metadata


def _oddities(header: Mapping[str, Any]) -> Iterator[str]:
    """What the format's page does not know, but the safetensors library lets pass."""
    if _METADATA in header and header[_METADATA] is None:
        yield "its `__metadata__` is null, and was left out"
    odd = [name for name, entry in header.items() if name != _METADATA and entry.keys() - _FIELDS]
    if odd:
        yield f"tensor {printable(odd[0])} has fields that the format does not know, which were left out"


def header(tensors: Mapping[str, LazyTensor], metadata: Mapping[str, str], start: tuple[int, int] = (8, 0)) -> bytes:
    """The first bytes of a safetensors file whose data are the contents of `tensors` in their order. The data begin at
    a place that leaves the second number of `start` when it is divided by the first.

    Raises CheckpointError for one so long that nobody would open the file.
    """
    if _METADATA in tensors:
        raise CheckpointError(f"a safetensors file has no place for a tensor called `{_METADATA}`")
    text = io.BytesIO()  # whose value is not copied when it is taken
    text.write(bytes(_LENGTH_SIZE) + b'{"__metadata__":{')
    for number, (key, value) in enumerate(sorted(metadata.items())):
        text.write(b"," * (number > 0) + _json(key) + b':"')
        for position in range(0, len(value), _PIECE):
            text.write(_json(value[position : position + _PIECE])[1:-1])
        text.write(b'"')
    text.write(b"}")
    offset = 0
    for name, tensor in tensors.items():
        end = offset + byte_size(tensor)
        entry = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": (offset, end)}
        text.write(b"," + _json({name: entry})[1:-1])
        offset = end
    text.write(b"}")
    text.write(b" " * ((start[1] - text.tell()) % start[0]))
    length = text.tell() - _LENGTH_SIZE
    if length > HEADER_LIMIT:
        raise CheckpointError(
            f"its header would be {length} bytes long, more than the {HEADER_LIMIT} that safetensors opens",
            hint="most of it is the metadata that the source carries: save the source without them",
        )
    text.seek(0)
    text.write(length.to_bytes(_LENGTH_SIZE, "little"))
    return text.getvalue()


_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def _json(value: object) -> bytes:
    return _JSON.encode(value).encode()


def in_file_order(tensors: Mapping[str, LazyTensor]) -> dict[str, LazyTensor]:
    """The order in which data are laid out: wide elements first, so that each tensor is aligned to its own element."""
    return dict(sorted(tensors.items(), key=lambda item: -BITS[item[1].dtype]))


def _parse(file: OpenFile, length: int) -> dict[str, Any]:
    data = bytearray(length)
    file.read_into(8, data)
    if length > _WIDE_LIMIT and not data.isascii():
        raise CheckpointError(
            f"its header is {length} bytes long and not ASCII, which takes four times its size to read"
        )
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise CheckpointError("its header is not JSON: it is not UTF-8") from None
    del data  # before as much again is made of it
    document = parsed(text, "its header")
    if not isinstance(document, dict):
        raise CheckpointError("its header is not a JSON object")
    return document


def _metadata(value: object) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise CheckpointError("its `__metadata__` is not a map from text to text")
    return value


def _tensor(name: str, entry: object, file: OpenFile, start: int) -> Stored:
    def refuse(reason: str) -> NoReturn:
        raise CheckpointError(f"tensor {printable(name)} {reason}")

    def integers(value: object, what: str) -> tuple[int, ...]:
        # `type`, not `isinstance`: JSON's true is an int to Python.
        if not isinstance(value, list) or not all(
            type(number) is int and 0 <= number <= LARGEST_SIZE for number in value
        ):
            refuse(f"has a {what} that is not a list of sizes")
        return tuple(value)

    if not isinstance(entry, dict) or not entry.keys() >= _FIELDS:
        refuse("lacks its dtype, shape or data_offsets")
    dtype, shape, offsets = (
        entry["dtype"],
        integers(entry["shape"], "shape"),
        integers(entry["data_offsets"], "data_offsets"),
    )
    if not isinstance(dtype, str) or dtype not in BITS:
        refuse(f"has an unknown dtype {printable(str(dtype))}; known are {', '.join(BITS)}")
    if len(shape) > MOST_DIMENSIONS:
        refuse(f"has {len(shape)} dimensions, more than the {MOST_DIMENSIONS} of torch")
    bits = math.prod(shape) * BITS[dtype]
    if math.prod(size or 1 for size in shape) > LARGEST_SIZE:
        refuse("is larger than any file can be")
    if len(offsets) != 2 or bits % 8 or offsets[1] - offsets[0] != bits // 8:
        refuse(f"has data_offsets {list(offsets)[:4]} that do not fit its shape {list(shape)[:8]} and dtype {dtype}")
    return Stored(dtype, shape, file, start + offsets[0])


def _covered(tensors: Mapping[str, Stored], start: int) -> int:
    """Where the tensors end. Raises CheckpointError unless every byte up to there belongs to exactly one of them."""
    end = start
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].offset, byte_size(item[1]))):
        if tensor.offset != end:
            raise CheckpointError(
                f"tensor {printable(name)} {'overlaps another' if tensor.offset < end else 'begins after a gap'}"
            )
        end += byte_size(tensor)
    return end
