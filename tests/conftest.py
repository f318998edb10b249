"""Where tests run. What they share is in `tests.fixtures`, which imports torch: a process that hands the tests out to
others does without.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Keeps what `make test` says to a make below it from those that tests run. Puts the files of tests that run side
    by side, and what they read streams into, into memory where there is room: then they wait for no disk.
    """
    for name in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS"):
        os.environ.pop(name, None)
    hands_them_out = bool(getattr(config.option, "numprocesses", 0))
    if not hands_them_out:
        config.pluginmanager.import_plugin("tests.fixtures")
        return
    memory = Path("/dev/shm")
    if memory.is_dir() and shutil.disk_usage(memory).free > 4 << 30:
        os.environ.setdefault("TMPDIR", str(memory))
