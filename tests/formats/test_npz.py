"""numpy's archives of arrays are read number for number, in place where they are not compressed; damage is refused."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from typing import Any

import numpy
import pytest

from resnet_surgeon.errors import CheckpointError
from resnet_surgeon.formats import sniff
from resnet_surgeon.formats.files import OpenFile
from resnet_surgeon.formats.tensors import LazyTensor, content
from resnet_surgeon.formats.unread import Unread
from tests.formats.test_arrays import ARRAYS, expected


def saved(save: Callable[..., Any], **arrays: Any) -> bytes:
    buffer = io.BytesIO()
    save(buffer, **arrays)
    return buffer.getvalue()


def read(data: bytes) -> dict[str, LazyTensor]:
    container = sniff.read(OpenFile.spooled(data, "test"))
    assert container.kind == "npz"
    assert isinstance(container.root, dict)
    return container.root


@pytest.mark.parametrize("save", [numpy.savez, numpy.savez_compressed], ids=["stored", "compressed"])
@pytest.mark.parametrize("array", ARRAYS.values(), ids=ARRAYS.keys())
def test_arrays_come_out_with_their_numbers(array: numpy.ndarray, save: Callable[..., Any]) -> None:
    found = read(saved(save, **{"layer1.0.conv1.weight": array, "y": numpy.zeros(2)}))["layer1.0.conv1.weight"]
    assert found.shape == numpy.shape(array)
    assert content(found) == expected(array)


def test_arrays_of_other_things_stay_closed() -> None:
    assert isinstance(read(saved(numpy.savez, x=numpy.array(["a"]), y=numpy.zeros(2)))["x"], Unread)


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_headers_of_every_version_are_read(version: tuple[int, int]) -> None:
    array, out = io.BytesIO(), io.BytesIO()
    numpy.lib.format.write_array(array, ARRAYS["float32"], version)
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("x.npy", array.getvalue())
    assert content(read(out.getvalue())["x"]) == expected(ARRAYS["float32"])


def test_the_digest_pass_tests_the_checksums() -> None:
    data = bytearray(saved(numpy.savez, x=ARRAYS["float32"], y=ARRAYS["float64"]))
    data[data.index(ARRAYS["float64"].tobytes()) + 5] ^= 1
    with pytest.raises(CheckpointError, match="checksum of `y.npy` does not hold"):
        sniff.read(OpenFile.spooled(bytes(data), "test")).sha256()


def test_many_small_bombs_are_refused_for_what_they_come_to() -> None:
    """Each is small enough for any ratio."""
    with pytest.raises(CheckpointError, match="far more than a checkpoint's do"):
        read(saved(numpy.savez_compressed, **{f"x{number}": numpy.zeros(125_000) for number in range(40)}))


def test_damage_is_refused() -> None:
    data = saved(numpy.savez, x=numpy.zeros((2, 3)))
    with pytest.raises(CheckpointError, match="another length than its header says"):
        read(data.replace(b"(2, 3), }", b"(2, 4), }"))
    with pytest.raises(CheckpointError, match="not a numpy array"):
        read(data.replace(b"\x93NUMPY", b"\x93NUMPX"))


def test_a_header_of_endless_digits_takes_no_time() -> None:
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (" + b"1" * 60 + b"x), }"
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    assert isinstance(sniff.read(OpenFile.spooled(out.getvalue(), "a.npz")).root["a"], Unread)  # type: ignore[index]
