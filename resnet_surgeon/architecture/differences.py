"""What sets two architectures apart, in words. Compares descriptions; knows no tensors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

from resnet_surgeon.architecture.layers import conv1
from resnet_surgeon.architecture.outputs import map_shape
from resnet_surgeon.architecture.spec import (
    STAGE_NAMES,
    Architecture,
    Head,
    HiddenActivation,
    HiddenDropout,
    HiddenLayer,
    HiddenLinear,
    Stage,
)
from resnet_surgeon.errors import listed


def differences(one: Architecture, other: Architecture) -> tuple[str, ...]:
    """Each as `what: before -> after`; none if the two are the same network.

    >>> differences(VARIANTS["resnet50"], VARIANTS["resnet101"])
    ('layer3: 6 blocks -> 23 blocks',)
    """
    pairs = ((what, before, after) for what, before, after in _pairs(one, other) if before != after)
    return tuple(f"{what}: {before} -> {after}" for what, before, after in pairs)


def output(architecture: Architecture) -> str:
    """What comes out: `1000 classes`, `2 heads (lesion: 3, grade: 5)`, `embedding of 512 channels`, `2 feature maps
    (layer3: 1024, layer4: 2048)`.
    """
    heads = architecture.heads
    if len(heads) > 1:
        return f"{len(heads)} heads ({listed([*map(_head, heads)])})"
    if heads:
        return classes(heads[0].classes)
    if architecture.maps:
        maps = [f"{one.name}: {map_shape(architecture, one.layer)[0]}" for one in architecture.maps]
        return f"{len(maps)} feature map{'s' * (len(maps) > 1)} ({listed(maps)})"
    return f"{architecture.output_kind.replace('_', ' ')} of {architecture.trunk_channels} channels"


def classes(count: int) -> str:
    """`1 class`, `3 classes`."""
    return f"{count} class{'es' * (count != 1)}"


def _pairs(one: Architecture, other: Architecture) -> Iterator[tuple[str, str, str]]:
    yield "input channels", str(one.in_channels), str(other.in_channels)
    yield "stem", " ".join(one.stem), " ".join(other.stem)
    yield "conv1", _conv1(one), _conv1(other)
    yield "maxpool", _maxpool(one), _maxpool(other)
    yield "blocks", one.block, other.block
    yield "groups", str(one.groups), str(other.groups)
    yield "batch norms", _norms(one), _norms(other)
    yield "stride of a bottleneck", one.bottleneck_stride, other.bottleneck_stride
    for name in STAGE_NAMES:
        yield from _stage_pairs(name, _stage(one, name), _stage(other, name))
    yield "pooling", _pooling(one), _pooling(other)
    yield "own layers of the heads", _owned(one), _owned(other)
    yield from _hidden_pairs(one, other)
    yield "output", output(one), output(other)
    if len(one.heads) == len(other.heads) > 1 and output(one) == output(other):  # of many heads, it names the first
        yield from (("head", _head(before), _head(after)) for before, after in zip(one.heads, other.heads, strict=True))


def hidden(head: Head) -> str:
    """The layers of a head before its last: `512 relu dropout 0.2`; nothing where it has none."""
    return " ".join(map(_hidden_layer, head.hidden))


def _hidden_layer(layer: HiddenLayer) -> str:
    if isinstance(layer, HiddenLinear):
        return f"{layer.features}{' without bias' * (not layer.bias)}"
    if isinstance(layer, HiddenActivation):
        return layer.function
    return f"dropout {layer.probability:g}" if isinstance(layer, HiddenDropout) else "norm"


def _hidden_pairs(one: Architecture, other: Architecture) -> Iterator[tuple[str, str, str]]:
    """Of the heads that both have by one name, or by their place where there is one alone."""
    pairs = [(before, after) for before in one.heads for after in other.heads if before.name == after.name]
    if len(one.heads) == len(other.heads) == 1:
        pairs = [(one.heads[0], other.heads[0])]
    for before, after in pairs:
        yield f"hidden layers of {after.name}", hidden(before) or "none", hidden(after) or "none"
        yield f"bias of {after.name}", str(before.bias).lower(), str(after.bias).lower()


def _pooling(architecture: Architecture) -> str:
    """Of the trunk, or of each head that pools by itself."""
    if architecture.avgpool:
        return architecture.pool
    kinds = dict.fromkeys(head.pool for head in architecture.heads)
    if len(kinds) > 1:
        return listed([f"{head.name}: {head.pool}" for head in architecture.heads])
    return next(iter(kinds), "none")


def _head(head: Head) -> str:
    return f"{head.name}: {head.classes}"


def _conv1(architecture: Architecture) -> str:
    layer = conv1(architecture)
    return f"{layer.kernel}x{layer.kernel}, stride {layer.stride}"


def _norms(architecture: Architecture) -> str:
    return "folded away" if architecture.fused else "there"


def _maxpool(architecture: Architecture) -> str:
    return "identity" if architecture.maxpool_is_identity else "3x3"


def _stage(architecture: Architecture, name: str) -> Stage | None:
    return next((stage for stage in architecture.depth if stage.name == name), None)


def _stage_pairs(name: str, one: Stage | None, other: Stage | None) -> Iterator[tuple[str, str, str]]:
    """Field by field if both have the stage; a stage that comes or goes is one difference."""
    yield name, _blocks(one), _blocks(other)
    for field in fields(Stage) if one and other else ():
        if field.name not in ("name", "blocks", "in_channels"):  # these are the layer's before
            before, after = getattr(one, field.name), getattr(other, field.name)
            yield f"{name}, {field.name.replace('_', ' ')}", str(before), str(after)


def _blocks(stage: Stage | None) -> str:
    return f"{stage.blocks} block{'s' * (stage.blocks != 1)}" if stage else "none"


def _owned(architecture: Architecture) -> str:
    owned = {tuple(stage.name for stage in head.stages) for head in architecture.heads} - {()}
    return "; ".join(" ".join(names) for names in sorted(owned)) or "none"
