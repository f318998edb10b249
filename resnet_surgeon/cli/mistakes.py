"""What somebody meant who typed an option, a command or an argument that does not exist: the command to type instead.

Knows the commands by what they declare, and runs none.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from resnet_surgeon.cli.declaration import LIST

_PIPE = ("-o", "-")


def meant(program: str, arguments: Sequence[str], commands: Mapping[str, Any], operations: Iterable[str]) -> str | None:
    """The command that does what was probably wanted, for a shell to read; None where nothing suggests itself.

    `commands` are typer's own, by name; `operations` are the names of those that can be chained.

    >>> meant("resnet-surgeon", ["my.pth", "--in-ch", "1"], commands, ["adapt"])
    'resnet-surgeon adapt my.pth --in-ch 1'
    """
    if not arguments or arguments[0].startswith("-"):
        return None
    chainable = [operation for operation in operations if operation in commands]
    lists = {spelling for name in commands for spelling in _lists(commands[name])}
    name, *rest = joined = _joined(arguments, lists)
    if name not in commands:
        return _without_command(program, joined, commands, chainable)
    both = _two_at_once(program, name, rest, commands, chainable)
    return both or (shlex.join([program, *joined]) if joined != [*arguments] else None)


def _without_command(
    program: str, arguments: Sequence[str], commands: Mapping[str, Any], chainable: Sequence[str]
) -> str | None:
    """The source stands where the command should: that to which the options belong, else a look at the source."""
    typed = {argument.partition("=")[0] for argument in arguments if argument.startswith("--")}
    for name in chainable:
        if typed & _own(name, commands, chainable):
            return shlex.join([program, name, *arguments])
    return shlex.join([program, "inspect", *arguments]) if len(arguments) == 1 and "." in arguments[0] else None


def _joined(arguments: Sequence[str], lists: set[str]) -> list[str]:
    """The arguments with `--classes 3 5` written `--classes 3,5`."""
    joined: list[str] = []
    for argument in arguments:
        if len(joined) > 1 and joined[-2] in lists and _alike(joined[-1], argument):
            joined[-1] += f",{argument}"
        else:
            joined.append(argument)
    return joined


def _alike(items: str, argument: str) -> bool:
    """Whether the argument could be a further item: both are numbers."""
    return all(re.fullmatch(r"\d+", item.strip()) for item in (*items.split(","), argument))


def _two_at_once(
    program: str, name: str, arguments: Sequence[str], commands: Mapping[str, Any], chainable: Sequence[str]
) -> str | None:
    """`adapt X --in-ch 1 --classes 3` (or `--heads 3`) as a pipe of two operations; as the other one alone, if nothing
    of the first was asked for.
    """
    known = _options(commands[name])
    for index, argument in enumerate(arguments):
        option, _, value = argument.partition("=")
        if not option.startswith("--") or option in known:
            continue
        for other in chainable:
            is_name = option == f"--{other}"
            if other == name or name not in chainable or not (is_name or option in _own(other, commands, chainable)):
                continue
            values = [value] if value else [*arguments[index + 1 : index + 2]]
            spelled = [_first(commands[other]) if is_name else option, *values]
            before = [*arguments[:index], *arguments[index + 1 + (not value) :]]
            if not {one.partition("=")[0] for one in before} & _own(name, commands, chainable):
                return shlex.join([program, other, *before, *spelled])
            return f"{shlex.join([program, name, *before, *_PIPE])} | {shlex.join([program, other, '-', *spelled])}"
    return None


def _own(name: str, commands: Mapping[str, Any], chainable: Sequence[str]) -> set[str]:
    """The options that of all operations this one alone has."""
    others = [_options(commands[other]) for other in chainable if other != name]
    return _options(commands[name]).difference(*others)


def _options(command: Any) -> set[str]:
    return {spelling for parameter in command.params for spelling in parameter.opts if spelling.startswith("-")}


def _first(command: Any) -> str:
    """The option that a person names first, in its shortest spelling."""
    first = next(parameter for parameter in command.params if parameter.opts[0].startswith("-"))
    return str(min(first.opts, key=len))


def _lists(command: Any) -> set[str]:
    return {spelling for parameter in command.params if parameter.metavar == LIST for spelling in parameter.opts}
