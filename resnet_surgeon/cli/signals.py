"""Signals as exceptions, which unwind the stack so that temporary files go, and then end the process."""

from __future__ import annotations

import os
import signal
from types import FrameType
from typing import NoReturn

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


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


def die_by(number: int) -> NoReturn:
    """Ends as the signal would have ended the process, so that whoever waits for it sees why."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    os._exit(128 + number)  # where the signal is blocked


def _raise(number: int, frame: FrameType | None) -> NoReturn:
    for other in _ENDING:  # a second one must not interrupt the tidying up
        signal.signal(other, signal.SIG_IGN)
    raise Signalled(number)
