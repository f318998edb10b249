"""The ResNet that a graph of ONNX computes: its tensors by torchvision's names, and what its nodes say of the rest.

Most exports have the batch norms folded into the convolutions: theirs is a fused network.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from typing import Literal

from resnet_surgeon.architecture.facts import Facts
from resnet_surgeon.architecture.layers import (
    Activation,
    Block,
    Convolution,
    Identity,
    MaxPool,
    Norm,
    Part,
    parts,
)
from resnet_surgeon.architecture.spec import Architecture
from resnet_surgeon.arithmetic.laws import Constant
from resnet_surgeon.errors import ArchitectureError, CheckpointError
from resnet_surgeon.formats.onnx import Graph
from resnet_surgeon.formats.tensors import Initialised, LazyTensor
from resnet_surgeon.sources.found import Found, Wrapping
from resnet_surgeon.sources.graph_layers import refused, walked
from resnet_surgeon.sources.modules import Convolutions, dilated, strided_side
from resnet_surgeon.sources.remainder import NO_CLASSIFIER
from resnet_surgeon.sources.spelling import spelled

_KIND = "ONNX"


def found(graph: object, key: str | None, fc: str | None, ignore: Sequence[str]) -> Found:
    """The network in the graph; `fc` may be `none`, which leaves out what follows the pooled features, and `ignore` are
    patterns of the names of nodes that may be passed over.

    Where it is no ResNet, the constants as they are, with the problem. Raises CheckpointError for a `key`, another `fc`
    and a pattern that fits no node.
    """
    assert isinstance(graph, Graph)
    if key is not None:
        raise CheckpointError("it holds one graph, of which `--key` can choose nothing", hint="leave `--key` out")
    if fc not in (None, NO_CLASSIFIER):
        raise CheckpointError("its graph shows which layer is its classifier", hint="leave `--fc` out, or state `none`")
    try:
        walk = walked(graph, fc == NO_CLASSIFIER, tuple(ignore))
        made = spelled(walk.modules)
    except ArchitectureError as problem:
        constants = {name: node for name, node in graph.items() if isinstance(node, LazyTensor)}
        return Found(constants, wrapping=Wrapping(_KIND), problem=problem)
    for path in walk.bare:  # optimisers drop a folded norm's bias of zeros
        name, weight = f"{path}.bias", made.tensors[f"{path}.weight"]
        made.tensors[name] = Initialised(weight.dtype, weight.shape[:1], Constant(0.0), 0, name)
        made.filled.append(name)
    classifier = NO_CLASSIFIER if fc else None
    wrapping = Wrapping(_KIND, filled=tuple(made.filled), classifier=classifier, ignored=walk.ignored)
    return Found(made.tensors, made.names, wrapping, made.parts)


def layers_of(graph: object, wrapping: Wrapping | None) -> Sequence[Part]:
    """The layers of the network that was found in the graph so. Raises ArchitectureError if it is no ResNet."""
    assert isinstance(graph, Graph)
    has_classifier = wrapping is None or wrapping.classifier != NO_CLASSIFIER
    return walked(graph, not has_classifier, wrapping.ignored if wrapping else ()).layers


def check(layers: Sequence[Part], architecture: Architecture) -> None:
    """Raises ArchitectureError unless these layers of a graph compute what the network does, one by one."""
    pairs = itertools.zip_longest(_flat(layers), _flat(parts(architecture)))
    for (path, theirs), (_, ours) in ((one or _NOTHING, other or _NOTHING) for one, other in pairs):
        if theirs != ours:
            raise refused(f"{path or 'behind its end'} is {_told_apart(theirs, ours)}")


def facts(layers: Sequence[Part]) -> Facts:
    """What the layers show of the network that tensors do not. Raises ArchitectureError for what no ResNet has."""
    blocks = [layer for layer in layers if isinstance(layer, Block)]
    stages: dict[str, list[Block]] = {}
    for block in blocks:
        stages.setdefault(block.name.partition(".")[0], []).append(block)
    dilated_stages, strides = dilated([_convolutions(name, members) for name, members in stages.items()])
    strided = {layer.name for block in blocks for layer in _within(block)[:2] if layer.stride > 1}
    is_bottleneck = bool(blocks) and blocks[0].kind == "bottleneck"
    if not is_bottleneck and strided - {"conv1"}:
        raise ArchitectureError("some of its blocks have the stride in their second convolution")
    return Facts(
        bottleneck_stride=strided_side(strided) if is_bottleneck else None,  # type: ignore[arg-type]
        strides=strides,
        stem_stride=next(layer.stride for layer in layers if isinstance(layer, Convolution)),
        maxpool=_maxpool(layers),
        dilated=dilated_stages,
        eps=next((layer.eps for layer in layers if isinstance(layer, Norm)), None),
        activation=next(
            (layer.function for layer in layers if isinstance(layer, Activation) and layer.name != "relu"), None
        ),
    )


_NOTHING: tuple[str, object] = ("", None)


def _flat(layers: Iterable[Part]) -> Iterator[tuple[str, object]]:
    """Every layer by its path; blocks by their kind, and then by what is in them."""
    for layer in layers:
        if isinstance(layer, Block):
            yield layer.name, layer.kind
            yield from ((f"{layer.name}.{inner.name}", inner) for inner in (*layer.layers, *layer.shortcut))
        else:
            yield layer.name, layer


def _told_apart(theirs: object, ours: object) -> str:
    """What sets a layer of the graph apart from torchvision's."""
    if type(theirs) is type(ours) and is_dataclass(theirs):
        for part in fields(theirs):
            if (one := getattr(theirs, part.name)) != (other := getattr(ours, part.name)):
                return f"a {type(theirs).__name__} of {part.name} {one}, where there should be {other}"
    one, other = (thing if isinstance(thing, str) else type(thing).__name__ for thing in (theirs, ours))
    return f"{one}, where there should be {other}"


def _within(block: Block) -> list[Convolution]:
    return [layer for layer in block.layers if isinstance(layer, Convolution)]


def _convolutions(name: str, blocks: Sequence[Block]) -> Convolutions:
    """A stage's stride, which is its first block's, and the dilations of the 3x3 convolutions in its blocks."""
    place = 0 if blocks[0].kind == "basic" else 1
    dilations = tuple(_within(block)[place].dilation for block in blocks)
    return Convolutions(name, math.prod(layer.stride for layer in _within(blocks[0])), dilations)


def _maxpool(layers: Sequence[Part]) -> Literal["torchvision", "none", "caffe"]:
    if any(isinstance(layer, Identity) and layer.name == "maxpool" for layer in layers):
        return "none"
    is_caffe = any(isinstance(layer, MaxPool) and layer.ceil_mode for layer in layers)
    return "caffe" if is_caffe else "torchvision"
