"""Documents of earlier format versions, made into those of the next, step by step. Knows JSON alone: what is wrong with
a document is found when the last step's is validated.

A field that is new and has a default needs no step. A field that goes, or changes its name or meaning, does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any


def upgraded(document: Any, version: int) -> Any:
    """The document of an earlier version as the current one would have written it. Raises RecursionError for one that
    is nested too deeply.
    """
    for step in range(version, len(_STEPS) + 1):
        document = {**_STEPS[step](document), "format_version": step + 1}
    return document


def _formulas_as_data(document: Mapping[str, Any]) -> dict[str, Any]:
    """1 to 2: formulas were words. What is not of the form that 0.1.0 wrote stays, and is refused as a formula."""
    tensors = document.get("tensors")
    if not isinstance(tensors, dict):
        return dict(document)
    return {**document, "tensors": {name: _with_formulas(record) for name, record in tensors.items()}}


def _with_formulas(value: Any) -> Any:
    """A record or provenance, with the formulas in it as data."""
    if isinstance(value, list):
        return [_with_formulas(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {name: _formula(item) if name == "formula" else _with_formulas(item) for name, item in value.items()}


_WORDS = {
    "mean": r"mean over the (\d{1,5}) input channels, for each of (\d{1,5})",
    "scaled": r"sum over the (\d{1,5}) input channels / (\d{1,5}), for each of \2",
    "repeat": r"the (\d{1,5}) input channels in turn, times \1/(\d{1,5})",
}


def _formula(words: Any) -> Any:
    for kind, pattern in _WORDS.items():
        if type(words) is str and (match := re.fullmatch(pattern, words, re.ASCII)):
            return {"kind": kind, "old": int(match[1]), "new": int(match[2])}
    return words


# Each takes a document of its version to the next. Readable for ever: never taken out, only added to.
_STEPS: dict[int, Callable[[Mapping[str, Any]], dict[str, Any]]] = {1: _formulas_as_data}
