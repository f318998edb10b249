"""An overview laid out for drawing: layers from the image downwards, residual blocks as squares, heads side by side.

Gives places and fates; the page's template makes SVG of them and its style sheet gives the colours.
"""

from __future__ import annotations

from collections.abc import Iterator

from resnet_surgeon.architecture.differences import classes, output
from resnet_surgeon.architecture.spec import Architecture
from resnet_surgeon.dataclass import dataclass
from resnet_surgeon.overview import Branch, Fate, Layer, Overview

WIDTH, HEIGHT, GAP, MARGIN, LABEL = 300, 60, 20, 10, 22
_SQUARE, _SPACE = 10, 3


@dataclass(frozen=True)
class Square:
    """A residual block."""

    x: float
    y: float
    size: float
    fate: Fate


@dataclass(frozen=True)
class Box:
    """A layer and its blocks; its text and what became of it are the layer's."""

    x: float
    y: float
    layer: Layer
    squares: tuple[Square, ...]


@dataclass(frozen=True)
class Label:
    """A line of text that stands by itself, centred on x."""

    x: float
    y: float
    text: str


@dataclass(frozen=True)
class Line:
    """Where data flows, from the first point to the second; `is_cut` where it no longer does."""

    x1: float
    y1: float
    x2: float
    y2: float
    is_cut: bool = False


@dataclass(frozen=True)
class Drawing:
    """All that is drawn, in a frame of width x height. `cut` is the height at which the network now ends."""

    width: float
    height: float
    boxes: tuple[Box, ...]
    labels: tuple[Label, ...]
    lines: tuple[Line, ...]
    cut: float | None


def drawing(overview: Overview, architecture: Architecture) -> Drawing:
    """The layers of `overview`, what has gone in its old place, and what comes out of `architecture`."""
    width = max(1, len(overview.branches)) * (WIDTH + GAP) - GAP + 2 * MARGIN
    middle, y = width / 2, MARGIN + LABEL
    channels = architecture.in_channels
    labels = [Label(middle, MARGIN + 14, f"image of {channels} channel{'s' * (channels != 1)}")]
    boxes, lines = [*_column(overview.trunk, middle, y)], [*_flow(overview.trunk, middle, y)]
    cut = _cut(overview.trunk)
    y += len(overview.trunk) * (GAP + HEIGHT)
    if overview.branches:
        ends = MARGIN + WIDTH / 2, width - MARGIN - WIDTH / 2
        lines += [Line(middle, y, middle, y + GAP), Line(ends[0], y + GAP, ends[1], y + GAP)]
        bottom = y + GAP
        for index, branch in enumerate(overview.branches):
            centre = ends[0] + index * (WIDTH + GAP)
            lines.append(Line(centre, bottom, centre, bottom + GAP))
            labels += _labels(branch, centre, bottom + GAP)
            boxes += _column(branch.layers, centre, bottom + LABEL)
            lines += _flow(branch.layers, centre, bottom + LABEL)[1:]
            y = max(y, bottom + LABEL + len(branch.layers) * (GAP + HEIGHT) + LABEL)
    else:
        lines.append(Line(middle, y, middle, y + GAP, cut is not None))
        labels.append(Label(middle, y + GAP + 14, output(architecture)))
        y += GAP
    height = None if cut is None else MARGIN + LABEL + cut * (GAP + HEIGHT) + GAP / 2
    return Drawing(width, y + LABEL + MARGIN, tuple(boxes), tuple(labels), tuple(lines), height)


def _cut(layers: tuple[Layer, ...]) -> int | None:
    """The number of the layer from which on all has gone, if there is one."""
    count = len(layers)
    while count and layers[count - 1].fate == "gone":
        count -= 1
    return count if count < len(layers) else None


def _column(layers: tuple[Layer, ...], centre: float, top: float) -> Iterator[Box]:
    """Boxes one below the other, a gap above each."""
    for index, layer in enumerate(layers):
        x, y = centre - WIDTH / 2, top + index * (GAP + HEIGHT) + GAP
        size = min(_SQUARE, (WIDTH - 24) / max(1, len(layer.blocks)) - _SPACE)
        squares = (
            Square(x + 12 + number * (size + _SPACE), y + HEIGHT - 6 - size, size, fate)
            for number, fate in enumerate(layer.blocks)
        )
        yield Box(x, y, layer, tuple(squares))


def _flow(layers: tuple[Layer, ...], centre: float, top: float) -> list[Line]:
    """The line above each box, broken before what has gone."""
    heights = (top + index * (GAP + HEIGHT) for index in range(len(layers)))
    return [Line(centre, y, centre, y + GAP, layer.fate == "gone") for layer, y in zip(layers, heights, strict=True)]


def _labels(branch: Branch, centre: float, top: float) -> list[Label]:
    """The head's name above its layers, and its classes below them."""
    bottom = top + LABEL - GAP + len(branch.layers) * (GAP + HEIGHT)
    return [Label(centre, top + 14, branch.name), Label(centre, bottom + 14, classes(branch.classes))]
