"""`diff`: what sets two networks apart, as lines for people or a document for programs."""

from __future__ import annotations

import dataclasses
import itertools
import json as json_format
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

import resnet_surgeon as rs
from resnet_surgeon.architecture.parameters import layer_of
from resnet_surgeon.cli.options import Json, Opening, Silent, progress
from resnet_surgeon.cli.output import to_standard_output
from resnet_surgeon.cli.style import styled
from resnet_surgeon.errors import message

if TYPE_CHECKING:
    from resnet_surgeon.comparison import Difference, TensorDifference

_COLOURS = {"added": "green", "removed": "red", "changed": "yellow", "reshaped": "yellow"}
_SIDE = "A model name, a checkpoint's path or address, a manifest's path, or - for standard input."


def diff(
    one: Annotated[str, typer.Argument(help=_SIDE, metavar="A")],
    other: Annotated[str, typer.Argument(help="The same.", metavar="B")],
    opening: Opening,
    json: Json = False,
    quiet: Silent = False,
) -> None:
    """Say what sets two networks apart: tensors added, removed, renamed and changed, and the architecture in words.

    The exit code is 0 if they are the same and 1 if not, as diff's. Tensors are compared by content, in whatever
    containers; those of a manifest by what it says of them.
    """
    found = rs.diff(one, other, progress=progress(quiet), **opening.keywords)
    if json:
        document = {"is_same": found.is_same, **dataclasses.asdict(found)}
        to_standard_output(json_format.dumps(_finite(document), indent=1))
    elif not quiet:
        for line in _lines(found):
            to_standard_output(line)
    if not found.is_same:
        raise typer.Exit(1)


def _lines(found: Difference) -> Iterator[str]:
    from resnet_surgeon.cli.text import table

    for title, differences in (("architecture", found.architecture), ("manifest", found.document)):
        if differences:
            yield title
            yield from (f"  {message(difference)}" for difference in differences)
    by = {"content": "", "provenance": ", as their manifests say", "layout": " in name, shape and dtype"}[found.basis]
    others = ", others differ" if found.tensors else ""
    yield f"tensors: {found.same} the same{by}{others}"
    rows = [_row([*group]) for _, group in itertools.groupby(found.tensors, key=_group)]
    for kind, line in zip((row[0] for row in rows), table(rows), strict=True):
        yield "  " + line.replace(kind, styled(kind, 1, colour=_COLOURS.get(kind, "cyan")), 1)


def _group(tensor: TensorDifference) -> tuple[str, ...]:
    """Tensors of one layer that share a fate make one line; what was measured has a line of its own."""
    if tensor.change or tensor.kind == "reshaped":
        return (tensor.kind, tensor.name)
    return (tensor.kind, layer_of(tensor.name), layer_of(tensor.was or ""))


def _row(tensors: list[TensorDifference]) -> tuple[str, str, str]:
    first = tensors[0]
    name = _common([tensor.name for tensor in tensors])
    count = f"{len(tensors)} tensor{'s' * (len(tensors) > 1)}"
    before, after = first.before, first.after
    if first.kind == "reshaped" and before and after:
        return first.kind, name, f"{list(before.shape)} -> {list(after.shape)}"
    if first.kind in ("renamed", "copied"):
        return first.kind, name, f"{count}, the content of {_common([tensor.was or '' for tensor in tensors])}"
    if first.change and before and after:
        dtypes = f"{before.dtype} -> {after.dtype}, " * (before.dtype != after.dtype)
        change = f"at most {first.change.max_abs:.3g}, relative {first.change.relative:.3g}"
        return first.kind, name, f"{dtypes}{change}, cosine {first.change.cosine:.6g}"
    return first.kind, name, count + ", not measured" * (first.kind == "changed")


def _common(names: list[str]) -> str:
    """The dotted parts that the names begin with in common: `layer3.4` of all tensors of that block."""
    parts = [name.split(".") for name in names]
    common = itertools.takewhile(lambda column: len(set(column)) == 1, zip(*parts, strict=False))
    return ".".join(column[0] for column in common)


def _finite(value: Any) -> Any:
    """JSON has no word for what is not a finite number: null."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
