"""The errors a user can meet, each with the exit code it ends the command with.

SurgeonError
├── UsageError            2   the options are wrong, whatever the network
├── CheckpointError       1   a file's content is refused
│   └── ArchitectureError 1   its tensors are not a ResNet that we know
├── OperationError        1   this network cannot take this operation
├── AccessError           1   reading or writing failed
├── WeightsError          1   published weights could not be had
└── DependencyError       1   an optional package is not installed

Inner rooms raise the narrow fact; the room that knows the file or the operation adds it with `about`.
"""

from __future__ import annotations


class SurgeonError(Exception):
    """What was wrong with what, and what to do about it: one line each.

    `subject` is the file, option or operation concerned; `reason` is one sentence without a full stop; `hint` says what
    to do.
    """

    exit_code = 1

    def __init__(self, reason: str, *, subject: str | None = None, hint: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.subject = subject
        self.hint = hint

    def about(self, subject: str) -> SurgeonError:
        """The same error, told about `subject` unless it already names one."""
        self.subject = self.subject or subject
        return self

    def __str__(self) -> str:
        return f"{self.subject}: {self.reason}" if self.subject else self.reason


class UsageError(SurgeonError):
    """An option or argument is wrong, whatever network it is used on."""

    exit_code = 2


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
    return f"`{escaped(name if len(name) <= 80 else f'{name[:80]}...')}`"


def escaped(text: str) -> str:
    """The text with everything escaped that would move the cursor, begin a new line or not be seen."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode("ascii") for char in text
    )
