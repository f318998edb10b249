"""The options that several commands share, each declared once: a command takes a group of them as one parameter, and
those by themselves by their names here. Opens nothing.
"""

from __future__ import annotations

import sys
from dataclasses import fields
from typing import Annotated, Any, ClassVar

import typer

from resnet_surgeon.architecture.facts import HELP
from resnet_surgeon.cli.completion import models
from resnet_surgeon.dataclass import dataclass
from resnet_surgeon.operations.checkpoint import option
from resnet_surgeon.sources.progress import Progress, silent

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Print nothing but errors on standard error.")]
Silent = Annotated[bool, typer.Option("-q", "--quiet", help="Print nothing; only set the exit code.")]
Source = Annotated[
    str,
    typer.Argument(
        help="A model name (resnet18 ... wide_resnet101_2), a checkpoint's path or address, or - for standard input.",
        metavar="SOURCE",
        autocompletion=models,
    ),
]


@dataclass(frozen=True)
class Opening:
    """How a source is opened, on every command that opens one: each field is a keyword of `rs.open`."""

    panel: ClassVar[str] = "Source"

    weights: str | None = option(
        "Published weights of a model name: DEFAULT, IMAGENET1K_V1, IMAGENET1K_V2; or random.", default=None
    )
    key: str | None = option("Which network to take, if a file holds several: its key or prefix.", default=None)
    assume: str | None = option(HELP, default=None)
    fc: str | None = option(
        "Which linear layer is the classifier, if it is not plain: its name in the file; or none.", default=None
    )
    ignore: tuple[str, ...] = option(
        "Layers that may be left out though data passes through them: patterns of their names, such as ca.*.",
        default=(),
    )
    manifest: str | None = option(
        "The file's manifest, if that is neither in the file nor beside it: of what was trained and saved without it.",
        default=None,
    )
    seed: int = option("Seed for whatever is drawn at random.", default=0)

    @property
    def keywords(self) -> dict[str, Any]:
        """What was stated, for `rs.open` and every function that passes it on to `rs.open`."""
        return {field.name: value for field in fields(self) if (value := getattr(self, field.name)) != field.default}


@dataclass(frozen=True)
class OtherOpening:
    """How the one other source of an operation is opened: `from_key` is to it what `key` is to the first."""

    panel: ClassVar[str] = "The source that the parts are from"

    from_weights: str | None = option("Its published weights, if it is a model name; or random.", default=None)
    from_key: str | None = option("Which network to take, if it holds several.", default=None)
    from_assume: str | None = option("What its tensors do not show, as for --assume.", default=None)
    from_fc: str | None = option("Which linear layer is its classifier; or none.", default=None)
    from_ignore: tuple[str, ...] = option("Layers of it that may be left out.", default=())
    from_manifest: str | None = option("Its manifest.", default=None)
    from_seed: int = option("Seed for its random weights.", default=0)

    @property
    def keywords(self) -> dict[str, Any]:
        """What was stated, for `rs.open`."""
        stated = ((field, getattr(self, field.name)) for field in fields(self))
        return {field.name.removeprefix("from_"): value for field, value in stated if value != field.default}


@dataclass(frozen=True)
class Writing:
    """Where an operation's network goes, and what replaces what."""

    panel: ClassVar[str] = "Output"

    output: str | None = option(
        "The file to write: .safetensors, or .pth, .pt, .pth.tar, .ckpt, .bin for a file like torch.save's; or - for a "
        "safetensors stream on standard output. Left out: a name from source and operation.",
        spelling="-o",
        default=None,
    )
    force: bool = option("Replace an existing file.", default=False)
    if_changed: bool = option(
        "Touch nothing if the file and its manifest are already, byte for byte, what would be written.", default=False
    )
    share_blocks: bool = option(
        "Place the tensors so that XFS, btrfs and the like keep one copy of what the file shares with its source.",
        default=False,
    )
    dry_run: bool = option("Print the plan and write nothing.", default=False)


@dataclass(frozen=True)
class Packing:
    """What becomes of what stood around the network, for an operation after which it still fits."""

    panel: ClassVar[str] = "Output"

    keep_packing: bool = option(
        "Write all that the network was packed in, such as a detector: every other tensor and every name as it was.",
        default=False,
    )


def progress(quiet: bool = False) -> Progress:
    """Bars where a person looks at standard error, when quiet too for a download; lines in a log, unless quiet."""
    is_seen = bool(sys.stderr and sys.stderr.isatty())
    if not is_seen and quiet:
        return silent
    from resnet_surgeon.cli.progress import bars, downloads, lines

    shown = bars() if is_seen else lines()
    return downloads(shown) if quiet else shown
