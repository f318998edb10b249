"""What is fuzzed: each reader, given any bytes, refuses them by a SurgeonError or reads what the libraries read.

A target takes bytes and raises for a bug. `SEEDS` are made here, by the builders of the tests.
"""

from __future__ import annotations

import ast
import atexit
import functools
import gzip
import io
import json
import pickle
import shutil
import tarfile
import tempfile
import unicodedata
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import joblib
import numpy
import onnx
import safetensors
import torch
from joblib import numpy_pickle
from safetensors.torch import save

import resnet_surgeon as rs
from resnet_surgeon import manifest as documents
from resnet_surgeon.architecture.facts import applied
from resnet_surgeon.architecture.recognise import recognise
from resnet_surgeon.arithmetic.laws import Constant
from resnet_surgeon.errors import ArchitectureError, CheckpointError, SurgeonError
from resnet_surgeon.formats import npz, sniff, torch_legacy, torch_tar, torch_zip
from resnet_surgeon.formats import onnx as our_onnx
from resnet_surgeon.formats import safetensors as our_safetensors
from resnet_surgeon.formats.container import Container
from resnet_surgeon.formats.files import OpenFile
from resnet_surgeon.formats.modules import ModuleNode
from resnet_surgeon.formats.numpy_dtypes import WRAPPER
from resnet_surgeon.formats.tensors import Initialised, LazyTensor, Stored, byte_size, content
from resnet_surgeon.formats.unpickle import unpickle
from resnet_surgeon.formats.unread import Unread
from resnet_surgeon.reporting.report import loading_code
from resnet_surgeon.sources import graphs, modules
from resnet_surgeon.sources.found import at
from resnet_surgeon.sources.source import open_source
from tests.fixtures import small_network
from tests.formats import test_distributed, test_onnx, test_torch_tar, test_torch_zip, test_unpickle
from tests.sources import test_graphs, test_texts

_LARGEST = 1 << 22  # bytes of a tensor that is compared
_TYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
    torch.complex64: "C64",
}  # fmt: skip


def _opened(data: bytes) -> OpenFile:
    return OpenFile.spooled(data, "fuzzed")


def _tensors(root: object) -> dict[str, LazyTensor]:
    """The tensors at the top of what a container holds."""
    items = root.items() if isinstance(root, dict) else ()
    return {name: value for name, value in items if isinstance(value, LazyTensor) and isinstance(name, str)}


def _read_all(container: Container) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Every tensor's dtype, shape and bytes; checksums are tested first."""
    container.sha256()
    return {
        name: (tensor.dtype, tensor.shape, content(tensor))
        for name, tensor in _tensors(container.root).items()
        if byte_size(tensor) <= _LARGEST
    }


def safetensors_file(data: bytes) -> None:
    """The safetensors library accepts what we accept, and reads the same."""
    try:
        ours = _read_all(our_safetensors.read(_opened(data)))
    except CheckpointError:
        return
    theirs = dict(safetensors.deserialize(data))  # type: ignore[no-untyped-call]
    assert ours == {
        name: (entry["dtype"], tuple(entry["shape"]), bytes(entry["data"])) for name, entry in theirs.items()
    }


def _agrees_with_torch(data: bytes, container: Container) -> None:
    """What torch's own weights_only reader accepts too has the same values."""
    ours = _read_all(container)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    except Exception:
        return
    if not isinstance(theirs, dict):
        return  # what we search by place
    for name, (dtype, shape, bytes_) in ours.items():
        tensor = theirs[name if name in theirs else int(name)]
        if tensor.is_quantized or tensor.is_sparse or tensor.is_conj():
            raise AssertionError(f"{name} is no plain tensor to torch")
        assert (_TYPES[tensor.dtype], tuple(tensor.shape)) == (dtype, shape), name
        assert test_torch_zip.raw(tensor) == bytes_, name


def zip_archive(data: bytes) -> None:
    try:
        container = torch_zip.read(_opened(data))
        _read_all(container)
    except CheckpointError:
        return
    _agrees_with_torch(data, container)


def pickle_stream(data: bytes) -> None:
    """As the pickle of an archive, whose checksum is made to fit; and by itself, as plain data."""
    try:
        plain = unpickle(data)
    except CheckpointError:
        return
    repr(type(plain))
    zip_archive(test_torch_zip.rezipped(test_torch_zip.SAVED, test_torch_zip.replaced("data.pkl", data)))


def view_of_a_storage(data: bytes) -> None:
    """Of 24 numbers: an offset, and so many sizes and strides; a view that we take has torch's values."""
    offset, *numbers = [byte - 256 if byte > 200 else byte for byte in data] or [0]
    half = len(numbers) // 2
    stream = test_torch_zip.pickle_of(offset=offset, shape=tuple(numbers[:half]), strides=tuple(numbers[half:]))
    zip_archive(test_torch_zip.rezipped(test_torch_zip.SAVED, test_torch_zip.replaced("data.pkl", stream)))


def file_and_itself(data: bytes) -> None:
    """Whatever can be compared is the same as itself."""
    try:
        assert rs.diff(data, data).is_same
    except SurgeonError:
        return


def legacy_file(data: bytes) -> None:
    try:
        container = torch_legacy.read(_opened(data))
        _read_all(container)
    except CheckpointError:
        return
    _agrees_with_torch(data, container)


def tar_archive(data: bytes) -> None:
    try:
        _read_all(torch_tar.read(_opened(data)))
    except CheckpointError:
        return


def manifest_document(data: bytes) -> None:
    """What is read is written and read again as it was, and puts no words into anybody's mouth: what a page gives to
    copy is code that calls our own names, and what has a meaning of its own is visible text.
    """
    try:
        manifest = documents.from_json(data.decode("utf-8", "replace"))
    except CheckpointError:
        return
    text = manifest.to_json()
    text.encode()
    assert documents.from_json(text) == manifest
    code = ast.parse(loading_code(manifest, "model.safetensors"))
    assert {type(statement) for statement in code.body} <= {ast.Import, ast.ImportFrom, ast.Assign}
    for words in _spoken(manifest):
        assert not any(map(_is_unseen, words)), words


def _is_unseen(char: str) -> bool:
    """Control characters, ends of lines, halves of characters, and what turns the direction of reading."""
    turns = unicodedata.bidirectional(char) in ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
    return turns or unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp")


def _spoken(manifest: documents.Manifest) -> Iterator[str]:
    """All text of a manifest but the names that a stranger gave, which are escaped where they are shown."""
    document = json.loads(manifest.to_json())
    document.pop("dropped")
    document["source"].pop("file")
    document["source"].pop("wrapping")
    waiting: list[Any] = [document]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            waiting += [*node, *(item for name, item in node.items() if name != "tensor")]
        elif isinstance(node, list):
            waiting += node
        elif isinstance(node, str):
            yield node


def any_file(data: bytes) -> None:
    """The whole way: container, packing, network, operation, and the header of the output."""
    try:
        network = rs.open(data)
        network.heads([2]).manifest()
    except SurgeonError:
        return


def sharded_index(data: bytes) -> None:
    try:
        sniff.read(_opened(b"{" + data))
    except SurgeonError:
        return


def npz_archive(data: bytes) -> None:
    """What numpy reads without pickles and we read too has the same values."""
    try:
        ours = _read_all(npz.read(_opened(data)))
    except CheckpointError:
        return
    try:
        theirs = numpy.load(io.BytesIO(data), allow_pickle=False)
        values = {name: theirs[name] for name in ours}
    except Exception:
        return
    for name, (_, shape, bytes_) in ours.items():
        assert _in_little_endian(values[name]) == (shape, bytes_), name


def _in_little_endian(array: Any) -> tuple[tuple[int, ...], bytes]:
    """An array's shape and bytes, as we have them."""
    little = array.astype(array.dtype.newbyteorder("<"))
    return little.shape, little.tobytes()


class _Arrays(numpy_pickle.NumpyUnpickler):  # type: ignore[misc]
    """joblib's reader, for arrays alone."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in {(WRAPPER.module, WRAPPER.name), ("numpy", "ndarray"), ("numpy", "dtype")}:
            raise pickle.UnpicklingError(name)
        return super().find_class(module, name)


def joblib_file(data: bytes) -> None:
    """What joblib reads without other classes than arrays, and we read too, has the same values."""
    try:
        ours = _read_all(torch_legacy.read(_opened(data)))
    except CheckpointError:
        return
    try:
        theirs = _Arrays("", io.BytesIO(data), False).load()
        values = {name: theirs[name] for name in ours}
    except Exception:
        return
    for name, (_, shape, bytes_) in ours.items():
        if isinstance(values[name], numpy.ndarray):
            assert _in_little_endian(values[name]) == (shape, bytes_), name


def text_of_a_class(data: bytes) -> None:
    """As the text of a network's class, and of its blocks': followed, refused or passed over."""
    text = data.decode("utf-8", "replace")
    for network, block in ((text, None), (None, text)):
        try:
            test_texts.told(network, block)
        except ArchitectureError:
            continue


def wrapped_checkpoint(data: bytes) -> None:
    """An archive around a checkpoint, or gzip around either."""
    try:
        _read_all(sniff.read(_opened(data)))
    except SurgeonError:
        return


def whole_module(data: bytes) -> None:
    """As the pickle of a module, in an archive of torch or of TorchScript: what its layers say is read too."""
    for archive in _modules():
        file = _opened(test_torch_zip.rezipped(archive, test_torch_zip.replaced("data.pkl", data)))
        try:
            source = open_source(file.read(0, file.size))
            container = source.container
            node = at(container.root, source.found.path) if container else None
            if isinstance(node, ModuleNode):
                list(modules.says(node, source.found.names, recognise(source.tensors), settled=False))
        except SurgeonError:
            continue


@functools.cache
def _modules() -> tuple[bytes, bytes]:
    """A network of one stage as torch and as TorchScript save it."""
    model: Any = small_network()
    row = torch.nn.Sequential(model.conv1, model.bn1, model.relu, model.maxpool, model.layer1)
    del model.layer2, model.layer3, model.layer4, model.fc
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(row), buffer)
    return _saved(model), buffer.getvalue()


def distributed_metadata(data: bytes) -> None:
    """As the `.metadata` of a folder whose other file is sound."""
    file = _opened(data)
    file.folder = _distributed()
    try:
        _read_all(sniff.read(file))
    except SurgeonError:
        return


@functools.cache
def _distributed() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="resnet-surgeon-fuzz-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    state = {"model": {"x": test_torch_zip.BASE, "y": torch.arange(6.0)}, "epoch": 3}
    return test_distributed.save(folder, state, test_distributed.in_pieces(2))


def onnx_model(data: bytes) -> None:
    """Beside the weights of a model: what the onnx package reads too has the same nodes and numbers; a graph that is
    taken for a network computes what that does, layer by layer.
    """
    file = _opened(data)
    file.folder = _exported()
    try:
        container = our_onnx.read(file)
        ours = _read_all(container)
    except SurgeonError:
        return
    graph = container.root
    assert isinstance(graph, our_onnx.Graph)
    _agrees_with_onnx(data, graph, {name: array for name, array in ours.items() if _is_within(graph[name], file)})
    try:
        found = graphs.found(graph, None, None, ())
        layers = graphs.layers_of(graph, found.wrapping)
        graphs.check(layers, applied(graphs.facts(layers), recognise(found.tensors)))
    except SurgeonError:
        return


def _is_within(node: LazyTensor | Unread, file: OpenFile) -> bool:
    return isinstance(node, Stored) and node.file is file


def _agrees_with_onnx(
    data: bytes, graph: our_onnx.Graph, ours: Mapping[str, tuple[str, tuple[int, ...], bytes]]
) -> None:
    try:
        theirs: Any = onnx.load_from_string(data).graph
    except Exception:
        return
    assert [(list(node.input), list(node.output), node.name) for node in theirs.node] == [
        (list(node.inputs), list(node.outputs), node.name) for node in graph.nodes
    ]
    for one, other in zip(graph.nodes, theirs.node, strict=True):
        attributes = {attribute.name: attribute for attribute in other.attribute}
        for name, value in one.attributes.items():
            if type(value) is int:
                assert attributes[name].i == value
            elif isinstance(value, tuple):
                assert tuple(attributes[name].ints) == value
    for constant in theirs.initializer:
        if constant.name in ours:
            array = onnx.numpy_helper.to_array(constant)
            assert (array.shape, array.tobytes()) == ours[constant.name][1:], constant.name


@functools.cache
def _exported() -> Path:
    """A folder with the model of a network of one stage, and its weights beside that."""
    folder = Path(tempfile.mkdtemp(prefix="resnet-surgeon-fuzz-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    model = onnx.load_from_string(test_graphs.unfolded())
    onnx.save(model, folder / "model.onnx", save_as_external_data=True, location="weights", size_threshold=0)
    return folder


TARGETS: dict[str, Callable[[bytes], None]] = {
    "safetensors": safetensors_file,
    "zip": zip_archive,
    "pickle": pickle_stream,
    "view": view_of_a_storage,
    "diff": file_and_itself,
    "legacy": legacy_file,
    "tar": tar_archive,
    "manifest": manifest_document,
    "index": sharded_index,
    "npz": npz_archive,
    "onnx": onnx_model,
    "joblib": joblib_file,
    "text": text_of_a_class,
    "wrapped": wrapped_checkpoint,
    "module": whole_module,
    "distributed": distributed_metadata,
    "any": any_file,
}


def _saved(value: object, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def seeds() -> Mapping[str, list[bytes]]:
    """Small valid inputs of each target."""
    base = test_torch_zip.BASE
    states = [
        {"x": base},
        OrderedDict(a=base[1], b=base.half(), c=torch.tensor(7)),
        {"epoch": 3, "state_dict": {"w": torch.nn.Parameter(base.transpose(0, 2))}, "names": ["a", None, 1.5, True]},
    ]
    manifest = rs.open("resnet18", weights="random").adapt(1).remove(last=6).manifest()
    packed = {"net": {f"module.{name}": tensor for name, tensor in small_network().state_dict().items()}}
    opened = (rs.open(_saved(small_network().state_dict())), rs.open(_saved(packed)))
    documents_ = [manifest.to_json(), *(network.heads([3, 5]).manifest().to_json() for network in opened)]
    files = [
        our_safetensors.header({}, {}),
        *(save({"x": base, "y": base.half()}, {key: "pt"}) for key in ("format", "")),
    ]
    files.append(our_safetensors.header({"x": Initialised("F4", (4,), Constant(0.0), 0, "x")}, {}) + bytes(2))
    zips = [*map(_saved, states), test_torch_zip.COMPRESSED, test_torch_zip.PLAIN, test_torch_zip.nested()]
    legacy = [_saved(state, _use_new_zipfile_serialization=False) for state in states]
    tar = [test_torch_tar.archive_of({"x": base, "y": base.double()[1]})]
    pickles = [test_unpickle.pickled(state, protocol) for state in states for protocol in (2, 4)]
    return {
        "safetensors": files,
        "zip": zips,
        "pickle": [*pickles, *test_unpickle.EVIL.values(), pickle.dumps({"a": [1, (2, 3)], "b": b"x"}, 4)],
        "view": [bytes([0, 2, 3, 4, 12, 4, 1]), bytes([3, 4, 2, 1, 4]), bytes([1, 2, 2, 0, 1]), bytes([5, 3, 4, 2, 3])],
        "diff": [*files, *zips, *legacy, *tar],
        "legacy": legacy,
        "tar": tar,
        "manifest": [text.encode() for text in documents_],
        "index": [json.dumps({"weight_map": {"a": "b.safetensors"}}).encode()[1:]],
        "onnx": [
            (_exported() / "model.onnx").read_bytes(),
            test_onnx.WHOLE,
            *(data for data, _ in test_onnx.DAMAGED.values()),
        ],
        "npz": [_npz(save_npz, x=base.numpy(), y=base.numpy().T) for save_npz in (numpy.savez, numpy.savez_compressed)],
        "joblib": [
            _joblib({"x": base.numpy(), "y": base.numpy().T, "z": base.numpy().astype(kind)}) for kind in (">f4", ">c8")
        ],
        "text": [text.encode() for text in test_texts.SEEDS],
        "wrapped": [*_archives({"model.pth": zips[0]}), *_archives({"model.safetensors": files[1], "notes.txt": b"x"})],
        "module": [*map(_pickle, _modules())],
        "distributed": [(_distributed() / ".metadata").read_bytes()],
        "any": [*files, *zips, *legacy, *tar],
    }


def _pickle(archive: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(archive)) as members:
        return next(members.read(name) for name in members.namelist() if name.endswith("/data.pkl"))


def _npz(save_npz: Callable[..., None], **arrays: Any) -> bytes:
    buffer = io.BytesIO()
    save_npz(buffer, **arrays)
    return buffer.getvalue()


def _joblib(value: object) -> bytes:
    buffer = io.BytesIO()
    joblib.dump(value, buffer)
    return buffer.getvalue()


def _archives(members: Mapping[str, bytes]) -> Iterator[bytes]:
    """The members in a zip, a tar, and a tar that gzip compressed."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    yield buffer.getvalue()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in members.items():
            information = tarfile.TarInfo(name)
            information.size = len(data)
            tar.addfile(information, io.BytesIO(data))
    yield buffer.getvalue()
    yield gzip.compress(buffer.getvalue(), mtime=0)
