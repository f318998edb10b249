"""How long work shows itself on standard error: by a bar on a terminal, by a line elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from resnet_surgeon.cli import units
from resnet_surgeon.errors import message
from resnet_surgeon.sources.progress import DOWNLOADING, Advance, Progress, silent

_BAR_AFTER = 0.7  # seconds; rich is not even imported for what is done by then
_LINE_AFTER = 5.0  # seconds: a log hears only of what takes long

Clock = Callable[[], float]


def bars(clock: Clock = time.monotonic, draw: Callable[[], Any] | None = None) -> Progress:
    """A bar for each piece of work that is not done soon, below those of others that go on at the same time.

    `draw` begins an empty display as rich's `Progress` is one.
    """
    display = _Display(draw or _draw)

    @contextmanager
    def progress(what: str, total: int | None) -> Iterator[Advance]:
        start, done, task = clock(), 0, None

        def advance(count: int) -> None:
            nonlocal done, task
            done += count
            if task is None and clock() - start > _BAR_AFTER:
                task = display.add(what, total)
            if task is not None:
                display.update(task, done)

        try:
            yield advance
        except BaseException:
            display.stop()  # whatever goes on in other threads: the command ends
            raise
        if task is not None:
            display.remove(task)

    return progress


def lines(clock: Clock = time.monotonic) -> Progress:
    """A line in a log, `hashing resnet50.pth, 97.8 MiB`: of a download when it begins, of other work once it has taken
    some time.
    """

    @contextmanager
    def progress(what: str, total: int | None) -> Iterator[Advance]:
        start, is_told = clock(), False

        def tell() -> None:
            nonlocal is_told
            is_told = True
            size = f", {units.size(total)}" if total is not None else ""
            print(message(f"{what}{size}"), file=sys.stderr)

        def advance(count: int) -> None:
            if not is_told and clock() - start > _LINE_AFTER:
                tell()

        if what.startswith(DOWNLOADING):
            tell()
        yield advance

    return progress


def downloads(shown: Progress) -> Progress:
    """Shows downloads alone, which nobody expects of a command that is to be quiet."""

    def progress(what: str, total: int | None) -> AbstractContextManager[Advance]:
        return shown(what, total) if what.startswith(DOWNLOADING) else silent(what, total)

    return progress


class _Display:
    """The bars on the terminal: there while any work has one, in whatever threads."""

    def __init__(self, draw: Callable[[], Any]) -> None:
        self._draw = draw
        self._turn = threading.Lock()
        self._drawn: Any = None
        self._tasks: set[Any] = set()

    def add(self, what: str, total: int | None) -> Any:
        with self._turn:
            if self._drawn is None:
                self._drawn = self._draw()
            task = self._drawn.add_task(message(what), total=total)
            self._tasks.add(task)
            return task

    def update(self, task: Any, done: int) -> None:
        with self._turn:
            if task in self._tasks:
                self._drawn.update(task, completed=done)

    def remove(self, task: Any) -> None:
        with self._turn:
            if task in self._tasks:
                self._tasks.remove(task)
                self._drawn.remove_task(task)
            is_last = not self._tasks
        if is_last:
            self.stop()

    def stop(self) -> None:
        with self._turn:
            drawn, self._drawn = self._drawn, None
            self._tasks.clear()
            if drawn is not None:
                drawn.stop()


def _draw() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    sizes = DownloadColumn(binary_units=True)  # as everywhere else
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), sizes, TimeRemainingColumn())
    drawn = Bars(*columns, console=Console(stderr=True), transient=True)
    drawn.start()
    return drawn
