"""`inspect`: what a file is, as a table for people or a document for programs."""

from __future__ import annotations

import dataclasses
import json as json_format
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

import resnet_surgeon as rs
from resnet_surgeon.architecture.facts import in_words
from resnet_surgeon.architecture.outputs import IMAGE, outputs
from resnet_surgeon.cli.options import Json, Opening, Source, progress
from resnet_surgeon.cli.output import to_standard_output
from resnet_surgeon.cli.style import styled
from resnet_surgeon.cli.units import size
from resnet_surgeon.errors import listed, message
from resnet_surgeon.location import DEFAULT_NAME

if TYPE_CHECKING:
    from resnet_surgeon.inspection import Inspection
    from resnet_surgeon.sources.origin import Origin


def inspect(
    opening: Opening,
    source: Source = DEFAULT_NAME,
    tensors: Annotated[
        bool, typer.Option("--tensors", help="List every tensor with its dtype, shape and size.")
    ] = False,
    json: Json = False,
) -> None:
    """Say what a file is: container, packing, network, dtypes, digest, history, and which operations apply.

    What isn't a checkpoint is explained: a Git LFS pointer, a web page, GGUF, a broken download.
    """
    found = rs.inspect(source, progress=progress(), **opening.keywords)
    if json:
        to_standard_output(json_format.dumps(dataclasses.asdict(found), indent=1, sort_keys=True))
        return
    rows = [*_rows(found)]
    width = max(len(label) for label, _ in rows)
    for label, value in rows:
        to_standard_output(f"{styled(label.ljust(width), 1, bold=True)}  {message(value)}")
    if tensors:
        for line in _tensor_lines(found):
            to_standard_output(line)


def _rows(found: Inspection) -> Iterator[tuple[str, str]]:
    from resnet_surgeon.cli.text import not_loaded_lines, wrapping_lines

    yield "source", _origin(found.source)
    if found.source.sha256:
        yield "sha256", found.source.sha256
    for line in wrapping_lines(found.source.wrapping):
        yield "packing", line
    for line in not_loaded_lines(found.source.not_loaded):
        yield "beside", line
    for warning in found.source.warnings:
        yield "warning", warning
    if found.architecture:
        yield "network", f"{found.description}"
        yield "torchvision", found.torchvision or "none of its ten has these stages"
        for output in outputs(found.architecture):
            name = f"{output.name}: " * bool(found.architecture.branches)
            kind = output.kind.replace("_", " ")
            yield "output", f"{name}{kind} {list(output.shape)} for an image of {IMAGE}x{IMAGE}"
        yield from (("assumed", line) for line in in_words(found.facts))
        yield "parameters", f"{found.parameters:,}"
    else:
        yield "network", f"none: {found.problem}"
    dtypes = ", ".join(f"{count} x {dtype}" for dtype, count in found.dtypes.items())
    yield "tensors", f"{len(found.tensors)} ({dtypes}), {size(found.bytes)}"
    if found.began_as:
        yield "began as", _origin(found.began_as)
    for number, origin in enumerate(found.other_sources, 1):
        yield f"source {number}", f"{_origin(origin)}, SHA-256 {origin.sha256}" if origin.sha256 else _origin(origin)
    for record in found.operations:
        for operation, options in record.items():
            shown = ", ".join(f"{name}={_value(value)}" for name, value in options.items() if value is not None)
            yield "then", f"{operation}: {shown}"
    for operation, advice in found.can.items():
        yield operation, advice


def _value(value: Any) -> str:
    """An option's value; of a long list the first few items."""
    return f"[{listed([*map(repr, value)])}]" if isinstance(value, (list, tuple)) else str(value)


def _origin(origin: Origin) -> str:
    if origin.weights == "random":
        return f"{origin.architecture} with random weights, seed {origin.seed}"
    published = f", published as {origin.architecture} {origin.weights}" if origin.architecture else ""
    return f"{origin.file} ({(origin.container or '').replace('_', ' ')}){published}"


def _tensor_lines(found: Inspection) -> Iterator[str]:
    from resnet_surgeon.cli.text import WIDEST

    width = min(WIDEST, max(map(len, found.tensors), default=0))
    for name, layout in found.tensors.items():
        name = message(name).ljust(width)
        yield f"  {name}  {layout.dtype.ljust(4)}  {size(layout.bytes).rjust(9)}  {list(layout.shape)}"
