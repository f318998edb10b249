"""graft: parts of another checkpoint, in the place of the network's own or as one more head."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from typing import Annotated, ClassVar

from resnet_surgeon.architecture.parameters import parameters
from resnet_surgeon.architecture.spec import (
    HEAD_NAME,
    STAGE_NAMES,
    STEM_CHANNELS,
    STEM_WEIGHT,
    Architecture,
    Head,
    Pool,
    Stage,
)
from resnet_surgeon.dataclass import dataclass
from resnet_surgeon.errors import OperationError, UsageError, listed
from resnet_surgeon.fields import Count, Text
from resnet_surgeon.formats.tensors import LazyTensor
from resnet_surgeon.operations.checkpoint import Checkpoint, Other, operation, option, other_option, settle
from resnet_surgeon.operations.images import check_same_images

_PARTS = ("conv1", "bn1", *STAGE_NAMES, "fc")
_PART = rf"{'|'.join(_PARTS)}|heads\.{HEAD_NAME.pattern}"
Part = Annotated[str, Text(f"one of {', '.join(_PARTS)}, or heads.NAME", _PART, 100)]
HeadName = Annotated[str, Text("letters, digits and `_`, 64 of them at most", HEAD_NAME.pattern)]

# What describes the ends of a network; all else must be the same where a stage, or a batch norm, is to work in another.
_ENDS = {"in_channels", "stages", "heads", "avgpool", "pool", "maps"}
_OF_STEM = {"stem", "stem_kernel", "stem_stride", "maxpool", "maxpool_is_identity"}


@operation
class Graft:
    """Take parts of another checkpoint into the network, to the bit.

    `--layers fc` puts the other's trained classifier in the place of the network's own, whatever its classes are;
    layer4 or any other of conv1, bn1 and the stages likewise, where its shape fits. With `--as NAME` the part becomes
    one more head beside what the network has: `--layers layer4,fc --as grade` makes of two networks that were
    fine-tuned apart two heads on the trunk of the first. `--layers heads.NAME` takes a head of a network that has
    several.
    """

    name: ClassVar[str] = "graft"
    example: ClassVar[str] = (
        "resnet-surgeon graft organ.pth --from grade.pth --layers layer4,fc --as grade --own-as organ"
    )
    keeps_packing: ClassVar[bool] = False

    other: Other = other_option(
        "The checkpoint that the parts are from: a model name, a path, an address, or -.", spelling="--from"
    )
    layers: Annotated[Sequence[Part], Count(1, 100)] = option("Which parts to take: fc, layer4 or heads.NAME, ...")
    head: HeadName | None = option(
        "Make the parts a head of this name, beside the others.", spelling="--as", default=None
    )
    own_as: HeadName | None = option(
        "With --as, the name of the head that the network's own fc becomes; head1 if left out.", default=None
    )

    def __post_init__(self) -> None:
        settle(self)
        whole = [layer for layer in self.layers if layer.startswith("heads.")]
        if whole and len(self.layers) > 1:
            raise UsageError(
                f"`{whole[0]}` is taken whole, and alone", subject="graft", hint=f"use `--layers {whole[0]}`"
            )
        if self.head is not None and not whole and "fc" not in self.layers:
            raise UsageError(
                "a head ends in fc", subject="graft", hint=f"use `--layers {','.join([*self.layers, 'fc'])}`"
            )
        if self.head is not None and (tops := [layer for layer in self.layers if layer in ("conv1", "bn1")]):
            raise UsageError(f"{tops[0]} cannot be part of a head", subject="graft", hint="graft it by itself")

    @property
    def suffix(self) -> str:
        return f"with-{'-'.join(layer.replace('.', '-') for layer in self.layers)}" + (
            f"-as-{self.head}" if self.head else ""
        )

    @classmethod
    def advice(cls, architecture: Architecture) -> str:
        return "--from OTHER --layers fc: parts of another checkpoint; --as NAME: beside its own head"

    def resolved(self, checkpoint: Checkpoint) -> Graft:
        layers = tuple(sorted(set(self.layers), key=lambda layer: _PARTS.index(layer) if layer in _PARTS else 0))
        head, own = self.head, self.own_as
        if layers[0].startswith("heads.") and head is None:
            head = layers[0].removeprefix("heads.")
            if checkpoint.architecture.classifier:
                raise OperationError(
                    "the network has a classifier, fc, in the place of which no head of several can stand",
                    hint=f"use `--as {head}` to have both, or `remove --layers fc` first",
                )
        if head is not None and checkpoint.architecture.classifier:
            own = own or "head1"
        elif own is not None:
            raise OperationError(
                "the network has no fc that would become a head of another name", hint="leave `--own-as` out"
            )
        if head is not None and own == head:
            raise OperationError(f"both heads would be called {head}", hint="name the network's own with `--own-as`")
        graft = replace(self, layers=layers, head=head, own_as=own)
        graft.apply(checkpoint)
        return graft

    def apply(self, checkpoint: Checkpoint) -> Checkpoint:
        """The parts' tensors are the other's, all others are kept; a stage that heads now own is copied."""
        assert isinstance(self.other, int)
        there = checkpoint.others[self.other]
        is_top = "conv1" in self.layers or "bn1" in self.layers  # whose numbers images of another kind do not fit
        if is_top and checkpoint.architecture.in_channels == there.architecture.in_channels:
            check_same_images(checkpoint, there, "the other network")
        made = (
            _replaced(checkpoint.architecture, there.architecture, self.layers)
            if self.head is None
            else _beside(checkpoint.architecture, there.architecture, self.layers, self.head, self.own_as)
        )
        tensors = {
            parameter.name: made.tensor(parameter.name, checkpoint, there)
            for parameter in parameters(made.architecture)
        }
        _check_tensors(made, tensors, checkpoint, there)
        categories = (*checkpoint.categories, *there.categories)
        return replace(checkpoint, architecture=made.architecture, tensors=tensors, categories=categories)


@dataclass(frozen=True)
class _Made:
    """The new architecture. `theirs` and `ours` give the name of a tensor in the other network, if it is from there,
    and in this one.
    """

    architecture: Architecture
    theirs: Callable[[str], str | None]
    ours: Callable[[str], str]

    def tensor(self, name: str, here: Checkpoint, there: Checkpoint) -> LazyTensor:
        source = self.theirs(name)
        return there.tensors[source] if source is not None else here.tensors[self.ours(name)]


def _replaced(here: Architecture, there: Architecture, layers: Sequence[str]) -> _Made:
    """The other's parts in the place of the network's own."""
    for layer in layers:
        _check_is_there(there, layer)
        if layer == "fc" and here.branches:
            hint = "use `--as NAME` to add it as one more head"
            raise OperationError(f"the network has heads, {_names(here)}, and no fc", hint=hint)
        if layer in STAGE_NAMES and any(stage.name == layer for head in here.heads for stage in head.stages):
            hint = "graft a whole head: `--layers heads.NAME`, or `--layers layer4,fc --as NAME`"
            raise OperationError(f"`{layer}` belongs to each of its heads, {_names(here)}", hint=hint)
    stages = list(here.stages)
    for layer in layers:
        if layer not in STAGE_NAMES:
            continue
        place = STAGE_NAMES.index(layer)
        if place > len(stages):
            raise OperationError(
                f"the network ends before `{layer}` would begin",
                hint=f"graft `{STAGE_NAMES[len(stages)]}` too",
            )
        stages[place : place + 1] = [_stage(here, there, there.stages[place], place)]
    heads, pool = here.heads, here.pool
    if "fc" in layers:
        assert there.classifier is not None
        heads, pool = (replace(there.classifier, name="fc"),), there.pool
    _check_chain(stages, heads)
    owner = there if "fc" in layers else here
    for head in owner.heads:
        if not head.stages and owner.features(head) != _channels(stages):
            _refuse_features(owner.features(head), _channels(stages))
    _check_facts(here, there, layers)
    avgpool = here.avgpool or "fc" in layers
    maps = () if "fc" in layers else here.maps
    architecture = replace(here, stages=tuple(stages), heads=heads, avgpool=avgpool, pool=pool, maps=maps)
    taken = (*layers, *["avgpool"] * ("fc" in layers))  # which has a number of its own where it is a generalised mean
    if "conv1" in layers and here.in_channels != there.in_channels:
        raise OperationError(
            f"conv1 takes {there.in_channels} channels in the other network, and {here.in_channels} here",
            hint=f"`adapt --in-ch {there.in_channels}` this network first",
        )
    return _Made(architecture, lambda name: name if name.split(".")[0] in taken else None, lambda name: name)


def _beside(here: Architecture, there: Architecture, layers: Sequence[str], name: str, own: str | None) -> _Made:
    """The other's parts as a head beside the network's own."""
    head, prefix = _head(there, layers)
    first = len(there.stages) if layers[0].startswith("heads.") else len(there.stages) - len(head.stages)
    if first > len(here.stages):
        raise OperationError(
            f"the network's heads share {len(here.stages)} stages, and the other's part begins after {first}",
            hint=f"graft `{STAGE_NAMES[len(here.stages)]}` and all that follows",
        )
    shared, moved = here.stages[:first], here.stages[first:]
    stages = tuple(_stage(here, there, stage, first + number) for number, stage in enumerate(head.stages))
    heads = [
        replace(
            old,
            name=own if own is not None and old == here.classifier else old.name,
            stages=moved + old.stages,
            pool=_pool(here, old),
        )
        for old in here.heads
    ]
    new = replace(head, name=name, stages=stages, keeps_name=False, pool=_pool(there, head))
    places = [old.name for old in heads]
    if name in places:
        heads[places.index(name)] = new
    else:
        heads.append(new)
    if len(heads) == 1:
        heads[0] = replace(new, keeps_name=True)
    # What has no number of its own the trunk can do once for all.
    pools = {head.pool for head in heads}
    pools_once = not any(head.stages for head in heads) and len(pools) == 1 and pools != {"gem"}
    pool: Pool = heads[0].pool if pools_once else "avg"
    if pools_once:
        heads = [replace(head, pool="avg") for head in heads]
    _check_chain(shared, heads)
    if there.features(head) != (stages[-1].out_channels if stages else _channels(shared)):
        _refuse_features(there.features(head), _channels(shared))
    _check_facts(here, there, layers)
    architecture = replace(here, stages=shared, heads=tuple(heads), avgpool=pools_once, pool=pool, maps=())

    def theirs(tensor: str) -> str | None:
        inner = tensor.removeprefix(f"heads.{name}.")
        if inner == tensor:
            return None
        return inner if inner.startswith("avgpool.") and there.avgpool else prefix + inner

    def ours(tensor: str) -> str:
        parts = tensor.split(".", 2)
        if parts[0] != "heads":
            return tensor
        layer = parts[2].split(".")[0]
        is_moved = any(layer == stage.name for stage in moved) or (layer == "avgpool" and here.avgpool)
        return parts[2] if is_moved or here.classifier else tensor

    return _Made(architecture, theirs, ours)


def _pool(architecture: Architecture, head: Head) -> Pool:
    """How what the head gets is pooled, be it by the trunk."""
    return architecture.pool if architecture.avgpool else head.pool


def _head(there: Architecture, layers: Sequence[str]) -> tuple[Head, str]:
    """The other's head that the layers are, and what stands before the names of its tensors."""
    for layer in layers:
        _check_is_there(there, layer)
    if layers[0].startswith("heads."):
        name = layers[0].removeprefix("heads.")
        return next(head for head in there.branches if head.name == name), f"{layers[0]}."
    stages = tuple(stage for stage in there.stages if stage.name in layers)
    if stages != there.stages[len(there.stages) - len(stages) :]:
        missing = [stage.name for stage in there.stages[there.stages.index(stages[0]) :]]
        raise OperationError(
            f"between {layers[0]} and fc the other network has more layers",
            hint=f"use `--layers {','.join(missing)},fc`",
        )
    assert there.classifier is not None
    return replace(there.classifier, stages=stages), ""


def _check_is_there(there: Architecture, layer: str) -> None:
    """The other network has the layer as one of its own."""
    if layer.startswith("heads."):
        if layer.removeprefix("heads.") in [head.name for head in there.branches]:
            return
        hint = f"it has {_names(there)}" if there.branches else "it has fc: `--layers fc`" if there.classifier else None
        raise OperationError(f"the other network has no head `{layer.removeprefix('heads.')}`", hint=hint)
    if layer not in there.children:
        owners = [f"heads.{head.name}" for head in there.branches]
        hint = f"take one of its heads whole: `--layers {owners[0]}`" if owners else None
        raise OperationError(
            f"the other network has no `{layer}`; its children are {', '.join(there.children)}", hint=hint
        )


def _stage(here: Architecture, there: Architecture, stage: Stage, place: int) -> Stage:
    """The other's stage, as it stands in the network. Strides and dilation are the network's own, and have to be the
    same there.
    """
    known = [
        one for one in (*here.stages, *(one for head in here.heads for one in head.stages)) if one.name == stage.name
    ]
    wanted = known[0] if known else replace(stage, stride=1 if place == 0 else 2, first_dilation=1, dilation=1)
    for name in ("stride", "first_dilation", "dilation"):
        if getattr(stage, name) != getattr(wanted, name):
            what = "a stride" if name == "stride" else "a dilation"
            dilated = max(stage.dilation, stage.first_dilation, wanted.dilation, wanted.first_dilation) > 1
            alike = "; or `dilate` one of the two as the other is" if dilated else ""
            raise OperationError(
                f"`{stage.name}` has {what} of {getattr(stage, name)} in the other network, "
                f"and {getattr(wanted, name)} here: it would not compute the same",
                hint="if that is not so, state it of the other with `--from-assume`, or of this with `--assume`"
                + alike,
            )
    return stage


def _check_chain(stages: Sequence[Stage], heads: Sequence[Head]) -> None:
    """Every stage gets the channels that it takes."""
    every: list[Head | None] = [*heads] or [None]
    for head in every:
        channels = STEM_CHANNELS
        for stage in (*stages, *(head.stages if head else ())):
            if stage.in_channels != channels:
                raise OperationError(
                    f"`{stage.name}` takes {stage.in_channels} channels, and would get {channels}",
                    hint="graft the layers before it or after it too, or take another network's",
                )
            channels = stage.out_channels


def _refuse_features(wanted: int, found: int) -> None:
    raise OperationError(
        f"fc takes {wanted} features, and would get {found}",
        hint="graft the stages before it too: `--layers layer4,fc`",
    )


def _channels(stages: Sequence[Stage]) -> int:
    return stages[-1].out_channels if stages else STEM_CHANNELS


def _check_facts(here: Architecture, there: Architecture, layers: Sequence[str]) -> None:
    """What no tensor shows is the same in both networks, as far as it matters to the layers."""
    has_stages = any(layer in STAGE_NAMES for layer in layers) or layers[0].startswith("heads.")
    has_stem = any(layer in ("conv1", "bn1") for layer in layers)
    has_norm = "fc" in layers and any(layer.kind == "norm" for head in there.heads for layer in head.hidden)
    if not (has_stages or has_stem or has_norm):
        return
    passed = _ENDS | (set() if has_stem else _OF_STEM) | (set() if has_stages else {"block", "groups"})
    for name in (field.name for field in fields(Architecture)) if has_stages or has_stem else ("eps",):
        if name == "bottleneck_stride" and "basic" in (here.block, there.block):
            continue
        mine, theirs = getattr(here, name), getattr(there, name)
        if name not in passed and mine != theirs:
            raise OperationError(
                f"{name} is {theirs} in the other network, and {mine} here: it would not compute the same",
                hint=_way_out(name, theirs),
            )


def _way_out(name: str, theirs: object) -> str | None:
    """What helps where the networks differ in this; nothing where the tensors show that they do."""
    if name == "fused":
        return f"`fuse` {'SOURCE' if theirs else 'the other network'} first"
    if name in ("block", "groups", "stem", "stem_kernel"):
        return None
    return "if that is not so, state it of the other with `--from-assume`, or of this with `--assume`"


def _check_tensors(made: _Made, tensors: dict[str, LazyTensor], here: Checkpoint, there: Checkpoint) -> None:
    """Shapes fit, and what is grafted has the dtype of what it replaces, or of conv1."""
    for parameter in parameters(made.architecture):
        tensor = tensors[parameter.name]
        if tensor.shape != parameter.shape:
            raise OperationError(
                f"`{parameter.name}` is {list(tensor.shape)}, and only {list(parameter.shape)} fits", hint=None
            )
    for name in _grafted(made, tensors):
        tensor, old = tensors[name], here.tensors.get(name) or here.tensors.get(re.sub(r"^heads\.[^.]+\.", "", name))
        dtype = old.dtype if old else here.tensors[STEM_WEIGHT].dtype
        if tensor.dtype != dtype and tensor.dtype != "I64":
            raise OperationError(
                f"`{name}` is {tensor.dtype} in the other network, and the network is {dtype}",
                hint="make it so with `cast`, and graft from that file",
            )


def _grafted(made: _Made, tensors: dict[str, LazyTensor]) -> Iterator[str]:
    return (name for name in tensors if made.theirs(name) is not None)


def _names(architecture: Architecture) -> str:
    return listed([head.name for head in architecture.branches])
