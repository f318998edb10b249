"""Whether there is enough memory, asked before doing what fails badly without it. Knows nothing of what it is for."""

from __future__ import annotations

import sys

_NUMPY = 96 << 20  # bytes; numpy 2.4 takes 84 MiB of address space, with one thread for its linear algebra


def import_numpy() -> None:
    """Imports numpy for all who do so after. Raises MemoryError where there is no room: numpy would crash or end the
    process.
    """
    if "numpy" not in sys.modules:
        check_room(_NUMPY)
    import numpy  # noqa: F401


def check_room(size: int) -> None:
    """Asks for so many bytes and gives them back untouched. Raises MemoryError if they are not to be had."""
    bytes(size)
