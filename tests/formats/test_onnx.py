"""ONNX files are read where they are: graphs, constants of every spelling, other files beside them; damage is refused.

The witness is the onnx package, which writes them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from resnet_surgeon.errors import AccessError, CheckpointError
from resnet_surgeon.formats import sniff
from resnet_surgeon.formats.files import OpenFile
from resnet_surgeon.formats.onnx import Graph, Node
from resnet_surgeon.formats.tensors import BITS, LazyTensor, content
from resnet_surgeon.formats.unread import Unread

NUMBERS = numpy.arange(6, dtype="f4").reshape(2, 3)


def model(constants: Sequence[TensorProto] = (), nodes: Sequence[onnx.NodeProto] = ()) -> onnx.ModelProto:
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 8, 8])
    given = helper.make_tensor_value_info("given", TensorProto.FLOAT, None)
    return helper.make_model(helper.make_graph([*nodes], "graph", [image], [given], [*constants]))


def read(data: bytes) -> Graph:
    container = sniff.read(OpenFile.spooled(data, "test"))
    assert container.kind == "onnx"
    assert isinstance(container.root, Graph)
    return container.root


def numbers_of(node: LazyTensor | Unread) -> bytes:
    assert isinstance(node, LazyTensor)
    return content(node)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i8", "u1", "?"])
@pytest.mark.parametrize("shape", [(2, 3), (), (0, 2)], ids=["matrix", "scalar", "nothing"])
def test_constants_have_their_numbers(dtype: str, shape: tuple[int, ...]) -> None:
    array = numpy.ones(shape, dtype)
    found = read(model([numpy_helper.from_array(array, "x")]).SerializeToString())["x"]
    assert isinstance(found, LazyTensor)
    assert (found.shape, content(found)) == (shape, array.tobytes())


def test_floats_in_a_row_are_read_in_place_and_others_stay_closed() -> None:
    typed = [
        helper.make_tensor(kind, getattr(TensorProto, kind), [6], [*range(6)]) for kind in ("FLOAT", "DOUBLE", "INT32")
    ]
    graph = read(model(typed).SerializeToString())
    assert numbers_of(graph["FLOAT"]) == NUMBERS.tobytes()
    assert numbers_of(graph["DOUBLE"]) == NUMBERS.astype("f8").tobytes()
    assert isinstance(graph["INT32"], Unread)


KINDS = {
    "INT8": "I8", "UINT16": "U16", "INT16": "I16", "INT32": "I32", "UINT32": "U32", "UINT64": "U64",
    "COMPLEX64": "C64", "BFLOAT16": "BF16", "FLOAT8E4M3FN": "F8_E4M3", "FLOAT8E4M3FNUZ": "F8_E4M3FNUZ",
    "FLOAT8E5M2": "F8_E5M2", "FLOAT8E5M2FNUZ": "F8_E5M2FNUZ",
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_every_type_that_safetensors_has_is_read_by_its_number(kind: str) -> None:
    data = bytes(range(2 * BITS[KINDS[kind]] // 8))
    constant = TensorProto(name="x", data_type=getattr(TensorProto, kind), dims=[2], raw_data=data)
    found = read(model([constant]).SerializeToString())["x"]
    assert isinstance(found, LazyTensor)
    assert (found.dtype, found.shape, content(found)) == (KINDS[kind], (2,), data)


def test_a_constant_without_its_numbers_stays_closed() -> None:
    constant = TensorProto(name="x", data_type=TensorProto.FLOAT, dims=[2])
    assert isinstance(read(model([constant]).SerializeToString())["x"], Unread)


def test_numbers_of_another_type_than_the_constant_stay_closed() -> None:
    constant = TensorProto(name="x", data_type=TensorProto.INT32, dims=[2], float_data=[1.0, 2.0])
    assert isinstance(read(model([constant]).SerializeToString())["x"], Unread)


def test_attributes_have_their_values_in_old_files_without_their_types() -> None:
    node = helper.make_node("Conv", ["image"], ["given"], pads=[1, 2], group=3, auto_pad="VALID", epsilon=0.5)
    for attribute in node.attribute:
        attribute.ClearField("type")
    attributes = read(model(nodes=[node]).SerializeToString()).nodes[0].attributes
    assert attributes == {"pads": (1, 2), "group": 3, "auto_pad": "VALID", "epsilon": 0.5}


def test_an_attribute_that_leaves_its_value_out_has_that_of_its_type() -> None:
    """As writers of Protocol Buffers' third version do with zeros."""
    kinds = {"FLOAT": 0.0, "INT": 0, "STRING": "", "INTS": ()}
    node = onnx.NodeProto(op_type="Odd", output=["x"])
    for kind in kinds:
        node.attribute.add(name=kind, type=getattr(onnx.AttributeProto, kind))
    assert read(model(nodes=[node]).SerializeToString()).nodes[0].attributes == kinds


def test_a_row_of_very_many_numbers_is_not_looked_at() -> None:
    node = helper.make_node("Conv", ["image"], ["given"], pads=[0] * 1000)
    assert read(model(nodes=[node]).SerializeToString()).nodes[0].attributes == {"pads": None}


def test_small_whole_numbers_are_known_however_they_are_spelled() -> None:
    constants = [
        numpy_helper.from_array(numpy.array([2, -1]), "raw"),
        helper.make_tensor("typed", TensorProto.INT64, [2], [2, -1]),
    ]
    nodes = [
        helper.make_node("Constant", [], ["tensor"], value=constants[0]),
        helper.make_node("Constant", [], ["row"], value_ints=[2, -1]),
    ]
    assert {*read(model(constants, nodes).SerializeToString()).numbers.items()} == {
        (name, (2, -1)) for name in ("raw", "typed", "tensor", "row")
    }


def test_nodes_have_their_attributes() -> None:
    node = helper.make_node(
        "Conv", ["image", "", "b"], ["given"], "first", domain="", pads=[1, 2], group=3, auto_pad="NOTSET"
    )
    other = helper.make_node("Odd", [], ["x"], domain="com.example", epsilon=1e-5)
    graph = read(model(nodes=[node, other]).SerializeToString())
    assert graph.nodes[0] == Node(
        "Conv", "first", ("image", "", "b"), ("given",), {"pads": (1, 2), "group": 3, "auto_pad": "NOTSET"}
    )
    assert (graph.nodes[1].operator, graph.nodes[1].attributes) == ("com.example.Odd", {"epsilon": 1e-5})
    assert (graph.inputs, graph.outputs) == (["image"], ["given"])


def external(**entries: str) -> bytes:
    tensor = TensorProto(name="x", data_type=TensorProto.FLOAT, dims=[2, 3], data_location=TensorProto.EXTERNAL)
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    return bytes(model([tensor]).SerializeToString())


def test_weights_beside_the_model_are_read_there(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"1234" + NUMBERS.tobytes())
    (tmp_path / "model.onnx").write_bytes(external(location="weights", offset="4", length="24"))
    container = sniff.read(OpenFile.at(tmp_path / "model.onnx"))
    assert isinstance(container.root, Graph)
    assert numbers_of(container.root["x"]) == NUMBERS.tobytes()
    assert [Path(file.name).name for file in container.files] == ["model.onnx", "weights"]


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ({"location": "../weights"}, "not a file beside it"),
        ({"location": "/etc/passwd"}, "not a file beside it"),
        ({"location": "a\\weights"}, "not a file beside it"),
        ({"location": ".."}, "not a file beside it"),
        ({}, "not a file beside it"),
        ({"location": "weights", "offset": "1"}, "reaches beyond the end"),
        ({"location": "weights", "offset": "-1"}, "another length"),
        ({"location": "weights", "length": "23"}, "another length"),
        ({"location": "weights", "length": "9" * 400}, "another length"),
    ],
    ids=["above", "absolute", "backslash", "dots", "none", "late", "negative", "short", "endless"],
)
def test_a_place_elsewhere_is_refused(entries: dict[str, str], reason: str, tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(NUMBERS.tobytes())
    (tmp_path / "model.onnx").write_bytes(external(**entries))
    with pytest.raises(CheckpointError, match=reason):
        sniff.read(OpenFile.at(tmp_path / "model.onnx"))


def test_a_model_without_its_weights_says_where_they_belong(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="looked for beside it, and it came alone"):
        read(external(location="weights"))
    (tmp_path / "model.onnx").write_bytes(external(location="weights"))
    with pytest.raises(AccessError, match="weights: no such file"):
        sniff.read(OpenFile.at(tmp_path / "model.onnx"))


def changed(change: Callable[[Any], object]) -> bytes:
    made = model([numpy_helper.from_array(NUMBERS, "x")])
    change(made)
    return bytes(made.SerializeToString())


def with_floats(numbers: list[float]) -> bytes:
    constant = TensorProto(name="x", data_type=TensorProto.FLOAT, dims=[6], float_data=numbers)
    return bytes(model([constant]).SerializeToString())


WHOLE = changed(lambda made: None)
DAMAGED = {
    "cut off": (WHOLE[:-1], "truncated"),
    "another shape": (changed(lambda made: made.graph.initializer[0].dims.append(2)), "another length than its shape"),
    "a row of fewer floats": (with_floats([1.0] * 5), "another length than its shape"),
    "a row of fewer whole numbers": (
        model([TensorProto(name="x", data_type=TensorProto.INT64, dims=[3], int64_data=[1, 2])]).SerializeToString(),
        "another length than its shape",
    ),
    "a negative size": (changed(lambda made: made.graph.initializer[0].dims.append(-1)), "sizes that no tensor has"),
    "endless dimensions": (changed(lambda made: made.graph.initializer[0].dims.extend([1] * 65)), "more dimensions"),
    "two of a name": (changed(lambda made: made.graph.initializer.append(made.graph.initializer[0])), "two constants"),
    "a long name": (changed(lambda made: setattr(made.graph.initializer[0], "name", "x" * 2000)), "damaged"),
    "two graphs": (WHOLE + WHOLE[2:], "several graphs"),
    "functions": (changed(lambda made: made.functions.add(name="f")), "functions of its own"),
    "no graph": (b"\x08\x07\x12\x07pytorch", "not ONNX"),
    "an endless varint": (b"\x08" + b"\x7f" + b"\xff" * 20, "damaged"),
    "a group": (b"\x08\x07\x3b\x3c", "damaged"),
    "a name that is a number": (WHOLE.replace(b"\x42\x01x", b"\x40\x01\x7a"), "damaged"),
}


@pytest.mark.parametrize(("data", "reason"), DAMAGED.values(), ids=DAMAGED.keys())
def test_damage_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(CheckpointError, match=reason):
        read(data)


def test_more_parts_than_any_model_has_are_refused() -> None:
    graph = b"\x5a\x00" * 200_001  # empty inputs
    with pytest.raises(CheckpointError, match="more than 200000 parts"):
        read(b"\x08\x07\x3a" + varint(len(graph)) + graph)


def varint(number: int) -> bytes:
    return bytes(
        number >> shift & 0x7F | 0x80 * (number >> shift + 7 > 0) for shift in range(0, 35, 7) if number >> shift
    )


def test_epsilon_has_the_digits_that_the_exporter_was_given() -> None:
    for eps in (1e-5, 1e-3, 0.0, 1.0, 0.1):
        node = helper.make_node("BatchNormalization", [], ["x"], epsilon=struct.unpack("<f", struct.pack("<f", eps))[0])
        assert read(model(nodes=[node]).SerializeToString()).nodes[0].attributes == {"epsilon": eps}
