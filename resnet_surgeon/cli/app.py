"""The commands: one for each operation, its options read off the operation's fields. No arithmetic, no file is touched
here.
"""

from __future__ import annotations

import dataclasses
import inspect
import signal
import typing
from collections.abc import Iterator
from typing import Annotated, Any, Literal, get_args, get_origin

import typer

from resnet_surgeon._version import __version__
from resnet_surgeon.cli.diff import diff as diff_command
from resnet_surgeon.cli.inspect import inspect as inspect_command
from resnet_surgeon.cli.list import list_weights
from resnet_surgeon.cli.report import report as report_command
from resnet_surgeon.cli.run import Options, run, to_standard_output
from resnet_surgeon.cli.signals import Signalled
from resnet_surgeon.cli.verify import verify as verify_command
from resnet_surgeon.errors import UsageError
from resnet_surgeon.operations import OPERATIONS
from resnet_surgeon.operations.checkpoint import Operation
from resnet_surgeon.sources.location import DEFAULT_NAME

PROGRAM = "resnet-surgeon"

app = typer.Typer(
    name=PROGRAM,
    help="Surgery on torchvision ResNet checkpoints: adapt the input channels, remove layers, add heads.",
    epilog="Example: resnet-surgeon adapt --in-ch 1 -o - | resnet-surgeon heads - --classes 3,5 -o model.safetensors",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _add_command(operation: type[Operation]) -> None:
    own = [field for field in dataclasses.fields(typing.cast(Any, operation)) if field.name not in _names(Options)]

    def command(source: str, **values: Any) -> None:
        options = Options(**{name: values[name] for name in _names(Options)})
        arguments = {name: _from_text(hints[name], values[name], name) for name in _names(operation)}
        try:
            run(source, operation(**arguments), options)
        except BrokenPipeError:
            raise Signalled(signal.SIGPIPE) from None

    hints = typing.get_type_hints(operation)
    parameters = [
        inspect.Parameter(
            "source", inspect.Parameter.POSITIONAL_OR_KEYWORD, default=DEFAULT_NAME, annotation=Annotated[str, _SOURCE]
        ),
        *_parameters(own, hints, "Options"),
        *_parameters(dataclasses.fields(Options), typing.get_type_hints(Options), "Input and output"),
    ]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    command.__name__ = operation.name
    app.command(operation.name, help=_paragraphs(operation.__doc__ or ""), epilog=f"Example: {operation.example}")(
        command
    )


_SOURCE = typer.Argument(
    help="A model name (resnet18 ... wide_resnet101_2), a checkpoint's path or address, or - for standard input.",
    metavar="[SOURCE]",
)


def _paragraphs(docstring: str) -> str:
    """The docstring with each paragraph on one line, for a terminal to wrap."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in docstring.split("\n\n"))


def _names(options: type[Any]) -> list[str]:
    return [field.name for field in dataclasses.fields(options)]


def _parameters(fields: Any, hints: dict[str, Any], panel: str) -> Iterator[inspect.Parameter]:
    for field in fields:
        spelling = field.metadata["spelling"]
        names = [f"--{field.name.replace('_', '-')}", *([spelling] if spelling else [])]
        required = field.default is dataclasses.MISSING
        hint = hints[field.name]
        info = typer.Option(*names, help=_help(field, hint), rich_help_panel=panel, metavar=_metavar(field, hint))
        annotation: Any = (str if required else str | None) if _is_list(hint) else hint
        yield inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if required else field.default,
            annotation=Annotated[annotation, info],
        )


def _metavar(field: Any, hint: Any) -> str | None:
    """`A,B` for a list, the option's own name for a choice, and typer's word for the rest."""
    if _is_list(hint):
        return "A,B"
    return str(field.name).upper() if _choices(hint) else None


def _help(field: Any, hint: Any) -> str:
    choices = _choices(hint)
    return f"{field.metadata['help']} One of {', '.join(choices)}." if choices else str(field.metadata["help"])


def _choices(hint: Any) -> tuple[str, ...]:
    literal = next((part for part in (hint, *get_args(hint)) if get_origin(part) is Literal), None)
    return get_args(literal)


def _is_list(hint: Any) -> bool:
    return any(get_origin(part) is tuple for part in (hint, *get_args(hint)))


def _from_text(hint: Any, value: Any, name: str) -> Any:
    """The value of a field from what typer gives: a comma separated list for a tuple, anything else as it is."""
    if value is None or not _is_list(hint):
        return value
    items = [item.strip() for item in str(value).split(",")]
    tuple_hint = next(part for part in (hint, *get_args(hint)) if get_origin(part) is tuple)
    if get_args(tuple_hint)[0] is not int:
        return tuple(items)
    try:
        return tuple(int(item) for item in items)
    except ValueError:
        raise UsageError(
            f"{value!r} is not a list of whole numbers", subject=f"--{name}", hint="separate them by commas: 3,5"
        ) from None


def _show_version(wanted: bool) -> None:
    if wanted:
        to_standard_output(f"{PROGRAM} {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    pass


for _operation in OPERATIONS.values():
    _add_command(_operation)
for _name, _command, _example in (
    ("verify", verify_command, "verify model.safetensors --against resnet50"),
    ("report", report_command, "report model.safetensors --against resnet50 -o report.html"),
    ("diff", diff_command, "diff resnet50.pth resnet50-in1.safetensors"),
    ("inspect", inspect_command, "inspect model.safetensors --tensors"),
    ("list", list_weights, "list --json"),
):
    app.command(_name, help=_paragraphs(_command.__doc__ or ""), epilog=f"Example: {PROGRAM} {_example}")(_command)
