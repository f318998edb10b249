"""What every operation's command does: open, operate, write, say so. The options that all commands share."""

from __future__ import annotations

import dataclasses
import json as json_format
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import resnet_surgeon as rs
from resnet_surgeon.cli import text
from resnet_surgeon.errors import AccessError, UsageError, message
from resnet_surgeon.formats.files import write_all
from resnet_surgeon.manifest import operation_record
from resnet_surgeon.network import Network
from resnet_surgeon.operations.checkpoint import Operation, option
from resnet_surgeon.sources.progress import Progress, silent
from resnet_surgeon.writing.targets import manifest_path

STANDARD_OUTPUT = "-"


@dataclass(frozen=True)
class Options:
    """The options that every operation's command has: where the network is from, where it goes, and what is said."""

    weights: str | None = option(
        "Published weights of a model name: DEFAULT, IMAGENET1K_V1, IMAGENET1K_V2; or random.", default=None
    )
    seed: int = option("Seed of what is drawn at random.", default=0)
    key: str | None = option("Which network to take, if a file holds several: its key or prefix.", default=None)
    output: str | None = option(
        "The file to write, or - for a stream on standard output. Left out: a name from source and operation.",
        spelling="-o",
        default=None,
    )
    force: bool = option("Replace an existing file.", default=False)
    dry_run: bool = option("Print the plan and write nothing.", default=False)
    json: bool = option("Print one JSON document on standard output in place of the path.", default=False)
    quiet: bool = option("Say nothing on standard error but errors.", spelling="-q", default=False)
    debug: bool = option("Show the traceback of an error.", default=False)

    @property
    def progress(self) -> Progress:
        if self.quiet or not sys.stderr or not sys.stderr.isatty():
            return silent
        from resnet_surgeon.cli.progress import bar

        return bar


def run(source: str, operation: Operation, options: Options) -> None:
    """Opens, operates, writes, and says so."""
    # numpy's linear algebra, which no operation uses, would take 40 MiB and a thread for each processor.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    to_stream = options.output == STANDARD_OUTPUT
    if to_stream and options.json:
        raise UsageError("--json and `-o -` both want standard output", hint="write to a file, or leave --json out")
    if to_stream and not options.dry_run and os.isatty(1):
        raise UsageError(
            "standard output is a terminal, and a stream of tensors is not text",
            hint="pipe it into a command, or name a file with `-o`",
        )
    network = rs.open(
        source, weights=options.weights, seed=options.seed, key=options.key, progress=options.progress
    ).apply(operation)
    target = network.default_name if options.output is None else options.output
    if options.dry_run:
        network.check()
    elif to_stream:
        network.stream(1, progress=options.progress)
    else:
        network.save(target, force=options.force, progress=options.progress)
    if not options.quiet:
        print(text.summary(network, "standard output" if to_stream else target), file=sys.stderr)
        if options.dry_run:
            in_the_way = not options.force and not to_stream and os.path.lexists(target)
            note = f" ({target} exists already: this would need `--force`)" if in_the_way else ""
            print(message(f"dry run: nothing was written{note}"), file=sys.stderr)
    if options.json:
        to_standard_output(json_format.dumps(_report(network, target, options), indent=1, sort_keys=True))
    elif not to_stream and not options.dry_run:
        to_standard_output(target)


def _report(network: Network, target: str, options: Options) -> dict[str, Any]:
    """What `--json` prints."""
    return {
        "output": target,
        "manifest": str(manifest_path(Path(target))),
        "written": not options.dry_run,
        "operations": [operation_record(operation) for operation in network.operations],
        "architecture": dataclasses.asdict(network.architecture),
        "plan": [dataclasses.asdict(step) for step in network.plan()],
    }


def to_standard_output(line: str) -> None:
    """Writes the line as it is, whatever the locale; names of files are bytes."""
    try:
        data = os.fsencode(line + "\n")
    except UnicodeEncodeError:  # what the locale has no letters for
        data = (line + "\n").encode(sys.getfilesystemencoding(), "backslashreplace")
    try:
        write_all(1, data)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise AccessError(f"writing failed: {error.strerror}", subject="standard output") from None
