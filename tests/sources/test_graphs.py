"""A graph of ONNX is taken for the ResNet that it computes, whatever its constants are called, or refused by the node
that no ResNet has. onnxruntime is the witness of what it computes.
"""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck

import resnet_surgeon as rs
from resnet_surgeon.errors import ArchitectureError, CheckpointError
from tests.fixtures import small_network

SIZE = (2, 3, 64, 64)
Graph = Any  # an onnx.GraphProto, whose fields mypy does not know
Change = Callable[[Graph], object]


def row(block: Any = BasicBlock, blocks: int = 1, stages: int = 1, **options: Any) -> nn.Sequential:
    """The beginning of a network, a few stages of it, and a classifier: small, and quickly exported."""
    model: Any = small_network(block, (blocks, 1, 1, 1), **options)
    features = 64 * 2 ** (stages - 1) * (1 if block is BasicBlock else 4)
    kept = (model.layer1, model.layer2)[:stages]
    stem = (model.conv1, model.bn1, model.relu, model.maxpool)
    return nn.Sequential(*stem, *kept, model.avgpool, nn.Flatten(), nn.Linear(features, 3)).eval()


def exported(model: nn.Module, **options: Any) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (torch.zeros(SIZE),), buffer, dynamo=False, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


@lru_cache
def folded() -> bytes:
    return exported(row())


@lru_cache
def unfolded() -> bytes:
    return exported(row(), do_constant_folding=False)


def changed(data: bytes, change: Change) -> bytes:
    model = onnx.load_from_string(data)
    change(model.graph)
    return bytes(model.SerializeToString())


def images() -> torch.Tensor:
    return torch.randn(SIZE, generator=torch.Generator().manual_seed(1))


def check_same(network: rs.Network, model: bytes | str, path: Path) -> None:
    """That the network gives what onnxruntime gives for the model, within rounding."""
    session = onnxruntime.InferenceSession(model)
    expected = numpy.asarray(session.run(None, {session.get_inputs()[0].name: images().numpy()})[0])
    network.save(path / "ours.safetensors")
    with torch.no_grad():
        ours = rs.load(path / "ours.safetensors").eval()(images()).numpy()
    assert numpy.abs(ours.reshape(expected.shape) - expected).max() < 1e-5 * numpy.abs(expected).max()


def with_layer(place: int, layer: nn.Module) -> nn.Module:
    model = row()
    model[place] = layer
    return model.eval()


def caffe() -> nn.Module:
    model: Any = row(Bottleneck, stages=2)
    model[5][0].conv1.stride, model[5][0].conv2.stride = (2, 2), (1, 1)
    model[3] = nn.MaxPool2d(3, 2, ceil_mode=True)
    return model  # type: ignore[no-any-return]


def small_stem() -> nn.Module:
    model = row()
    return nn.Sequential(nn.Conv2d(3, 64, 3, 1, 1, bias=False), model[1], model[2], *model[4:]).eval()


def several_layers() -> nn.Module:
    return with_layer(7, nn.Sequential(nn.Linear(64, 8), nn.Tanh(), nn.Dropout(), nn.Linear(8, 3)))


def eps() -> nn.Module:
    model = row()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-2
    return model


FOLDED: dict[str, Callable[[], nn.Module]] = {
    "Caffe's": caffe,
    "without a bias": partial(with_layer, 7, nn.Linear(64, 3, bias=False)),
    "several layers": several_layers,
    "two blocks": partial(row, blocks=2),
}
UNFOLDED: dict[str, Callable[[], nn.Module]] = {
    "another eps": eps,
    "groups": partial(row, Bottleneck, groups=32, width_per_group=4),
    "two stages": partial(row, stages=2),
    "a bias before a norm": partial(with_layer, 0, nn.Conv2d(3, 64, 7, 2, 3)),
    "a small stem": small_stem,
    "an embedding": lambda: row()[:-1],
    "a feature map": lambda: row()[:5],
}


@pytest.mark.parametrize("make", FOLDED.values(), ids=FOLDED.keys())
def test_a_graph_with_its_norms_folded_is_a_fused_network(make: Callable[[], nn.Module], tmp_path: Path) -> None:
    data = exported(make())
    network = rs.open(data)
    assert network.architecture.fused
    check_same(network, data, tmp_path)


@pytest.mark.parametrize("make", UNFOLDED.values(), ids=UNFOLDED.keys())
def test_a_graph_with_its_norms_is_the_network(make: Callable[[], nn.Module], tmp_path: Path) -> None:
    data = exported(make(), do_constant_folding=False)
    network = rs.open(data)
    assert not network.architecture.fused
    check_same(network, data, tmp_path)


def test_todays_exporter_puts_the_weights_beside_the_model(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(row(), (torch.zeros(SIZE),), tmp_path / "model.onnx", dynamo=True, verbose=False)
    assert (tmp_path / "model.onnx.data").exists()
    network = rs.open(tmp_path / "model.onnx")
    check_same(network, str(tmp_path / "model.onnx"), tmp_path)
    network.adapt(1).save(tmp_path / "adapted.safetensors")
    proof = rs.verify(tmp_path / "adapted.safetensors", against=tmp_path / "model.onnx")
    assert {check.outcome for check in proof.checks} == {"proven"}


def node(graph: Graph, operator: str, number: int = 0) -> Any:
    return [node for node in graph.node if node.op_type == operator][number]


def set_attribute(graph: Graph, operator: str, name: str, value: object, number: int = 0) -> None:
    there = node(graph, operator, number)
    kept = [attribute for attribute in there.attribute if attribute.name != name]
    del there.attribute[:]
    there.attribute.extend([*kept, helper.make_attribute(name, value)])


def append(graph: Graph, operator: str, *constants: float) -> None:
    """Puts a node behind the last one, whose output is the graph's then."""
    before = graph.output[0].name
    names = [f"{operator}{number}" for number in range(len(constants))]
    for name, value in zip(names, constants, strict=True):
        graph.initializer.append(numpy_helper.from_array(numpy.float32(value), name))
    graph.node.append(helper.make_node(operator, [before, *names], [f"after {operator}"], name=f"my {operator}"))
    graph.output[0].name = f"after {operator}"


def prepend(graph: Graph, operator: str, *constants: float) -> None:
    image = graph.input[0].name
    append(graph, operator, *constants)
    graph.output[0].name = graph.node[-1].input[0]
    first = copy.deepcopy(graph.node[-1])
    del graph.node[-1]
    first.input[0] = image
    node(graph, "Conv").input[0] = first.output[0]
    graph.node.insert(0, first)


def rename(graph: Graph) -> None:
    """Gives every constant and every node a name that says nothing."""
    names = {constant.name: f"{number}" for number, constant in enumerate(graph.initializer)}
    for constant in graph.initializer:
        constant.name = names[constant.name]
    for number, there in enumerate(graph.node):
        there.name = f"n{number}"
        there.input[:] = [names.get(name, name) for name in there.input]


def inline(graph: Graph) -> None:
    """Makes every constant the output of a node."""
    nodes = [helper.make_node("Constant", [], [constant.name], value=constant) for constant in graph.initializer]
    rest = [copy.deepcopy(there) for there in graph.node]
    del graph.node[:], graph.initializer[:]
    graph.node.extend([*nodes, *rest])


def pass_on(graph: Graph) -> None:
    """Hands the stem's weight and its output through nodes that change nothing."""
    stem = node(graph, "Conv")
    weight, given = stem.input[1], stem.output[0]
    stem.input[1], stem.output[0] = "weight again", "given before"
    graph.node.insert(0, helper.make_node("Identity", [weight], ["weight again"]))
    graph.node.insert(2, helper.make_node("Dropout", ["given before"], [given]))


def turn(graph: Graph) -> None:
    """Multiplies by the transposed weight, and adds the bias behind."""
    linear = node(graph, "Gemm")
    _, weight, bias = linear.input
    for constant in graph.initializer:
        if constant.name == weight:
            constant.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(constant).T.copy(), weight))
    given = linear.output[0]
    value = linear.input[0]
    graph.node.remove(linear)
    graph.node.append(helper.make_node("MatMul", [value, weight], ["product"]))
    graph.node.append(helper.make_node("Add", [bias, "product"], [given]))


def average_by_axes(graph: Graph) -> None:
    mean, flatten = node(graph, "GlobalAveragePool"), node(graph, "Flatten")
    mean.op_type = "ReduceMean"
    mean.input.append("axes")
    mean.attribute.append(helper.make_attribute("keepdims", 0))
    graph.initializer.append(numpy_helper.from_array(numpy.array([-1, 2]), "axes"))
    node(graph, "Gemm").input[0] = mean.output[0]
    graph.node.remove(flatten)


def squeeze(graph: Graph) -> None:
    there = node(graph, "Flatten")
    graph.initializer.append(numpy_helper.from_array(numpy.array([-1]), "axes"))
    value, given = there.input[0], there.output[0]
    graph.node.remove(there)
    graph.node.insert(len(graph.node) - 1, helper.make_node("Squeeze", [value, "axes"], ["squeezed"]))
    graph.node.insert(len(graph.node) - 1, helper.make_node("Squeeze", ["squeezed", "axes"], [given]))


def multiply_by_columns(graph: Graph) -> None:
    """The weight of a product has features in its rows, unless `transB` says otherwise."""
    linear = node(graph, "Gemm")
    constant = next(constant for constant in graph.initializer if constant.name == linear.input[1])
    constant.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(constant).T.copy(), constant.name))
    set_attribute(graph, "Gemm", "transB", 0)


def list_constants_as_inputs(graph: Graph) -> None:
    """As all exports did until 2019."""
    graph.input.extend(
        helper.make_tensor_value_info(constant.name, constant.data_type, constant.dims)
        for constant in graph.initializer
    )


SPELLINGS: dict[str, Change] = {
    "a product by columns": multiply_by_columns,
    "constants as inputs": list_constants_as_inputs,
    "flattened from behind": partial(set_attribute, operator="Flatten", name="axis", value=-3),
    "squeezed twice": squeeze,
    "other names": rename,
    "constants as nodes": inline,
    "nodes that pass on": pass_on,
    "a product and a sum": turn,
    "a mean over axes": average_by_axes,
}


@pytest.mark.parametrize("change", SPELLINGS.values(), ids=SPELLINGS.keys())
def test_the_same_function_is_read_however_it_is_spelled(change: Change, tmp_path: Path) -> None:
    data = changed(folded(), change)
    check_same(rs.open(data), data, tmp_path)


def average_7x7(graph: Graph) -> None:
    """As the first torchvision had it: of an image of 224x224 the last feature map has 7x7 places."""
    operator("GlobalAveragePool", "AveragePool")(graph)
    set_attribute(graph, "AveragePool", "kernel_shape", [7, 7])
    set_attribute(graph, "Conv", "strides", [8, 8])


def test_a_mean_of_7x7_is_the_mean_over_all_places_where_an_image_of_224_leaves_as_many() -> None:
    network = rs.open(changed(exported(row(stages=2)), average_7x7))
    assert (network.architecture.stem_stride, network.architecture.avgpool) == (8, True)


@pytest.mark.parametrize(
    ("name", "value"),
    [("pads", [0, 0, 1, 0]), ("auto_pad", "SAME_UPPER"), ("ceil_mode", 1), ("kernel_shape", [7, 6])],
    ids=str,
)
def test_a_mean_of_7x7_that_is_more_than_that_is_refused(name: str, value: object) -> None:
    def change(graph: Graph) -> None:
        average_7x7(graph)
        set_attribute(graph, "AveragePool", name, value)

    with pytest.raises(ArchitectureError, match="another pooling than the mean"):
        rs.open(changed(exported(row(stages=2)), change))


def reshape(graph: Graph, shape: list[int]) -> None:
    there = node(graph, "Flatten")
    there.op_type = "Reshape"
    del there.attribute[:]
    there.input.append("shape")
    graph.initializer.append(numpy_helper.from_array(numpy.array(shape), "shape"))


@pytest.mark.parametrize("shape", [[-1], [-1, 32], [2, 8, 8]], ids=str)
def test_an_embedding_of_another_shape_is_refused(shape: list[int]) -> None:
    with pytest.raises(ArchitectureError, match="`Reshape` .* otherwise than one vector for each image"):
        rs.open(changed(exported(row()[:-1]), partial(reshape, shape=shape)))


def drop_bias(graph: Graph) -> None:
    """As optimisers do with one of zeros."""
    for place in range(3):
        there = node(graph, "Conv", place)
        del there.input[2:]


def test_a_folded_bias_that_was_dropped_is_of_zeros(tmp_path: Path) -> None:
    data = changed(folded(), drop_bias)
    network = rs.open(data)
    check_same(network, data, tmp_path)
    assert network.source.origin.wrapping
    assert "layer1.0.conv2.bias" in network.source.origin.wrapping.filled


def take_twice(graph: Graph) -> None:
    total = node(graph, "Add")
    total.input[1] = total.input[0]


def shortcut_from_elsewhere(graph: Graph) -> None:
    total, stem = node(graph, "Add"), node(graph, "Relu")
    place = 1 if total.input[0] == node(graph, "Conv", 2).output[0] else 0
    total.input[place] = stem.output[0]


def second_output(graph: Graph) -> None:
    graph.output.append(helper.make_tensor_value_info(node(graph, "Relu").output[0], TensorProto.FLOAT, None))


def second_input(graph: Graph) -> None:
    graph.input.append(helper.make_tensor_value_info("other", TensorProto.FLOAT, None))


def grouped_stem(graph: Graph) -> None:
    set_attribute(graph, "Conv", "group", 3)


def operator(before: str, after: str, number: int = 0, domain: str = "") -> Change:
    def change(graph: Graph) -> None:
        there = node(graph, before, number)
        there.op_type, there.domain = after, domain

    return change


def negated_weight(graph: Graph) -> None:
    stem = node(graph, "Conv")
    graph.node.insert(0, helper.make_node("Neg", [stem.input[1]], ["negated"]))
    stem.input[1] = "negated"


def given_twice(graph: Graph) -> None:
    node(graph, "Relu", 1).output[0] = node(graph, "Relu", 0).output[0]


def in_another_order(graph: Graph) -> None:
    there = copy.deepcopy(graph.node[0])
    del graph.node[0]
    graph.node.append(there)


def second_output_of(operator: str) -> Change:
    return lambda graph: node(graph, operator).output.append("more")


def mean_over(axes: list[int]) -> Change:
    def change(graph: Graph) -> None:
        average_by_axes(graph)
        constant = next(constant for constant in graph.initializer if constant.name == "axes")
        constant.CopyFrom(numpy_helper.from_array(numpy.array(axes), "axes"))

    return change


def squeeze_of(*axes: int) -> Change:
    def change(graph: Graph) -> None:
        there = node(graph, "Flatten")
        there.op_type = "Squeeze"
        del there.attribute[:]
        there.attribute.extend([helper.make_attribute("axes", axes)] if axes else [])

    return change


def training_dropout(graph: Graph) -> None:
    graph.initializer.append(numpy_helper.from_array(numpy.float32(0.5), "ratio"))
    graph.initializer.append(numpy_helper.from_array(numpy.array(True), "training"))
    relu = node(graph, "Relu")
    given, relu.output[0] = relu.output[0], "before"
    place = [*graph.node].index(relu) + 1
    graph.node.insert(place, helper.make_node("Dropout", ["before", "ratio", "training"], [given], name="dropout"))


def one_bias_for_all(graph: Graph) -> None:
    name = node(graph, "Gemm").input[2]
    constant = next(constant for constant in graph.initializer if constant.name == name)
    constant.CopyFrom(numpy_helper.from_array(numpy.array([0.5], "f4"), name))


def of_conv(name: str, value: list[int]) -> Change:
    return partial(set_attribute, operator="Conv", name=name, value=value)


def of_pool(name: str, value: object) -> Change:
    return partial(set_attribute, operator="MaxPool", name=name, value=value)


REFUSED: dict[str, tuple[Change, str]] = {
    "padding on three sides": (of_conv("pads", [3, 3, 3, 2]), "differ by the side"),
    "padding of two sides": (of_conv("pads", [3, 3]), "differ by the side"),
    "uneven dilations": (of_conv("dilations", [1, 2]), "differ by the side"),
    "dilations of one axis": (of_conv("dilations", [1]), "differ by the side"),
    "a negative padding": (of_conv("pads", [-3] * 4), "`pads`"),
    "a maxpool that is padded on one side": (of_pool("pads", [1, 1, 0, 0]), "its maxpool"),
    "a maxpool that is padded by itself": (of_pool("auto_pad", "SAME_UPPER"), "its maxpool"),
    "a maxpool that is dilated": (of_pool("dilations", [2, 2]), "its maxpool"),
    "a maxpool that rounds up": (of_pool("ceil_mode", 1), "its maxpool"),
    "a maxpool that tells the places": (second_output_of("MaxPool"), "its maxpool"),
    "a mean over channels": (mean_over([1, 2]), "another pooling than the mean"),
    "a mean over one axis": (mean_over([2]), "another pooling than the mean"),
    "a mean over three axes": (mean_over([1, 2, 3]), "another pooling than the mean"),
    "a squeeze of all axes": (squeeze_of(), "one vector for each image"),
    "a squeeze of the channels": (squeeze_of(1), "one vector for each image"),
    "a dropout that trains": (training_dropout, "`Dropout` `dropout` follows"),
    "a scaled sum": (partial(set_attribute, operator="Gemm", name="beta", value=0.5), "scales"),
    "one bias for all": (one_bias_for_all, "a bias that does not fit"),
    "padding": (partial(set_attribute, operator="Conv", name="pads", value=[2] * 4), "conv1 .* padding 2, .* be 3"),
    "padding in a block": (
        partial(set_attribute, operator="Conv", name="pads", value=[0] * 4, number=2),
        "layer1.0.conv2 .* padding 0",
    ),
    "stride in a block": (
        partial(set_attribute, operator="Conv", name="strides", value=[2, 2], number=2),
        "stride in their second convolution",
    ),
    "uneven strides": (partial(set_attribute, operator="Conv", name="strides", value=[2, 1]), "differ by the side"),
    "strides of one axis": (partial(set_attribute, operator="Conv", name="strides", value=[2]), "differ by the side"),
    "a stride that is no number": (partial(set_attribute, operator="Conv", name="strides", value=2), "`strides`"),
    "automatic padding": (partial(set_attribute, operator="Conv", name="auto_pad", value="SAME_UPPER"), "differ"),
    "another kernel": (partial(set_attribute, operator="Conv", name="kernel_shape", value=[5, 5]), "differ"),
    "a grouped stem": (grouped_stem, "does not fit the 3 channels"),
    "another maxpool": (partial(set_attribute, operator="MaxPool", name="kernel_shape", value=[2, 2]), "maxpool"),
    "another activation": (operator("Relu", "Elu"), "`Elu` .* where there should be Relu"),
    "another sum": (operator("Add", "Sub"), "begins no residual block"),
    "a sum of one": (take_twice, "."),
    "a shortcut from elsewhere": (shortcut_from_elsewhere, "`MaxPool` .* has ended"),
    "another pooling": (operator("GlobalAveragePool", "GlobalMaxPool"), "`GlobalMaxPool` .* has ended"),
    "a mean of 7x7 for images that are not 224x224": (
        operator("GlobalAveragePool", "AveragePool"),
        "another pooling than the mean",
    ),
    "another domain": (operator("Conv", "FusedConv", domain="com.microsoft"), "`com.microsoft.FusedConv`"),
    "quantised": (operator("Conv", "QLinearConv", number=1), "quantised: `QLinearConv`"),
    "a scaled product": (partial(set_attribute, operator="Gemm", name="alpha", value=2.0), "scales"),
    "a turned product": (partial(set_attribute, operator="Gemm", name="transA", value=1), "scales or turns"),
    "another flattening": (partial(set_attribute, operator="Flatten", name="axis", value=2), "one vector for each"),
    "a weight that is computed": (negated_weight, "which the graph computes"),
    "two outputs": (second_output, "its outputs are"),
    "two inputs": (second_input, "it takes 2 inputs"),
    "a value given twice": (given_twice, "there already"),
    "a node before what it takes": (in_another_order, "no node before it gives"),
    "a softmax": (partial(append, operator="Softmax"), "follows where a ResNet"),
}


@pytest.mark.parametrize(("change", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_what_no_resnet_has_is_refused(change: Change, reason: str) -> None:
    with pytest.raises(ArchitectureError, match=reason):
        rs.open(changed(folded(), change))


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("training_mode", 1, "as in inference"),
        ("is_test", 0, "as in inference"),
        ("epsilon", 0.5, "eps"),
        ("epsilon", 1.5, "as in inference"),
        ("epsilon", -0.5, "as in inference"),
        ("spatial", 0, "as in inference"),
    ],
)
def test_a_norm_that_is_not_like_the_others_is_refused(name: str, value: object, reason: str) -> None:
    with pytest.raises(ArchitectureError, match=reason):
        rs.open(
            changed(unfolded(), partial(set_attribute, operator="BatchNormalization", name=name, value=value, number=1))
        )


def test_a_user_may_state_that_a_node_is_passed_over(tmp_path: Path) -> None:
    def around(graph: Graph) -> None:
        prepend(graph, "Sub", 0.0)
        append(graph, "Softmax")

    data = changed(folded(), around)
    with pytest.raises(ArchitectureError, match="`Sub` `my Sub` follows the image") as refused:
        rs.open(data)
    assert [answer.value for answer in refused.value.answers] == ["my Sub"]
    network = rs.open(data, ignore=["my *"])
    check_same(network, folded(), tmp_path)
    assert network.source.origin.wrapping
    assert network.source.origin.wrapping.ignored == ("my Sub", "my Softmax")
    with pytest.raises(CheckpointError, match="`other` fits no node"):
        rs.open(data, ignore=["other"])
    with pytest.raises(ArchitectureError, match="takes several values"):
        rs.open(data, ignore=[node(onnx.load_from_string(data).graph, "Add").name, "my *"])


def test_what_follows_the_features_can_be_left_out() -> None:
    network = rs.open(changed(folded(), partial(append, operator="Softmax")), fc="none")
    assert network.architecture.output_kind == "embedding"


@pytest.mark.parametrize("options", [{"key": "model"}, {"fc": "linear"}], ids=["key", "fc"])
def test_a_graph_has_nothing_to_choose(options: dict[str, str]) -> None:
    with pytest.raises(CheckpointError, match="leave"):
        rs.open(folded(), **options)  # type: ignore[arg-type]


def test_facts_that_contradict_the_graph_are_refused() -> None:
    with pytest.raises(ArchitectureError, match="maxpool cannot be both torchvision and none"):
        rs.open(folded(), assume="maxpool=none")


def test_an_export_of_an_output_beside_its_manifest_speaks_for_itself(tmp_path: Path) -> None:
    network = rs.open(folded()).adapt(1)
    network.save(tmp_path / "model.safetensors")
    (tmp_path / "model.onnx").write_bytes(unfolded())
    found = rs.open(tmp_path / "model.onnx")
    assert (found.architecture.in_channels, found.architecture.fused) == (3, False)
    with pytest.raises(CheckpointError, match="was named as its manifest, but does not fit it"):
        rs.open(tmp_path / "model.onnx", manifest=tmp_path / "model.json")


def test_a_manifest_that_the_graph_contradicts_is_refused(tmp_path: Path) -> None:
    """Its tensors fit, but one of its strides is another."""
    rs.open(unfolded()).save(tmp_path / "model.safetensors")
    other = changed(unfolded(), partial(set_attribute, operator="Conv", name="strides", value=[1, 1]))
    (tmp_path / "model.onnx").write_bytes(other)
    with pytest.raises(ArchitectureError, match="conv1 is a Convolution of stride 1, where there should be 2"):
        rs.open(tmp_path / "model.onnx", manifest=tmp_path / "model.json")
