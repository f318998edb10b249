"""How much work something is, in calls and system calls: the same on every machine, whatever else that does."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest


def calls(function: Callable[[], Any]) -> int:
    """The calls of Python and C functions that it takes."""
    count = 0

    def counting(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(counting)
    try:
        function()
    finally:
        sys.setprofile(None)
    return count


@dataclass
class Reads:
    """The reads of files: how many, and of how many bytes."""

    sizes: list[int] = field(default_factory=list)

    @classmethod
    def watched(cls, monkeypatch: pytest.MonkeyPatch) -> Reads:
        reads, preadv = cls(), os.preadv

        def counting(descriptor: int, buffers: Any, offset: int) -> int:
            reads.sizes.append(preadv(descriptor, buffers, offset))
            return reads.sizes[-1]

        monkeypatch.setattr(os, "preadv", counting)
        return reads
