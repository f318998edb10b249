"""The network layer by layer, with what becomes of each: what the pictures on the terminal and in the report draw.

Sums up a plan; decides nothing and knows no way of drawing.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from resnet_surgeon.architecture.differences import classes, hidden
from resnet_surgeon.architecture.layers import maxpool
from resnet_surgeon.architecture.parameters import is_trained, layer_of
from resnet_surgeon.architecture.spec import STAGE_NAMES, Architecture, Head, Stage
from resnet_surgeon.dataclass import dataclass
from resnet_surgeon.plan import Action, Step

Fate = Literal["kept", "changed", "copied", "grafted", "new", "trained", "gone"]
# What the plan does to a tensor, as people see it; a layer whose tensors differ in this is changed.
FATES: dict[Action, Fate] = {
    "kept": "kept", "renamed": "kept", "copied": "copied", "grafted": "grafted",
    "computed": "changed", "initialised": "new", "trained": "trained", "dropped": "gone",
}  # fmt: skip


@dataclass(frozen=True)
class Layer:
    """A child of the network or of a head, or the stem (conv1 and bn1).

    `parameters` counts the numbers that training changes; a layer that has gone has those that it had. `note` says what
    has changed, `detail` what the layer does, and `blocks` the fates of the residual blocks of a stage.
    """

    name: str
    fate: Fate
    parameters: int
    bytes: int
    note: str = ""
    detail: str = ""
    blocks: tuple[Fate, ...] = ()


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
    for head in after.branches or before.branches:
        names = [*(stage.name for stage in head.stages), "avgpool", "fc"]
        paths = ((name, f"heads.{head.name}.{name}") for name in names)
        layers = (_layer(name, path, steps, before, after, head) for name, path in paths)
        yield Branch(head.name, tuple(layer for layer in layers if layer), head.classes)


def _layer(
    name: str, path: str, steps: _Members, before: Architecture, after: Architecture, head: Head | None = None
) -> Layer | None:
    members = steps.get(path, ())
    if not members:
        return _layer_without_tensors(name, before, after, head)
    made = [step for step in members if step.after]
    shown = after if made else before
    note, fate = _note(path, members, before, after), _fate(members)
    layouts = [(step.name, layout) for step in made or members if (layout := step.after or step.before)]
    return Layer(
        name,
        "changed" if fate == "kept" and _is_set_otherwise(path, before, after) else fate,
        sum(math.prod(layout.shape) for name, layout in layouts if is_trained(name)),
        sum(layout.bytes for _, layout in layouts),
        note,
        _detail(path, head or shown.classifier, shown),
        _blocks(path, made or members),
    )


def _fate(steps: Sequence[Step]) -> Fate:
    """That of all its tensors; where they differ, or some of what was kept has gone, `changed`."""
    fates = {FATES[step.action] for step in steps if step.after}
    if len(fates) > 1 or (fates == {"kept"} and not all(step.after for step in steps)):
        return "changed"
    return fates.pop() if fates else "gone"


def _blocks(path: str, steps: Sequence[Step]) -> tuple[Fate, ...]:
    """The fates of a stage's blocks, in their order."""
    members: dict[str, list[Step]] = {}
    for step in steps:
        block, _, rest = step.name.removeprefix(f"{path}.").partition(".")
        if block.isdigit() and rest:
            members.setdefault(block, []).append(step)
    return tuple(_fate(members[block]) for block in sorted(members, key=int))


def _detail(path: str, head: Head | None, architecture: Architecture) -> str:
    """What the layer does, in a few words; `head` is the one that it belongs to."""
    *_, name = path.split(".")
    if name == "stem":
        return " ".join(child for child in architecture.stem if not _is_identity(architecture, child))
    if name == "fc" and head:
        layers = f"{hidden(head)} -> " if head.hidden else ""
        return f"{architecture.features(head)} features -> {layers}{head.classes}"
    if name == "avgpool":
        return "generalised mean"
    stages = head.stages if head and name != path else architecture.stages
    stage = next((stage for stage in stages if stage.name == name), None)
    return f"{stage.in_channels} -> {stage.out_channels} channels" if stage else ""


def _is_identity(architecture: Architecture, child: str) -> bool:
    return child == "maxpool" and architecture.maxpool_is_identity


def _note(path: str, steps: Sequence[Step], before: Architecture, after: Architecture) -> str:
    if not any(step.after for step in steps):
        return ""
    if path == "stem" and (note := ", ".join(_stem_notes(before, after))):
        return note
    if path == "fc" and [head.classes for head in before.heads] != [head.classes for head in after.heads]:
        return classes(after.heads[0].classes)
    if _is_set_otherwise(path, before, after):
        stage = _stage(path, after)
        return f"dilation {stage.dilation}" if stage and stage.dilation > 1 else "its stride back"
    added = _depth(after, path) - _depth(before, path)
    if added and _depth(before, path):
        return f"{added:+} block{'s' * (abs(added) > 1)}"
    return _note_on_dtypes(steps)


def _note_on_dtypes(steps: Sequence[Step]) -> str:
    """What most of the numbers were, and have become."""
    counts: Counter[tuple[str, str]] = Counter()
    for step in steps:
        if step.before and step.after:
            counts[step.before.dtype, step.after.dtype] += math.prod(step.after.shape)
    old, new = counts.most_common(1)[0][0] if counts else ("", "")
    return f"{old} -> {new}" if old != new else ""


def _stem_notes(before: Architecture, after: Architecture) -> Iterator[str]:
    if before.in_channels != after.in_channels:
        yield f"in {before.in_channels} -> {after.in_channels}"
    if before.stem_kernel != after.stem_kernel:
        yield f"{after.stem_kernel}x{after.stem_kernel}"
    if before.stem_stride != after.stem_stride:
        yield f"stride {after.stem_stride}"


def _is_set_otherwise(path: str, before: Architecture, after: Architecture) -> bool:
    """Whether the layer computes something else with the same tensors: by another stride or dilation."""
    if path == "stem":
        return before.stem_stride != after.stem_stride
    old, new = _stage(path, before) or _stage(path.rpartition(".")[2], before), _stage(path, after)
    return old is not None and new is not None and _setting(old) != _setting(new)


def _setting(stage: Stage) -> tuple[int, int, int]:
    return stage.stride, stage.first_dilation, stage.dilation


def _stage(path: str, architecture: Architecture) -> Stage | None:
    """The stage with the path `layer4` or `heads.head1.layer4`."""
    owner, _, name = path.rpartition(".")
    heads = (head.stages for head in architecture.branches if owner == f"heads.{head.name}")
    stages = next(heads, ()) if owner else architecture.stages
    return next((stage for stage in stages if stage.name == name), None)


def _depth(architecture: Architecture, name: str) -> int:
    return sum(stage.blocks for stage in architecture.depth if stage.name == name)


def _layer_without_tensors(name: str, before: Architecture, after: Architecture, head: Head | None) -> Layer | None:
    """maxpool that became another, or the identity; relu, maxpool or avgpool that has gone, or pools otherwise."""
    if head is not None:
        return Layer(name, "new", 0, 0, head.pool) if name == "avgpool" and head.pool != "avg" else None
    if name == "maxpool" and name in before.stem and name in after.stem and maxpool(before) != maxpool(after):
        pool = "3x3" if after.maxpool == "torchvision" else "3x3, Caffe's"
        return Layer(name, "changed", 0, 0, "identity" if after.maxpool_is_identity else pool)
    if name == "avgpool" and before.avgpool and after.avgpool and before.pool != after.pool:
        return Layer(name, "changed", 0, 0, after.pool)
    pools = before.avgpool or bool(before.heads), after.avgpool or bool(after.heads)
    is_gone = pools == (True, False) if name == "avgpool" else name in before.stem and name not in after.stem
    return Layer(name, "gone", 0, 0) if is_gone else None
