"""What torch.save writes is read in place, value for value; damaged and ambiguous archives are refused."""

from __future__ import annotations

import hashlib
import io
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from resnet_surgeon.errors import CheckpointError
from resnet_surgeon.formats import torch_zip
from resnet_surgeon.formats.container import Container
from resnet_surgeon.formats.files import OpenFile
from resnet_surgeon.formats.tensors import LazyTensor, Stored, content
from resnet_surgeon.formats.unread import Unread
from tests.work import Reads


def saved(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def open_archive(data: bytes) -> Container:
    return torch_zip.read(OpenFile.spooled(data, "test"))


def read(data: bytes) -> dict[str, LazyTensor]:
    """The state_dict in an archive."""
    root = open_archive(data).root
    assert isinstance(root, dict)
    return root


def raw(tensor: torch.Tensor) -> bytes:
    if not tensor.numel():
        return b""  # torch cannot copy one of no elements whose other sizes overflow
    plain = tensor.detach().clone(memory_format=torch.contiguous_format)  # also where one number has odd strides
    return plain.reshape(-1).view(torch.uint8).numpy().tobytes()


BASE = torch.arange(24, dtype=torch.float32).reshape(2, 3, 4)
TENSORS = {
    "float32": BASE,
    "float64": BASE.double(),
    "float16": BASE.half(),
    "bfloat16": BASE.bfloat16(),
    "int64": torch.tensor(7),
    "bool": BASE > 3,
    "parameter": torch.nn.Parameter(BASE),
    "transposed": BASE.transpose(0, 2),
    "channels_last": BASE.reshape(2, 3, 2, 2).contiguous(memory_format=torch.channels_last),
    "a slice": BASE[:, 1:, ::2],
    "from an offset": BASE[1],
    "empty": torch.zeros(0, 3),
    "one element": BASE[0, 0, :1],
}


@pytest.mark.parametrize("tensor", TENSORS.values(), ids=TENSORS.keys())
def test_every_tensor_comes_out_contiguous_with_its_values(tensor: torch.Tensor) -> None:
    found = read(saved({"x": tensor}))["x"]
    assert found.shape == tuple(tensor.shape)
    assert content(found) == raw(tensor)


def test_a_contiguous_tensor_is_read_where_it_is() -> None:
    assert isinstance(read(saved({"x": BASE[1]}))["x"], Stored)


def test_tensors_that_share_a_storage_are_each_read() -> None:
    tensors = read(saved({"a": BASE, "b": BASE[1], "c": BASE.view(-1)}))
    assert content(tensors["b"]) == raw(BASE[1])
    assert content(tensors["a"]) == content(tensors["c"])


def test_the_digest_pass_tests_the_checksums() -> None:
    data = saved(OrderedDict(a=BASE, b=BASE.double()))
    assert open_archive(data).sha256() == hashlib.sha256(data).hexdigest()
    flipped = bytearray(data)
    flipped[data.index(raw(BASE.double())) + 5] ^= 1
    with pytest.raises(CheckpointError, match="checksum of `data/1` does not hold"):
        open_archive(bytes(flipped)).sha256()


def rezipped(data: bytes, change: Callable[[str, bytes], tuple[str, bytes] | None], **options: Any) -> bytes:
    """The archive with each member passed through `change` (None drops it)."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "w", **options) as new:
        for name in old.namelist():
            changed = change(name, old.read(name))
            if changed:
                new.writestr(*changed)
    return buffer.getvalue()


def replaced(end: str, content: bytes) -> Callable[[str, bytes], tuple[str, bytes]]:
    return lambda name, old: (name, content if name.endswith(end) else old)


def with_member(data: bytes, name: str, content: bytes = b"") -> bytes:
    buffer = io.BytesIO(data)
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr(name, content)
    return buffer.getvalue()


SAVED = saved({"x": BASE})


def test_big_endian_archives_are_swapped() -> None:
    swapped = BASE.numpy().astype(">f4").tobytes()
    big = rezipped(
        SAVED, lambda name, old: (name, {"byteorder": b"big", "0": swapped}.get(name.rsplit("/", 1)[1], old))
    )
    assert content(read(big)["x"]) == raw(BASE)
    witness = torch.load(io.BytesIO(big), weights_only=True)
    assert torch.equal(witness["x"], BASE)


def test_a_storage_of_two_dtypes_is_refused() -> None:
    data = saved({"x": BASE, "y": torch.arange(24, dtype=torch.int32)})
    one, other = (b"X\x01\0\0\0%d" % key for key in (0, 1))
    with pytest.raises(CheckpointError, match="reads the storage `0` in two ways"):
        read(rezipped(data, lambda name, old: (name, old.replace(other, one) if name.endswith("pkl") else old)))


def test_without_a_byte_order_it_is_little() -> None:
    older = rezipped(SAVED, lambda name, old: None if name.endswith("byteorder") else (name, old))
    assert content(read(older)["x"]) == raw(BASE)


def pickle_of(
    count: int = 24,
    offset: int = 0,
    shape: object = (2, 3, 4),
    strides: object = (12, 4, 1),
    key: str = "0",
    part: tuple[object, ...] | None = None,
) -> bytes:
    """The pickle of {"x": a view of these numbers}, true or not; `part` is the whole reference to its storage."""

    class View:
        def __reduce__(self) -> tuple[object, ...]:
            storage = part or ("storage", torch.FloatStorage, key, "cpu", count)
            return torch._utils._rebuild_tensor_v2, (_Persistent(storage), offset, shape, strides, False, OrderedDict())

    class _Persistent:
        def __init__(self, identity: object) -> None:
            self.identity = identity

    class Pickler(pickle.Pickler):
        def persistent_id(self, item: object) -> object:
            return item.identity if isinstance(item, _Persistent) else None

    buffer = io.BytesIO()
    Pickler(buffer, 2).dump({"x": View()})
    return buffer.getvalue()


REFUSED = {
    "half the file": (SAVED[: len(SAVED) // 2], "truncated"),
    "the last byte missing": (SAVED[:-1], "truncated"),
    "its first bytes": (b"PK\3\4", "truncated"),
    "junk behind it": (SAVED + bytes(40), "truncated"),
    "junk before it": (b"#!/bin/sh\n" + SAVED, "does not begin"),
    "no pickle": (
        rezipped(SAVED, lambda name, old: None if name.endswith("pkl") else (name, old)),
        "without `data.pkl`",
    ),
    "no storage": (
        rezipped(SAVED, lambda name, old: None if name.endswith("data/0") else (name, old)),
        "storage `0` is missing",
    ),
    "a short storage": (rezipped(SAVED, replaced("data/0", bytes(8))), "has 8 bytes, not 24 numbers"),
    "an unknown byte order": (rezipped(SAVED, replaced("byteorder", b"foo")), "byte order is `foo`"),
    "two roots": (with_member(SAVED, "other/data.pkl"), "does not have the single folder"),
    "a way out": (with_member(SAVED, "../evil"), "does not have the single folder"),
    "compressed by bzip2": (rezipped(SAVED, lambda *member: member, compression=zipfile.ZIP_BZIP2), "in a way that is"),
    "a bomb": (
        rezipped(SAVED, replaced("data/0", bytes(1 << 24)), compression=zipfile.ZIP_DEFLATED),
        "far more than a checkpoint's do",
    ),
    "a bomb of a pickle": (
        rezipped(SAVED, replaced("data.pkl", bytes(1 << 24)), compression=zipfile.ZIP_DEFLATED),
        "far more than a checkpoint's do",
    ),
    "a huge count": (rezipped(SAVED, replaced("data.pkl", pickle_of(count=2**40))), "not 1099511627776 numbers"),
    "a negative count": (rezipped(SAVED, replaced("data.pkl", pickle_of(count=-1))), "outside of its storage"),
    "an offset outside": (rezipped(SAVED, replaced("data.pkl", pickle_of(offset=1000))), "outside of its storage"),
    "a negative offset": (rezipped(SAVED, replaced("data.pkl", pickle_of(offset=-1))), "outside of its storage"),
    "a negative stride": (
        rezipped(SAVED, replaced("data.pkl", pickle_of(strides=(12, 4, -2)))),
        "outside of its storage",
    ),
    "a huge stride": (
        rezipped(SAVED, replaced("data.pkl", pickle_of(strides=(2**62, 4, 1)))),
        "outside of its storage",
    ),
    "a negative size": (rezipped(SAVED, replaced("data.pkl", pickle_of(shape=(-2, 3, 4)))), "outside of its storage"),
    "too few strides": (rezipped(SAVED, replaced("data.pkl", pickle_of(strides=(1,)))), "outside of its storage"),
    "sizes of text": (rezipped(SAVED, replaced("data.pkl", pickle_of(shape="abc"))), "damaged"),
    "a way out by key": (rezipped(SAVED, replaced("data.pkl", pickle_of(key="../../x"))), "is missing"),
    "a damaged pickle": (SAVED.replace(b"FloatStorage", b"FlootStorage"), "checksum of `archive/data.pkl`"),
}


class _Quantised:
    def __reduce__(self) -> tuple[object, ...]:
        return torch._utils._rebuild_qtensor, ()


CLOSED = {
    "a sparse tensor": (BASE[0].to_sparse(), "a sparse tensor"),
    "a quantised tensor": (_Quantised(), "a quantised tensor"),
    "a meta tensor": (BASE.to("meta"), "a meta tensor, which has no data"),
    "a tensor of complex128": (BASE.to(torch.complex128), "a tensor of complex128"),
    "an expanded tensor": (BASE[:1].expand(5, 3, 4), "a tensor with overlapping strides"),
    "an object": (slice(1), "an object of the class `__builtin__.slice`"),
    "a class": (torch.nn.Linear, "the class or function `torch.nn.modules.linear.Linear`"),
}


@pytest.mark.parametrize(("value", "what"), CLOSED.values(), ids=CLOSED.keys())
def test_what_no_tensor_can_be_made_of_does_not_stop_the_reader(value: object, what: str) -> None:
    found: dict[str, object] = {**read(saved({"odd": value, "x": BASE}))}
    assert isinstance(found["odd"], Unread)
    assert found["odd"].what.startswith(what)
    assert content(found["x"]) == raw(BASE)  # type: ignore[arg-type]


def test_the_names_of_what_stayed_closed_are_told() -> None:
    assert open_archive(saved({"x": BASE, "y": slice(1)})).not_loaded == ("__builtin__.slice",)


def test_the_archive_that_torch_1_4_tried_out_is_read() -> None:
    """Its storages are under `tensors`."""
    beta = rezipped(SAVED, lambda name, old: (name.replace("/data/", "/tensors/"), old))
    assert content(read(beta)["x"]) == raw(BASE)


def test_where_there_are_both_folders_the_storages_are_those_of_today() -> None:
    both = with_member(PLAIN, "archive/tensors/0", bytes(BASE.nbytes))
    assert content(read(both)["x"]) == raw(BASE) == raw(torch.load(io.BytesIO(both))["x"])


COMPRESSED = rezipped(SAVED, lambda *member: member, compression=zipfile.ZIP_DEFLATED)


def test_what_was_compressed_is_inflated() -> None:
    container = open_archive(COMPRESSED)
    assert isinstance(container.root, dict)
    assert content(container.root["x"]) == raw(BASE) == raw(torch.load(io.BytesIO(COMPRESSED))["x"])
    assert container.sha256() == hashlib.sha256(COMPRESSED).hexdigest()


def test_each_of_several_compressed_storages_has_its_own_numbers() -> None:
    other = torch.arange(7.0)
    several = read(rezipped(saved({"x": BASE, "y": other}), lambda *member: member, compression=zipfile.ZIP_DEFLATED))
    assert [content(several["x"]), content(several["y"])] == [raw(BASE), raw(other)]


def test_sizes_and_offsets_of_64_bits_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 10)  # beyond which Python writes them
    wide = rezipped(SAVED, lambda *member: member, compression=zipfile.ZIP_DEFLATED)
    assert len(wide) > len(COMPRESSED)
    assert content(read(wide)["x"]) == raw(BASE)


def test_an_extra_field_that_means_nothing_is_passed_over() -> None:
    assert content(read(with_extra(0x4246, 3, b"ZZZ"))["x"]) == raw(BASE)


def lying(data: bytes, name: str, size: int | None = None, crc: int | None = None) -> bytes:
    """The archive with another size or checksum declared for a member, in both of its headers."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        member = archive.getinfo(name)
        directory = archive.start_dir
    changed = bytearray(data)
    entry = data.index(name.encode(), directory)
    for place in (member.header_offset + 14, entry - 46 + 16):
        old_crc, compressed, old_size = struct.unpack_from("<3I", changed, place)
        values = (old_crc if crc is None else crc, compressed, old_size if size is None else size)
        struct.pack_into("<3I", changed, place, *values)
    return bytes(changed)


def directory_entry(name: str, data: bytes = SAVED) -> int:
    """Where the archive's directory describes a member."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return data.index(name.encode(), archive.start_dir) - 46


@pytest.mark.parametrize("offset", [len(SAVED) - 10, len(SAVED) + 1000, 2**31])
def test_a_member_beyond_the_end_is_refused(offset: int) -> None:
    """Found by fuzzing."""
    entry, changed = directory_entry("archive/byteorder"), bytearray(SAVED)
    struct.pack_into("<I", changed, entry + 42, offset)
    with pytest.raises(CheckpointError, match="truncated or damaged"):
        read(bytes(changed))


@pytest.mark.parametrize("bits", [0x1, 0x20, 0x40, 0x2000])
def test_what_is_encrypted_or_a_patch_is_refused(bits: int) -> None:
    entry, changed = directory_entry("archive/data/0"), bytearray(SAVED)
    changed[entry + 8] |= bits & 0xFF
    changed[entry + 9] |= bits >> 8
    with pytest.raises(CheckpointError, match="encrypted|truncated or damaged"):
        read(bytes(changed))


@pytest.mark.parametrize("attributes", [0x10, 0o120777 << 16, 0o040755 << 16, 0o010644 << 16])
def test_a_member_that_is_marked_as_no_file_is_refused(attributes: int) -> None:
    """Folders, links and pipes. Found by fuzzing: torch reads memory that was never written for what is a folder."""
    entry, changed = directory_entry("archive/data/0"), bytearray(SAVED)
    struct.pack_into("<I", changed, entry + 38, attributes)
    with pytest.raises(CheckpointError, match="not marked as a file"):
        read(bytes(changed))


@pytest.mark.parametrize("name", ["archive/data.pkl", "archive/data/0"])
@pytest.mark.parametrize(
    ("lie", "reason"), [({"size": 8}, "longer than the 8"), ({"size": 500}, "not the 500"), ({"crc": 1}, "checksum")]
)
def test_compressed_members_are_what_they_declare(name: str, lie: dict[str, int], reason: str) -> None:
    with pytest.raises(CheckpointError, match=reason):
        read(lying(COMPRESSED, name, **lie))


def test_many_small_bombs_are_refused_for_what_they_come_to() -> None:
    """Each is small enough for any ratio."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle_of())
        for number in range(64):
            archive.writestr(f"archive/data/{number}", bytes(1 << 20))
    with pytest.raises(CheckpointError, match="would expand to 67108864, far more than a checkpoint's do"):
        read(buffer.getvalue())


def patched(data: bytes, *changes: tuple[int, str, int]) -> bytes:
    """The bytes with little-endian numbers (offset, type as in `struct`, value) put in."""
    result = bytearray(data)
    for offset, kind, value in changes:
        struct.pack_into(f"<{kind}", result, offset % len(result), value)
    return bytes(result)


def header_of(name: str, data: bytes = SAVED) -> int:
    """Where a member's own header begins."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return archive.getinfo(name).header_offset


PLAIN = rezipped(SAVED, lambda *member: member)  # by Python: without 64-bit records, sizes before the data
WITHIN = "archive/data/0"


MEMBERS = zipfile.ZipFile(io.BytesIO(PLAIN)).namelist()


def with_extra(kind: int, length: int, content: bytes) -> bytes:
    """The archive with an extra field in both headers of a storage."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(PLAIN)) as old, zipfile.ZipFile(buffer, "w") as new:
        for member in old.infolist():
            if member.filename == WITHIN:
                member.extra = struct.pack("<2H", kind, length) + content
            new.writestr(member, old.read(member))
    return buffer.getvalue()


HALF = with_extra(1, 4, bytes(4) + struct.pack("<2H", 0x4246, 4) + bytes(4))


def appended(beginning: bytes) -> bytes:
    """The archive behind something else, as those that extract themselves are."""
    buffer = io.BytesIO(beginning)
    with zipfile.ZipFile(io.BytesIO(PLAIN)) as old, zipfile.ZipFile(buffer, "a") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    return buffer.getvalue()


def nested() -> bytes:
    """A member that lies whole, with a header of its own, inside the data of another."""
    with zipfile.ZipFile(io.BytesIO(PLAIN)) as archive:
        begin, content = archive.getinfo("archive/version").header_offset, archive.read("archive/version")
    inner = PLAIN[begin : begin + 30 + len("archive/version") + len(content)]
    outer = rezipped(SAVED, replaced("data/0", inner.ljust(BASE.nbytes, b"\0")))
    return patched(outer, (directory_entry("archive/version", outer) + 42, "I", outer.index(inner)))


def endless_directory() -> bytes:
    """A zip archive that is little else."""
    size = (1 << 24) + 1
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, size, 1)
    record = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, 1, 1, size, 0)
    return bytes(size) + record + locator + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, size, 0, 0)


AMBIGUOUS = {
    "a member inside another's data": (nested(), "`archive/data/0` and `archive/version` overlap"),
    "two members of one header": (
        patched(PLAIN, (directory_entry("archive/version", PLAIN) + 42, "I", header_of("archive/byteorder", PLAIN))),
        "another name in its own header",
    ),
    "a longer member than there is room": (
        patched(
            PLAIN,
            (header_of(WITHIN, PLAIN) + 18, "I", 150),
            (header_of(WITHIN, PLAIN) + 22, "I", 150),
            (directory_entry(WITHIN, PLAIN) + 20, "I", 150),
            (directory_entry(WITHIN, PLAIN) + 24, "I", 150),
        ),
        "`archive/data/0` and `archive/version` overlap",
    ),
    "another name in a member's own header": (
        SAVED[: header_of(WITHIN) + 30] + b"archive/data/1" + SAVED[header_of(WITHIN) + 44 :],
        "`archive/data/0` has another name in its own header",
    ),
    "another size in a member's own header": (
        patched(PLAIN, (header_of(WITHIN, PLAIN) + 18, "I", 95)),
        "another size or checksum in its own header",
    ),
    "another checksum in a member's own header": (
        patched(PLAIN, (header_of(WITHIN, PLAIN) + 14, "I", 1)),
        "another size or checksum in its own header",
    ),
    "another method in a member's own header": (
        patched(PLAIN, (header_of(WITHIN, PLAIN) + 8, "H", 8)),
        "another size or checksum in its own header",
    ),
    "a member twice": (
        rezipped(saved({"x": BASE, "y": BASE[1].clone()}), lambda *member: member).replace(b"/data/1", b"/data/0"),
        "the member `archive/data/0` twice",
    ),
    "a directory that begins elsewhere, for some readers": (patched(PLAIN, (-6, "I", 7)), "does not begin"),
    "a directory that is longer than it is, for some readers": (patched(PLAIN, (-10, "I", 2**31)), "truncated"),
    "fewer members than there are, for some readers": (patched(PLAIN, (-12, "H", 1), (-14, "H", 1)), "truncated"),
    "members on another disk": (patched(PLAIN, (-18, "H", 1)), "truncated"),
    "members that are only partly on this disk": (patched(PLAIN, (-14, "H", 1)), "truncated"),
    "a directory on another disk": (patched(PLAIN, (-16, "H", 1)), "truncated"),
    "a member on another disk": (patched(PLAIN, (directory_entry(WITHIN, PLAIN) + 34, "H", 1)), "truncated"),
    "more members than there are": (
        patched(PLAIN, (-12, "H", len(MEMBERS) + 1), (-14, "H", len(MEMBERS) + 1)),
        "truncated",
    ),
    "a 64-bit record that stands elsewhere, for some readers": (patched(SAVED, (-34, "Q", 0)), "does not begin"),
    "a 64-bit record that stands behind the end": (patched(SAVED, (-34, "Q", len(SAVED))), "truncated"),
    "a 64-bit record on another disk": (patched(SAVED, (-38, "L", 1)), "truncated"),
    "a 64-bit record of two disks": (patched(SAVED, (-26, "L", 2)), "truncated"),
    "another name, for some readers": (with_extra(0x7075, 9, b"\1\0\0\0\0evil"), "truncated"),
    "an extra field twice": (with_extra(0x4246, 0, b"\x46\x42\0\0"), "truncated"),
    "an extra field that is cut": (with_extra(0x4246, 9, b"short"), "truncated"),
    "a 64-bit size that stands nowhere": (
        patched(PLAIN, (directory_entry(WITHIN, PLAIN) + 24, "I", 0xFFFFFFFF)),
        "truncated",
    ),
    "a 64-bit size of which half stands in another field": (
        patched(HALF, (directory_entry(WITHIN, HALF) + 24, "I", 0xFFFFFFFF)),
        "truncated",
    ),
    "a script before it, which its offsets count": (appended(b"#!/bin/sh\n"), "does not begin"),
    "two directories": (patched(SAVED, (-6, "I", 0)), "truncated"),
    "a comment": (patched(PLAIN, (-2, "H", 1)) + b"!", "truncated"),
    "a name that ends early, for some readers": (
        PLAIN.replace(b"archive/version", b"archive/ver\0ion"),
        "truncated",
    ),
    "more members than a checkpoint has": (
        patched(
            SAVED,
            (-22 - 20 - 56 + 24, "Q", 100_001),
            (-22 - 20 - 56 + 32, "Q", 100_001),
            (-14, "H", 0xFFFF),
            (-12, "H", 0xFFFF),
        ),
        "100001 members in",
    ),
    "a directory of 16 MiB": (endless_directory(), "1 members in 16777217 bytes"),
    "an endless byte order": (rezipped(SAVED, replaced("byteorder", b"l" * 1000)), "would be 1000 bytes long"),
}


@pytest.mark.parametrize(("data", "reason"), AMBIGUOUS.values(), ids=AMBIGUOUS.keys())
def test_archives_that_mean_two_things_are_refused(data: bytes, reason: str) -> None:
    with pytest.raises(CheckpointError, match=reason):
        read(data)


def test_opening_reads_a_member_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its header; besides that the end, the directory, and the members that tell what the others are."""
    state = {f"x{number}": torch.zeros(1) for number in range(500)}
    data = saved(state)
    file = OpenFile.spooled(data, "test")
    reads = Reads.watched(monkeypatch)
    torch_zip.read(file)
    assert len(reads.sizes) < 500 + 30


@given(position=st.integers(0, len(COMPRESSED) - 1), bit=st.integers(0, 7))
def test_a_flipped_bit_is_refused_or_changes_nothing(position: int, bit: int) -> None:
    """It may lie where nothing is read: in dates, or in the names of other systems."""
    flipped = bytearray(COMPRESSED)
    flipped[position] ^= 1 << bit
    with suppress(CheckpointError):
        container = open_archive(bytes(flipped))
        container.sha256()
        assert isinstance(container.root, dict)
        assert [content(tensor) for tensor in container.root.values()] == [raw(BASE)]


@pytest.mark.parametrize(("data", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_state_dict_of_torch_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(CheckpointError, match=reason):
        read(data)
