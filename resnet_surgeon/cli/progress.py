"""A progress bar on standard error, for what takes longer than a moment."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from resnet_surgeon.errors import message
from resnet_surgeon.sources.progress import Advance

_PATIENCE = 0.7  # seconds before a bar appears; rich is not even imported for what is done by then


@contextmanager
def bar(what: str, total: int | None) -> Iterator[Advance]:
    """A `resnet_surgeon.sources.progress.Progress` that draws with rich."""
    done = 0
    start = time.monotonic()
    drawn = None

    def advance(count: int) -> None:
        nonlocal done, drawn
        done += count
        if drawn is None and time.monotonic() - start > _PATIENCE:
            drawn = _draw(what, total)
        if drawn is not None:
            drawn[0].update(drawn[1], completed=done)

    try:
        yield advance
    finally:
        if drawn is not None:
            drawn[0].stop()


def _draw(what: str, total: int | None):  # type: ignore[no-untyped-def]  # rich's types, without importing rich
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    progress = Progress(*columns, console=Console(stderr=True), transient=True)
    progress.start()
    return progress, progress.add_task(message(what), total=total)
