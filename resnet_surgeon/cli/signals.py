"""Signals as exceptions, which unwind the stack so that temporary files go, and then end the process."""

from __future__ import annotations

import os
import signal
from types import FrameType
from typing import NoReturn

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_came: list[int] = []


class Signalled(BaseException):
    """A signal asked the process to end, or, for SIGPIPE, the reader of its output has gone."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def raise_on_signals() -> None:
    """From now on SIGINT, SIGTERM and SIGHUP raise Signalled, unless the caller had them ignored (as `nohup` does)."""
    for number in _ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _raise)


def check_signals() -> None:
    """Raises Signalled if one came, though what it raised then became another error on its way: Python makes a
    RuntimeError of what is raised while a class is made, as happens in imports.
    """
    if _came:
        raise Signalled(_came[0]) from None


def die_by(number: int) -> NoReturn:
    """Ends as the signal would have ended the process, so that whoever waits for it sees why."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    os._exit(128 + number)  # where the signal is blocked


def _raise(number: int, frame: FrameType | None) -> NoReturn:
    for other in _ENDING:  # a second one must not interrupt the tidying up
        signal.signal(other, signal.SIG_IGN)
    _came.append(number)
    raise Signalled(number)
