"""The unpickler describes what checkpoints hold, and neither imports, calls nor opens anything that a file names."""

from __future__ import annotations

import io
import pickle
import pickletools
import re
import struct
import sys
import zipfile
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from resnet_surgeon.errors import CheckpointError
from resnet_surgeon.formats import unpickle as unpickling
from resnet_surgeon.formats.files import OpenFile
from resnet_surgeon.formats.pickled import Global, OddKey, Opaque, Parameter, Storage, View
from resnet_surgeon.formats.unpickle import Ledger, Pickles, unpickle
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
    "INST": b'(S"id"\nios\nsystem\n.',
    "OBJ": b'(cos\nsystem\nS"whoami"\no.',
    "builtins.eval": b"\x80\x02cbuiltins\neval\nX\x01\x00\x00\x001\x85R.",
    "operator.attrgetter": b"\x80\x02coperator\nattrgetter\n.",
    "runpy": b"\x80\x02crunpy\n_run_code\n.",
    "pkgutil": b"\x80\x02cpkgutil\nresolve_name\n.",
    "io.FileIO": b"\x80\x02c_io\nFileIO\n.",
    "ctypes": b"\x80\x02cctypes\nCDLL\n.",
    "numpy crackfortran": b"\x80\x02cnumpy.f2py.crackfortran\ngetlincoef\n.",
    "torch.load": b"\x80\x02ctorch\nload\n.",
    "torch.hub": b"\x80\x02ctorch.hub\nload\n.",
    "a module by another": b"\x80\x04\x8c\x13torch.serialization\x8c\x02os\x93.",
    "a function by another module": b"\x80\x04\x8c\x13torch.serialization\x8c\x09os.system\x93.",
    "a dotted name": b"\x80\x04\x8c\x0bcollections\x8c\x20OrderedDict.__init__.__globals__\x93.",
    "beside a state_dict": b"\x80\x02}(X\x01\x00\x00\x00aK\x01X\x01\x00\x00\x00bcnt\nsystem\nu.",
}


@contextmanager
def watched() -> Iterator[list[str]]:
    """What is imported, opened, executed or loaded inside: nothing, it is to be hoped."""
    unpickle(pickle.dumps({}, 2))  # so that nothing is imported for the first time inside
    harmful = ("import", "open", "exec", "compile", "os.", "subprocess.", "pickle.", "socket.", "ctypes.")
    events: list[str] = []
    watching = True
    sys.addaudithook(lambda event, _: events.append(event) if watching and event.startswith(harmful) else None)
    try:
        yield events
    finally:
        watching = False


@pytest.mark.parametrize("data", EVIL.values(), ids=EVIL.keys())
def test_names_that_only_an_attack_needs_are_refused_and_nothing_happens(data: bytes) -> None:
    with watched() as events, pytest.raises(CheckpointError, match="only an attack needs"):
        unpickle(data)
    assert events == []


@pytest.mark.parametrize("attribute", ["__globals__", "__subclasses__", "os", "__import__"])
def test_attributes_that_attacks_climb_by_are_refused(attribute: str) -> None:
    data = b"\x80\x02c__builtin__\ngetattr\nca\nB\nX" + struct.pack("<I", len(attribute)) + attribute.encode()
    with pytest.raises(CheckpointError, match=r"`__builtin__\.getattr` as only an attack does"):
        unpickle(data + b"\x86R.")


CLOSED: dict[str, tuple[bytes, str, object, object]] = {
    "REDUCE": (b"\x80\x02ca.b\nC\nK\x01K\x02\x86R.", "a.b.C", (1, 2), None),
    "NEWOBJ": (b"\x80\x02ca\nC\n)\x81.", "a.C", (), None),
    "NEWOBJ_EX": (b"\x80\x04ca\nC\nK\x01\x85}\x92.", "a.C", (1,), None),
    "BUILD": (b"\x80\x02ca\nC\n)\x81}X\x01\x00\x00\x00xK\x01sb.", "a.C", (), {"x": 1}),
    "INST": (b"(I1\nS'x'\nia\nC\n.", "a.C", (1, "x"), None),
    "OBJ": (b"(ca\nC\nI1\no.", "a.C", (1,), None),
    "an extension": (b"\x80\x02\x82\x07)\x81.", "copyreg.extension 7", (), None),
    "an extension of two bytes": (b"\x80\x02\x83\x07\x01)\x81.", "copyreg.extension 263", (), None),
    "an extension of four": (b"\x80\x02\x84\x07\x00\x01\x00)\x81.", "copyreg.extension 65543", (), None),
    "protocol 0": (
        b"ccopy_reg\n_reconstructor\n(ca\nC\nc__builtin__\nobject\nNtR(dS'x'\nI1\nsb.",
        "a.C",
        None,
        {"x": 1},
    ),
    "a function of a function": (b"\x80\x02ca\nf\n)RK\x01\x85R.", "a.f", (1,), None),
    "a partial function": (
        b"\x80\x02cfunctools\npartial\nca\nf\n\x85R.",
        "functools.partial",
        (Global("a", "f"),),
        None,
    ),
    "a bound method": (
        b"\x80\x02c__builtin__\ngetattr\nca\nC\nX\x04\x00\x00\x00mean\x86R.",
        "__builtin__.getattr",
        (Global("a", "C"), "mean"),
        None,
    ),
    "a bytearray of 8 GiB": (
        b"\x80\x02c__builtin__\nbytearray\n\x8a\x05\x00\x00\x00\x00\x02\x85R.",
        "__builtin__.bytearray",
        (2**33,),
        None,
    ),
    "a tensor of 2^40": (
        b"\x80\x02ctorch\nFloatTensor\n\x8a\x06\x00\x00\x00\x00\x00\x01\x85R.",
        "torch.FloatTensor",
        (2**40,),
        None,
    ),
    "another code": (
        b"\x80\x02c_codecs\nencode\nX\x03\x00\x00\x00abcX\x05\x00\x00\x00rot13\x86R.",
        "_codecs.encode",
        (),
        None,
    ),
    "a reference to elsewhere": (b"\x80\x02X\x06\x00\x00\x00moduleQ.", "pickle.a persistent object", (), None),
}


@pytest.mark.parametrize(("data", "kind", "arguments", "state"), CLOSED.values(), ids=CLOSED.keys())
def test_objects_of_other_names_stay_closed_and_nothing_happens(
    data: bytes, kind: str, arguments: object, state: object
) -> None:
    with watched() as events:
        found = unpickle(data)
    assert events == []
    assert type(found) is Opaque
    assert found.kind.qualified == kind
    assert found.state == state
    assert arguments is None or found.arguments == arguments


def test_what_stayed_closed_is_listed_by_name() -> None:
    """Classes, functions and what they were called with; not what tensors and plain data are made of."""
    ledger = Ledger()
    unpickle(
        pickled({"a": torch.zeros(1), "b": Counter("x"), "c": slice(1), "d": (re.escape, re.compile)}), ledger=ledger
    )
    assert ledger.not_loaded() == ("__builtin__.slice", "re.compile", "re.escape")


def test_of_many_names_the_first_are_listed_and_long_ones_cut() -> None:
    ledger = Ledger()
    unpickle(b"\x80\x02" + b"".join(b"ca\nC%03d%s\n0" % (n, b"x" * 300) for n in range(150)) + b"N.", ledger=ledger)
    assert len(ledger.not_loaded()) == 101
    assert ledger.not_loaded()[-1] == "and 50 more"
    assert max(map(len, ledger.not_loaded())) == 200


def test_more_names_than_any_checkpoint_has_are_refused() -> None:
    data = b"\x80\x02" + b"".join(b"ca\nC%d\n0" % number for number in range(1001)) + b"N."
    with pytest.raises(CheckpointError, match="more than 1,000 classes and functions"):
        unpickle(data)


class _Dict(dict[str, int]):
    pass


class _List(list[int]):
    pass


DICTS = {
    "OrderedDict": OrderedDict(a=1, b=2),
    "defaultdict": defaultdict(int, a=1, b=2),
    "Counter": Counter(a=1, b=2),
}


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("value", DICTS.values(), ids=DICTS.keys())
def test_dicts_of_other_classes_are_dicts(value: object, protocol: int) -> None:
    assert unpickle(pickle.dumps(value, protocol)) == {"a": 1, "b": 2}


@pytest.mark.parametrize("protocol", range(6))
def test_an_unknown_class_of_dicts_or_lists_shows_what_it_holds(protocol: int) -> None:
    found = unpickle(pickle.dumps([_Dict(a=1, b=2), _List([1, 2])], protocol))
    assert isinstance(found, list)
    assert found[0].held == {"a": 1, "b": 2}
    assert protocol < 2 or found[1].held == [1, 2]


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "value", [{3, 1, 2}, frozenset({1, 2, 3}), deque([1, 2, 3], 5)], ids=["set", "frozen", "deque"]
)
def test_sets_and_deques_are_the_lists_of_what_they_hold(value: object, protocol: int) -> None:
    assert sorted(unpickle(pickle.dumps(value, protocol))) == [1, 2, 3]  # type: ignore[call-overload]


KEYS = {
    "a tuple": (b"K\x01X\x01\x00\x00\x00a\x86", (1, "a")),
    "a class": (b"ca\nC\n", Global("a", "C")),
    "a list": (b"]", []),
    "a number of more than 64 bits": (b"\x8a\x09" + b"\xff" * 8 + b"\x7f", 2**71 - 1),
}


@pytest.mark.parametrize(("key", "value"), KEYS.values(), ids=KEYS.keys())
def test_a_key_that_can_name_nothing_is_kept_and_never_hashed(key: bytes, value: object) -> None:
    found = unpickle(b"\x80\x02}(" + key + b"K\x01X\x01\x00\x00\x00aK\x02u.")
    assert isinstance(found, dict)
    (odd, name) = found
    assert type(odd) is OddKey
    assert odd.value == value
    assert (name, found[name]) == ("a", 2)


def test_pairs_and_bytes_as_python_2_wrote_them() -> None:
    """An OrderedDict was called with a list of pairs, and bytes and text were one."""
    pairs = b"\x80\x02ccollections\nOrderedDict\n](](U\x01aK\x01e](U\x01\xe9I4294967296\nee\x85R."
    assert unpickle(pairs) == {"a": 1, "\xe9": 2**32}


TEXT = {
    "a number": (b"I-5\n.", -5),
    "true": (b"I01\n.", True),
    "false": (b"I00\n.", False),
    "a long number": (b"L123456789012345678901L\n.", 123456789012345678901),
    "a fraction": (b"F0.5\n.", 0.5),
    "text": (b"S'it\\'s \\xe9\\n\\\\'\n.", "it's \xe9\n\\"),
    "text in other quotes": (b'S"it\'s"\n.', "it's"),
    "text of any character": (b"Va\\u20ac\n.", "a\u20ac"),
    "a memo": (b"(lp7\n0g7\n.", []),
    "a long line": (b"V" + b"x" * 5000 + b"\n.", "x" * 5000),
    "bytes of protocol 5": (b"\x80\x05\x96\x02\x00\x00\x00\x00\x00\x00\x00ab.", b"ab"),
    "a number of four bytes' length": (b"\x80\x02\x8b\x02\x00\x00\x00\x00\x01.", 256),
    "twice the same": (b"\x80\x02K\x012\x86.", (1, 1)),
    "what was put on a mark and taken away": (b"\x80\x02K\x05(K\x01K\x021.", 5),
}


@pytest.mark.parametrize(("data", "value"), TEXT.values(), ids=TEXT.keys())
def test_what_old_protocols_write_is_read(data: bytes, value: object) -> None:
    found = unpickle(data)
    assert type(found) is type(value)
    assert found == value == pickle.loads(data, encoding="latin1")


def test_a_number_without_end_stays_closed() -> None:
    found = unpickle(pickle.dumps(1 << 80_000, 2))
    assert type(found) is Opaque
    assert found.kind == Global("builtins", "int")


def test_a_parameter_of_2017_holds_its_tensor() -> None:
    parameter = unpickle(b"\x80\x02ctorch.nn.parameter\nParameter\nK\x07\x85R.")
    assert type(parameter) is Parameter
    assert parameter.data == 7


@pytest.mark.parametrize("dtype", [torch.uint16, torch.float8_e4m3fn, torch.float8_e5m2])
def test_a_tensor_over_bytes_has_its_own_dtype(dtype: torch.dtype) -> None:
    names = {torch.uint16: "U16", torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2"}
    view = unpickle(pickled(torch.zeros(2, 3).to(dtype)))
    size = dtype.itemsize
    assert view == View(Storage(names[dtype], "0", 6), 0, (2, 3), (3, 1)), size


def test_attributes_of_a_tensor_do_not_matter_but_its_class_does() -> None:
    marked = torch.zeros(2)
    marked.mine = 1  # type: ignore[attr-defined]
    assert type(unpickle(pickled(marked))) is View
    assert type(unpickle(pickled(torch.zeros(2).as_subclass(_Tensor)))) is Opaque


class _Tensor(torch.Tensor):
    pass


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"S'\n.", "damaged"),
        (b"S'a\"\n.", "damaged"),
        (b"Sxax\n.", "damaged"),
        (b"(lp-1\n.", "damaged"),
        (b"\x80\x02K\x01\x86.", "damaged"),
        (b"\x80\x02(K\x01\x86.", "damaged"),
        (b"\x80\x02](a.", "damaged"),
        (b"\x80\x02}(X\x01\x00\x00\x00au.", "damaged"),
        (b"Ix\n.", "damaged"),
        (b"g99999999999999999999\n.", "damaged"),
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
        (b"\x80\x02K\x01}X\x04\x00\x00\x00keysK\x01sb.", "sets attributes"),
        (b"\x80\x02K\x01)R.", "not a function"),
        (b"\x80\x02ccollections\nOrderedDict\nK\x01R.", "not a function"),
        (b"\x80\x02X\x06\x00\x00\x00moduleX\x01\x00\x00\x00aX\x01\x00\x00\x00bX\x01\x00\x00\x00cK\x01t.", "damaged"),
        (b"\x80\x02X\x06\x00\x00\x00module\x85Q.", "damaged"),
        (b"\x80\x02X\x07\x00\x00\x00storage\x85Q.", "damaged"),
        (b"\x80\x02ccopyreg\n__newobj__\nh\x00\x85R.", "damaged"),
        (b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R.", "damaged"),
        (b"\x80\x02ctorch._utils\n_rebuild_parameter\nK\x01\x85R.", "damaged"),
        (b"\x80\x02ctorch\nSize\n]\x85R.", "damaged"),
        (b"\x80\x02c__builtin__\nset\n}\x85R.", "damaged"),
        (b"\x80\x02ccollections\nOrderedDict\nK\x01\x85R.", "damaged"),
        (b"\x80\x02ccollections\nOrderedDict\n]X\x02\x00\x00\x00aba\x85R.", "damaged"),
        (b"\x80\x02ccollections\nOrderedDict\n]]X\x01\x00\x00\x00aaa\x85R.", "damaged"),
        (b"\x80\x02cc\n" + b"x" * 2000 + b"\n.", "cut short"),
    ],
    ids=range(39),
)
def test_damage_and_opcodes_without_use_are_refused(data: bytes, reason: str) -> None:
    with pytest.raises(CheckpointError, match=reason):
        unpickle(data)


FLOATS = torch.FloatStorage
REFERENCES = {
    "too short": ("storage", FLOATS, "0", "cpu"),
    "too long": ("storage", FLOATS, "0", "cpu", 24, None, None),
    "a key that is a number": ("storage", FLOATS, 0, "cpu", 24),
    "a type of no storage": ("storage", torch.nn.Linear, "0", "cpu", 24),
    "a count that is text": ("storage", FLOATS, "0", "cpu", "24"),
    "a count that is true": ("storage", FLOATS, "0", "cpu", True),
    "a part without its length": ("storage", FLOATS, "0", "cpu", 24, ("1", 7)),
    "a part that begins at text": ("storage", FLOATS, "0", "cpu", 24, ("1", "7", 6)),
    "a part that is a list": ("storage", FLOATS, "0", "cpu", 24, ["1", 7, 6]),
}


@pytest.mark.parametrize("reference", REFERENCES.values(), ids=REFERENCES.keys())
def test_references_to_storages_that_torch_does_not_write_are_refused(reference: tuple[object, ...]) -> None:
    with pytest.raises(CheckpointError, match="is damaged"):
        unpickle(pickle_of(part=reference))


def listed(what: bytes, count: int) -> bytes:
    """A list of so many times `what`, by the thousand, as Python writes it."""
    return b"\x80\x02]" + (b"(" + what * 1000 + b"e") * (count // 1000) + b"."


def test_a_log_of_a_million_numbers_is_read() -> None:
    assert unpickle(pickle.dumps([0.5] * 1_000_000, 2)) == [0.5] * 1_000_000


def test_work_that_calls_repeat_is_bounded() -> None:
    """A dict of pairs is made anew by each call, however short the call is."""
    pairs = b"(" + b"](X\x01\x00\x00\x00aK\x01e" * 1000 + b"e"
    data = b"\x80\x02]" + pairs + b"\x85q\x00ccollections\nOrderedDict\nq\x01" + b"h\x01h\x00R0" * 4_000 + b"00N."
    with pytest.raises(CheckpointError, match="more work in it"):
        unpickle(data)


@pytest.mark.parametrize("what", [b"N", b"}", b"]q\0", b"\x8c\x01x", b"K\x01", b"\x80\x02", b"\x8f", b"I1\n"])
def test_endless_instructions_are_refused_before_the_end(what: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a hundredth of the limit; files of endless instructions come to the limit itself in `tests/hazards`."""
    monkeypatch.setattr(unpickling, "_MOST_INSTRUCTIONS", 15_000)
    data = listed(what, 15_000)
    with pytest.raises(CheckpointError, match="more than 15,000 instructions") as caught:
        unpickle(data)
    (byte,) = re.findall(r"\(byte (\d+)\)", caught.value.reason)
    assert int(byte) < len(data)


def test_what_is_piled_up_without_end_is_refused_early() -> None:
    data = b"\x80\x02(" + b"N" * 1_000_000 + b"t."
    with pytest.raises(CheckpointError, match=r"piles up more than 100,000 values.*\(byte 10\d{4}\)"):
        unpickle(data)


def test_several_pickles_share_their_instructions() -> None:
    data = listed(b"N", 800_000)
    pickles = Pickles(OpenFile.spooled(data * 2, "test").read, 0, 2 * len(data), Ledger())
    pickles.next()
    with pytest.raises(CheckpointError, match="instructions"):
        pickles.next()


def test_a_pickle_is_read_in_pieces_that_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever its instructions are, it is read about twice, not once for each of them."""
    data = listed(b"N" * 99 + b"\x8c\xff" + b"x" * 255 + b"G" + bytes(8), 2000)
    pickles = Pickles(OpenFile.spooled(data, "test").read, 0, len(data), Ledger())
    reads = Reads.watched(monkeypatch)
    assert len(pickles.next()) == 202_000  # type: ignore[arg-type]
    assert len(reads.sizes) < 30
    assert sum(reads.sizes) < 5 * len(data)


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
