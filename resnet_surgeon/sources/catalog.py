"""The catalogue of torchvision's published ResNet weights, read from `catalog.json`. Knows where weights are, not how
to get them.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

from resnet_surgeon.architecture.preprocessing import Preprocessing
from resnet_surgeon.dataclass import dataclass
from resnet_surgeon.errors import UsageError, printable


@dataclass(frozen=True)
class Entry:
    """One published file: `digest` begins its SHA-256, `megabytes` and the accuracies (percent, ImageNet-1K) are
    torchvision's figures.
    """

    architecture: str
    weights: str
    is_default: bool
    url: str
    digest: str
    parameters: int
    megabytes: float
    top1: float
    top5: float
    preprocessing: Preprocessing

    @property
    def file_name(self) -> str:
        return self.url.rsplit("/", 1)[-1]


@functools.cache
def _document() -> dict[str, Any]:
    return dict(json.loads(Path(__file__).with_name("catalog.json").read_text("utf-8")))


@functools.cache
def entries() -> tuple[Entry, ...]:
    """Every published file, by architecture and weights."""

    def preprocessing(values: dict[str, Any]) -> Preprocessing:
        return Preprocessing(**{**values, "mean": tuple(values["mean"]), "std": tuple(values["std"])})

    return tuple(
        Entry(**{**values, "preprocessing": preprocessing(values["preprocessing"])})
        for values in _document()["weights"]
    )


def categories() -> tuple[str, ...]:
    """The names of the 1000 classes that every published file tells apart."""
    return tuple(_document()["categories"])


def entry(architecture: str, weights: str) -> Entry:
    """The published file called `weights` (or DEFAULT) of `architecture`. Raises UsageError if there is none."""
    published = [entry for entry in entries() if entry.architecture == architecture]
    for candidate in published:
        if weights == candidate.weights or (weights == "DEFAULT" and candidate.is_default):
            return candidate
    names = ", ".join(["DEFAULT", *(candidate.weights for candidate in published), "random"])
    raise UsageError(f"{architecture} has no weights {printable(weights)}", subject="weights", hint=f"it has {names}")


def entry_for_file(file_name: str) -> Entry | None:
    """The published file of this name, which holds the beginning of its digest, or None."""
    return next((entry for entry in entries() if entry.file_name == file_name), None)


def entry_for_url(url: str) -> Entry | None:
    """The published file at this very URL, or None."""
    return next((entry for entry in entries() if entry.url == url), None)
