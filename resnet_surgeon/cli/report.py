"""`report`: one page about a file, to send to a colleague."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import resnet_surgeon as rs
from resnet_surgeon.cli.options import Opening, Quiet, progress
from resnet_surgeon.cli.output import to_standard_output
from resnet_surgeon.cli.verify import Against, Output


def report(
    output: Output,
    opening: Opening,
    against: Against = None,
    page: Annotated[
        str, typer.Option("-o", "--output", help="The page to write, or - for standard output.", metavar="PAGE")
    ] = "report.html",
    force: Annotated[bool, typer.Option("--force", help="Replace an existing page.")] = False,
    quiet: Quiet = False,
) -> None:
    """Write one page about a file: pictures of the network, its filters, every tensor, the proofs, how to load it.

    The page needs no network and no script to be read. It says so where a proof fails; the exit code is `verify`'s
    matter. Needs torch.
    """
    from resnet_surgeon.writing.targets import checked_page
    from resnet_surgeon.writing.write import write_page

    if page != "-":
        checked_page(Path(page), force)
    text = rs.report(output, against=against, progress=progress(quiet), **opening.keywords)
    if page == "-":
        to_standard_output(text.removesuffix("\n"))
    else:
        write_page(text, Path(page), force=force)
        to_standard_output(page)
