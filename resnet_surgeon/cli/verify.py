"""`verify`: the proof of a file, a line for each check."""

from __future__ import annotations

import dataclasses
import json as json_format
from typing import Annotated

import typer

import resnet_surgeon as rs
from resnet_surgeon.cli.options import Json, Opening, Silent, progress
from resnet_surgeon.cli.output import to_standard_output
from resnet_surgeon.cli.style import styled
from resnet_surgeon.errors import message

_COLOURS = {"proven": "green", "failed": "red", "unproven": "yellow"}


# What is on trial, and against what: the same for the report.
Output = Annotated[str, typer.Argument(help="A file that this tool wrote, or - for standard input.", metavar="OUTPUT")]
Against = Annotated[
    list[str] | None,
    typer.Option(
        help="The source it was made from: a model name, a checkpoint's path or address, or -. Once for each source."
    ),
]


def verify(
    output: Output,
    opening: Opening,
    against: Against = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Prove what takes no torch: the document and every tensor.")
    ] = False,
    json: Json = False,
    quiet: Silent = False,
) -> None:
    """Prove that a file is what its manifest says: the document, every tensor, and what the network computes.

    Each check is a line; the exit code is 1 if any fails. What takes the source is unproven without `--against`. Needs
    torch, but for `--quick`, which makes every tensor again by the tool's own arithmetic and runs no network.
    """
    prove = rs.verify_quickly if quick else rs.verify
    proof = prove(output, against=against, progress=progress(quiet), **opening.keywords)
    if json:
        to_standard_output(json_format.dumps({"holds": proof.holds, **dataclasses.asdict(proof)}, indent=1))
    elif not quiet:
        *lines, summary = str(proof).split("\n")
        for line, check in zip(lines, proof.checks, strict=True):
            outcome = styled(check.outcome, 1, colour=_COLOURS[check.outcome])
            to_standard_output(message(line).replace(check.outcome, outcome, 1))
        to_standard_output(message(summary))
    if not proof.holds:
        raise typer.Exit(1)
