"""Files of 2017 to 2020 are read as torch itself reads them; damaged ones are refused."""

from __future__ import annotations

import io
import pickle
import re
import struct
from collections import OrderedDict

import pytest
import torch

from resnet_surgeon.errors import CheckpointError
from resnet_surgeon.formats import torch_legacy
from resnet_surgeon.formats.container import Container
from resnet_surgeon.formats.files import OpenFile
from resnet_surgeon.formats.tensors import LazyTensor, content
from tests.formats.test_torch_zip import BASE, TENSORS, pickle_of, raw

MAGIC = pickle.dumps(0x1950A86A20F9469CFC6C, 2)
PROTOCOL = pickle.dumps(1001, 2)
SYSTEM = pickle.dumps({"protocol_version": 1001, "little_endian": True}, 2)


def saved(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


def read(data: bytes) -> Container:
    return torch_legacy.read(OpenFile.spooled(data, "test"))


@pytest.mark.parametrize("tensor", TENSORS.values(), ids=TENSORS.keys())
def test_every_tensor_comes_out_contiguous_with_its_values(tensor: torch.Tensor) -> None:
    root = read(saved({"x": tensor})).root
    assert isinstance(root, dict)
    assert root["x"].shape == tuple(tensor.shape)
    assert content(root["x"]) == raw(tensor)


@pytest.mark.parametrize("stride", [(2, 1), (1, 2)])
@pytest.mark.parametrize("offset", [0, 1])
def test_parts_of_storages_are_read_as_torch_reads_them(offset: int, stride: tuple[int, int]) -> None:
    """Until 1.4 torch saved a storage that was a view of another as a part of it: key, first number, how many."""
    part = ("storage", torch.FloatStorage, "0", "cpu", 24, ("1", 7, 6))
    data = MAGIC + PROTOCOL + SYSTEM + pickle_of(part=part, offset=offset, shape=(2, 2), strides=stride)
    data += pickle.dumps(["0"], 2) + struct.pack("<q", 24) + raw(BASE)
    root = read(data).root
    assert isinstance(root, dict)
    witness = torch.load(io.BytesIO(data), weights_only=True)["x"]
    assert content(root["x"]) == raw(witness) == raw(BASE.as_strided((2, 2), stride, 7 + offset))


def test_a_storage_that_is_listed_twice_is_refused() -> None:
    whole = saved({"x": BASE})
    key = pickle.loads(whole[whole.rindex(b"\x80\x02") :])
    begin = whole.rindex(b"\x80\x02")
    twice = whole[:begin] + pickle.dumps(key * 2, 2) + whole[-8 - BASE.nbytes :] * 2
    with pytest.raises(CheckpointError, match="lists a storage twice"):
        read(twice)


def test_a_storage_of_two_dtypes_is_refused() -> None:
    data = saved({"x": BASE, "y": torch.arange(24, dtype=torch.int32)})
    first, second = dict.fromkeys(re.findall(rb"X.\0\0\0(\d+)", data))
    with pytest.raises(CheckpointError, match="in two ways"):
        read(data.replace(second, first))


def test_many_storages_and_plain_data_are_told_apart() -> None:
    state = OrderedDict((f"t{index}", torch.randn(index + 1)) for index in range(50))
    root = read(saved({"epoch": 3, "state_dict": state})).root
    assert isinstance(root, dict)
    assert root["epoch"] == 3
    assert {name: content(tensor) for name, tensor in root["state_dict"].items()} == {
        name: raw(tensor) for name, tensor in state.items()
    }


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_a_large_pickle_is_read_piece_by_piece(protocol: int) -> None:
    state = OrderedDict((f"{'x' * 200}{index}", torch.zeros(1)) for index in range(2000))
    buffer = io.BytesIO()
    torch.save(state, buffer, pickle_protocol=protocol, _use_new_zipfile_serialization=False)
    root = read(buffer.getvalue()).root
    assert isinstance(root, dict)
    assert all(isinstance(tensor, LazyTensor) for tensor in root.values())
    assert len(root) == 2000


SAVED = saved({"x": BASE})
COUNT = (24).to_bytes(8, "little")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (SAVED[:-1], "truncated"),
        (SAVED[: len(SAVED) // 2], "cut short|truncated"),
        (SAVED + b"more", "4 bytes follow"),
        (SAVED.replace(COUNT, (4).to_bytes(8, "little")), "has 4 numbers, expected 24"),
        (SAVED.replace(COUNT, b"\xff" * 8), "has -1 numbers, expected 24"),
        (MAGIC + PROTOCOL + SYSTEM + pickle_of() + pickle.dumps([], 2), "the storage `0` is missing"),
        (pickle_of(), "the storage `0` is missing"),
        (MAGIC + pickle.dumps(1002, 2), "protocol is `1002`"),
        (SAVED.replace(b"little_endianq\x02\x88", b"little_endianq\x02\x89"), "big-endian"),
        (b"\x80\x02cbuiltins\neval\nX\x01\x00\x00\x001\x85R.", "only an attack needs"),
        (MAGIC + PROTOCOL + SYSTEM + pickle.dumps({}, 2) + pickle.dumps(["1"], 2), "nothing refers to"),
        (MAGIC + PROTOCOL + SYSTEM + pickle.dumps({}, 2) + pickle.dumps(3, 2), "does not list its storages"),
        (MAGIC + PROTOCOL + SYSTEM + pickle.dumps({}, 2), "cut short"),
        (MAGIC + b"\x80\x04\x8e" + b"\xff" * 8, "cut short"),  # so many bytes that nothing can hold them
    ],
    ids=range(14),
)
def test_damaged_files_are_refused(data: bytes, reason: str) -> None:
    with pytest.raises(CheckpointError, match=reason):
        read(data)
