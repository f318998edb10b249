"""ONNX: a graph of operators, with its weights as constants, in the file or in others beside it. Nothing is executed.

Knows names, attributes and places; what the graph computes is for others to say.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import field
from pathlib import Path

from resnet_surgeon.dataclass import dataclass
from resnet_surgeon.errors import CheckpointError, printable
from resnet_surgeon.formats.container import Container
from resnet_surgeon.formats.files import OpenFile
from resnet_surgeon.formats.protobuf import BYTES, FIXED32, VARINT, Field, Wire
from resnet_surgeon.formats.tensors import BITS, LARGEST_SIZE, MOST_DIMENSIONS, LazyTensor, Stored, content
from resnet_surgeon.formats.unread import Unread

_LONGEST_NAME = 1000  # bytes of a name, and of any other text that is looked at
_MOST_NODES = 20_000
_MOST_NUMBERS = 64  # of an attribute or a constant that is looked at
_MOST_FILES = 1000
_STANDARD = ("", "ai.onnx")  # what the domain of ONNX's own operators is called

# By the numbers of TensorProto.DataType in onnx.proto.
_DTYPES = {
    1: "F32", 2: "U8", 3: "I8", 4: "U16", 5: "I16", 6: "I32", 7: "I64", 9: "BOOL", 10: "F16", 11: "F64", 12: "U32",
    13: "U64", 14: "C64", 16: "BF16", 17: "F8_E4M3", 18: "F8_E4M3FNUZ", 19: "F8_E5M2", 20: "F8_E5M2FNUZ",
}  # fmt: skip
_PACKED = {4: "F32", 10: "F64"}  # fields of numbers in a row that lie there as they would in raw_data


@dataclass(frozen=True)
class Node:
    """An operator with the names of the values that it takes and gives, "" for what is left out. One that is not of
    ONNX's own carries its domain in its name. `attributes` are numbers, texts and rows of numbers; None is any other.
    """

    operator: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, object]

    def __str__(self) -> str:
        return f"{printable(self.operator)} {printable(self.name)}" if self.name else printable(self.operator)


@dataclass(frozen=True, eq=False)
class Graph(Mapping[str, "LazyTensor | Unread"]):
    """A mapping of the constants by their names, with the nodes in order, and the names of inputs and outputs.

    `numbers` are the whole numbers in small constants.
    """

    tensors: dict[str, LazyTensor | Unread] = field(default_factory=dict)
    numbers: dict[str, tuple[int, ...]] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)

    def __getitem__(self, name: str) -> LazyTensor | Unread:
        return self.tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)


def read(file: OpenFile) -> Container:
    """The graph of the model. Raises CheckpointError for damage, for what a model never has, and for weights in files
    that do not lie beside it; AccessError for those that are missing.
    """
    reader = _Reader(file)
    graphs = []
    for part in reader.wire.fields(0, file.size):
        if part.number == 7:
            graphs.append(part)
        elif part.number == 25:
            raise CheckpointError(
                "it defines functions of its own, which are not read",
                hint="export the network with `torch.onnx.export`, which writes none today",
            )
        elif part.wire == BYTES and part.number not in _OF_MODEL:
            raise CheckpointError("it is not ONNX, nor any other checkpoint")
    if len(graphs) != 1:
        raise CheckpointError("it is not ONNX, nor any other checkpoint" if not graphs else "it has several graphs")
    reader.read_graph(graphs[0])
    return Container("onnx", file, reader.graph, others=tuple(reader.files.values()))


# Fields of ModelProto with text or messages: producer, its version, domain, doc, opsets, metadata, training, devices.
_OF_MODEL = {2, 3, 4, 6, 7, 8, 14, 20, 26}


class _Reader:
    """Reads the parts of one model; numbers of fields are those of onnx.proto."""

    def __init__(self, file: OpenFile) -> None:
        self.file = file
        self.wire = Wire(file)
        self.graph = Graph()
        self.files: dict[str, OpenFile] = {}

    def read_graph(self, graph: Field) -> None:
        for part in self._parts(graph):
            if part.number == 1:
                self._read_node(part)
            elif part.number == 5:
                self._read_constant(part)
            elif part.number in (11, 12):
                names = self.graph.inputs if part.number == 11 else self.graph.outputs
                names += [self._text(inner) for inner in self._parts(part) if inner.number == 1][-1:]

    def _read_node(self, node: Field) -> None:
        texts: dict[int, list[str]] = {1: [], 2: [], 3: [""], 4: [""], 7: [""]}
        attributes: dict[str, object] = {}
        for part in self._parts(node):
            if part.number in texts:
                texts[part.number].append(self._text(part))
            elif part.number == 5:
                name, value = self._attribute(part)
                attributes[name] = value
        operator, domain = texts[4][-1], texts[7][-1]
        whole = operator if domain in _STANDARD else f"{domain}.{operator}"
        if len(self.graph.nodes) == _MOST_NODES:
            raise CheckpointError(f"its graph has more than {_MOST_NODES} nodes")
        if whole == "Constant" and texts[2]:
            self._add(texts[2][0], attributes)
        self.graph.nodes.append(Node(whole, texts[3][-1], tuple(texts[1]), tuple(texts[2]), attributes))

    def _add(self, name: str, attributes: Mapping[str, object]) -> None:
        """Takes down the node that gives a constant."""
        value = attributes.get("value")
        if isinstance(value, _Constant):
            self._keep(name, value)
        for ints in (attributes.get("value_ints"), (attributes.get("value_int"),)):
            if isinstance(ints, tuple) and all(type(number) is int for number in ints):
                self.graph.numbers[name] = ints

    def _attribute(self, attribute: Field) -> tuple[str, object]:
        """Its name and value: of the kind that its type says, and in old files of the kind that there is."""
        name, kind = "", 0
        found: dict[int, object] = {2: 0.0, 3: 0, 4: ""}  # what a field that is left out stands for
        integers: list[int] | None = []
        for part in self._parts(attribute):
            if part.number == 1:
                name = self._text(part)
            elif part.number == 20 and part.wire == VARINT:
                kind = part.value
            elif part.number == 2 and part.wire == FIXED32:
                kind, found[2] = kind or 1, _shortest(self.wire.content(part, 4))
            elif part.number == 3 and part.wire == VARINT:
                kind, found[3] = kind or 2, next(self.wire.integers(part))
            elif part.number == 4 and part.wire == BYTES:
                short = part.size <= _LONGEST_NAME
                kind, found[4] = kind or 3, self.wire.content(part, _LONGEST_NAME).decode("latin-1") if short else None
            elif part.number == 5:
                kind, found[5] = kind or 4, None if 5 in found else self._constant(part)
            elif part.number == 8:
                kind, integers = kind or 7, self._more(integers, part)
            elif part.number == 21:  # of a function's argument
                return name, None
        field_of = {1: 2, 2: 3, 3: 4, 4: 5}
        if kind == 7:
            return name, None if integers is None else tuple(integers)
        return name, found.get(field_of.get(kind, 0))

    def _more(self, numbers: list[int] | None, part: Field) -> list[int] | None:
        """The numbers with those of another field; None for more than are looked at."""
        if numbers is None or part.size > _MOST_NUMBERS * 10 or len(numbers) > _MOST_NUMBERS:
            return None
        return [*numbers, *self.wire.integers(part)]

    def _read_constant(self, tensor: Field) -> None:
        constant = self._constant(tensor)
        self._keep(constant.name, constant)

    def _keep(self, name: str, constant: _Constant) -> None:
        if name in self.graph.tensors:
            raise CheckpointError(f"it has two constants {printable(name)}")
        self.graph.tensors[name] = constant.tensor
        if constant.numbers is not None:
            self.graph.numbers[name] = constant.numbers

    def _constant(self, tensor: Field) -> _Constant:
        """A TensorProto. Its numbers are where `raw_data` or packed floats are, or in another file."""
        name, kind, is_external = "", 0, False
        shape: list[int] = []
        external: dict[str, str] = {}
        data: list[Field] = []
        for part in self._parts(tensor):
            if part.number == 1:
                shape += self.wire.integers(part)
                if len(shape) > MOST_DIMENSIONS:
                    raise CheckpointError("a constant has more dimensions than a tensor can have")
            elif part.number == 2:
                kind = part.value
            elif part.number == 8:
                name = self._text(part)
            elif part.number in (4, 5, 6, 7, 9, 10, 11):
                data.append(part)
                if len(data) > 2 * _MOST_NUMBERS:
                    return _Constant(name, Unread("a constant with its numbers one by one"))
            elif part.number == 13:
                external.update(self._entry(part))
            elif part.number == 14:
                is_external = is_external or part.value != 0
        if any(not 0 <= size <= LARGEST_SIZE for size in shape):
            raise CheckpointError(f"constant {printable(name)} has sizes that no tensor has")
        if kind not in _DTYPES:
            return _Constant(name, Unread("a constant of a type that is not read"))
        return self._placed(name, _DTYPES[kind], tuple(shape), data, external if is_external else None)

    def _placed(
        self, name: str, dtype: str, shape: tuple[int, ...], data: list[Field], external: dict[str, str] | None
    ) -> _Constant:
        count = math.prod(shape)
        size = count * BITS[dtype] // 8
        if external is not None:
            stored = self._elsewhere(name, dtype, shape, size, external)
        elif dtype == "I64" and count <= _MOST_NUMBERS and data and all(part.number == 7 for part in data):
            numbers = tuple(number for part in data for number in self.wire.integers(part))
            if len(numbers) != count:
                raise CheckpointError(f"constant {printable(name)} has another length than its shape says")
            return _Constant(name, Unread("a constant of whole numbers in few bytes each"), numbers)
        elif len(data) == 1 and data[0].wire == BYTES and (data[0].number == 9 or _PACKED.get(data[0].number) == dtype):
            if data[0].size != size:
                raise CheckpointError(f"constant {printable(name)} has another length than its shape says")
            stored = Stored(dtype, shape, self.file, data[0].begin)
        elif not data and count == 0:
            stored = Stored(dtype, shape, self.file, 0)
        else:
            return _Constant(name, Unread("a constant with its numbers one by one"))
        is_small = dtype == "I64" and count <= _MOST_NUMBERS
        return _Constant(name, stored, struct.unpack(f"<{count}q", content(stored)) if is_small else None)

    def _elsewhere(
        self, name: str, dtype: str, shape: tuple[int, ...], size: int, external: Mapping[str, str]
    ) -> Stored:
        """A tensor in a file beside the model: a name that leads elsewhere is never followed."""
        location = external.get("location", "")
        offset, length = (external.get(key, default) for key, default in (("offset", "0"), ("length", str(size))))
        if Path(location).name != location or location in ("", "..") or re.search(r"[\\\0]", location):
            raise CheckpointError(f"the file of its weights, {printable(location)}, is not a file beside it")
        if not all(re.fullmatch("[0-9]{1,18}", number) for number in (offset, length)) or int(length) != size:
            raise CheckpointError(f"constant {printable(name)} has another length than its shape says")
        if self.file.folder is None:
            raise CheckpointError(
                f"its weights are in {printable(location)}, which is looked for beside it, and it came alone",
                hint="put both files into one folder, and give the path of the model",
            )
        if location not in self.files:
            if len(self.files) == _MOST_FILES:
                raise CheckpointError(f"its weights are in more than {_MOST_FILES} files")
            self.files[location] = OpenFile.at(self.file.folder / location)
        file = self.files[location]
        if int(offset) + size > file.size:
            raise CheckpointError(f"constant {printable(name)} reaches beyond the end of {printable(location)}")
        return Stored(dtype, shape, file, int(offset))

    def _entry(self, entry: Field) -> dict[str, str]:
        """A key with its value."""
        texts = {1: "", 2: ""}
        for part in self._parts(entry):
            if part.number in texts:
                texts[part.number] = self._text(part)
        return {texts[1]: texts[2]}

    def _parts(self, message: Field) -> Iterator[Field]:
        if message.wire != BYTES:
            raise CheckpointError("it is damaged: a number stands where a message should")
        return self.wire.fields(message.begin, message.end)

    def _text(self, part: Field) -> str:
        return self.wire.text(part, _LONGEST_NAME)


@dataclass(frozen=True)
class _Constant:
    """What a TensorProto became, with its whole numbers where they are few."""

    name: str
    tensor: LazyTensor | Unread
    numbers: tuple[int, ...] | None = None


def _shortest(single: bytes) -> float:
    """The number with the fewest digits that has these four bytes as a float32: what an exporter was given.

    >>> _shortest(struct.pack("<f", 1e-5))
    1e-05
    """
    value: float = struct.unpack("<f", single)[0]
    if not math.isfinite(value):
        return value
    texts = (f"{value:.{digits}g}" for digits in range(1, 10))
    return next(number for number in map(float, texts) if struct.pack("<f", number) == single)
