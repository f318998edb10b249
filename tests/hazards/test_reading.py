"""Hostile and damaged files, by path and through a pipe: refused in a line, and nothing else happens.

An audit hook watches for imports, executions and files; the address space ends 96 MiB beyond what a command begins
with, and the processor's time after twenty times what the longest row takes.
"""

from __future__ import annotations

import io
import json
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

import resnet_surgeon as rs
from tests.fixtures import small_network
from tests.formats import test_safetensors, test_torch_legacy, test_torch_tar, test_torch_zip, test_unpickle
from tests.formats.test_torch_zip import SAVED, replaced, rezipped
from tests.hazards.trial import Victim, assert_refused


@pytest.fixture(scope="module")
def victim(checkpoints: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    """Warmed up on every container, on a chain of operations, and on an error."""
    folder = tmp_path_factory.mktemp("harmless")
    state = small_network().state_dict()
    torch.save(state, folder / "legacy.pth", _use_new_zipfile_serialization=False)
    (folder / "tar.pth").write_bytes(test_torch_tar.archive_of({"x": torch.zeros(2, 2)}))
    (folder / "zip.pth").write_bytes(test_torch_zip.COMPRESSED)
    torch.save({"net": {f"module.{name}": tensor for name, tensor in state.items()}}, folder / "packed.pth")
    (folder / "index.json").write_text("{}")
    names = [checkpoints / "basic.pth", checkpoints / "basic.safetensors", *sorted(folder.iterdir())]
    harmless = [["adapt", str(path), "--in-ch=1", f"-o{folder}/{path.stem}.safetensors", "--force"] for path in names]
    chain = (
        ("basic", "a", "remove", "--last=2"),
        ("a", "b", "heads", "--classes=2,3"),
        ("b", "c", "adapt", "--in-ch=1"),
    )
    for before, after, *operation in chain:
        harmless.append([*operation, f"{folder}/{before}.safetensors", f"-o{folder}/{after}.safetensors"])
    victim = Victim([*harmless, ["inspect", str(folder / "zip.pth")], ["heads", str(checkpoints / "basic.pth")]])
    yield victim
    victim.close()


def in_zip(stream: bytes) -> bytes:
    """A torch archive with this pickle."""
    return rezipped(SAVED, replaced("data.pkl", stream))


def in_legacy(stream: bytes) -> bytes:
    """A file of stacked pickles with this one in the place of its state_dict."""
    return test_torch_legacy.MAGIC + test_torch_legacy.PROTOCOL + test_torch_legacy.SYSTEM + stream


def call(module: str, name: str, argument: bytes = b"X\x01\x00\x00\x001") -> bytes:
    """A pickle that calls a function by name."""
    return b"\x80\x02c" + f"{module}\n{name}\n".encode() + argument + b"\x85R."


FUNCTIONS = """
    posix.system os.system nt.system builtins.eval builtins.exec builtins.getattr builtins.__import__ builtins.open
    builtins.compile builtins.breakpoint builtins.bytearray __builtin__.eval subprocess.run subprocess.Popen
    runpy._run_code runpy.run_path pkgutil.resolve_name operator.attrgetter operator.methodcaller functools.partial
    importlib.import_module importlib.reload imp.load_source ctypes.CDLL _io.FileIO io.open logging.FileHandler
    shutil.rmtree shutil.copyfile socket.create_connection urllib.request.urlopen webbrowser.open pickle.loads
    marshal.loads types.FunctionType types.CodeType code.InteractiveConsole pty.spawn asyncio.run timeit.timeit
    multiprocessing.Process threading.Thread signal.raise_signal sys.exit numpy.f2py.crackfortran.getlincoef
    numpy.load numpy.testing._private.utils.runstring torch.load torch.jit.load torch.hub.load
    torch.storage._load_from_bytes torch.utils.collect_env.run torch._dynamo.guards.GuardBuilder.get
    torch.utils.bottleneck.__main__.run_cprofile torch.package.PackageImporter joblib.load dill.loads cloudpickle.loads
    yaml.load site.main venv.create idlelib.run.Executive doctest.debug_script bdb.Bdb.run pdb.run cProfile.run
    torch._C._jit_pass_inline torch.classes.load_library torch.ops.load_library resnet_surgeon.load
""".split()  # noqa: SIM905


Row = Callable[[], bytes]  # made when its test runs: together they are gigabytes


def rows() -> Iterator[tuple[str, Row]]:
    for name, (data, _) in test_safetensors.REFUSED.items():
        yield f"safetensors: {name}", partial(bytes, data)
    for name, (data, _) in (test_torch_zip.REFUSED | test_torch_zip.AMBIGUOUS).items():
        yield f"zip: {name}", partial(bytes, data)
    for name, (change, _) in test_torch_tar.DAMAGE.items():
        yield f"tar: {name}", partial(test_torch_tar.archive_of, {"x": torch.zeros(2, 3, 4)}, change)
    for name, data in test_unpickle.EVIL.items():
        yield f"pickle in a zip: {name}", partial(in_zip, data)
        yield f"pickle, stacked: {name}", partial(in_legacy, data)
    for function in FUNCTIONS:
        yield f"calls {function}", partial(calling, function)
    for name, row in STREAMS.items():
        yield f"pickle in a zip: {name}", partial(packed, in_zip, row)
        if name not in LONG:
            yield f"pickle, stacked: {name}", partial(packed, in_legacy, row)
    for kind, made in KINDS.items():
        for name, row in made.items():
            yield f"{kind}: {name}", row


def packed(pack: Callable[[bytes], bytes], row: Row) -> bytes:
    return pack(row())


def calling(function: str) -> bytes:
    module, _, name = function.rpartition(".")
    return in_zip(call(module, name))


# Tuples of tuples, 10^30 leaves in a few hundred bytes: printing, hashing or comparing them would never end.
LAUGHS = b"\x80\x02()q\x00" + (b"(" + b"h\x00" * 10 + b"tq\x00") * 30 + b"t."


def in_tar(**parts: bytes) -> bytes:
    """A tar archive of 2016 with some of its members replaced."""
    return test_torch_tar.archive_of({"x": torch.zeros(2, 3, 4)}, lambda members: members.update(parts))


# Keys of one hash, each as an instruction: a dict of them takes a comparison for each pair.
COLLIDING = [b"\x8a\x0f" + (number * (2**61 - 1)).to_bytes(15, "little") for number in range(1, 20_001)]


def with_size(size: int) -> bytes:
    """A tar archive whose first member says that it is so long, in base 256."""
    data = bytearray(in_tar())
    data[124:136] = b"\x80" + size.to_bytes(11, "big") if size >= 0 else size.to_bytes(12, "big", signed=True)
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    return bytes(data)


def members(name: str, kind: bytes, count: int) -> bytes:
    """A tar archive of so many empty members with this name and type."""
    member = tarfile.TarInfo(name)
    member.type = kind
    return member.tobuf() * count + bytes(tarfile.RECORDSIZE)


ENTRY = pickle.dumps(1, 2) + b"\x80\x02(" + LAUGHS[2:-1] + b"K\x01K\x01t."
TARS: dict[str, Row] = {
    "a billion laughs for a storage": lambda: in_tar(storages=ENTRY + bytes(8)),
    "a billion laughs for a tensor": lambda: in_tar(tensors=ENTRY + bytes(16)),
    "a billion laughs for a reference": lambda: in_tar(pickle=LAUGHS[:-1] + b"Q."),
    "a billion laughs for a system": lambda: in_tar(sys_info=LAUGHS),
    "a member of 2^63 bytes": lambda: with_size(2**63),
    "a member of less than nothing": lambda: with_size(-512),
    "a hundred thousand folders": lambda: members("./", tarfile.REGTYPE, 100_000),
    "a name for a name for a name": lambda: members("sys_info", tarfile.GNUTYPE_LONGNAME, 10_000),
    "a million storages, it says": lambda: in_tar(storages=pickle.dumps(10**6, 2)),
    "numbers of one hash for keys": lambda: in_tar(
        storages=pickle.dumps(20_000, 2)
        + b"".join(b"\x80\x02" + key + b"Nctorch\nFloatStorage\n\x87." + bytes(8) for key in COLLIDING)
    ),
}
LEGACY: dict[str, Row] = {
    "a billion laughs for a protocol": lambda: test_torch_legacy.MAGIC + LAUGHS,
    "a billion laughs for magic": lambda: LAUGHS + test_torch_legacy.SAVED,
    "a billion laughs for its keys": lambda: test_torch_legacy.SAVED[:200] + LAUGHS,
    "its last byte missing": lambda: test_torch_legacy.SAVED[:-1],
    "half of it": lambda: test_torch_legacy.SAVED[: len(test_torch_legacy.SAVED) // 2],
    "more behind it": lambda: test_torch_legacy.SAVED + b"more",
    "another count": lambda: test_torch_legacy.SAVED.replace(test_torch_legacy.COUNT, struct.pack("<q", 2**40)),
    "a negative count": lambda: test_torch_legacy.SAVED.replace(test_torch_legacy.COUNT, struct.pack("<q", -1)),
    "a pickled dict": lambda: pickle.dumps({"x": 1}, 2),
    "magic by eval": lambda: call("builtins", "eval") + test_torch_legacy.SAVED,
    "another protocol": lambda: test_torch_legacy.MAGIC + pickle.dumps(1002, 2),
}


def entries(count: int) -> Iterator[bytes]:
    """The instructions of so many entries of a dict, by thousands."""
    for first in range(0, count, 1000):
        yield b"(" + b"".join(b"J" + struct.pack("<i", n) + b"N" for n in range(first, first + 1000)) + b"u"


STREAMS: dict[str, Row] = {
    "INST": lambda: b'(S"id"\nios\nsystem\n.',
    "OBJ": lambda: b'(cos\nsystem\nS"whoami"\no.',
    "an extension": lambda: b"\x80\x02\x82\x01.",
    "a buffer from outside": lambda: b"\x80\x05\x97.",
    "a frame beyond the end": lambda: b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f}.",
    "text of 4 GiB": lambda: b"\x80\x02X\xff\xff\xff\xff.",
    "bytes of 2^63": lambda: b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",
    "a bytearray of 8 GiB": lambda: b"\x80\x02c__builtin__\nbytearray\n\x8a\x05\x00\x00\x00\x00\x02\x85R.",
    "a tensor of 2^40": lambda: b"\x80\x02ctorch\nFloatTensor\n\x8a\x06\x00\x00\x00\x00\x00\x01\x85R.",
    "another code": lambda: b"\x80\x02c_codecs\nencode\nX\x03\x00\x00\x00abcX\x05\x00\x00\x00rot13\x86R.",
    "a quantised tensor": lambda: b"\x80\x02ctorch._utils\n_rebuild_qtensor\n)R.",
    "attributes of a dict": lambda: b"\x80\x02ccollections\nOrderedDict\n)R}X\x04\x00\x00\x00keysK\x01sb.",
    "no end": lambda: b"\x80\x02}",
    "an empty stack": lambda: b"\x80\x02t.",
    "a memo that is not there": lambda: b"\x80\x02h\x05.",
    "a memo far away": lambda: b"\x80\x02]r\xff\xff\xff\xff.",
    "more behind the end": lambda: b"\x80\x02}.cos\nsystem\n",
    "a protocol to come": lambda: b"\x80\x63}.",
    "a list in itself": lambda: b"\x80\x02]q\x00h\x00a.",
    "100,000 lists": lambda: b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
    "a billion laughs": lambda: LAUGHS,
    "a billion laughs for a storage": lambda: LAUGHS[:-1] + b"Q.",
    "a billion laughs for a storage's key": lambda: (
        b"\x80\x02(X\x07\x00\x00\x00storagectorch\nFloatStorage\n" + LAUGHS[2:-1] + b"X\x03\x00\x00\x00cpuK\x18tQ."
    ),
    "a billion laughs for a key": lambda: b"\x80\x02}" + LAUGHS[2:-1] + b"K\x01s.",
    "a billion laughs to build with": lambda: b"\x80\x02ccollections\nOrderedDict\n)R" + LAUGHS[2:-1] + b"b.",
    "a billion laughs to call with": lambda: b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n" + LAUGHS[2:-1] + b"R.",
    "dicts of dicts of dicts": lambda: (
        b"\x80\x02}q\x00"
        + b"".join(
            b"}(" + b"".join(b"X\x01\x00\x00\x00%ch\x00" % letter for letter in b"abcdefghij") + b"uq\x00"
            for _ in range(18)
        )
        + b"."
    ),
    "closed objects without end": lambda: b"\x80\x02ca\nC\nq\x00]" + (b"(" + b"h\x00)\x81" * 1000 + b"e") * 450 + b".",
    "sets without end": lambda: b"\x80\x02]" + (b"(" + b"\x8f" * 1000 + b"e") * 1400 + b".",
    "keys that name nothing, without end": lambda: b"\x80\x02}" + (b"(" + b")N" * 1000 + b"u") * 600 + b".",
    "dicts of pairs, made again and again": lambda: (
        b"\x80\x02ccollections\nOrderedDict\nq\x00]("
        + b"]q\x01(NNe" * 1000
        + b"e\x85q\x02"
        + b"h\x00h\x02R0" * 300_000
        + b"."
    ),
    "bytes of text, made again and again": lambda: (
        b"\x80\x02c_codecs\nencode\nq\x00X\x40\x42\x0f\x00"
        + b"x" * 1_000_000
        + b"X\x06\x00\x00\x00latin1\x86q\x02"
        + b"h\x00h\x02R0" * 300_000
        + b"."
    ),
    "a state of itself": lambda: b"\x80\x02ca\nC\n)\x81q\x00h\x00b.",
    "a list of pairs of itself": lambda: b"\x80\x02ccollections\nOrderedDict\n]q\x00(h\x00h\x00e\x85R.",
    "a parameter of itself": lambda: b"\x80\x02ctorch.nn.parameter\nParameter\n)R(q\x00NNNNtb.",
    "a name of a megabyte": lambda: b"\x80\x04X\x40\x42\x0f\x00" + b"x." * 500_000 + b"X\x01\x00\x00\x00x\x93.",
    "a function that makes itself": lambda: (
        b"\x80\x02ccopyreg\n__newobj__\n(" + b"ccopyreg\n__newobj__\n" * 5000 + b"tR."
    ),
    "dicts in dicts in dicts": lambda: b"\x80\x02" + b"}X\x01\x00\x00\x00a" * 45_000 + b"}" + b"s" * 45_000 + b".",
    "names without end": lambda: b"\x80\x02" + b"".join(b"ca\nC%d\n0" % number for number in range(100_000)) + b"N.",
    "a number of a megabyte": lambda: b"\x80\x02\x8b\x40\x42\x0f\x00" + b"\xff" * 1_000_000 + b".",
    "digits without end": lambda: b"L" + b"9" * 1_000_000 + b"L\n.",
    "an attribute to climb by": lambda: b"\x80\x02cbuiltins\ngetattr\nca\nC\nX\x0b\x00\x00\x00__globals__\x86R.",
    "a size that repeats": lambda: test_torch_zip.pickle_of(shape=(2**40,), strides=(0,)),
    "a view of a million sizes": lambda: test_torch_zip.pickle_of(shape=(2**62,) * 1_000_000, strides=(0,) * 1_000_000),
    "a view of huge sizes": lambda: test_torch_zip.pickle_of(shape=(2**2000,) * 30_000, strides=(0,) * 30_000),
    "500,000 entries": lambda: b"\x80\x02}" + b"".join(entries(500_000)) + b".",
    "endless instructions": lambda: b"\x80\x02]" + (b"(" + b"N" * 1000 + b"e") * 20_000 + b".",
    "values piled up": lambda: b"\x80\x02](" + b"N" * 20_000_000 + b"e.",
    "numbers of one hash for keys": lambda: b"\x80\x02}(" + b"".join(key + b"N" for key in COLLIDING) + b"u.",
    "a view that is woven": lambda: test_torch_zip.pickle_of(shape=(3, 4), strides=(2, 3)),
    "a number of a million digits": lambda: b"\x80\x02\x8b\x40\x42\x0f\x00" + bytes(999_999) + b"\x01.",
}


# Refused where a limit of the interpreter is reached, which takes a second: the same one for stacked pickles.
LONG = {
    "closed objects without end", "sets without end", "keys that name nothing, without end",
    "dicts of pairs, made again and again", "500,000 entries", "100,000 lists", "dicts in dicts in dicts",
    "a view of a million sizes",
}  # fmt: skip


@cache
def network() -> Mapping[str, torch.Tensor]:
    return dict(small_network().state_dict())


def edited(**changes: torch.Tensor | None) -> bytes:
    """A whole ResNet with some of its tensors replaced, or dropped; `__` stands for a point."""
    state = dict(network())
    for name, tensor in changes.items():
        state.pop(name.replace("__", "."), None)
        if tensor is not None:
            state[name.replace("__", ".")] = tensor
    return save(state)


def dumped(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


STAGE = {
    "name": "layer1", "blocks": 1, "in_channels": 64, "width": 64, "out_channels": 64, "stride": 1,
    "first_dilation": 1, "dilation": 1,
}  # fmt: skip


def with_manifest(**architecture: Any) -> bytes:
    """A file that this tool wrote, with fields of the architecture in its manifest changed."""
    manifest = json.loads(rs.open(edited()).remove(last=1).manifest().to_json())
    manifest["architecture"].update(architecture)
    return save(dict(network()), metadata={"resnet_surgeon.manifest": json.dumps(manifest)})


def with_document(change: Callable[[dict[str, Any]], object], text: Callable[[str], str] = str) -> bytes:
    """A file that this tool wrote, with its manifest changed: the document, or its text."""
    manifest = json.loads(document())
    change(manifest)
    metadata = {"resnet_surgeon.manifest": text(json.dumps(manifest))}
    return save(dict(network()), metadata=metadata)


@cache
def document() -> str:
    return rs.open(edited()).adapt(3, init="repeat").manifest().to_json()


def named(name: str) -> bytes:
    """A network and one tensor more, of a name that only a pickle can hold."""
    extra = "x" * len(name.encode("utf-8", "surrogatepass"))
    data = dumped({**network(), extra: torch.zeros(1)})
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        stream = archive.read("archive/data.pkl")
    return rezipped(data, replaced("data.pkl", stream.replace(extra.encode(), name.encode("utf-8", "surrogatepass"))))


def formulas(depth: int) -> dict[str, Any]:
    provenance: dict[str, Any] = {"how": "kept", "tensor": "x"}
    for _ in range(depth):
        provenance = {"how": "computed", "formula": {"kind": "product"}, "inputs": [provenance]}
    return provenance


NOTHING = "[" + "[]," * 3_000_000 + "[]]"  # eighty times its length in memory, if it is read
MANIFESTS: dict[str, Row] = {
    "code for an output": lambda: with_document(lambda d: d["outputs"][0].update(name="import os; os.system('id')")),
    "an output of two lines": lambda: with_document(lambda d: d["outputs"][0].update(name="a\n\u202eb")),
    "half of a character": lambda: with_document(lambda d: d.update(dropped=["\ud800"])),
    "a name of 3 MB": lambda: with_document(lambda d: d.update(dropped=["x" * 3_000_000])),
    "a field of 3 MB": lambda: with_document(lambda d: d.update({"x" * 3_000_000: 1})),
    "a word of 3 MB": lambda: with_document(lambda d: d["architecture"].update(block="x" * 3_000_000)),
    "a million operations": lambda: with_document(lambda d: d.update(operations=[{}] * 300_000)),
    "a key twice": lambda: with_document(lambda d: None, lambda text: text.replace("{", '{"versions": {}, ', 1)),
    "not a number": lambda: with_document(lambda d: None, lambda text: text.replace('"groups": 1', '"groups": NaN')),
    "a negative size": lambda: with_document(lambda d: d["outputs"][0].update(shape=[-1])),
    "a digest that is none": lambda: with_document(lambda d: d["source"].update(sha256="\x1b[2J")),
    "a path": lambda: with_document(lambda d: d["source"].update(file="../../etc/passwd")),
    "an address that turns": lambda: with_document(lambda d: d["source"].update(url="https://a/\u202e")),
    "a seed of 4,000 digits": lambda: with_document(lambda d: d["source"].update(seed=10**4000)),
    "a seed with a point": lambda: with_document(lambda d: d["source"].update(seed=0.5)),
    "lists of nothing": lambda: with_document(lambda d: None, lambda text: NOTHING),
    "lists of nothing for an operation": lambda: with_document(
        lambda d: None, lambda t: t.replace('"dropped"', NOTHING, 1)
    ),
    "formulas of formulas": lambda: with_document(lambda d: d["tensors"]["bn1.bias"].update(provenance=formulas(300))),
}


CONTENT: dict[str, Row] = {
    "half of a character in a name": lambda: named("a\ud800b"),
    "half of a character in a network's own name": lambda: named("layer1.\udc00.conv1.weight"),
    "half of a character in a key": lambda: dumped({"net\udc80": network()}),
    "a name of 300 KB beside a network": lambda: named("x" * 300_000),
    "a bottleneck of 2^40 groups": lambda: test_safetensors.file(
        {
            "conv1.weight": {"dtype": "F32", "shape": [64, 1, 7, 7], "data_offsets": [0, 12544]},
            "layer1.0.conv2.weight": {"dtype": "F32", "shape": [2**40, 1, 0, 0], "data_offsets": [12544, 12544]},
            "layer1.0.conv3.weight": {"dtype": "F32", "shape": [0], "data_offsets": [12544, 12544]},
        },
        bytes(12544),
    ),
    "a header of 30 MB of metadata alone": lambda: test_safetensors.file(
        {"__metadata__": {"x": "x" * 30_000_000}}, b""
    ),
    "a header of 30 MB of nothing": lambda: test_safetensors.file(b'{"a":' + NOTHING.encode() + b"}", b""),
    "no conv1": lambda: edited(conv1__weight=None),
    "another bias": lambda: edited(fc__bias=torch.zeros(7)),
    "a stem of three dimensions": lambda: edited(conv1__weight=torch.zeros(64, 3, 7)),
    "a stem of no width": lambda: edited(conv1__weight=torch.zeros(64, 3, 7, 0)),
    "a stem of no channels": lambda: edited(conv1__weight=torch.zeros(64, 0, 7, 7)),
    "a head of no classes": lambda: edited(fc__weight=torch.zeros(0, 512), fc__bias=torch.zeros(0)),
    "a variance of another length": lambda: edited(layer1__0__bn1__running_var=torch.zeros(3)),
    "a gap in the blocks": lambda: edited(layer1__2__conv1__weight=torch.zeros(64, 64, 3, 3)),
    "whole numbers": lambda: edited(conv1__weight=torch.zeros(64, 3, 7, 7, dtype=torch.int64)),
    "8-bit floats": lambda: edited(conv1__weight=torch.zeros(64, 3, 7, 7).to(torch.float8_e4m3fn)),
    "complex numbers": lambda: edited(conv1__weight=torch.zeros(64, 3, 7, 7, dtype=torch.complex64)),
    "nothing in it": lambda: save({}),
    "a list": lambda: dumped([1, 2]),
    "a tensor": lambda: dumped(torch.zeros(3)),
    "numbers for names": lambda: dumped({1: torch.zeros(3)}),
    "settings alone": lambda: dumped({"epoch": 3, "lr": None}),
    "a sparse tensor": lambda: dumped({"x": torch.eye(3).to_sparse()}),
    "escapes in a name": lambda: save({"\x1b[2J\x1b]0;owned\x07": torch.zeros(3)}),
    "a name of 1 MB": lambda: save({"x" * 1_000_000: torch.zeros(3)}),
    "a shape of a million sizes": lambda: test_safetensors.file(
        {"a": {"dtype": "F32", "shape": [2**62] * 1_000_000, "data_offsets": [0, 0]}}, b""
    ),
    "a manifest of endless blocks": lambda: with_manifest(stages=[{**STAGE, "blocks": 65536}]),
    "a manifest of endless channels": lambda: with_manifest(in_channels=10**22),
    "a manifest of endless classes": lambda: with_manifest(
        heads=[{"name": "fc", "classes": 10**22, "stages": []}], avgpool=True
    ),
    "a manifest of endless heads": lambda: with_manifest(
        heads=[{"name": f"h{number}", "classes": 2, "stages": [{**STAGE, "blocks": 65536}]} for number in range(5000)],
        stages=[],
        avgpool=False,
    ),
    "names that are paths": lambda: save({"../../etc/passwd": torch.zeros(3), "\0": torch.zeros(3)}),
}
OTHERS: dict[str, Row] = {
    "Git LFS pointer": lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 3\n",
    "web page": lambda: b"<!DOCTYPE html><title>404</title>",
    "gzip": lambda: b"\x1f\x8b\x08\x00" + bytes(99),
    "zeros": lambda: bytes(4096),
    "ones": lambda: b"\xff" * 4096,
    "text": lambda: b"hello\n" * 1000,
    "an archive of nothing": lambda: b"PK\5\6" + bytes(18),
    "an archive of 65,535 members, it says": lambda: b"PK\5\6" + struct.pack("<4H2IH", 0, 0, 65_535, 65_535, 0, 0, 0),
    "an index of shards elsewhere": lambda: b'{"weight_map": {"a": "../../etc/passwd"}}',
    "an index of a device": lambda: b'{"weight_map": {"a": "/dev/zero"}}',
    "an index of many": lambda: b'{"weight_map": {' + b",".join(b'"%d": "%d"' % (n, n) for n in range(5000)) + b"}}",
    "nested JSON": lambda: b"{" + b'"a":{' * 50_000,
}
KINDS = {"tar": TARS, "legacy": LEGACY, "content": CONTENT, "manifest": MANIFESTS, "not a checkpoint": OTHERS}
ROWS = dict(rows())


def ways(name: str) -> list[str]:
    """How the row comes. Pickles come in a zip by path and stacked through a pipe: what is read is one interpreter."""
    one = {"pickle in a zip": "path", "pickle, stacked": "pipe"} | {
        f"calls {function}": "path" for function in FUNCTIONS
    }
    return [one[kind]] if (kind := name.partition(":")[0]) in one else ["path", "pipe"]


TRIED = {f"{name}-{way}": (row, way) for name, row in ROWS.items() for way in ways(name)}


@pytest.mark.parametrize(("row", "way"), TRIED.values(), ids=TRIED)
def test_it_is_refused_in_a_line_and_nothing_else_happens(row: Row, way: str, victim: Victim, tmp_path: Path) -> None:
    (tmp_path / "model.pth").write_bytes(row())
    source = "model.pth" if way == "path" else "-"
    pipe = tmp_path / "model.pth" if way == "pipe" else None
    outcome = victim.run("adapt", source, "--in-ch", "1", "-o", "out.safetensors", folder=tmp_path, pipe=pipe)
    assert_refused(outcome)
    assert [path.name for path in tmp_path.iterdir()] == ["model.pth"]


def test_the_watch_sees_other_files(victim: Victim, tmp_path: Path) -> None:
    """An index may name shards beside it, which are then opened: the one case where a file leads to others."""
    names = list(small_network().state_dict())
    (tmp_path / "shard.safetensors").write_bytes(edited())
    (tmp_path / "index.json").write_text(json.dumps({"weight_map": dict.fromkeys(names, "shard.safetensors")}))
    outcome = victim.run("adapt", "index.json", "--in-ch", "1", "-q", "--dry-run", folder=tmp_path)
    assert outcome.code == 0, outcome.stderr
    assert [event.split(",")[0] for event in outcome.events] == ["open ('shard.safetensors'"]


def test_an_index_that_came_through_a_pipe_leads_nowhere(victim: Victim, tmp_path: Path) -> None:
    names = list(small_network().state_dict())
    (tmp_path / "shard.safetensors").write_bytes(edited())
    (tmp_path / "index.json").write_text(json.dumps({"weight_map": dict.fromkeys(names, "shard.safetensors")}))
    outcome = victim.run("adapt", "-", "--in-ch", "1", "-q", folder=tmp_path, pipe=tmp_path / "index.json")
    assert_refused(outcome)
    assert "it came alone" in outcome.stderr


def test_a_bomb_in_a_zip_is_refused_before_it_goes_off(victim: Victim, tmp_path: Path) -> None:
    bomb = rezipped(SAVED, replaced("data/0", bytes(1 << 27)), compression=zipfile.ZIP_DEFLATED)
    (tmp_path / "model.pth").write_bytes(bomb)
    outcome = victim.run("adapt", "model.pth", "--in-ch", "1", "-o", "out.safetensors", folder=tmp_path)
    assert_refused(outcome)
    assert "far more than a checkpoint's do" in outcome.stderr
