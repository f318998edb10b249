"""What every operation's command does: open, operate, write, say so."""

from __future__ import annotations

import dataclasses
import json as json_format
import os
import sys
from pathlib import Path
from typing import Any

import resnet_surgeon as rs
from resnet_surgeon.cli import text
from resnet_surgeon.cli.options import Opening, Writing, progress
from resnet_surgeon.cli.output import to_standard_output
from resnet_surgeon.errors import UsageError, message
from resnet_surgeon.manifest import operation_record
from resnet_surgeon.network import Network
from resnet_surgeon.operations.checkpoint import Operation
from resnet_surgeon.sources.sidecar import manifest_path
from resnet_surgeon.writing.names import Names
from resnet_surgeon.writing.targets import check_name

STANDARD_OUTPUT = "-"


def run(
    source: str,
    operation: Operation | None,
    opening: Opening,
    writing: Writing,
    *,
    names: Names = "torchvision",
    json: bool,
    quiet: bool,
) -> None:
    """Opens, operates if there is an operation, writes, and says so."""
    # numpy's linear algebra, which no operation uses, would take 40 MiB and a thread for each processor.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    to_stream = writing.output == STANDARD_OUTPUT
    if to_stream and json:
        raise UsageError("--json and `-o -` both want standard output", hint="write to a file, or leave --json out")
    if to_stream and not writing.dry_run and os.isatty(1):
        raise UsageError(
            "standard output is a terminal, and a stream of tensors is not text",
            hint="pipe it into a command, or name a file with `-o`",
        )
    if writing.output is not None and not to_stream and not _is_folder(writing.output):
        check_name(Path(writing.output))
    shown = progress(quiet)
    network = rs.open(source, progress=shown, **opening.keywords)
    if operation is not None:
        network = network.apply(operation)
    target = _target(writing.output, network)
    if writing.dry_run:
        network.check(None if to_stream else target, names=names)
    elif to_stream:
        network.stream(1, names=names, progress=shown)
    else:
        network.save(target, force=writing.force, names=names, progress=shown)
    if not quiet:
        around = network.packing if names == "packed" else None
        print(text.summary(network, "standard output" if to_stream else target, around), file=sys.stderr)
        if writing.dry_run:
            in_the_way = not writing.force and not to_stream and os.path.lexists(target)
            note = f" ({target} exists already: this would need `--force`)" if in_the_way else ""
            print(message(f"dry run: nothing was written{note}"), file=sys.stderr)
    if json:
        document = _report(network, target, is_written=not writing.dry_run)
        to_standard_output(json_format.dumps(document, indent=1, sort_keys=True))
    elif not to_stream and not writing.dry_run:
        to_standard_output(target)


def _is_folder(output: str) -> bool:
    return output.endswith(os.sep) or os.path.isdir(output)


def _target(output: str | None, network: Network) -> str:
    """The file to write: of no name or a folder's, one from source and operation in that folder."""
    if output is None:
        return network.default_name
    return os.path.join(output, network.default_name) if _is_folder(output) else output


def _report(network: Network, target: str, *, is_written: bool) -> dict[str, Any]:
    """What `--json` prints."""
    return {
        "output": target,
        "manifest": str(manifest_path(Path(target))),
        "written": is_written,
        "operations": [operation_record(operation) for operation in network.operations],
        "architecture": dataclasses.asdict(network.architecture),
        "notes": list(network.notes),
        "plan": [dataclasses.asdict(step) for step in network.plan()],
    }
