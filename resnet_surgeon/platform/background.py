"""A function at work in a second thread, while this one goes on. Knows nothing of what it does."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar, cast

from resnet_surgeon.platform.signals import check_signals

_LOOK = 0.1  # seconds of waiting at a stretch: a signal that comes just before it begins does not interrupt it

T = TypeVar("T")


class Background(Generic[T]):
    """A function at work in a second thread; `result` waits for it and gives its value or raises its exception."""

    def __init__(self, function: Callable[[], T]) -> None:
        self._function = function
        self._value: T | None = None
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = threading.Thread(target=self._run, daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # no memory or no number for another thread: then at once, in this one
            self._thread = None
            self._run()

    def _run(self) -> None:
        try:
            self._value = self._function()
        except BaseException as error:
            self._error = error

    def result(self, meanwhile: Callable[[], None] = lambda: None) -> T:
        """`meanwhile` is called now and then while it waits."""
        while self._thread and self._thread.is_alive():
            self._thread.join(_LOOK)
            check_signals()
            meanwhile()
        if self._error is not None:
            raise self._error
        return cast(T, self._value)
