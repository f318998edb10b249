"""Large memory, as the system gives it. Knows nothing of what it is for."""

from __future__ import annotations

import ctypes
import sys

_PAGE = 4096
_HUGE_PAGE = 1 << 21
_MADV_HUGEPAGE = 14


def ask_for_huge_pages(address: int, size: int) -> None:
    """Large new memory is met page by page when it is first written, which takes longer than reading a file into it.
    Linux takes the advice to use large pages, the others go without.
    """
    if sys.platform == "linux" and size >= _HUGE_PAGE:
        start = -(-address // _PAGE) * _PAGE
        end = (address + size) // _PAGE * _PAGE
        ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _MADV_HUGEPAGE)
