"""How a function becomes a command: its parameters become arguments and options, a dataclass the options of its fields.
Knows no command.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import typer

from resnet_surgeon.cli.completion import offer
from resnet_surgeon.cli.lines import lines
from resnet_surgeon.cli.typed import TypedCommand
from resnet_surgeon.errors import UsageError, message, printable
from resnet_surgeon.fields import Line
from resnet_surgeon.platform.signals import READER_GONE, Signalled

LIST = "A,B"  # what help shows for the value of a list
_hints = functools.cache(get_type_hints)
_DEBUG = inspect.Parameter(
    "debug",
    inspect.Parameter.KEYWORD_ONLY,
    default=False,
    annotation=Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")],
)


def declare(app: typer.Typer, name: str, function: Callable[..., None], example: str) -> None:
    """Adds the function to the app as a command, its docstring as the help.

    A parameter that is a dataclass stands for its fields, whose metadata says how they are spelled: as an option, or as
    arguments (`OTHERS...`). What two dataclasses both have is one option; if it is of two types, it is the first one's,
    and the other keeps its default. Every command has `--debug`.
    """
    groups, signature = _groups(function), _signature(function)

    def command(*, debug: bool, **typed: Any) -> None:
        try:
            function(**_arguments(groups, signature, typed))
        except BrokenPipeError:
            raise Signalled(READER_GONE) from None  # before typer makes it an exit code
        except (typer.Exit, typer.Abort):
            raise
        except Exception as error:
            if debug:
                _print_traceback(error)
            raise

    command.__signature__ = signature  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in signature.parameters.values()}
    text = _paragraphs(function.__doc__ or "")
    app.command(name, cls=TypedCommand, help=text, epilog=f"Example: {example}")(command)


def _groups(function: Callable[..., None]) -> dict[str, Any]:
    """The parameters that are dataclasses."""
    return {name: hint for name, hint in _hints(function).items() if dataclasses.is_dataclass(hint)}


def _signature(function: Callable[..., None]) -> inspect.Signature:
    groups, hints = _groups(function), get_type_hints(function, include_extras=True)
    parameters: dict[str, inspect.Parameter] = {}
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name in groups:
            for field in _parameters(groups[parameter.name]):
                parameters.setdefault(field.name, field)
        else:
            kind = inspect.Parameter.KEYWORD_ONLY
            parameters[parameter.name] = parameter.replace(kind=kind, annotation=hints[parameter.name])
    return inspect.Signature([*parameters.values(), _DEBUG])


def _arguments(groups: dict[str, Any], signature: inspect.Signature, typed: dict[str, Any]) -> dict[str, Any]:
    """The function's arguments from what was typed. Raises UsageError for what the dataclasses refuse."""
    hints = {name: _hints(group) for name, group in groups.items()}
    owned: dict[str, Any] = {}
    of_groups = {}
    for name, group in groups.items():
        fields = [field.name for field in _asked(group)]
        own = [field for field in fields if owned.setdefault(field, hints[name][field]) == hints[name][field]]
        of_groups[name] = group(**{field: _converted(group, field, typed[field]) for field in own})
    return {**of_groups, **{name: value for name, value in typed.items() if name not in owned}}


def _asked(group: type[Any]) -> list[dataclasses.Field[Any]]:
    """The fields that are options: not what the operation finds out."""
    return [field for field in dataclasses.fields(group) if not field.metadata.get("found")]


def _parameters(group: Any) -> Iterator[inspect.Parameter]:
    hints = _hints(group)
    for field in _asked(group):
        hint, spelling = hints[field.name], field.metadata["spelling"]
        if spelling and not spelling.startswith("-"):
            yield _arguments_called(spelling, field)
            continue
        names = [f"--{field.name.replace('_', '-')}", *([spelling] if spelling else [])]
        required = field.default is dataclasses.MISSING
        panel = getattr(group, "panel", "Options")
        info = typer.Option(
            *names,
            help=_help(field, hint),
            rich_help_panel=panel,
            metavar=_metavar(field, hint),
            autocompletion=offer(field.name, _choices(hint)),
        )
        annotation: Any = (str if required else str | None) if _is_list(hint) or hint is Any else hint
        if _described(hint):
            annotation = list[str] if required else list[str] | None
        yield inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if required else None if _described(hint) else field.default,
            annotation=Annotated[annotation, info],
        )


def _arguments_called(metavar: str, field: Any) -> inspect.Parameter:
    """The arguments that follow those before them, as many as are typed."""
    info = typer.Argument(help=str(field.metadata["help"]), metavar=metavar, show_default=False)
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(field.name, kind, annotation=Annotated[list[str], info])


def _metavar(field: Any, hint: Any) -> str | None:
    """LIST for a list, the option's own name for a choice, fields for what has some, and typer's word for the rest."""
    if (kind := _described(hint)) is not None:
        return ",".join(f"{one.name}={one.name[0].upper()}" for one in dataclasses.fields(kind)[:2]) + ",..."
    if hint is Any:
        return "SOURCE"
    if _is_list(hint):
        return LIST
    return str(field.name).upper() if _choices(hint) else None


def _help(field: Any, hint: Any) -> str:
    choices = _choices(hint)
    return f"{field.metadata['help']} One of {', '.join(choices)}." if choices else str(field.metadata["help"])


def _choices(hint: Any) -> tuple[str, ...]:
    literal = next((part for part in (hint, *get_args(hint)) if get_origin(part) is Literal), None)
    return get_args(literal)


def _is_list(hint: Any) -> bool:
    return any(get_origin(part) in (tuple, Sequence) for part in (hint, *get_args(hint)))


def _items(hint: Any) -> list[Any]:
    """What the lists hold that the hint allows."""
    parts = (hint, *get_args(hint), *(inner for part in get_args(hint) for inner in get_args(part)))
    return [get_args(part)[0] for part in parts if get_origin(part) in (tuple, Sequence)]


def _described(hint: Any) -> Any:
    """The dataclass that each item of a list is, if it is one: such an option is typed once for each item."""
    return next((item for item in _items(hint) if dataclasses.is_dataclass(item)), None)


def _converted(kind: Any, name: str, typed: Any, separator: str = ",") -> Any:
    """The value of the dataclass's field from what was typed: a tuple from a list, a number, or the text itself. What
    is no number stays text, which the field's own rule refuses.
    """
    hint = _hints(kind)[name]
    if (item := _described(hint)) is not None:
        return tuple(_item(item, text, f"--{name}") for text in typed or ())
    if not isinstance(typed, str):
        return typed
    if not _is_list(hint):
        return _single(hint, typed)
    if Line in _items(get_type_hints(kind, include_extras=True)[name]):
        return lines(typed, separator)
    return _list(hint, typed, name, separator)


def _single(hint: Any, typed: str) -> Any:
    kinds = (hint, *get_args(hint))
    if bool in kinds:
        return {"true": True, "false": False}.get(typed, typed)
    for kind in (int, float):
        if kind in kinds:
            try:
                return kind(typed)
            except ValueError:
                return typed
    return typed


def _item(kind: Any, typed: str, subject: str) -> dict[str, Any]:
    """The fields of one item, typed as `name=grade,hidden=512+256`: a list within it is separated by `+`."""
    names = [field.name for field in dataclasses.fields(kind)]
    made: dict[str, Any] = {}
    for part in typed.split(","):
        name, equals, value = (text.strip() for text in part.partition("="))
        if name not in names or not equals:
            hint = f"write fields like {names[0]}=..., separated by commas: {', '.join(names)}"
            raise UsageError(f"{printable(part)} is no field with a value", subject=subject, hint=hint)
        if name in made:
            raise UsageError(f"{name} is given twice", subject=subject, hint="give it once")
        made[name] = _converted(kind, name, value, separator="+")
    return made


def _list(hint: Any, typed: str, name: str, separator: str) -> Any:
    """A tuple; or, where the field takes such and each item is `name=number`, the numbers by their names."""
    items = [item.strip() for item in typed.split(separator)]
    kinds = [kind for kind in (int, float) if kind in _items(hint)]
    if not kinds:
        return tuple(items)
    takes_names = any(get_origin(part) is Mapping for part in get_args(hint))
    if takes_names and all("=" in item for item in items):
        pairs = [[text.strip() for text in item.split("=", 1)] for item in items]
        if len({key for key, _ in pairs}) < len(pairs):
            raise UsageError("a name is given twice", subject=f"--{name}")
        return {key: _single(int, number) for key, number in pairs}
    try:
        return tuple(kinds[0](item) for item in items)
    except ValueError:
        what, example = ("whole numbers", f"3{separator}5") if int in kinds else ("numbers", f"0.7{separator}0.3")
        way = "commas" if separator == "," else f"`{separator}`"
        subject, way = f"--{name.replace('_', '-')}", f"separate them by {way}: {example}"
        raise UsageError(f"{typed!r} is not a list of {what}", subject=subject, hint=way) from None


def _paragraphs(docstring: str) -> str:
    """The docstring with each paragraph on one line, for a terminal to wrap."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in docstring.split("\n\n"))


def _print_traceback(error: Exception) -> None:
    import sys
    import traceback

    lines = "".join(traceback.format_exception(error)).splitlines()
    print(*map(message, lines), sep="\n", file=sys.stderr)
