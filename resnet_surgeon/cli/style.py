"""Colours for people at a terminal; plain text for pipes, files, CI, and whoever set NO_COLOR."""

from __future__ import annotations

import os

import typer


def styled(text: str, descriptor: int, *, colour: str | None = None, bold: bool = False, dim: bool = False) -> str:
    """The text as it goes to a descriptor: coloured if that is a terminal that can, and NO_COLOR is not set."""
    can = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb" and is_terminal(descriptor)
    return typer.style(text, fg=colour, bold=bold or None, dim=dim or None) if can else text


def is_terminal(descriptor: int) -> bool:
    """Whether a person reads what goes to the descriptor; a closed one nobody does."""
    try:
        return os.isatty(descriptor)
    except OSError:
        return False
