"""The commands: one for each operation, and those that look at files. No arithmetic, no file is touched here."""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterable
from typing import Annotated, Any

import typer

from resnet_surgeon.cli.apply import apply
from resnet_surgeon.cli.convert import convert
from resnet_surgeon.cli.declaration import Typed, declare
from resnet_surgeon.cli.diff import diff
from resnet_surgeon.cli.inspect import inspect
from resnet_surgeon.cli.list import list_weights
from resnet_surgeon.cli.options import Json, Opening, OtherOpening, Packing, Quiet, Source, Writing
from resnet_surgeon.cli.output import PROGRAM, show_version
from resnet_surgeon.cli.recipe import recipe
from resnet_surgeon.cli.report import report
from resnet_surgeon.cli.verify import verify
from resnet_surgeon.operations import OPERATIONS
from resnet_surgeon.operations.checkpoint import Operation, takes_one_other
from resnet_surgeon.sources.location import DEFAULT_NAME
from resnet_surgeon.writing.names import Names

_EXAMPLE = "resnet-surgeon adapt --in-ch 1 -o - | resnet-surgeon heads - --classes 3,5 -o model.safetensors"


def _operates(kind: type[Operation]) -> Callable[..., None]:
    """The function of an operation's command."""

    def operate(
        source: Source = DEFAULT_NAME,
        *,
        operation: Operation,
        opening: Opening,
        writing: Writing,
        json: Json = False,
        quiet: Quiet = False,
    ) -> None:
        from resnet_surgeon.cli.run import run

        run(source, operation, opening, writing, json=json, quiet=quiet)

    def operate_within(
        source: Source = DEFAULT_NAME,
        *,
        operation: Operation,
        opening: Opening,
        packing: Packing,
        writing: Writing,
        json: Json = False,
        quiet: Quiet = False,
    ) -> None:
        from resnet_surgeon.cli.run import run

        names: Names = "packed" if packing.keep_packing else "torchvision"
        run(source, operation, opening, writing, names=names, json=json, quiet=quiet)

    def operate_with_another(
        source: Source = DEFAULT_NAME,
        *,
        operation: Operation,
        opening: Opening,
        other: OtherOpening,
        writing: Writing,
        json: Json = False,
        quiet: Quiet = False,
    ) -> None:
        from resnet_surgeon.cli.run import run

        run(source, operation, opening, writing, other=other, json=json, quiet=quiet)

    function: Callable[..., None] = operate_within if kind.keeps_packing else operate
    if takes_one_other(kind):
        function = operate_with_another
    function.__annotations__ = {**typing.get_type_hints(function, include_extras=True), "operation": kind}
    function.__doc__ = kind.__doc__
    return function


def _show_version(wanted: bool) -> None:
    if wanted:
        show_version()
        raise typer.Exit


_OTHERS: dict[str, tuple[Callable[..., Any], str]] = {
    "convert": (convert, "convert lightning.ckpt -o model.pth"),
    "apply": (apply, "apply recipe.yaml --set channels=4"),
    "recipe": (recipe, "recipe model.safetensors > recipe.yaml"),
    "verify": (verify, "verify model.safetensors --against resnet50"),
    "report": (report, "report model.safetensors --against resnet50 -o report.html"),
    "diff": (diff, "diff resnet50.pth resnet50-in1.safetensors"),
    "inspect": (inspect, "inspect model.safetensors --tensors"),
    "list": (list_weights, "list --json"),
}


def _main(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    pass


NAMES = (*OPERATIONS, *_OTHERS)


def declared(names: Iterable[str] = NAMES) -> typer.Typer:
    """The program with these of its commands: to declare all takes longer than to copy a network."""
    app = typer.Typer(
        name=PROGRAM,
        cls=Typed,
        help="Surgery on torchvision ResNet checkpoints: adapt the input channels, remove layers, add heads.",
        epilog=f"Example: {_EXAMPLE}",
        no_args_is_help=True,
        add_completion=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_main)
    for name in names:
        if name in OPERATIONS:
            declare(app, name, _operates(OPERATIONS[name]), OPERATIONS[name].example)
        else:
            function, example = _OTHERS[name]
            declare(app, name, function, f"{PROGRAM} {example}")
    return app
