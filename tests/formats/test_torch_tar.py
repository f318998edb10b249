"""The tar archives of 2016 and 2017 are read as torch's own old code reads them; hostile ones are refused."""

from __future__ import annotations

import io
import pickle
import struct
import tarfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from resnet_surgeon.errors import CheckpointError
from resnet_surgeon.formats import torch_tar
from resnet_surgeon.formats.files import OpenFile
from resnet_surgeon.formats.modules import ModuleNode
from resnet_surgeon.formats.tensors import content
from tests.formats.test_torch_zip import BASE, raw

NOISE = b"\xde\xad\xbe\xef"


class _Reference:
    """Stands for a tensor in the pickle: text, while the list of tensors has numbers."""

    def __init__(self, key: int) -> None:
        self.key = key


_PythonPickler: Any = pickle._Pickler  # in Python, so that opcodes can be written by hand


class _Pickler(_PythonPickler):  # type: ignore[misc]
    def persistent_id(self, item: object) -> object:
        return str(item.key) if isinstance(item, _Reference) else None

    def save(self, item: Any, save_persistent_id: bool = True) -> None:
        if isinstance(item, torch.nn.Parameter):
            # A Parameter of 2016: NEWOBJ, then BUILD from (data, gradient, hooks, requires_grad, volatile).
            self.write(b"ctorch.nn.parameter\nParameter\n)\x81")
            super().save((item.reference, None, None, True, False))  # type: ignore[attr-defined]
            self.write(b"b")
        else:
            super().save(item, save_persistent_id)


STORAGES = {torch.float32: torch.FloatStorage, torch.float64: torch.DoubleStorage, torch.int64: torch.LongStorage}


def archive_of(
    tensors: dict[str, torch.Tensor], change: Callable[[dict[str, bytes]], Any] = lambda parts: None
) -> bytes:
    """A tar archive as torch 0.1 wrote it."""
    storages = tensor_list = b""
    state: OrderedDict[str, object] = OrderedDict()
    for key, (name, tensor) in enumerate(tensors.items(), start=1000):
        storage_key = 140_000_000_000_000 + key
        flat = tensor.detach().as_strided((tensor.untyped_storage().size() // tensor.element_size(),), (1,), 0)
        storages += (
            pickle.dumps((storage_key, "cpu", STORAGES[tensor.dtype]), 2) + struct.pack("<q", len(flat)) + raw(flat)
        )
        numbers = struct.pack(f"<{2 * tensor.ndim + 1}q", *tensor.shape, *tensor.stride(), tensor.storage_offset())
        tensor_list += pickle.dumps((key, storage_key, None), 2) + struct.pack("<i", tensor.ndim) + NOISE + numbers
        state[name] = _Reference(key)
        if isinstance(tensor, torch.nn.Parameter):
            state[name] = parameter = torch.nn.Parameter(torch.zeros(0))
            parameter.reference = _Reference(key)  # type: ignore[attr-defined]
    buffer = io.BytesIO()
    _Pickler(buffer, 2).dump(state)
    parts = {
        "sys_info": pickle.dumps({"protocol_version": 1000, "little_endian": True}, 2),
        "pickle": buffer.getvalue(),
        "storages": pickle.dumps(len(tensors), 2) + storages + pickle.dumps([], 2),
        "tensors": pickle.dumps(len(tensors), 2) + tensor_list,
    }
    change(parts)
    result = io.BytesIO()
    with tarfile.open(fileobj=result, mode="w:", format=tarfile.PAX_FORMAT) as archive:
        for name, data in parts.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return result.getvalue()


def read(data: bytes) -> dict[str, Any]:
    root = torch_tar.read(OpenFile.spooled(data, "test")).root
    assert isinstance(root, dict)
    return root


STATE = {
    "float32": BASE,
    "parameter": torch.nn.Parameter(BASE * 2),
    "transposed": BASE.transpose(0, 2),
    "a part": BASE[1, 1:],
    "float64": BASE.double(),
    "int64": torch.arange(5),
}


def test_every_tensor_comes_out_with_its_values() -> None:
    found = read(archive_of(STATE))
    assert {name: content(tensor) for name, tensor in found.items()} == {
        name: raw(tensor) for name, tensor in STATE.items()
    }


def test_torchs_own_old_reader_agrees(tmp_path: Path) -> None:
    """`weights_only=False` still reaches it."""
    tensors = {name: tensor for name, tensor in STATE.items() if not isinstance(tensor, torch.nn.Parameter)}
    (tmp_path / "old.pth").write_bytes(archive_of(tensors))
    witness = torch.load(tmp_path / "old.pth", weights_only=False)
    assert all(torch.equal(witness[name], tensor) for name, tensor in tensors.items())


ROOT, PART = 140_000_000_001_000, 7  # keys of the storage of the first tensor, and of a part of it


def with_part(*part: object) -> Callable[[dict[str, bytes]], None]:
    """The tensor is then one of a part of its storage, which comes behind all storages."""

    def change(parts: dict[str, bytes]) -> None:
        parts["storages"] = parts["storages"].removesuffix(pickle.dumps([], 2)) + pickle.dumps([part], 2)
        numbers = struct.pack("<i", 2) + NOISE + struct.pack("<5q", 2, 2, 1, 2, 1)
        parts["tensors"] = pickle.dumps(1, 2) + pickle.dumps((1000, PART, None), 2) + numbers

    return change


def test_parts_of_storages_are_read_as_torch_reads_them(tmp_path: Path) -> None:
    data = archive_of({"x": BASE}, with_part(PART, ROOT, 5, 6))
    (tmp_path / "old.pth").write_bytes(data)
    witness = torch.load(tmp_path / "old.pth", weights_only=False)["x"]
    assert content(read(data)["x"]) == raw(witness) == raw(BASE.as_strided((2, 2), (1, 2), 6))


def test_the_members_may_be_in_a_folder_that_is_the_current_one() -> None:
    data = archive_of({"x": BASE}, lambda parts: parts.update({f"./{name}": parts.pop(name) for name in [*parts]}))
    assert content(read(data)["x"]) == raw(BASE)


def replaced(name: str, old: bytes, new: bytes) -> Callable[[dict[str, bytes]], None]:
    def change(parts: dict[str, bytes]) -> None:
        assert old in parts[name]
        parts[name] = parts[name].replace(old, new, 1)

    return change


DAMAGE: dict[str, tuple[Callable[[dict[str, bytes]], Any], str]] = {
    "another member": (lambda parts: parts.update(evil=b""), "holds `evil`"),
    "a way out": (lambda parts: parts.update({"../evil": b""}), "holds `../evil`"),
    "a part missing": (lambda parts: parts.pop("tensors"), "lacks tensors"),
    "big-endian": (lambda parts: parts.update(sys_info=pickle.dumps({"little_endian": False}, 2)), "big-endian"),
    "a command in storages": (
        lambda parts: parts.update(storages=b"\x80\x02cposix\nsystem\nX\x04\x00\x00\x00true\x85R."),
        "only an attack needs",
    ),
    "a tensor missing": (lambda parts: parts.update(tensors=pickle.dumps(0, 2)), "the tensor `1000` is missing"),
    "a part that reaches outside": (with_part(PART, ROOT, 20, 6), "outside of its storage"),
    "a part of no storage": (with_part(PART, ROOT + 1, 5, 6), "damaged"),
    "a part that begins at text": (with_part(PART, ROOT, "5", 6), "damaged"),
    "a storage that is not there": (
        replaced("tensors", pickle.dumps(ROOT, 2)[2:-1], pickle.dumps(PART, 2)[2:-1]),
        "damaged",
    ),
    "a part twice": (lambda parts: parts.update({"./pickle": parts["pickle"]}), "holds pickle twice"),
    "a storage twice": (
        lambda parts: parts.update(storages=pickle.dumps(2, 2) + parts["storages"][5:-6] * 2 + pickle.dumps([], 2)),
        "damaged",
    ),
    "too many dimensions": (
        replaced("tensors", struct.pack("<i", 3) + NOISE, struct.pack("<i", 2**31 - 1) + NOISE),
        "damaged",
    ),
    "negative dimensions": (
        replaced("tensors", struct.pack("<i", 3) + NOISE, struct.pack("<i", -1) + NOISE),
        "damaged",
    ),
    "a size that lies": (
        replaced("tensors", struct.pack("<q", 12), struct.pack("<q", 2**62)),
        "outside of its storage",
    ),
    "a storage that lies": (replaced("storages", struct.pack("<q", 24), struct.pack("<q", 2**40)), "truncated"),
    "a negative storage": (replaced("storages", struct.pack("<q", 24), struct.pack("<q", -24)), "truncated"),
}


@pytest.mark.parametrize(("change", "reason"), DAMAGE.values(), ids=DAMAGE.keys())
def test_damaged_and_hostile_archives_are_refused(change: Callable[[dict[str, bytes]], Any], reason: str) -> None:
    with pytest.raises(CheckpointError, match=reason):
        read(archive_of({"x": BASE}, change))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE])
def test_members_that_are_no_files_are_refused(kind: bytes) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:") as archive:
        member = tarfile.TarInfo("pickle")
        member.type, member.linkname = kind, "/etc/passwd"
        archive.addfile(member)
    with pytest.raises(CheckpointError, match="which torch never wrote"):
        read(buffer.getvalue())


def test_a_truncated_archive_is_refused() -> None:
    data = archive_of({"x": BASE})
    for size in (300, 600, 1300, 2100):
        with pytest.raises(CheckpointError):
            read(data[:size])
    with pytest.raises(CheckpointError, match="truncated in tensors"):
        read(data[: data.index(NOISE)])


def test_a_whole_module_has_the_text_of_its_class() -> None:
    """The class is a reference out of the pickle: to itself, its file and its text."""

    def text(words: str) -> bytes:
        return b"X" + struct.pack("<I", len(words)) + words.encode()

    reference = b"cnet\nNet\n" + text("net.py") + text("class Net: pass") + b"\x87Q"
    tensors = b"}(" + text("weight") + text("1000") + b"Qu"
    state = b"}(" + text("_parameters") + tensors + text("_buffers") + b"}" + text("_modules") + b"}u"

    def change(parts: dict[str, bytes]) -> None:
        parts["pickle"] = b"\x80\x02" + reference + b")\x81" + state + b"b."

    root = torch_tar.read(OpenFile.spooled(archive_of({"weight": BASE}, change), "test")).root
    assert isinstance(root, ModuleNode)
    assert content(root["weight"]) == raw(BASE)  # type: ignore[arg-type]
    assert (root.layers[""].kind, root.layers[""].source) == ("net.Net", "class Net: pass")
