"""Numbers as people read them: three digits and a unit."""

from __future__ import annotations

from collections.abc import Sequence


def size(count: int) -> str:
    """Bytes in binary units.

    >>> size(102540000)
    '97.8 MiB'
    """
    return _amount(count, (" B", " KiB", " MiB", " GiB"), 1024)


def parameters(count: int) -> str:
    """A number of parameters in thousands and millions.

    >>> parameters(25557032)
    '25.6 M'
    """
    return _amount(count, ("", " K", " M", " G"), 1000)


def _amount(count: int, units: Sequence[str], step: int) -> str:
    amount, unit = float(count), units[0]
    for unit in units:
        if amount < step - 0.5 or unit == units[-1]:
            break
        amount /= step
    if unit == units[0]:
        return f"{count}{unit}"
    return f"{amount:.{2 if amount < 9.995 else 1 if amount < 99.95 else 0}f}{unit}"
