"""The process around a command: what it prints when it fails, and how it ends. The only place where errors become words
and exit codes.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

# A command lives for a fraction of a second and makes no cycles to speak of: collecting them would take a tenth of its
# time.
gc.disable()
# Work that leaves the interpreter (digests, copies) goes on in other threads meanwhile, and must not wait 5 ms for each
# turn.
sys.setswitchinterval(0.0002)

from resnet_surgeon.cli.answers import command  # noqa: E402
from resnet_surgeon.cli.output import PROGRAM, show_version  # noqa: E402
from resnet_surgeon.errors import RecipeError, SurgeonError, UsageError, message  # noqa: E402
from resnet_surgeon.formats.memory import check_room  # noqa: E402
from resnet_surgeon.platform.opening import standard_streams  # noqa: E402
from resnet_surgeon.platform.signals import READER_GONE, Signalled, check_signals, die_by, raise_on_signals  # noqa: E402

_BUG = 3
_LITTLE = 16 << 20  # bytes: with less left, what failed has failed for that


def main() -> NoReturn:
    """Runs the command line and ends the process: 0 done, 1 refused or failed, 2 wrong usage, 3 a bug of ours, or by
    the signal that came.
    """
    _fill_closed_descriptors()
    standard_streams()
    raise_on_signals()
    try:
        code = _run()
    except Signalled as signalled:
        if signalled.number == signal.SIGINT:
            print("interrupted", file=sys.stderr)
        die_by(signalled.number)
    _end(code)


def _run() -> int:
    try:
        return _command()
    except BrokenPipeError:
        raise Signalled(READER_GONE) from None
    except RecipeError as error:
        for mistake in error.mistakes:
            _tell(mistake, [], error.exit_code)
        return error.exit_code
    except SurgeonError as error:
        answers = [command(PROGRAM, sys.argv[1:], answer) for answer in error.answers]
        hint = _meant() if error.subject and error.subject.isdigit() else None  # a number is no source
        return _tell(error.what, [*filter(None, [hint or error.hint]), *answers], error.exit_code)
    except Exception as error:
        check_signals()
        if isinstance(error, MemoryError) or _is_short_of_memory():
            return _tell("not enough memory", [], 1)
        return _tell(
            f"this is a bug in {PROGRAM}: {type(error).__name__}: {error}",
            ["please report it with what the same command prints with `--debug`"],
            _BUG,
        )


def _command() -> int:
    if sys.argv[1:] == ["--version"]:  # for which no command need be imported
        show_version()
        return 0
    check_room(_LITTLE)  # before an import fails halfway, after which Python may hang
    import typer

    from resnet_surgeon.cli.commands import program

    try:
        return program(sys.argv[1:])(prog_name=PROGRAM, standalone_mode=False) or 0
    except typer.TyperException as error:
        if not error.format_message():
            return UsageError.exit_code  # no command: the help was shown
        hints = [*filter(None, [_meant()]), f"see `{_command_path(error)} --help`"]
        return _tell(error.format_message(), hints, UsageError.exit_code)


def _meant() -> str | None:
    """The command that was probably wanted."""
    from typer.main import get_command

    from resnet_surgeon.cli.app import app
    from resnet_surgeon.cli.mistakes import meant
    from resnet_surgeon.operations import OPERATIONS

    commands: Any = get_command(app)
    return meant(PROGRAM, sys.argv[1:], commands.commands, OPERATIONS)


def _is_short_of_memory() -> bool:
    """Then imports and libraries fail with errors of any kind."""
    try:
        check_room(_LITTLE)
    except MemoryError:
        return True
    return False


def _tell(reason: str, hints: Sequence[str], code: int) -> int:
    print("error:", message(reason), file=sys.stderr)
    for hint in hints:
        print("hint:", message(hint), file=sys.stderr)
    return code


def _command_path(error: Exception) -> str:
    """`resnet-surgeon adapt` for an error in the options of adapt."""
    return getattr(getattr(error, "ctx", None), "command_path", None) or PROGRAM


def _end(code: int) -> NoReturn:
    """Ends at once: all is written and synced, and taking the interpreter apart would take longer than copying."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            code = code or 1
    os._exit(code)


def _fill_closed_descriptors() -> None:
    """Standard streams that the caller closed fail when used, and are never given to a file that is opened later."""
    for descriptor, mode in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, mode)
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
