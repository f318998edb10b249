"""How work that takes long reports its progress: rooms above the command line announce it, and never print."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

Advance = Callable[[int], None]
# (what is done, bytes in all if known) -> a context that gives a function to call with each number of bytes done
Progress = Callable[[str, "int | None"], AbstractContextManager[Advance]]

DOWNLOADING = "downloading "  # how what is done begins, where bytes come from another machine


@contextmanager
def silent(what: str, total: int | None) -> Iterator[Advance]:
    """Tells nobody."""
    yield lambda count: None
