"""The header is read and written as the format's page says; what breaks the format is refused with its reason."""

from __future__ import annotations

import contextlib
import json
import math
import tracemalloc
from pathlib import Path
from struct import pack
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError, deserialize
from safetensors.torch import load, save

from resnet_surgeon.errors import CheckpointError
from resnet_surgeon.formats import safetensors
from resnet_surgeon.formats.files import OpenFile
from resnet_surgeon.formats.tensors import Stored, content

TENSOR = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}
DATA = bytes(16)


def file(header: object, data: bytes = DATA) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return pack("<Q", len(text)) + text + data


def read(data: bytes) -> tuple[dict[str, Stored], dict[str, str]]:
    return safetensors.tensors_and_metadata(OpenFile.spooled(data, "test"))


def test_what_the_library_writes_is_read() -> None:
    tensors = {"a": torch.randn(2, 3), "b": torch.tensor(7), "c": torch.randn(4).bfloat16(), "d": torch.zeros(2, 0)}
    found, metadata = read(save(tensors, {"format": "pt", "note": "é"}))
    assert metadata == {"format": "pt", "note": "é"}
    assert {name: (tensor.dtype, tensor.shape) for name, tensor in found.items()} == {
        "a": ("F32", (2, 3)),
        "b": ("I64", ()),
        "c": ("BF16", (4,)),
        "d": ("F32", (2, 0)),
    }
    for name, tensor in tensors.items():
        assert content(found[name]) == tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def test_the_bytes_that_are_written() -> None:
    open_file = OpenFile.spooled(DATA, "test")
    tensors = {"b": Stored("I64", (), open_file, 0), "a": Stored("F32", (2,), open_file, 8)}
    text = (
        b'{"__metadata__":{"format":"pt"},"b":{"dtype":"I64","shape":[],"data_offsets":[0,8]},'
        b'"a":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}}'
    )
    written = safetensors.header(tensors, {"format": "pt"})
    assert written == pack("<Q", len(text) + 6) + text + b" " * 6
    assert load(written + DATA)["b"] == 0


def test_wide_elements_come_first() -> None:
    open_file = OpenFile.spooled(DATA, "test")
    tensors = {
        name: Stored(dtype, (1,), open_file, 0)
        for name, dtype in [("a", "F16"), ("b", "I64"), ("c", "F32"), ("d", "F16")]
    }
    assert list(safetensors.in_file_order(tensors)) == ["b", "c", "a", "d"]


REFUSED = {
    "empty": (b"", "too short"),
    "seven bytes": (b"\x08" + bytes(6), "too short"),
    "no header": (bytes(8), "not JSON"),
    "header beyond the end": (b"<" + bytes(7), "truncated"),
    "cut in the header": (pack("<Q", 1000) + b'{"a":', "truncated"),
    "header of 2^64 bytes": (b"\xff" * 8, "more than safetensors allows"),
    "header of 100 MB and one": (pack("<Q", 100_000_001) + b"{", "more than safetensors allows"),
    "not UTF-8": (file(b"\xff"), "not JSON"),
    "half a header": (file(b"{"), "not JSON"),
    "a list": (file(b"[]"), "not a JSON object"),
    "null": (file(b"null"), "not a JSON object"),
    "a comment": (file(b"{}//x"), "not JSON"),
    "a byte order mark": (file(b"\xef\xbb\xbf{}"), "not JSON"),
    "deep nesting": (file(b"[" * 100_000), "nested too deeply"),
    "a huge integer": (file(b'{"a":' + b"1" * 5000 + b"}"), "not JSON"),
    "a name twice": (file(b'{"a":1,"a":1}'), "`a` twice"),
    "a field twice": (file(b'{"a":{"dtype":"F32","dtype":"F32"}}'), "`dtype` twice"),
    "metadata twice": (file(b'{"__metadata__":{},"__metadata__":{}}'), "twice"),
    "metadata of numbers": (file({"__metadata__": {"x": 1}}), "text to text"),
    "metadata text": (file({"__metadata__": "x"}), "text to text"),
    "NaN": (file(b'{"a":NaN}'), "NaN"),
    "unknown dtype": (file({"a": {**TENSOR, "dtype": "Q8"}}), "unknown dtype `Q8`"),
    "lower case dtype": (file({"a": {**TENSOR, "dtype": "f32"}}), "unknown dtype `f32`"),
    "no dtype": (file({"a": {"shape": [2, 2], "data_offsets": [0, 16]}}), "lacks"),
    "negative sizes": (file({"a": {**TENSOR, "shape": [-2, -2]}}), "not a list of sizes"),
    "sizes with a point": (file({"a": {**TENSOR, "shape": [2.0, 2]}}), "not a list of sizes"),
    "sizes as text": (file({"a": {**TENSOR, "shape": "22"}}), "not a list of sizes"),
    "true for a size": (file({"a": {**TENSOR, "shape": [True, 4]}}), "not a list of sizes"),
    "one offset": (file({"a": {**TENSOR, "data_offsets": [0]}}), "do not fit"),
    "offsets with an exponent": (
        file(b'{"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,1.6e1]}}'),
        "not a list of sizes",
    ),
    "shape and offsets differ": (file({"a": {**TENSOR, "data_offsets": [0, 4]}}, bytes(4)), "do not fit"),
    "end before begin": (file({"a": {**TENSOR, "data_offsets": [16, 0]}}), "do not fit"),
    "a gap before the first": (file({"a": {**TENSOR, "data_offsets": [4, 20]}}, bytes(20)), "after a gap"),
    "an overlap": (file({"a": TENSOR, "b": {**TENSOR, "data_offsets": [8, 24]}}, bytes(24)), "overlaps"),
    "one region twice": (file({"a": TENSOR, "b": TENSOR}), "overlaps"),
    "data cut": (file({"a": TENSOR}, bytes(14)), "2 bytes of its tensors are missing"),
    "data and more": (file({"a": TENSOR}, DATA + b"extra"), "5 bytes follow"),
    "overflow": (file({"a": {**TENSOR, "shape": [2, 2**64 - 2]}}), "not a list of sizes"),
    "overflowing product": (
        file({"a": {**TENSOR, "shape": [2**62, 4, 0], "data_offsets": [0, 0]}}),
        "larger than any file",
    ),
    "half a byte": (file({"a": {"dtype": "F4", "shape": [1, 3], "data_offsets": [0, 1]}}, b"\0"), "do not fit"),
    "a lone surrogate": (file(b'{"__metadata__":{"a":"\\ud800"}}', b""), "not Unicode"),
    "a lone surrogate in a name": (
        file(b'{"\\udc00":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}}'),
        "not Unicode",
    ),
    "lists of nothing beside its fields": (
        file(b'{"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16],"x":[' + b"[]," * 1_000_000 + b"0]}}"),
        "more than any checkpoint holds",
    ),
    "a long header of wide text": (file('{"a":"🙂'.encode() + b"a" * 25_000_000 + b'"}'), "not ASCII"),
}


@pytest.mark.parametrize(("data", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_what_breaks_the_format_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(CheckpointError, match=reason):
        read(data)


def test_a_name_never_reaches_the_terminal_raw() -> None:
    with pytest.raises(CheckpointError) as caught:
        read(file({"\x1b[2J": {**TENSOR, "data_offsets": [0, 4]}}))
    assert "\x1b" not in str(caught.value)


@given(st.dictionaries(st.text(max_size=3), st.text(max_size=9), max_size=3), st.integers(1, 4))
def test_metadata_are_written_as_json_writes_them_piece_by_piece(metadata: dict[str, str], piece: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(safetensors, "_PIECE", piece)
        written = safetensors.header({}, metadata)
    text = json.dumps({"__metadata__": dict(sorted(metadata.items()))}, ensure_ascii=False, separators=(",", ":"))
    assert written[8:].rstrip(b" ") == text.encode()
    assert read(written) == ({}, metadata)


@pytest.mark.parametrize("note", ["a" * 8_000_000, '"' * 4_000_000], ids=["plain", "all escapes"])
def test_a_long_header_takes_twice_its_size_in_memory(note: str) -> None:
    limit = 2.3  # the list of pieces, and the room that a buffer grows by
    opened = OpenFile.spooled(file({"__metadata__": {"note": note}}, b""), "test")
    for work in (lambda: safetensors.read(opened), lambda: safetensors.header({}, {"note": note})):
        tracemalloc.start()
        work()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < limit * 8_000_000


def test_a_header_that_nobody_could_open_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safetensors, "HEADER_LIMIT", 64)
    assert len(safetensors.header({}, {"a": "x" * 39})) == 8 + 64
    with pytest.raises(CheckpointError, match="its header would be 72 bytes long, more than the 64 that safetensors"):
        safetensors.header({}, {"a": "x" * 40})


SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I16": 2, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "C64": 8}


@st.composite
def headers(draw: st.DrawFn) -> tuple[dict[str, dict[str, Any]], int]:
    """The header of a file of one to four tensors, one after the other, and how many bytes they take."""
    names = draw(st.lists(st.text(max_size=3), unique=True, min_size=1, max_size=4))
    header, end = {}, 0
    for name in names:
        dtype, shape = draw(st.sampled_from([*SIZES])), draw(st.lists(st.integers(0, 4), max_size=3))
        begin, end = end, end + math.prod(shape) * SIZES[dtype]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
    shuffled = draw(st.permutations(names))
    return {name: header[name] for name in shuffled}, end


def compared(data: bytes) -> None:
    """We read what the library reads."""
    ours, _ = read(data)
    theirs = dict(deserialize(data))  # type: ignore[no-untyped-call]
    assert {name: (tensor.dtype, [*tensor.shape], content(tensor)) for name, tensor in ours.items()} == {
        name: (entry["dtype"], entry["shape"], bytes(entry["data"])) for name, entry in theirs.items()
    }


@given(made=headers(), data=st.data())
def test_every_valid_file_is_read_as_the_library_reads_it(
    made: tuple[dict[str, dict[str, Any]], int], data: st.DataObject
) -> None:
    header, size = made
    compared(file(header, data.draw(st.binary(min_size=size, max_size=size))))


@given(made=headers(), data=st.data())
def test_a_file_that_is_not_quite_valid_is_refused_or_read_as_the_library_reads_it(
    made: tuple[dict[str, dict[str, Any]], int], data: st.DataObject
) -> None:
    """One field of one tensor is another's, or the data are longer or shorter."""
    header, size = made
    entry = header[data.draw(st.sampled_from([*header]))]
    change = data.draw(st.sampled_from(["dtype", "shape", "begin", "end", "data"]))
    if change == "dtype":
        entry["dtype"] = data.draw(st.sampled_from([*SIZES, "Q8"]))
    elif change == "shape":
        entry["shape"] = data.draw(st.lists(st.integers(-1, 4), max_size=3))
    elif change == "data":
        size = max(0, size + data.draw(st.integers(-2, 2)))
    else:
        entry["data_offsets"][change == "end"] += data.draw(st.integers(-8, 8))
    with contextlib.suppress(CheckpointError):
        compared(file(header, bytes(size)))


@given(tensors=st.dictionaries(st.text(min_size=1, max_size=3), st.lists(st.integers(0, 3), max_size=3), max_size=3))
def test_whatever_the_library_writes_we_accept(tensors: dict[str, list[int]]) -> None:
    tensors.pop("__metadata__", None)
    data = save({name: torch.zeros(shape) for name, shape in tensors.items()})
    assert {name: tensor.shape for name, tensor in read(data)[0].items()} == {
        name: tuple(shape) for name, shape in tensors.items()
    }


def test_the_library_and_we_differ_in_what_the_format_forbids() -> None:
    """The format's page forbids duplicate keys; the library takes them, we do not."""
    twice = (
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    )
    assert len(load(file(twice, bytes(4)))) == 1
    with pytest.raises(CheckpointError, match="twice"):
        read(file(twice, bytes(4)))
    with pytest.raises(SafetensorError):
        load(file({"a": TENSOR, "b": TENSOR}))


def test_a_file_that_shrinks_while_it_is_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(file({"a": TENSOR}))
    container = safetensors.read(OpenFile.at(path))
    tensors, _ = safetensors.tensors_and_metadata(container.file)
    path.write_bytes(b"")
    with pytest.raises(CheckpointError, match="shorter"):
        content(tensors["a"])
    with pytest.raises(CheckpointError, match=r"shorter|changed"):
        container.sha256()
