"""The manual page, `man resnet-surgeon`: from the commands as typer has them, and the tables of docs/scripts.md."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.main import get_command

from resnet_surgeon.cli.app import app


def page() -> str:
    """The page in roff's man macros."""
    group: Any = get_command(app)
    return "\n".join([*_head(group), *_commands(group), *_tables(), ""])


def _head(group: Any) -> Iterator[str]:
    yield from ('.TH RESNET\\-SURGEON 1 "" "resnet\\-surgeon"', ".SH NAME")
    yield f"resnet\\-surgeon \\- {_text(group.help[0].lower() + group.help[1:]).rstrip('.')}"
    yield from (".SH SYNOPSIS", ".B resnet\\-surgeon", ".I COMMAND", "[\\fISOURCE\\fR] [\\fIOPTION\\fR...]")


def _commands(group: Any) -> Iterator[str]:
    yield ".SH COMMANDS"
    for name, command in group.commands.items():
        yield f".SS {_text(name)}"
        for paragraph in (*command.help.split("\n\n"), command.epilog):
            yield from (".PP", _text(" ".join(paragraph.split())))
        for parameter in command.params:
            spelled = ", ".join(f"\\fB{_text(one)}\\fR" for one in parameter.opts if one.startswith("-"))
            value = "" if getattr(parameter, "is_flag", False) else f"\\fI{_text(parameter.metavar or 'VALUE')}\\fR"
            yield from (".TP", " ".join(filter(None, (spelled, value))), _text(parameter.help or ""))


def _tables() -> Iterator[str]:
    """Exit codes and environment variables."""
    text = (Path(__file__).parent / "scripts.md").read_text("utf-8")
    for title, heading in (('"EXIT STATUS"', "Exit codes"), ("ENVIRONMENT", "Environment variables")):
        yield f".SH {title}"
        section = text.split(f"## {heading}\n")[1].split("\n## ")[0]
        for row in re.findall(r"^\| (?!code|variable)(.*) \|$", section, re.MULTILINE):
            first, meaning, *_ = row.split(" | ")
            yield from (".TP", f"\\fB{_text(first.replace('`', ''))}\\fR", _text(meaning.replace("`", "").rstrip(" |")))


def _text(text: str) -> str:
    """Text in which nothing is a request or an escape."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped
