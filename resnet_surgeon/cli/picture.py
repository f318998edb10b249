"""The network drawn on a terminal: a row of boxes, a layer each, with what becomes of it; the heads below.

The kind of border tells the fate without colour. Where the terminal has no such characters, or is too narrow for the
row, it is drawn in ASCII, or as a list.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence

from resnet_surgeon.architecture.differences import classes
from resnet_surgeon.cli import units
from resnet_surgeon.cli.style import is_terminal, styled
from resnet_surgeon.dataclass import dataclass
from resnet_surgeon.errors import escaped
from resnet_surgeon.overview import Branch, Fate, Layer, Overview

_INDENT = "  "
_FLOW = 2  # the row of a box that the data's line runs through
_Line = Sequence[tuple[str, Fate]]  # texts, and the fate that gives each its colour


@dataclass(frozen=True)
class _Border:
    """Corners from the top left clockwise, a horizontal and a vertical line, and where the row's line leaves and meets
    the box.
    """

    corners: str
    lines: str
    joints: str


_LIGHT = _Border("┌┐┘└", "─│", "├┤")
_BORDERS: dict[Fate, _Border] = {
    "kept": _LIGHT,
    "copied": _LIGHT,
    "changed": _Border("┏┓┛┗", "━┃", "┠┨"),
    "trained": _Border("┏┓┛┗", "━┃", "┠┨"),
    "grafted": _Border("╔╗╝╚", "═║", "╟╢"),
    "new": _Border("╔╗╝╚", "═║", "╟╢"),
    "gone": _Border("┌┐┘└", "╌╎", "├┤"),
}
_ASCII = str.maketrans(
    {**dict.fromkeys("┌┐┘└┏┓┛┗╔╗╝╚├┤┠┨╟╢", "+"), **dict.fromkeys("─━", "-"), **dict.fromkeys("│┃║", "|")}
    | {"═": "=", "╌": ".", "╎": ":"}
)
_COLOURS: dict[Fate, str | None] = {
    "kept": None,
    "copied": "blue",
    "changed": "yellow",
    "trained": "magenta",
    "grafted": "cyan",
    "new": "green",
    "gone": "red",
}


def picture(overview: Overview) -> str:
    """The picture for standard error as it is: its width, characters and colours."""
    width = os.get_terminal_size(2).columns if is_terminal(2) else None
    has_boxes = (sys.stderr.encoding or "").lower().startswith("utf")
    lines = _fitting(width, [*_row(overview.trunk)], [*_list(overview.trunk)])
    for branch in overview.branches:
        is_last = branch is overview.branches[-1]
        lines += _fitting(width, [_branch(branch, is_last)], [[(escaped(branch.name), "kept")], *_list(branch.layers)])
    painted = (
        _INDENT + "".join(styled(text, 2, colour=_COLOURS[fate], dim=fate == "kept") for text, fate in line)
        for line in lines
    )
    return "\n".join(line if has_boxes else line.translate(_ASCII) for line in painted)


def _fitting(width: int | None, lines: list[_Line], narrow: list[_Line]) -> list[_Line]:
    longest = max(sum(len(text) for text, _ in line) for line in lines)
    return lines if width is None or longest + len(_INDENT) <= width else narrow


def _row(layers: Sequence[Layer]) -> Iterator[_Line]:
    """Boxes side by side, joined by the line that the data flows along; it is broken before what has gone."""
    has_note = any(layer.note for layer in layers)
    boxes = [_box(layer, has_note, layer is not layers[0], layer is not layers[-1]) for layer in layers]
    for number, parts in enumerate(zip(*boxes, strict=True)):
        line: list[tuple[str, Fate]] = []
        for layer, part in zip(layers, parts, strict=True):
            if line:
                flow = "╌" if layer.fate == "gone" else "─"
                line.append((flow if number == _FLOW else " ", "kept"))
            line.append((part, layer.fate))
        yield line


def _box(layer: Layer, has_note: bool, has_left: bool, has_right: bool) -> list[str]:
    border = _BORDERS[layer.fate]
    texts = [layer.fate, *_sizes(layer)] + [layer.note] * has_note
    width = max(len(layer.name) + 1, *(len(text) for text in texts))
    corners, (line, side) = border.corners, tuple(border.lines)
    rows = [f"{side} {text.ljust(width)} {side}" for text in texts]
    left, right = border.joints[1] if has_left else side, border.joints[0] if has_right else side
    rows[_FLOW - 1] = left + rows[_FLOW - 1][1:-1] + right
    title = f"{line} {layer.name} ".ljust(width + 2, line)
    return [corners[0] + title + corners[1], *rows, corners[3] + line * (width + 2) + corners[2]]


def _list(layers: Sequence[Layer]) -> Iterator[_Line]:
    for layer in layers:
        parameters, size = _sizes(layer)
        yield [(f"{layer.name:8} {layer.fate:8} {parameters:>7} {size:>9}  {layer.note}".rstrip(), layer.fate)]


def _branch(branch: Branch, is_last: bool) -> _Line:
    line: list[tuple[str, Fate]] = [(f"{'└' if is_last else '├'}─ {escaped(branch.name)} ", "kept")]
    for layer in branch.layers:
        line += [("─ ", "kept"), (" ".join([layer.name, layer.fate, *_sizes(layer)]) + " ", layer.fate)]
    return [*line, (f"─ {classes(branch.classes)}", "kept")]


def _sizes(layer: Layer) -> tuple[str, str]:
    return (units.parameters(layer.parameters), units.size(layer.bytes)) if layer.parameters else ("", "")
