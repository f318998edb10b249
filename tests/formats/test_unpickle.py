"""The unpickler describes what checkpoints hold, and neither imports, calls nor opens anything that a file names."""

from __future__ import annotations

import io
import pickle
import pickletools
import re
import sys
import zipfile
from collections import OrderedDict
from contextlib import suppress

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from resnet_surgeon.errors import CheckpointError
from resnet_surgeon.formats.files import OpenFile
from resnet_surgeon.formats.unpickle import Pickles, Storage, View, instructions, unpickle
from tests.formats.test_torch_zip import pickle_of
from tests.work import Reads


def pickled(value: object, protocol: int = 2) -> bytes:
    """The pickle that `torch.save` puts into its archive."""
    buffer = io.BytesIO()
    torch.save(value, buffer, pickle_protocol=protocol)
    with zipfile.ZipFile(buffer) as archive:
        return archive.read("archive/data.pkl")


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_tensors_become_views_of_storages(protocol: int) -> None:
    state = OrderedDict(a=torch.zeros(2, 3), b=torch.nn.Parameter(torch.zeros(4)[1:]))
    state._metadata = OrderedDict(version=1)  # type: ignore[attr-defined]
    assert unpickle(pickled(state, protocol)) == {
        "a": View(Storage("F32", "0", 6), 0, (2, 3), (3, 1)),
        "b": View(Storage("F32", "1", 4), 1, (3,), (1,)),
    }


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text() | st.integers(-(2**63), 2**63), inner)
    ),
)


@given(value=PLAIN, protocol=st.sampled_from([3, 4, 5]))
def test_plain_data_come_out_as_pickle_itself_reads_them(value: object, protocol: int) -> None:
    assert unpickle(pickle.dumps(value, protocol)) == value


EVIL: dict[str, bytes] = {
    "posix.system": b"\x80\x02cposix\nsystem\nX\x04\x00\x00\x00true\x85R.",
    "stack global": b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x04true\x85R.",
    "builtins.eval": b"\x80\x02cbuiltins\neval\nX\x01\x00\x00\x001\x85R.",
    "getattr": b"\x80\x02c__builtin__\ngetattr\n.",
    "operator.attrgetter": b"\x80\x02coperator\nattrgetter\n.",
    "runpy": b"\x80\x02crunpy\n_run_code\n.",
    "pkgutil": b"\x80\x02cpkgutil\nresolve_name\n.",
    "io.FileIO": b"\x80\x02c_io\nFileIO\n.",
    "ctypes": b"\x80\x02cctypes\nCDLL\n.",
    "numpy crackfortran": b"\x80\x02cnumpy.f2py.crackfortran\ngetlincoef\n.",
    "torch.load": b"\x80\x02ctorch\nload\n.",
    "torch.hub": b"\x80\x02ctorch.hub\nload\n.",
    "load from bytes": b"\x80\x02ctorch.storage\n_load_from_bytes\n.",
    "bytearray bomb": b"\x80\x02c__builtin__\nbytearray\n\x8a\x05\x00\x00\x00\x00\x02\x85R.",
    "dotted name": b"\x80\x04\x8c\x0bcollections\x8c\x17OrderedDict.__init__.x.\x93.",
}


@pytest.mark.parametrize("data", EVIL.values(), ids=EVIL.keys())
def test_other_names_are_refused_and_nothing_happens(data: bytes) -> None:
    unpickle(pickle.dumps({}, 2))  # so that nothing is imported for the first time below
    events: list[str] = []
    watching = True
    sys.addaudithook(lambda event, _: events.append(event) if watching else None)
    try:
        with pytest.raises(CheckpointError, match="refused to load the Python object"):
            unpickle(data)
    finally:
        watching = False
    harmful = ("import", "open", "exec", "compile", "os.", "subprocess.", "pickle.", "socket.", "ctypes.")
    assert [event for event in events if event.startswith(harmful)] == []


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b'(S"id"\nios\nsystem\n.', "opcode b'S'"),
        (b'(cos\nsystem\nS"whoami"\no.', "refused to load"),
        (b"\x80\x02\x82\x01.", "opcode b'\\\\x82'"),
        (b"\x80\x05\x97.", "opcode"),
        (b"\x80\x06}.", "newer protocol"),
        (b"", "cut short"),
        (b"\x80\x02}", "cut short"),
        (b"\x80\x02t.", "damaged"),
        (b"\x80\x02h\x05.", "damaged"),
        (b"\x80\x02(.", "damaged"),
        (b"\x80\x02\x8a\xff\x01.", "cut short"),
        (b"\x80\x02X\xff\xff\xff\xffa.", "cut short"),
        (b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f}.", "cut short"),
        (b"\x80\x02r\xff\xff\xff\xff.", "damaged"),
        (b"\x80\x02}.cos\nsystem\n", "goes on after its end"),
        (b"\x80\x02]K\x01K\x02s.", "damaged"),
        (b"\x80\x02}K\x01a.", "damaged"),
        (b"\x80\x02}]K\x01s.", "key"),
        (b"\x80\x02}}X\x04\x00\x00\x00keysK\x01sb.", "sets attributes"),
        (b"\x80\x02ccollections\nOrderedDict\nK\x01R.", "no function"),
        (b"\x80\x02ctorch\nFloatStorage\nK\x08\x85R.", "damaged"),
        (b"\x80\x02X\x06\x00\x00\x00moduleX\x01\x00\x00\x00aX\x01\x00\x00\x00bX\x01\x00\x00\x00cK\x01t.", "damaged"),
        (b"\x80\x02X\x06\x00\x00\x00moduleQ.", "no storage"),
        (b"\x80\x02ctorch\nFloatTensor\n\x8a\x05\x00\x00\x00\x00\x02\x85R.", "damaged"),
        (b"\x80\x02c_codecs\nencode\nX\x03\x00\x00\x00abcX\x05\x00\x00\x00rot13\x86R.", "damaged"),
        (b"\x80\x02ctorch._utils\n_rebuild_qtensor\n.", "quantised"),
        (b"\x80\x02ctorch._utils\n_rebuild_sparse_tensor\n.", "sparse"),
    ],
    ids=range(27),
)
def test_damage_and_opcodes_without_use_are_refused(data: bytes, reason: str) -> None:
    with pytest.raises(CheckpointError, match=reason):
        unpickle(data)


def listed(what: bytes, count: int) -> bytes:
    """A list of so many times `what`, by the thousand, as Python writes it."""
    return b"\x80\x02]" + (b"(" + what * 1000 + b"e") * (count // 1000) + b"."


def test_a_log_of_a_million_numbers_is_read() -> None:
    assert unpickle(pickle.dumps([0.5] * 1_000_000, 2)) == [0.5] * 1_000_000


@pytest.mark.parametrize("what", [b"N", b"}", b"]q\0", b"\x8c\x01x", b"K\x01", b"\x80\x02"])
def test_endless_instructions_are_refused_before_the_end(what: bytes) -> None:
    data = listed(what, 1_500_000)
    with pytest.raises(CheckpointError, match="more than 1,500,000 instructions") as caught:
        unpickle(data)
    (byte,) = re.findall(r"\(byte (\d+)\)", caught.value.reason)
    assert int(byte) < len(data)


def test_what_is_piled_up_without_end_is_refused_early() -> None:
    data = b"\x80\x02(" + b"N" * 1_000_000 + b"t."
    with pytest.raises(CheckpointError, match=r"piles up more than 100,000 values.*\(byte 10\d{4}\)"):
        unpickle(data)


def test_several_pickles_share_their_instructions() -> None:
    data = listed(b"N", 800_000)
    pickles = Pickles(OpenFile.spooled(data * 2, "test"), 0, 2 * len(data), instructions())
    pickles.next()
    with pytest.raises(CheckpointError, match="instructions"):
        pickles.next()


def test_a_pickle_is_read_in_pieces_that_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever its instructions are, it is read about twice, not once for each of them."""
    data = listed(b"N" * 99 + b"\x8c\xff" + b"x" * 255 + b"G" + bytes(8), 2000)
    pickles = Pickles(OpenFile.spooled(data, "test"), 0, len(data), instructions())
    reads = Reads.watched(monkeypatch)
    assert len(pickles.next()) == 202_000  # type: ignore[arg-type]
    assert len(reads.sizes) < 30
    assert sum(reads.sizes) < 5 * len(data)


@pytest.mark.parametrize("number", [2**64, -(2**63) - 1, (2**61 - 1) * 2**100])
def test_keys_are_no_longer_than_a_hash(number: int) -> None:
    """All multiples of 2^61 - 1 have one hash: a dict of them takes forever."""
    with pytest.raises(CheckpointError, match="more than 64 bits for a key"):
        unpickle(pickle.dumps({number: 1}, 2))
    assert unpickle(pickle.dumps({1: number}, 2)) == {1: number}


@pytest.mark.parametrize(("shape", "strides"), [((1,) * 65, (1,) * 64), ((1,) * 64, (1,) * 65), ((1,) * 10**5, ())])
def test_a_view_of_too_many_dimensions_is_refused_when_it_is_built(
    shape: tuple[int, ...], strides: tuple[int, ...]
) -> None:
    """Before anything looks at its numbers."""
    with pytest.raises(CheckpointError, match="more than the 64 dimensions"):
        unpickle(pickle_of(shape=shape, strides=strides))


@given(st.binary(max_size=64))
def test_no_bytes_do_anything_but_be_refused(data: bytes) -> None:
    with suppress(CheckpointError):
        unpickle(b"\x80\x02" + data)


@given(st.data())
def test_a_damaged_checkpoint_is_refused_or_read(data: st.DataObject) -> None:
    whole = bytearray(pickled(OrderedDict(a=torch.zeros(2, 3), b=torch.zeros(4))))
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    with suppress(CheckpointError):
        unpickle(bytes(whole))


def test_every_opcode_that_torch_writes_is_known() -> None:
    """For all that a checkpoint has beside its state_dict: numbers, text, lists, nested dicts."""
    from resnet_surgeon.formats.unpickle import _ACTIONS

    settings = {"epoch": 300, "lr": 0.1, "names": ["a", "b"], "best": None, "flag": True, "big": 2**40, "far": -1}
    value = {**settings, "state": {"x": torch.zeros(1)}}
    written = {opcode.code.encode("latin-1") for opcode, _, _ in pickletools.genops(pickled(value))}
    assert written - {b"."} <= _ACTIONS.keys()
