"""Signals that ask a process to end, as far as the system has them: made exceptions, remembered, and held back."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

# Windows has no SIGHUP and no SIGPIPE; SIGBREAK is its Ctrl-Break.
_ENDING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name))
READER_GONE: int = getattr(signal, "SIGPIPE", 13)
_came: list[int] = []


class Signalled(BaseException):
    """A signal asked the process to end, or, for SIGPIPE, the reader of its output has gone."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def raise_on_signals() -> None:
    """From now on SIGINT, SIGTERM and SIGHUP raise Signalled, unless the caller had them ignored (as `nohup` does). A
    second one ends the process where it stands.
    """
    for number in _ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _raise)


def check_signals() -> None:
    """Raises Signalled if one came, though what it raised then was lost on its way: Python makes a RuntimeError of what
    is raised while a class is made, as happens in imports, and passes over what a finalizer raises.
    """
    if _came:
        raise Signalled(_came[0]) from None


def die_by(number: int) -> NoReturn:
    """Ends as the signal would have ended the process, so that whoever waits for it sees why."""
    with contextlib.suppress(OSError, ValueError):  # a signal that the system does not have
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)
    os._exit(128 + number)  # where the signal is blocked


def _raise(number: int, frame: FrameType | None) -> NoReturn:
    if _came:
        die_by(number)
    _came.append(number)
    for other in _ENDING:  # which Python would call only where it is not waiting for the system
        if signal.getsignal(other) is _raise:
            signal.signal(other, signal.SIG_DFL)
    raise Signalled(number)


@contextlib.contextmanager
def signals_wait() -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP that come in here do what they do when it is left.

    Masking them would not do: with a second thread the kernel hands them to that one, and Python runs the handler in
    the main thread. In other threads than that nothing is changed, as Python lets only the main one set handlers.
    """
    came: list[int] = []
    before: dict[signal.Signals, signal._HANDLER] = {}
    if threading.current_thread() is threading.main_thread():
        handlers = {number: signal.getsignal(number) for number in _ENDING}
        before = {number: handler for number, handler in handlers.items() if handler not in (None, signal.SIG_IGN)}

    def remember(number: int, _: FrameType | None) -> None:
        if number not in came:
            came.append(number)

    def restore() -> None:
        for number, handler in before.items():
            if signal.getsignal(number) is remember:  # a handler that is back already may have chosen another
                signal.signal(number, handler)

    try:
        for number in before:
            signal.signal(number, remember)
        yield
    finally:
        try:
            restore()
        finally:
            restore()  # again: a handler that is back may raise before the others are
            _raise_signals(came)


def _raise_signals(numbers: list[int]) -> None:
    """Each of them, though the handler of one may raise an exception."""
    with contextlib.ExitStack() as stack:
        for number in reversed(numbers):
            stack.callback(signal.raise_signal, number)
