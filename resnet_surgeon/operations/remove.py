"""remove: cut off the last layers, or take out layers that the rest can do without."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Annotated, ClassVar, NoReturn

from resnet_surgeon.architecture.parameters import parameters
from resnet_surgeon.architecture.spec import HEAD_NAME, STAGE_NAMES, STEM, Architecture
from resnet_surgeon.errors import OperationError, UsageError, listed, printable
from resnet_surgeon.fields import ANY, Count, Size, Text
from resnet_surgeon.operations.checkpoint import Checkpoint, operation, option, settle

Layer = Annotated[str, Text("the name of a layer, such as layer3.4", ANY, 100)]  # `_check_spelling` says more

_CHILDREN = (*STEM, *STAGE_NAMES, "avgpool", "fc", "heads")
_LONGEST_NAME = 20  # that is compared with those of layers


@operation
class Remove:
    """Remove the last layers, or layers by name.

    The children are conv1, bn1, relu, maxpool, layer1, layer2, layer3, layer4, avgpool, fc. `--last 3` drops layer4,
    avgpool and fc: the output is then layer3's feature map; without fc alone it is the pooled embedding. `--layers`
    takes last children, maxpool (which becomes the identity), residual blocks whose shortcut is the identity, such as
    layer3.4, and single ones of several heads, such as heads.grade; the others keep their names.
    """

    name: ClassVar[str] = "remove"
    example: ClassVar[str] = "resnet-surgeon remove resnet50 --last 2"
    keeps_packing: ClassVar[bool] = False

    last: Size | None = option("How many children to remove, counted from the end.", default=None)
    layers: Annotated[Sequence[Layer], Count(1, 1 << 16)] | None = option(
        "Which layers to remove, by name: a,b,c.", default=None
    )

    def __post_init__(self) -> None:
        settle(self)
        if (self.last is None) == (self.layers is None):
            raise UsageError(
                "give either last or layers",
                subject="remove",
                hint="for instance `--last 1`, or `--layers layer4,avgpool,fc`",
            )
        for layer in self.layers or ():
            _check_spelling(layer)

    @property
    def suffix(self) -> str:
        return f"without-{'-'.join(self.layers)}" if self.layers else f"without-last-{self.last}"

    @classmethod
    def advice(cls, architecture: Architecture) -> str:
        most = 0 if architecture.maps else len(architecture.children) - 1
        blocks = [
            f"{stage.name}.{index}"
            for stage in architecture.stages
            for index in range(1 if stage.downsample else 0, stage.blocks)
            if stage.blocks > 1
        ]
        layers = ["maxpool"] * ("maxpool" in architecture.stem and not architecture.maxpool_is_identity) + blocks
        shown = ", ".join(layers[:3]) + ", ..." * (len(layers) > 3)
        return (f"--last 1 to {most}" if most else "nothing more") + (f"; --layers {shown}" if layers else "")

    def resolved(self, checkpoint: Checkpoint) -> Remove:
        """By name, in the order of the network."""
        architecture = checkpoint.architecture
        children = architecture.children
        if self.last is not None:
            if self.last >= len(children):
                raise OperationError(
                    f"removing the last {self.last} children would leave nothing of {', '.join(children)}",
                    hint=f"remove at most {len(children) - 1}",
                )
            return Remove(layers=children[-self.last :])
        assert self.layers is not None
        _cut(architecture, self.layers)

        heads = [head.name for head in architecture.branches]

        def place(layer: str) -> tuple[int, int]:
            child, _, part = layer.partition(".")
            return children.index(child), heads.index(part) if child == "heads" and part else int(part or -1)

        return Remove(layers=tuple(sorted(set(self.layers), key=place)))

    def apply(self, checkpoint: Checkpoint) -> Checkpoint:
        """The tensors of what is left, the blocks of a stage numbered without a gap."""
        assert self.layers is not None
        architecture, blocks = _cut(checkpoint.architecture, self.layers)

        def old_name(name: str) -> str:
            stage, index, *rest = name.split(".")
            return ".".join([stage, str(blocks[stage][int(index)]), *rest]) if stage in blocks else name

        tensors = {
            parameter.name: checkpoint.tensors[old_name(parameter.name)] for parameter in parameters(architecture)
        }
        return replace(checkpoint, architecture=architecture, tensors=tensors)


def _check_spelling(layer: str) -> None:
    """Raises UsageError unless a network can have a layer of this very name, which may become part of a file's."""
    if layer in _CHILDREN or re.fullmatch(r"layer[1-4]\.(0|[1-9][0-9]{0,3})", layer):
        return
    if layer.startswith("heads.") and HEAD_NAME.fullmatch(layer.removeprefix("heads.")):
        return
    if match := re.fullmatch(r"(layer[1-4])\.(\d{1,4})", layer):
        hint = f"did you mean `{match[1]}.{int(match[2])}`?"
    else:
        near = difflib.get_close_matches(layer[:_LONGEST_NAME], _CHILDREN, n=1)
        hint = f"did you mean `{near[0]}`?" if near else "blocks are named like layer3.4"
    raise UsageError(
        f"no network has a layer {printable(layer)}; children are {', '.join(_CHILDREN)}", subject="remove", hint=hint
    )


def _cut(architecture: Architecture, layers: Sequence[str]) -> tuple[Architecture, dict[str, list[int]]]:
    """What is left, and for each stage the old numbers of the blocks that stay. Raises OperationError."""
    children = architecture.children
    removed = {layer for layer in layers if layer in children}
    kept = len(children)
    while kept and children[kept - 1] in removed:
        kept -= 1
    if architecture.maps and kept < len(children):
        _refuse_map(architecture)
    trunk = children[:kept]
    gone = {layer.removeprefix("heads.") for layer in layers if layer.startswith("heads.")}
    _check_heads(architecture, gone, "heads" in removed)
    for layer in layers:
        if layer.startswith("heads."):
            continue
        if layer not in children:
            _check_block(architecture, layer)
        elif layer == "conv1" or (layer in trunk and layer != "maxpool"):
            _refuse_child(architecture, layer)
        elif layer in trunk and architecture.maxpool_is_identity:
            raise OperationError("`maxpool` is the identity already")
    blocks = {
        stage.name: [index for index in range(stage.blocks) if f"{stage.name}.{index}" not in layers]
        for stage in architecture.stages
        if stage.name in trunk
    }
    for name, indices in blocks.items():
        if not indices:
            raise OperationError(f"no block of `{name}` would be left", hint="keep at least one")
    heads = tuple(head for head in architecture.heads if head.name not in gone)
    if gone and len(heads) == 1:
        heads = (replace(heads[0], keeps_name=True),)
    left = replace(
        architecture,
        stem=tuple(name for name in architecture.stem if name in trunk),
        maxpool_is_identity="maxpool" in trunk and (architecture.maxpool_is_identity or "maxpool" in removed),
        stages=tuple(
            replace(stage, blocks=len(blocks[stage.name])) for stage in architecture.stages if stage.name in trunk
        ),
        avgpool="avgpool" in trunk,
        pool=architecture.pool if "avgpool" in trunk else "avg",
        heads=heads if {"fc", "heads"} & set(trunk) else (),
    )
    assert left != architecture, "what is named is removed"
    return left, blocks


def _check_heads(architecture: Architecture, gone: Collection[str], is_all: bool) -> None:
    """Raises OperationError for heads that the network has not, or if none would be left of several."""
    names = [head.name for head in architecture.branches]
    if unknown := sorted(set(gone) - set(names)):
        others = f"its heads are {listed(names)}" if names else "it has no heads beside each other"
        raise OperationError(f"the network has no head `{unknown[0]}`: {others}")
    if gone and (is_all or set(gone) == set(names)):
        raise OperationError("no head would be left", hint="to remove all of them: `--layers heads`")


def _check_block(architecture: Architecture, layer: str) -> None:
    """Passes if `layer` names a residual block whose shortcut is the identity."""
    name, _, block = layer.partition(".")
    stage = next((stage for stage in architecture.stages if stage.name == name and block), None)
    owned = {"avgpool", "fc", *(stage.name for head in architecture.branches for stage in head.stages)}
    if stage is None and architecture.branches and name in owned:
        single = f"`--layers heads.{architecture.branches[0].name}` for one of them, or "
        raise OperationError(
            f"`{layer}` belongs to the heads, which are removed whole",
            hint=f"use {single * (len(architecture.branches) > 1)}`--layers heads`",
        )
    if stage is None:
        near = difflib.get_close_matches(layer, architecture.children, n=1)
        raise OperationError(
            f"the network has no layer `{layer}`; its children are {', '.join(architecture.children)}",
            hint=f"did you mean `{near[0]}`?" if near else "blocks are named like layer3.4",
        )
    index = int(block)
    if index >= stage.blocks:
        raise OperationError(f"the network has no block `{layer}`: `{stage.name}` has {stage.blocks}, counted from 0")
    if index == 0 and stage.downsample:
        others = (
            f"remove another of its blocks, such as `{stage.name}.1`"
            if stage.blocks > 1
            else "it is the only block of its stage"
        )
        raise OperationError(
            f"`{layer}` changes the channels or the resolution (it has a downsample), which the next layers need",
            hint=others,
        )


def _refuse_map(architecture: Architecture) -> NoReturn:
    *others, last = (one.layer for one in architecture.maps)
    raise OperationError(
        f"`{last}` gives the map `{architecture.maps[-1].name}`, which comes out of the network",
        hint=f"take fewer maps: `features --layers {','.join(others)}`" if others else "it is the only one",
    )


def _refuse_child(architecture: Architecture, layer: str) -> NoReturn:
    children = architecture.children
    tail = ",".join(children[children.index(layer) :])
    if layer == "conv1":
        raise OperationError(
            "`conv1` takes the image: without it no network is left", hint="to change its channels use `adapt`"
        )
    hint = f"remove it with all that follows: `--layers {tail}`"
    stage = next((stage for stage in architecture.stages if stage.name == layer), None)
    if stage is None:
        raise OperationError(f"`{layer}` stands between layers that were trained with it", hint=hint)
    if stage.blocks > 1:
        hint += f"; or single blocks of it, such as `{layer}.{stage.blocks - 1}`"
    raise OperationError(
        f"without `{layer}` the layers after it would get {stage.in_channels} channels, not {stage.out_channels}",
        hint=hint,
    )
