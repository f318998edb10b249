"""What every operation's command does: open, operate, write, say so."""

from __future__ import annotations

import dataclasses
import itertools
import json as json_format
import os
import sys
from pathlib import Path
from typing import Any, Literal

import resnet_surgeon as rs
from resnet_surgeon.cli.options import Opening, OtherOpening, Writing, progress
from resnet_surgeon.cli.output import to_standard_output
from resnet_surgeon.errors import SurgeonError, UsageError, message
from resnet_surgeon.fields import plain
from resnet_surgeon.formats.files import OpenFile
from resnet_surgeon.location import STANDARD_INPUT, PassingInput, check_distinct
from resnet_surgeon.manifest import operation_record
from resnet_surgeon.network import Network
from resnet_surgeon.operations.checkpoint import Operation, others_of, with_others
from resnet_surgeon.sources.progress import Progress
from resnet_surgeon.sources.sidecar import manifest_path
from resnet_surgeon.writing.names import Names
from resnet_surgeon.writing.targets import check_name, is_folder, output_path
from resnet_surgeon.writing.unchanged import digest

STANDARD_OUTPUT = "-"


def run(
    source: str | OpenFile,
    operation: Operation | None,
    opening: Opening,
    writing: Writing,
    *,
    other: OtherOpening | None = None,
    names: Names = "torchvision",
    json: bool,
    quiet: bool,
) -> None:
    """Opens, operates if there is an operation, writes, and says so. `other` is how the one other network of the
    operation is opened; several are opened as the source is.
    """
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
    if writing.output is not None and not to_stream and not is_folder(writing.output):
        check_name(Path(writing.output))
    shown = progress(quiet)
    others = others_of(operation) if operation else ()
    for one, two in itertools.combinations([source, *others], 2):
        check_distinct(one, two)
    passes = source == STANDARD_INPUT and not writing.dry_run and not others
    network = rs.open(PassingInput() if passes else source, progress=shown, **opening.keywords)
    if not writing.dry_run:
        network.read_ahead()
    if operation is not None:
        network = network.apply(_with_opened(operation, opening, other, shown))
    if not quiet:
        _ = network.source.described  # reads conv1, which may have gone by when this is printed
    target = output_path(writing.output, network.default_name)
    outcome = _written(network, None if to_stream else target, writing, names, shown)
    if outcome == "up to date" and not quiet:
        print(message(f"{target}: up to date"), file=sys.stderr)
    elif not quiet:
        from resnet_surgeon.cli import text

        around = network.packing if names == "packed" else None
        print(text.summary(network, "standard output" if to_stream else target, around), file=sys.stderr)
        if outcome == "planned":
            in_the_way = not writing.force and not to_stream and os.path.lexists(target)
            note = f" ({target} exists already: this would need `--force`)" if in_the_way else ""
            print(message(f"dry run: nothing was written{note}"), file=sys.stderr)
    if json:
        to_standard_output(json_format.dumps(_report(network, target, outcome, shown), indent=1, sort_keys=True))
    elif not to_stream and outcome != "planned":
        to_standard_output(target)


def _with_opened(operation: Operation, opening: Opening, other: OtherOpening | None, shown: Progress) -> Operation:
    """The operation with the other networks that it takes opened."""
    keywords = {name: value for name, value in opening.keywords.items() if name in ("key", "assume", "fc", "ignore")}
    opened = []
    for location in others_of(operation):
        try:
            opened.append(rs.open(location, progress=shown, **(other.keywords if other else keywords)))  # type: ignore[arg-type]
        except SurgeonError as error:
            if other is not None:
                error.answers = tuple(answer._replace(option=f"from_{answer.option}") for answer in error.answers)
            raise
    return with_others(operation, opened)


_Outcome = Literal["written", "planned", "up to date"]


def _written(network: Network, target: str | None, writing: Writing, names: Names, progress: Progress) -> _Outcome:
    """Writes the file, or the stream where there is no target, as far as that is wanted and needed."""
    if writing.if_changed and target is None:
        raise UsageError("a stream is never up to date", subject="--if-changed", hint="name a file with `-o`")
    if writing.share_blocks and target is None:
        raise UsageError("a stream shares no blocks", subject="--share-blocks", hint="name a file with `-o`")
    shared = writing.share_blocks
    if (
        writing.if_changed
        and target is not None
        and network.is_written(target, names=names, share_blocks=shared, progress=progress)
    ):
        return "up to date"
    if writing.dry_run:
        network.check(target, names=names, share_blocks=shared)
        return "planned"
    if target is None:
        network.stream(1, names=names, progress=progress)
    else:
        network.save(target, force=writing.force, names=names, share_blocks=shared, progress=progress)
    return "written"


def _report(network: Network, target: str, outcome: _Outcome, progress: Progress) -> dict[str, Any]:
    """What `--json` prints; size and digest are those of a file that is there."""
    size, sha256 = (None, None) if outcome == "planned" else digest(Path(target), progress)
    return {
        "output": target,
        "manifest": str(manifest_path(Path(target))),
        "written": outcome == "written",
        "up_to_date": outcome == "up to date",
        "size": size,
        "sha256": sha256,
        "operations": [operation_record(operation) for operation in network.operations],
        "architecture": dataclasses.asdict(network.architecture),
        "notes": list(network.notes),
        "other_sources": [plain(source) for source in network.recorded.other_sources],
        "plan": [dataclasses.asdict(step) for step in network.plan()],
    }
