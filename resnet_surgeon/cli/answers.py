"""Answers as commands: what a person typed, with the option that settles the error. Knows no error and no option by
name.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

from resnet_surgeon.errors import Answer


def command(program: str, arguments: Sequence[str], answer: Answer) -> str:
    """The command to type, for a shell to read, and after it what the answer means.

    >>> command("resnet-surgeon", ["inspect", "my file.pth"], Answer("key", "ema", "the averaged weights"))
    "resnet-surgeon inspect 'my file.pth' --key ema  # the averaged weights"
    """
    option = "--" + answer.option.replace("_", "-")
    end = arguments.index("--") if "--" in arguments else len(arguments)
    typed = [program, *_without(option, arguments[:end]), option, answer.value, *arguments[end:]]
    return f"{shlex.join(typed)}  # {answer.why}"


def _without(option: str, arguments: Sequence[str]) -> Iterator[str]:
    """The arguments but for an option and its value, in both spellings: the answer is the whole value."""
    rest = iter(arguments)
    for argument in rest:
        if argument == option:
            next(rest, None)
        elif not argument.startswith(f"{option}="):
            yield argument
