"""A graph of ONNX, walked from the image to the output: the layers of a ResNet, every node on the way accounted for.

What a convolution is called in torchvision follows from its place in the graph, whatever its own name is. Executes
nothing and reads no weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Literal, NoReturn

from resnet_surgeon.architecture.layers import (
    Activation,
    Block,
    Convolution,
    GlobalPool,
    Identity,
    Linear,
    MaxPool,
    Norm,
    Part,
    maxpool_with,
)
from resnet_surgeon.architecture.spec import STAGE_NAMES, Function
from resnet_surgeon.dataclass import dataclass
from resnet_surgeon.errors import Answer, ArchitectureError, CheckpointError, listed, printable
from resnet_surgeon.formats.onnx import Graph, Node
from resnet_surgeon.formats.tensors import LazyTensor, Stored, Strided
from resnet_surgeon.formats.unread import Unread
from resnet_surgeon.sources.networks import Leaf

_NO_LAYERS: tuple[Convolution | Norm | Identity, ...] = ()
_PASSING = ("Identity", "Dropout")  # Dropout does nothing in inference, which its third input alone would change
_UNREAD = {"Shape": 0, "Size": 0, "CastLike": 1}  # the place of a value of which a node reads no numbers
_FUNCTIONS: dict[str, Function] = {"Relu": "relu", "Tanh": "tanh", "Sigmoid": "sigmoid"}
_QUANTISED = ("QLinear", "QuantizeLinear", "DequantizeLinear", "DynamicQuantize", "ConvInteger", "MatMulInteger")
_NORM_LEAVES = ("weight", "bias", "running_mean", "running_var")
_FOLDED_HINT = "export the network again, with constants folded, as `torch.onnx.export` does it by default"


def walked(graph: Graph, without_classifier: bool, ignore: tuple[str, ...]) -> Walk:
    """The way through the graph, or as far as its pooled features; nodes that fit `ignore` are passed over.

    Raises ArchitectureError for the first node that no ResNet of torchvision's has there, and for quantised graphs;
    CheckpointError for a pattern that fits no node.
    """
    quantised = next((node for node in graph.nodes if node.operator.startswith(_QUANTISED)), None)
    if quantised is not None:
        raise ArchitectureError(
            f"it is quantised: {quantised} computes with scaled whole numbers, of which the weights cannot be had",
            hint="give the model that it was made from",
        )
    walk = Walk(graph, ignore)
    walk.run(without_classifier)
    return walk


@dataclass(frozen=True)
class _At:
    """A value on the way, by its name, with its channels; and whether it is one vector for each image."""

    name: str
    channels: int
    is_flat: bool = False


class Walk:
    """One way through a graph: `layers` as our architectures list them, and by their paths the tensors in `modules`."""

    def __init__(self, graph: Graph, ignore: tuple[str, ...]) -> None:
        self.graph = graph
        self.layers: list[Part] = []
        self.modules: dict[str, dict[str, Leaf]] = {}
        self.ignored: tuple[str, ...] = ()
        self.bare: dict[str, Node] = {}  # convolutions with neither a bias nor a norm
        self._same: dict[str, str] = {}  # values that are others passed on, by their names
        self._takers: dict[str, list[Node]] = {}
        self._connect(ignore)

    def run(self, without_classifier: bool) -> None:
        """Walks, once."""
        at = self._pooled(self._blocks(self._stem()))
        for node in self.bare.values():
            if any("running_mean" in leaves for leaves in self.modules.values()):
                self._refuse("has neither a bias nor a batch norm, which others have", node)
        if not without_classifier:
            self._end(self._classifier(at))

    def _connect(self, ignore: tuple[str, ...]) -> None:
        """Which nodes take each value. Values are given once, before they are taken."""
        given = {*self.graph.inputs, *self.graph.tensors}
        fitting: dict[str, None] = {}
        unused = {*ignore}
        for node in self.graph.nodes:
            outputs = [name for name in node.outputs if name]
            if len({*outputs}) < len(outputs) or (node.operator != "Constant" and not given.isdisjoint(outputs)):
                raise refused(f"{node} gives a value that is there already")
            if not given.issuperset(filter(None, node.inputs)) or not any(node.outputs[:1]):
                raise refused(f"{node} takes what no node before it gives, or gives nothing")
            given.update(outputs)
            node = replace(node, inputs=tuple(self._same.get(name, name) for name in node.inputs))
            patterns = {pattern for pattern in ignore if _fits(node, pattern)}
            if patterns:
                unused -= patterns
                fitting[_label(node)] = None
                if len(self._data(node)) != 1:
                    raise refused(f"{node} takes several values, so that it cannot be passed over")
                self._same[outputs[0]] = self._data(node)[0]
            elif node.operator in _PASSING and any(node.inputs[:1]) and len(node.inputs) <= 2:
                self._same[outputs[0]] = node.inputs[0]
            else:
                unread = _UNREAD.get(node.operator)
                for name in dict.fromkeys(name for place, name in enumerate(node.inputs) if name and place != unread):
                    self._takers.setdefault(name, []).append(node)
        if unused:
            raise CheckpointError(f"--ignore {printable(min(unused))} fits no node of its graph")
        self.ignored = tuple(fitting)

    def _data(self, node: Node) -> list[str]:
        """The values that it takes which are not constants."""
        return [name for name in node.inputs if name and name not in self.graph and name not in self.graph.numbers]

    def _stem(self) -> _At:
        images = [name for name in self.graph.inputs if name not in self.graph]
        if len(images) != 1:
            raise refused(f"it takes {len(images)} inputs, {listed([*map(printable, images)])}")
        node = self._one(images[0], "Conv", "the image")
        weight = self._tensor(node, 1)
        if len(weight.shape) != 4:
            raise refused(f"{node} has kernels of {len(weight.shape) - 2} axes")
        at, layers = self._unit(node, _At(images[0], weight.shape[1]), "conv1", "bn1")
        self.layers += layers
        at = self._activated(at)
        self.layers.append(Activation("relu"))
        pool = self._next(at, "MaxPool")
        self.layers.append(_pool(pool, self) if pool else Identity("maxpool"))
        return replace(at, name=pool.outputs[0]) if pool else at

    def _blocks(self, at: _At) -> _At:
        stage = index = 0
        while any(node.operator == "Conv" for node in self._takers.get(at.name, [])):
            starts = [node for node in self._takers[at.name] if node.operator == "Conv"]
            adds = [node for node in self._takers[at.name] if node.operator == "Add"]
            if len(starts) + len(adds) != len(self._takers[at.name]) or (len(starts), len(adds)) not in (
                (1, 1),
                (2, 0),
            ):
                self._refuse("begins no residual block, which is a convolution beside an Add or another one", starts[0])
            stage, index = (stage + 1, 0) if len(starts) == 2 or stage == 0 else (stage, index + 1)
            if stage > len(STAGE_NAMES):
                raise refused(f"its blocks make more than {len(STAGE_NAMES)} stages")
            at = self._block(at, starts, f"{STAGE_NAMES[stage - 1]}.{index}")
        return at

    def _block(self, at: _At, starts: list[Node], path: str) -> _At:
        shortcut, around = at, _NO_LAYERS
        if len(starts) == 2:
            side = next((node for node in starts if self._leads_to_sum(node)), starts[0])
            starts = [node for node in starts if node is not side]
            shortcut, around = self._unit(side, at, "downsample.0", "downsample.1", path)
        node, number = starts[0], 1
        layers: list[Convolution | Norm | Identity | Activation] = []
        while True:
            at, unit = self._unit(node, at, f"conv{number}", f"bn{number}", path)
            layers += unit
            if number == 3 or self._next(at, "Relu") is None:
                break
            at = self._activated(at)
            number += 1
            node = self._one(at.name, "Conv", f"the ReLU in {path}")
        total = self._one(at.name, "Add", f"the last convolution of {path}")
        if number == 1 or sorted(total.inputs) != sorted([at.name, shortcut.name]) or at.name == shortcut.name:
            self._refuse(f"does not add the shortcut of {path} to its convolutions", total)
        if shortcut.channels != at.channels or (around and len(self._takers[shortcut.name]) != 1):
            self._refuse(f"adds what does not fit the shortcut of {path}", total)
        kind: Literal["basic", "bottleneck"] = "basic" if number == 2 else "bottleneck"
        layers.insert(2 if kind == "basic" else len(layers), Activation("relu"))
        self.layers.append(Block(path, kind, tuple(layers), around))
        return self._activated(_At(total.outputs[0], at.channels))

    def _leads_to_sum(self, node: Node) -> bool:
        """Whether a convolution is a shortcut's: its output, with or without a batch norm, goes into a sum."""
        takers = self._takers.get(node.outputs[0], [])
        if [taker.operator for taker in takers] == ["BatchNormalization"]:
            takers = self._takers.get(takers[0].outputs[0], [])
        return [taker.operator for taker in takers] == ["Add"]

    def _unit(
        self, node: Node, at: _At, convolution: str, norm: str, within: str = ""
    ) -> tuple[_At, tuple[Convolution | Norm | Identity, ...]]:
        """A convolution with its batch norm, or with a bias in its place."""
        path = f"{within}.{convolution}" if within else convolution
        weight = self._tensor(node, 1)
        group = _whole(node, "group", 1)
        if len(weight.shape) != 4 or weight.shape[1] * group != at.channels or node.inputs[0] != at.name:
            self._refuse(f"does not fit the {at.channels} channels that it takes", node)
        kernel, strides = weight.shape[2:], _row(node, "strides", (1, 1))
        pads, dilations = _row(node, "pads", (0, 0, 0, 0)), _row(node, "dilations", (1, 1))
        if (
            any(len({*sizes}) != 1 for sizes in (kernel, strides, pads, dilations))
            or (len(strides), len(pads), len(dilations)) != (2, 4, 2)
            or _row(node, "kernel_shape", kernel) != kernel
            or not _is_padded_by_numbers(node)
        ):
            self._refuse("has sizes, strides or padding that differ by the side", node)
        leaves = {"weight": self._leaf(node, 1)}
        if _has(node, 2):
            leaves["bias"] = self._leaf(node, 2)
            if leaves["bias"].shape != weight.shape[:1]:
                self._refuse("has a bias that does not fit it", node)
        self.modules[path] = leaves
        at = _At(node.outputs[0], weight.shape[0])
        follower = self._next(at, "BatchNormalization")
        if follower is None and "bias" not in leaves:
            self.bare[path] = node
        layer = Convolution(
            convolution, weight.shape[1] * group, at.channels, kernel[0], strides[0], pads[0], dilations[0], group,
            bias=follower is None,
        )  # fmt: skip
        if follower is None:
            return at, (layer, Identity(norm))
        return self._normed(follower, at, norm, within, layer)

    def _normed(
        self, node: Node, at: _At, norm: str, within: str, layer: Convolution
    ) -> tuple[_At, tuple[Convolution | Norm | Identity, ...]]:
        is_training = _whole(node, "training_mode", 0) or not _whole(node, "is_test", 1) or any(node.outputs[1:])
        is_by_channel = node.inputs[0] == at.name and _whole(node, "spatial", 1)
        eps = node.attributes.get("epsilon", 1e-5)
        if is_training or not is_by_channel or not isinstance(eps, float) or not 0 <= eps <= 1:
            self._refuse("does not normalise as in inference", node)
        leaves = {leaf: self._leaf(node, place) for place, leaf in enumerate(_NORM_LEAVES, start=1)}
        if any(leaf.shape != (at.channels,) for leaf in leaves.values()):
            self._refuse(f"does not fit the {at.channels} channels that it takes", node)
        self.modules[f"{within}.{norm}" if within else norm] = leaves
        return replace(at, name=node.outputs[0]), (layer, Norm(norm, at.channels, eps))

    def _activated(self, at: _At) -> _At:
        return replace(at, name=self._one(at.name, "Relu", "a convolution").outputs[0])

    def _pooled(self, at: _At) -> _At:
        """The mean over all places, and one vector for each image; the feature map itself where it is the output."""
        node = next((self._next(at, kind) for kind in _POOLS if self._next(at, kind)), None)
        if node is None:
            return at
        if not _POOLS[node.operator](node, self):
            self._refuse("is another pooling than the mean over all places", node)
        self.layers.append(GlobalPool("avgpool"))
        is_vector = node.operator == "ReduceMean" and not _whole(node, "keepdims", 1)
        return self._flattened(replace(at, name=node.outputs[0]), 2 if is_vector else 4)

    def _flattened(self, at: _At, dimensions: int) -> _At:
        """One vector for each image, if the graph makes that of the features, which have so many dimensions."""
        while (node := self._next(at, "Squeeze")) is not None:
            axes = {axis % dimensions for axis in _axes(node, self) or (0,)}
            if min(axes) < 2:
                self._refuse("shapes the features otherwise than one vector for each image", node)
            at, dimensions = replace(at, name=node.outputs[0]), dimensions - len(axes)
        # A linear layer behind a Reshape takes as many features as there are channels: their order can only be kept.
        node = self._next(at, "Flatten") or self._next(at, "Reshape")
        if node is None:
            return replace(at, is_flat=dimensions == 2)
        if node.operator == "Flatten" and node.attributes.get("axis", 1) not in (1, 1 - dimensions):
            self._refuse("shapes the features otherwise than one vector for each image", node)
        shape = self.numbers(node, 1) if node.operator == "Reshape" else None
        if shape is not None and (len(shape) != 2 or shape[1] not in (-1, at.channels)):
            self._refuse("shapes the features otherwise than one vector for each image", node)
        return replace(at, name=node.outputs[0], is_flat=True)

    def _classifier(self, at: _At) -> _At:
        """Linear layers with activations between them: `fc`, or its members by their numbers."""
        members: list[Linear | Activation] = []
        tensors: dict[int, dict[str, Leaf]] = {}
        while at.is_flat:
            number = len(members)
            product = self._next(at, "Gemm") or self._next(at, "MatMul")
            function = next((node for kind in _FUNCTIONS if (node := self._next(at, kind))), None)
            if product is not None:
                at, tensors[number] = self._linear(product, at)
                features = tensors[number]["weight"].shape
                members.append(Linear(f"fc.{number}", features[1], features[0], "bias" in tensors[number]))
            elif function is not None and members and isinstance(members[-1], Linear):
                at = replace(at, name=function.outputs[0])
                members.append(Activation(f"fc.{number}", _FUNCTIONS[function.operator]))
                if self._next(at, "Gemm") is None and self._next(at, "MatMul") is None:
                    self._refuse("follows the classifier", function, is_passable=True)
            else:
                break
        if len(members) == 1 and isinstance(members[0], Linear):
            members = [replace(members[0], name="fc", bias=True)]  # of zeros where there is none
            self.modules["fc"] = tensors[0]
        else:
            self.modules.update((f"fc.{number}", leaves) for number, leaves in tensors.items())
        self.layers += members
        return at

    def _linear(self, node: Node, at: _At) -> tuple[_At, dict[str, Leaf]]:
        """A product with a matrix, and the bias that is added to it."""
        weight = self._leaf(node, 1)
        is_rows = node.operator == "Gemm" and bool(_whole(node, "transB", 0))
        scales = (node.attributes.get("alpha", 1.0), node.attributes.get("beta", 1.0))
        if node.operator == "Gemm" and (scales != (1.0, 1.0) or _whole(node, "transA", 0)):
            self._refuse("scales or turns what it multiplies", node)
        if len(weight.shape) != 2 or weight.shape[1 if is_rows else 0] != at.channels or node.inputs[0] != at.name:
            self._refuse(f"does not fit the {at.channels} features that it takes", node)
        leaves = {"weight": weight if is_rows else _turned(weight)}
        at = _At(node.outputs[0], leaves["weight"].shape[0], is_flat=True)
        if node.operator == "Gemm" and _has(node, 2):
            leaves["bias"] = self._leaf(node, 2)
        elif (total := self._next(at, "Add")) is not None:
            leaves["bias"] = self._leaf(total, 1 if total.inputs[0] == at.name else 0)
            at = replace(at, name=total.outputs[0])
        if "bias" in leaves and leaves["bias"].shape != (at.channels,):
            self._refuse("has a bias that does not fit it", node)
        return at, leaves

    def _end(self, at: _At) -> None:
        outputs = [self._same.get(name, name) for name in self.graph.outputs]
        for node in self._takers.get(at.name, []):
            self._refuse("follows where a ResNet of torchvision's has ended", node, is_passable=at.is_flat)
        if outputs != [at.name]:
            raise refused(f"its outputs are {listed([*map(printable, outputs)])}, and its last layer gives another")

    def _one(self, name: str, operator: str, behind: str) -> Node:
        """The only node that takes the value, of this kind."""
        takers = self._takers.get(name, [])
        for node in takers:
            if node.operator != operator:
                is_image = name in self.graph.inputs
                self._refuse(f"follows {behind}, where there should be {operator}", node, is_passable=is_image)
        if len(takers) != 1:
            raise refused(f"{len(takers)} nodes follow {behind}, where there should be one {operator}")
        return takers[0]

    def _next(self, at: _At, operator: str) -> Node | None:
        """The one node that takes the value, if it is of this kind."""
        takers = self._takers.get(at.name, [])
        return takers[0] if len(takers) == 1 and takers[0].operator == operator else None

    def _leaf(self, node: Node, place: int) -> Leaf:
        self._tensor(node, place)
        return Leaf(node.inputs[place], self.graph[node.inputs[place]])

    def _tensor(self, node: Node, place: int) -> LazyTensor:
        """The constant that a node takes at this place."""
        name = node.inputs[place] if _has(node, place) else ""
        if name not in self.graph:
            what = f"takes {printable(name)}, which the graph computes" if name else "lacks a weight"
            raise refused(f"{node} {what}", hint=_FOLDED_HINT)
        return Leaf(name, self.graph[name]).tensor

    def numbers(self, node: Node, place: int) -> tuple[int, ...] | None:
        """The small constant of whole numbers that a node takes at this place."""
        return self.graph.numbers.get(node.inputs[place]) if _has(node, place) else None

    def _refuse(self, why: str, node: Node, is_passable: bool = False) -> NoReturn:
        """`is_passable` says that a user may state that the node can be left out."""
        is_passable = is_passable and len(self._data(node)) == 1
        answers = [Answer("ignore", _pattern(node), "leave out what it does")] if is_passable else []
        raise refused(f"{node} {why}", answers=answers)


def refused(why: str, hint: str | None = None, answers: Sequence[Answer] = ()) -> ArchitectureError:
    return ArchitectureError(f"its graph is not one of torchvision's ResNets: {why}", hint=hint, answers=answers)


def _label(node: Node) -> str:
    return node.name or node.operator


def _fits(node: Node, pattern: str) -> bool:
    return _label(node) == pattern or fnmatchcase(_label(node), pattern)


def _pattern(node: Node) -> str:
    return "".join(f"[{char}]" if char in "*?[" else char for char in _label(node))


def _has(node: Node, place: int) -> bool:
    return len(node.inputs) > place and bool(node.inputs[place])


def _whole(node: Node, name: str, default: int) -> int:
    """An attribute that is a whole number."""
    value = node.attributes.get(name, default)
    if type(value) is not int or not 0 <= value < 1 << 31:
        raise refused(f"{node} has {printable(name)} that no such node has")
    return value


def _row(node: Node, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
    """An attribute that is a row of whole numbers."""
    value = node.attributes.get(name, default)
    if type(value) is not tuple or any(type(number) is not int or not 0 <= number < 1 << 31 for number in value):
        raise refused(f"{node} has {printable(name)} that no such node has")
    return value


def _is_padded_by_numbers(node: Node) -> bool:
    return node.attributes.get("auto_pad", "NOTSET") == "NOTSET"


def _pool(node: Node, walk: Walk) -> MaxPool:
    """torchvision's maxpool, or Caffe's."""
    kernel, strides = _row(node, "kernel_shape", ()), _row(node, "strides", (1, 1))
    pads, is_ceil = _row(node, "pads", (0, 0, 0, 0)), bool(_whole(node, "ceil_mode", 0))
    found = maxpool_with(kernel, strides, pads[:2], _row(node, "dilations", (1, 1)), is_ceil)
    if found and pads == pads[:2] * 2 and _is_padded_by_numbers(node) and len(node.outputs) == 1:
        return found[1]
    raise ArchitectureError(f"its maxpool, {node}, is neither torchvision's nor Caffe's")


def _is_over_places(node: Node, walk: Walk) -> bool:
    return sorted(axis % 4 for axis in _axes(node, walk) or ()) == [2, 3]


def _is_mean_of_7x7(node: Node, walk: Walk) -> bool:
    """As the first torchvision had it, which is the mean over all places of an image of 224x224."""
    is_plain = not any(_row(node, "pads", ())) and _is_padded_by_numbers(node) and not _whole(node, "ceil_mode", 0)
    return _row(node, "kernel_shape", ()) == (7, 7) and is_plain and 7 * _stride(walk.layers) == 224


def _stride(layers: Sequence[Part]) -> int:
    """How much smaller the last feature map is than the image."""
    blocks = [layer for part in layers if isinstance(part, Block) for layer in part.layers]
    return math.prod(layer.stride for layer in (*layers, *blocks) if isinstance(layer, Convolution | MaxPool))


def _axes(node: Node, walk: Walk) -> tuple[int, ...] | None:
    """Axes: an attribute until opset 12 or 17, since then an input."""
    value = node.attributes.get("axes") if "axes" in node.attributes else walk.numbers(node, 1)
    if type(value) is not tuple or not all(type(number) is int and -4 <= number < 4 for number in value):
        return None
    return value


_POOLS: dict[str, Callable[[Node, Walk], bool]] = {
    "GlobalAveragePool": lambda node, walk: True,
    "ReduceMean": _is_over_places,
    "AveragePool": _is_mean_of_7x7,
}


def _turned(weight: Leaf) -> Leaf:
    """The matrix with its axes exchanged."""
    tensor = weight.tensor
    if not isinstance(tensor, Stored):
        return Leaf(weight.name, Unread("a matrix that cannot be turned"))
    rows, columns = tensor.shape
    turned = Strided(tensor.dtype, (columns, rows), tensor.file, tensor.offset, (1, columns), swapped=False)
    return Leaf(weight.name, turned)
