"""The commands by name, each imported when it is wanted: to import all takes longer than to copy a network."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import Annotated

import typer

from resnet_surgeon.cli.output import PROGRAM, show_version
from resnet_surgeon.cli.typed import TypedGroup
from resnet_surgeon.operations import OPERATIONS

_COMPLETING = "_RESNET_SURGEON_COMPLETE"  # set by the shell that asks what a user may type
_EXAMPLE = "resnet-surgeon adapt --in-ch 1 -o - | resnet-surgeon heads - --classes 3,5 -o model.safetensors"

# What the program's help says of each command: the first paragraph of its own.
SUMMARIES = {
    "adapt": "Adapt the input channels of conv1, keeping its pretrained filters.",
    "stem": "Give the stem another kernel, stride or maxpool, for images that are smaller than ImageNet's.",
    "remove": "Remove the last layers, or layers by name.",
    "depth": (
        "Give every stage so many residual blocks: `--blocks 3,4,23,3` makes a ResNet-50 the start of a ResNet-101."
    ),
    "dilate": "Replace the strides of the last stages by dilation, so that their feature maps are larger.",
    "features": "Let the network return the feature maps of some layers, as a dict by name.",
    "heads": "Replace the classifier by one or several new ones, or add some.",
    "cast": "Write the numbers in another floating point type, rounded as torch's `.to()` rounds them, to the bit.",
    "fuse": "Fold the batch norms into the convolutions before them, for inference.",
    "graft": "Take parts of another checkpoint into the network, to the bit.",
    "average": "Average several checkpoints of one network: the last epochs of a run, or a soup of fine-tuned models.",
    "convert": (
        "Write the network as it is, out of whatever it was packed in: as a safetensors file or one like torch.save's."
    ),
    "apply": "Build what a recipe says: several operations, several outputs, variables.",
    "recipe": "Print the recipe that made a file: `apply` makes the same bytes of it, where the source lies beside.",
    "verify": "Prove that a file is what its manifest says: the document, every tensor, and what the network computes.",
    "report": (
        "Write one page about a file: pictures of the network, its filters, every tensor, the proofs, how to load it."
    ),
    "diff": (
        "Say what sets two networks apart: tensors added, removed, renamed and changed, and the architecture in words."
    ),
    "inspect": "Say what a file is: container, packing, network, dtypes, digest, history, and which operations apply.",
    "list": (
        "List torchvision's published ResNet weights: accuracy on ImageNet-1K, size, and which are on this machine."
    ),
}

# Those that are no operations, each a function of its file, with an example.
_OTHERS = {
    "convert": ("convert", "convert lightning.ckpt -o model.pth"),
    "apply": ("apply", "apply recipe.yaml --set channels=4"),
    "recipe": ("recipe", "recipe model.safetensors > recipe.yaml"),
    "verify": ("verify", "verify model.safetensors --against resnet50"),
    "report": ("report", "report model.safetensors --against resnet50 -o report.html"),
    "diff": ("diff", "diff resnet50.pth resnet50-in1.safetensors"),
    "inspect": ("inspect", "inspect model.safetensors --tensors"),
    "list": ("list_weights", "list --json"),
}


def program(arguments: Sequence[str]) -> typer.Typer:
    """As much of the program as these arguments need."""
    if arguments and arguments[0] in SUMMARIES:
        return declared(arguments[:1])
    wants_help = [*arguments] in ([], ["-h"], ["--help"]) and _COMPLETING not in os.environ
    return outlined() if wants_help else declared()


def declared(names: Iterable[str] = tuple(SUMMARIES)) -> typer.Typer:
    """The program with these of its commands."""
    from resnet_surgeon.cli.declaration import declare
    from resnet_surgeon.cli.operate import operates

    app = _empty()
    for name in names:
        if name in OPERATIONS:
            declare(app, name, operates(OPERATIONS[name]), OPERATIONS[name].example)
        else:
            function, example = _OTHERS[name]
            command = getattr(import_module(f"resnet_surgeon.cli.{name}"), function)
            declare(app, name, command, f"{PROGRAM} {example}")
    return app


def outlined() -> typer.Typer:
    """The program as its help shows it: of the commands nothing but names and summaries."""
    app = _empty()
    for name, summary in SUMMARIES.items():
        app.command(name, help=summary)(_nothing)
    return app


def _nothing() -> None:
    pass


def _empty() -> typer.Typer:
    app = typer.Typer(
        name=PROGRAM,
        cls=TypedGroup,
        help="Surgery on torchvision ResNet checkpoints: adapt the input channels, remove layers, add heads.",
        epilog=f"Example: {_EXAMPLE}",
        no_args_is_help=True,
        add_completion=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_main)
    return app


def _show_version(wanted: bool) -> None:
    if wanted:
        show_version()
        raise typer.Exit


def _main(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    pass
