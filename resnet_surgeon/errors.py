"""The errors a user can meet, each with the exit code it ends the command with.

SurgeonError
├── UsageError            2   the options are wrong, whatever the network
│   └── RecipeError       2   a recipe has mistakes
├── CheckpointError       1   a file's content is refused
│   ├── OtherArchiveError 1   it is an archive, and none of torch's
│   └── ArchitectureError 1   its tensors are not a ResNet that we know
├── ContradictionError    1   two statements about one network contradict each other
├── OperationError        1   this network cannot take this operation
├── AccessError           1   reading or writing failed
├── WeightsError          1   published weights could not be obtained
└── DependencyError       1   an optional package is not installed

Inner rooms raise the narrow fact; the room that knows the file or the operation adds it with `about`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

_LONGEST_NAME = 80
_LONGEST_MESSAGE = 2000


class Answer(NamedTuple):
    """One way to settle what an error asks: the option to state, by its name in Python (`key`, which the command line
    spells `--key`), the whole value to give it, and in a few words what that means.
    """

    option: str
    value: str
    why: str


class SurgeonError(Exception):
    """What was wrong with what, and what to do about it: one line each.

    `subject` is the file, option or operation concerned; `reason` is one sentence without a full stop; `hint` says what
    to do. Where an option settles it, `answers` are its possible values: the command line prints each as the command to
    type.
    """

    exit_code = 1

    def __init__(
        self, reason: str, *, subject: str | None = None, hint: str | None = None, answers: Sequence[Answer] = ()
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.subject = subject
        self.hint = hint
        self.answers = tuple(answers)

    def about(self, subject: str) -> SurgeonError:
        """The same error, told about `subject` unless it already names one."""
        self.subject = self.subject or subject
        return self

    @property
    def what(self) -> str:
        """What was wrong with what."""
        return f"{self.subject}: {self.reason}" if self.subject else self.reason

    def __str__(self) -> str:
        """All of it, as a traceback shows it: for people who call this from Python."""
        answers = (f"{answer.option}={answer.value!r}: {answer.why}" for answer in self.answers)
        return "\n".join([self.what, *(f"hint: {line}" for line in (self.hint, *answers) if line)])


class UsageError(SurgeonError):
    """An option or argument is wrong, whatever network it is used on."""

    exit_code = 2


class RecipeError(UsageError):
    """A recipe has mistakes: each with its file, line and column, as `recipe.yaml:3:5: ...`."""

    def __init__(self, mistakes: Sequence[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = tuple(mistakes)


class CheckpointError(SurgeonError):
    """A file is not a checkpoint, or is damaged, or holds what is never read from strangers."""


class ArchitectureError(CheckpointError):
    """The tensors of a file are not those of a ResNet that this tool knows."""


class OperationError(SurgeonError):
    """The operation makes no sense on this network."""


class AccessError(SurgeonError):
    """A file could not be opened, read or written."""


class WeightsError(SurgeonError):
    """Published weights are neither in the cache nor to be downloaded."""


class DependencyError(SurgeonError):
    """An optional package that this function needs is not installed."""


def printable(name: str) -> str:
    """A name from a file, safe on a terminal: quoted, escaped, and cut where it is too long."""
    return f"`{escaped(name if len(name) <= _LONGEST_NAME else f'{name[:_LONGEST_NAME]}...')}`"


def listed(names: Sequence[str], most: int = 10) -> str:
    """The names one after the other; of many the first few, and how many more there are.

    >>> listed(["head1", "head2", "head3"], most=2)
    'head1, head2 and 1 more'
    """
    shown = ", ".join(names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")


def escaped(text: str) -> str:
    """The text with everything escaped that would move the cursor, begin a new line, turn the direction of reading or
    not be seen.
    """
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode("ascii") for char in text
    )


def message(text: str) -> str:
    """The text as one line that a person can read to its end: escaped, and cut where it is too long."""
    line = escaped(text[: _LONGEST_MESSAGE + 1])
    return line if len(line) <= _LONGEST_MESSAGE else f"{line[:_LONGEST_MESSAGE]}..."
