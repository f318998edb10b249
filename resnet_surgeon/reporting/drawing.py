"""A network laid out for drawing: layers from the image downwards, residual blocks as squares, heads side by side.

Gives places and fates; the page's template makes SVG of them and its style sheet gives the colours.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from resnet_surgeon.architecture.differences import classes, output
from resnet_surgeon.architecture.parameters import is_trained, parameters
from resnet_surgeon.architecture.spec import Architecture, Head, Stage
from resnet_surgeon.plan import Action, Step

WIDTH, HEIGHT, GAP, MARGIN, LABEL = 300, 60, 20, 10, 22
_SQUARE, _SPACE = 10, 3
_AFTER: dict[Action, str] = {
    "kept": "kept", "renamed": "kept", "copied": "copied", "computed": "changed", "initialised": "new",
}  # fmt: skip


@dataclass(frozen=True)
class Square:
    """A residual block."""

    x: float
    y: float
    size: float
    fate: str


@dataclass(frozen=True)
class Box:
    """A layer: its `title`, and below it what it does on the left and how many `parameters` it has on the right."""

    x: float
    y: float
    title: str
    detail: str
    parameters: int
    fate: str
    squares: tuple[Square, ...] = ()


@dataclass(frozen=True)
class Label:
    """A line of text that stands by itself, centred on x."""

    x: float
    y: float
    text: str


@dataclass(frozen=True)
class Drawing:
    """All that is drawn, in a frame of width x height. `lines` are [x1, y1, x2, y2]; `cut` is where the network was."""

    title: str
    width: float
    height: float
    boxes: tuple[Box, ...]
    labels: tuple[Label, ...]
    lines: tuple[tuple[float, float, float, float], ...]
    cut: float | None


def before(architecture: Architecture, after: Architecture, steps: Sequence[Step]) -> Drawing:
    """The source: what of it was kept, changed, copied into heads, and cut off."""
    fates: dict[str, str] = {}
    for step in steps:
        fates |= dict.fromkeys(step.sources, "gone" if step.action == "dropped" else _AFTER[step.action])
    children = {name for name in architecture.children if name not in after.children}
    if after.heads:
        children -= {"avgpool"}  # where heads pool their own features
    return _drawing("The source", architecture, fates, children)


def after(architecture: Architecture, steps: Sequence[Step]) -> Drawing:
    """The result: what of it is the source's, changed, and new."""
    fates = {step.name: _AFTER[step.action] for step in steps if step.action != "dropped"}
    return _drawing("The result", architecture, fates, set())


@dataclass(frozen=True)
class _Layer:
    title: str
    detail: str
    parameters: int
    fate: str
    blocks: tuple[str, ...] = ()


def _drawing(title: str, architecture: Architecture, fates: Mapping[str, str], gone: set[str]) -> Drawing:
    trunk = [*_trunk(architecture, fates, gone)]
    heads = architecture.heads if len(architecture.heads) > 1 else ()
    width = max(1, len(heads)) * (WIDTH + GAP) - GAP + 2 * MARGIN
    middle, y = width / 2, MARGIN + LABEL
    boxes, lines, cut = [], [], None
    for layer in trunk:
        lines.append((middle, y, middle, y + GAP))
        if layer.fate == "gone" and cut is None:
            cut = y + GAP / 2
        elif layer.fate != "gone":
            cut = None
        y += GAP
        boxes.append(_box(layer, middle - WIDTH / 2, y))
        y += HEIGHT
    labels = [Label(middle, MARGIN + 14, _channels(architecture))]
    bottom = y
    if heads:
        lines += [(middle, y, middle, y + GAP), (MARGIN + WIDTH / 2, y + GAP, width - MARGIN - WIDTH / 2, y + GAP)]
    for index, head in enumerate(heads):
        x, y = MARGIN + index * (WIDTH + GAP), bottom + GAP
        centre = x + WIDTH / 2
        lines.append((centre, y, centre, y + GAP))
        y += GAP
        labels.append(Label(centre, y + 14, head.name))
        y += LABEL
        for layer in _head(architecture, head, fates):
            boxes.append(_box(layer, x, y))
            lines.append((centre, y + HEIGHT, centre, y + HEIGHT + GAP))
            y += HEIGHT + GAP
        labels.append(Label(centre, y + 14, classes(head.classes)))
    if not heads:
        lines.append((middle, y, middle, y + GAP))
        y += GAP
        labels.append(Label(middle, y + 14, output(architecture)))
    return Drawing(title, width, y + LABEL + MARGIN, tuple(boxes), tuple(labels), tuple(lines), cut)


def _box(layer: _Layer, x: float, y: float) -> Box:
    size = min(_SQUARE, (WIDTH - 24) / max(1, len(layer.blocks)) - _SPACE)
    squares = (
        Square(x + 12 + index * (size + _SPACE), y + HEIGHT - 6 - size, size, fate)
        for index, fate in enumerate(layer.blocks)
    )
    return Box(x, y, layer.title, layer.detail, layer.parameters, layer.fate, tuple(squares))


def _trunk(architecture: Architecture, fates: Mapping[str, str], gone: set[str]) -> Iterator[_Layer]:
    sizes = _sizes(architecture)
    is_there = {name: name not in gone for name in architecture.stem}
    shown = [name for name in architecture.stem if not (name == "maxpool" and architecture.maxpool_is_identity)]
    members = [fate for name, fate in fates.items() if name.startswith(("conv1.", "bn1."))]
    fate = "changed" if not all(is_there.values()) and _fate(members) == "kept" else _fate(members)
    yield _Layer("stem", " ".join(name for name in shown if is_there[name]), _count(sizes, "conv1", "bn1"), fate)
    if lost := [name for name in shown if not is_there[name]]:
        yield _Layer(" ".join(lost), "", 0, "gone")
    for stage in architecture.stages:
        yield _stage(stage, stage.name, fates, sizes)
    if architecture.avgpool:
        yield _Layer("avgpool", "", 0, "gone" if "avgpool" in gone else "kept")
    if len(architecture.heads) == 1:
        yield _classifier(architecture.heads[0], "fc", architecture, fates, sizes)


def _head(architecture: Architecture, head: Head, fates: Mapping[str, str]) -> Iterator[_Layer]:
    sizes, prefix = _sizes(architecture), architecture.prefix(head)
    for stage in head.stages:
        yield _stage(stage, prefix + stage.name, fates, sizes)
    yield _classifier(head, f"{prefix}fc", architecture, fates, sizes)


def _stage(stage: Stage, path: str, fates: Mapping[str, str], sizes: Mapping[str, int]) -> _Layer:
    blocks = tuple(
        _fate([fate for name, fate in fates.items() if name.startswith(f"{path}.{index}.")])
        for index in range(stage.blocks)
    )
    detail = f"{stage.in_channels} -> {stage.out_channels} channels"
    return _Layer(stage.name, detail, _count(sizes, path), _fate(blocks), blocks)


def _classifier(
    head: Head, path: str, architecture: Architecture, fates: Mapping[str, str], sizes: Mapping[str, int]
) -> _Layer:
    detail = f"{architecture.features(head)} features -> {head.classes}"
    return _Layer("fc", detail, _count(sizes, path), _fate([fates.get(f"{path}.weight", "kept")]))


def _fate(fates: Sequence[str]) -> str:
    """That of all, or `changed` where they differ."""
    return fates[0] if len(set(fates)) == 1 else "changed" if fates else "kept"


def _sizes(architecture: Architecture) -> dict[str, int]:
    return {p.name: math.prod(p.shape) for p in parameters(architecture) if is_trained(p.name)}


def _count(sizes: Mapping[str, int], *paths: str) -> int:
    prefixes = tuple(f"{path}." for path in paths)
    return sum(size for name, size in sizes.items() if name.startswith(prefixes))


def _channels(architecture: Architecture) -> str:
    return f"image of {architecture.in_channels} channel{'s' * (architecture.in_channels != 1)}"
