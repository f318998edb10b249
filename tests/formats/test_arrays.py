"""Tensors whose bytes are in the pickle itself are read where they are, number for number, and no numpy is imported."""

from __future__ import annotations

import io
import pickle
import subprocess
import sys
from pathlib import Path

import numpy
import pytest
import torch

from resnet_surgeon.errors import CheckpointError
from resnet_surgeon.formats import sniff
from resnet_surgeon.formats.container import Container
from resnet_surgeon.formats.files import OpenFile
from resnet_surgeon.formats.numpy_dtypes import DTYPES
from resnet_surgeon.formats.tensors import LazyTensor, Stored, content
from resnet_surgeon.formats.unread import Unread
from tests.formats import test_torch_legacy, test_torch_zip
from tests.formats.test_torch_zip import BASE, raw

ARRAY = BASE.numpy()
ARRAYS = {
    "float32": ARRAY,
    "float64": ARRAY.astype("f8"),
    "float16": ARRAY.astype("f2"),
    "int64": ARRAY.astype("i8"),
    "bool": ARRAY > 3,
    "big-endian": ARRAY.astype(">f4"),
    "complex and big-endian": (ARRAY + 1j * ARRAY.max()).astype(">c8"),
    "in Fortran's order": numpy.asfortranarray(ARRAY),
    "of no dimension": numpy.array(7.5, "f4"),
    "empty": numpy.zeros((0, 3), "f4"),
    "a number": numpy.float32(2.5),
    "long": numpy.arange(40_000, dtype="f4"),
}


def read(data: bytes) -> Container:
    return sniff.read(OpenFile.spooled(data, "test"))


def tensor(container: Container, name: str = "x") -> LazyTensor:
    assert isinstance(container.root, dict)
    found = container.root[name]
    assert isinstance(found, LazyTensor), found
    return found


def expected(array: numpy.ndarray) -> bytes:
    plain = numpy.asarray(array)
    return plain.astype(plain.dtype.newbyteorder("<")).tobytes()


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("array", ARRAYS.values(), ids=ARRAYS.keys())
def test_numpys_arrays_come_out_with_their_numbers(array: numpy.ndarray, protocol: int) -> None:
    container = read(pickle.dumps({"x": array, "y": [1]}, protocol))
    found = tensor(container)
    assert container.kind == "pickle"
    assert container.not_loaded == ()
    assert found.shape == array.shape
    assert content(found) == expected(array)


@pytest.mark.parametrize("saved", [test_torch_zip.saved, test_torch_legacy.saved], ids=["zip", "stacked"])
def test_so_do_those_that_torch_saved(saved: object) -> None:
    assert callable(saved)
    assert content(tensor(read(saved({"x": ARRAY, "y": BASE})))) == expected(ARRAY)


@pytest.mark.parametrize("protocol", range(2, 6))
def test_tensors_that_pickle_wrote_come_out_with_their_numbers(protocol: int) -> None:
    state = {"x": BASE.transpose(0, 1), "y": torch.nn.Parameter(BASE[1]), "long": torch.arange(40_000)}
    container = read(pickle.dumps(state, protocol))
    assert container.not_loaded == ()
    for name, witness in state.items():
        assert content(tensor(container, name)) == raw(witness)


def test_long_bytes_stay_where_they_are() -> None:
    data = pickle.dumps({"x": ARRAYS["long"]}, 4)
    found = tensor(read(data))
    assert isinstance(found, Stored)
    assert data[found.offset : found.offset + 160_000] == ARRAYS["long"].tobytes()


@pytest.mark.parametrize(
    "body", [b"\0\0\x80\x3f", "\xe9\xe8".encode(), b"\xff\xfe\xfd\xfc"], ids=["ASCII", "UTF-8", "neither"]
)
def test_arrays_of_python_2_are_text_of_any_code(body: bytes) -> None:
    """Their bytes are text, which is decoded as UTF-8 where it can be."""
    dtype = b"cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01K\x01\x85" + dtype
    found = tensor(read(b"\x80\x02}U\x01x" + array + b"\x89U\x04" + body + b"tbs."))
    assert (found.dtype, found.shape) == ("F32", (1,))
    assert content(found) == body


def test_text_that_cannot_be_an_arrays_bytes_stays_closed() -> None:
    dtype = b"cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01K\x01\x85" + dtype
    text = "\N{EURO SIGN}" * 4
    body = b"X" + len(text.encode()).to_bytes(4, "little") + text.encode()
    root = read(b"\x80\x02}(U\x01x" + array + b"\x89" + body + b"tbU\x01yK\x01u.").root
    assert isinstance(root, dict)
    assert isinstance(root["x"], Unread)


@pytest.mark.parametrize("array", [numpy.array(["a"]), numpy.array([None]), ARRAY.astype("c16")], ids=["U", "O", "c16"])
def test_arrays_of_other_things_stay_closed(array: numpy.ndarray) -> None:
    root = read(pickle.dumps({"x": array, "y": ARRAY}, 4)).root
    assert isinstance(root, dict)
    assert isinstance(root["x"], Unread)


def test_a_pickle_that_goes_on_is_refused() -> None:
    with pytest.raises(CheckpointError, match="goes on after its end"):
        read(pickle.dumps({"x": ARRAY}, 4) + b"more")


def test_a_storage_of_another_length_is_refused() -> None:
    data = pickle.dumps({"x": BASE}, 4)
    with pytest.raises(CheckpointError, match="another length than it says"):
        read(data.replace((24).to_bytes(8, "little"), (25).to_bytes(8, "little")))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (0x1950A86A20F9469CFC6C.to_bytes(10, "little"), 0x1950A86A20F9469CFC6D.to_bytes(10, "little")),
        (str(BASE.untyped_storage()._cdata).encode(), b"9" * len(str(BASE.untyped_storage()._cdata))),
    ],
    ids=["of another format", "of another key"],
)
def test_a_storage_that_is_damaged_is_refused(before: bytes, after: bytes) -> None:
    data = pickle.dumps({"x": BASE}, 4)
    assert before in data
    with pytest.raises(CheckpointError, match="a storage in its pickle is damaged"):
        read(data.replace(before, after, 1))


def test_no_numpy_is_imported(tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"x": ARRAY}))
    code = (
        "import sys; from resnet_surgeon.formats import sniff; from resnet_surgeon.formats.files import OpenFile; "
        f"sniff.read(OpenFile.at({str(tmp_path / 'a.pkl')!r})); assert 'numpy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("compress", [0, 3], ids=["plain", "compressed by zlib"])
@pytest.mark.parametrize("kind", DTYPES)
def test_joblibs_arrays_are_read_as_joblib_reads_them(compress: int, kind: str) -> None:
    joblib = pytest.importorskip("joblib")
    arrays = {
        "small": numpy.arange(6).reshape(2, 3).astype(kind),
        "long": numpy.random.default_rng(0).integers(0, 2, (3, 30_000)).astype(kind),
        "in Fortran's order": numpy.arange(6).reshape(2, 3).astype(kind).copy(order="F"),
        "big-endian": numpy.arange(6).astype(kind).astype(f">{kind}"),
        "empty": numpy.zeros((0, 2), kind),
    }
    buffer = io.BytesIO()
    joblib.dump({"net": arrays, "epoch": 3}, buffer, compress=compress)
    root = sniff.read(OpenFile.spooled(buffer.getvalue(), "test")).root
    assert isinstance(root, dict)
    for name, array in arrays.items():
        tensor = root["net"][name]
        assert tensor.shape == array.shape
        assert content(tensor) == array.astype(f"<{kind}").tobytes()


def test_an_array_of_joblibs_that_is_cut_is_refused() -> None:
    joblib = pytest.importorskip("joblib")
    buffer = io.BytesIO()
    joblib.dump(numpy.ones(1000), buffer)
    with pytest.raises(CheckpointError, match="cut short"):
        sniff.read(OpenFile.spooled(buffer.getvalue()[:-500], "test"))
