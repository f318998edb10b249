"""How long work shows itself on standard error: by a bar on a terminal, by a line elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from resnet_surgeon.cli import units
from resnet_surgeon.errors import message
from resnet_surgeon.sources.progress import DOWNLOADING, Advance, Progress, silent

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


@contextmanager
def line(what: str, total: int | None) -> Iterator[Advance]:
    """A line when it begins, as a log has it: `downloading resnet50-11ad3fa6.pth, 97.8 MiB`."""
    size = f", {units.size(total)}" if total is not None else ""
    print(message(f"{what}{size}"), file=sys.stderr)
    yield lambda count: None


def downloads(shown: Progress) -> Progress:
    """Shows downloads alone: nobody expects them, and everything else is a matter of moments."""

    def progress(what: str, total: int | None) -> AbstractContextManager[Advance]:
        return shown(what, total) if what.startswith(DOWNLOADING) else silent(what, total)

    return progress


def _draw(what: str, total: int | None):  # type: ignore[no-untyped-def]  # rich's types, without importing rich
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    sizes = DownloadColumn(binary_units=True)  # as everywhere else
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), sizes, TimeRemainingColumn())
    progress = Bars(*columns, console=Console(stderr=True), transient=True)
    progress.start()
    return progress, progress.add_task(message(what), total=total)
