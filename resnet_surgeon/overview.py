"""The network layer by layer, with what becomes of each: what the pictures on the terminal and in the report draw.

Sums up a plan; decides nothing and knows no way of drawing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from resnet_surgeon.architecture.differences import classes
from resnet_surgeon.architecture.parameters import is_trained, layer_of
from resnet_surgeon.architecture.spec import STAGE_NAMES, Architecture
from resnet_surgeon.plan import Step

Fate = Literal["kept", "changed", "copied", "new", "gone"]


@dataclass(frozen=True)
class Layer:
    """A child of the network or of a head, or the stem (conv1 and bn1).

    `parameters` counts the numbers that training changes; a layer that has gone has those that it had. `note` says what
    has changed.
    """

    name: str
    fate: Fate
    parameters: int
    bytes: int
    note: str = ""


@dataclass(frozen=True)
class Branch:
    """One of several heads: the layers that it owns, and its classes."""

    name: str
    layers: tuple[Layer, ...]
    classes: int


@dataclass(frozen=True)
class Overview:
    """The trunk in the order of the data's flow, what has gone in its old place; then the heads, if there are several.

    Layers without parameters stand there only if something becomes of them.
    """

    trunk: tuple[Layer, ...]
    branches: tuple[Branch, ...]


def overview(steps: Sequence[Step], before: Architecture, after: Architecture) -> Overview:
    """Sums up the steps from `before` to `after`."""
    names = ("stem", "relu", "maxpool", *STAGE_NAMES, "avgpool", "fc")
    members = _by_layer(steps)
    layers = (_layer(name, name, members, before, after) for name in names)
    return Overview(
        trunk=tuple(layer for layer in layers if layer),
        branches=tuple(_branches(members, before, after)),
    )


_Members = Mapping[str, Sequence[Step]]


def _by_layer(steps: Sequence[Step]) -> _Members:
    """The steps of each layer, by its path: `stem`, `layer4`, `heads.head1.layer4`."""
    members: dict[str, list[Step]] = {}
    for step in steps:
        path = layer_of(step.name)
        members.setdefault("stem" if path in ("conv1", "bn1") else path, []).append(step)
    return members


def _branches(steps: _Members, before: Architecture, after: Architecture) -> Iterator[Branch]:
    """Those that are there, or else those that were."""
    architecture = after if len(after.heads) > 1 else before
    for head in architecture.heads if len(architecture.heads) > 1 else ():
        names = [*(stage.name for stage in head.stages), "fc"]
        layers = (_layer(name, f"heads.{head.name}.{name}", steps, before, after) for name in names)
        yield Branch(head.name, tuple(layer for layer in layers if layer), head.classes)


def _layer(name: str, path: str, steps: _Members, before: Architecture, after: Architecture) -> Layer | None:
    members = steps.get(path, ())
    if not members:
        return _layer_without_tensors(name, before, after)
    made = [step for step in members if step.after]
    counted = [
        (math.prod(layout.shape) if is_trained(step.name) else 0, layout.bytes)
        for step in made or members
        if (layout := step.after or step.before)
    ]
    parameters, size = (sum(column) for column in zip(*counted, strict=True))
    return Layer(name, _fate(members), parameters, size, _note(path, members, before, after))


def _fate(steps: Sequence[Step]) -> Fate:
    actions = {step.action for step in steps if step.after}
    if not actions:
        return "gone"
    if actions == {"initialised"}:
        return "new"
    if actions == {"copied"}:
        return "copied"
    return "kept" if {step.action for step in steps} == {"kept"} else "changed"


def _note(path: str, steps: Sequence[Step], before: Architecture, after: Architecture) -> str:
    if not any(step.after for step in steps):
        return ""
    if path == "stem" and before.in_channels != after.in_channels:
        return f"in {before.in_channels} -> {after.in_channels}"
    if path == "fc" and [head.classes for head in before.heads] != [head.classes for head in after.heads]:
        return classes(after.heads[0].classes)
    removed = _blocks(before, path) - _blocks(after, path)
    return f"-{removed} block{'s' * (removed > 1)}" if removed > 0 else ""


def _blocks(architecture: Architecture, name: str) -> int:
    return sum(stage.blocks for stage in architecture.depth if stage.name == name)


def _layer_without_tensors(name: str, before: Architecture, after: Architecture) -> Layer | None:
    """maxpool that became the identity; relu, maxpool or avgpool that has gone."""
    if name == "maxpool" and not before.maxpool_is_identity and after.maxpool_is_identity:
        return Layer(name, "changed", 0, 0, "identity")
    pools = before.avgpool or bool(before.heads), after.avgpool or bool(after.heads)
    is_gone = pools == (True, False) if name == "avgpool" else name in before.stem and name not in after.stem
    return Layer(name, "gone", 0, 0) if is_gone else None
