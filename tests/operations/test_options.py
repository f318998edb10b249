"""An option of the wrong type is wrong usage at once, in Python as on the command line, wherever it enters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import resnet_surgeon as rs
from resnet_surgeon.errors import UsageError
from resnet_surgeon.manifest import from_json

WRONG: dict[str, tuple[str, dict[str, Any], str]] = {
    "true for channels": ("adapt", {"in_channels": True}, "in_channels must be a whole number, not True"),
    "text for channels": ("adapt", {"in_channels": "1"}, "in_channels must be a whole number, not `1`"),
    "too many channels": ("adapt", {"in_channels": 2**31}, "in_channels must be a whole number of at most"),
    "a number for a mode": ("adapt", {"in_channels": 1, "init": 3}, "init must be one of mean, scaled, repeat, random"),
    "a list for a mode": ("adapt", {"in_channels": 1, "init": []}, "init must be one of mean, scaled, repeat, random"),
    "a text for a class": ("heads", {"classes": ("3",)}, r"classes\[0\] must be a whole number, not `3`"),
    "true for a class": ("heads", {"classes": [3, True]}, r"classes\[1\] must be a whole number, not True"),
    "an array": (
        "heads",
        {"classes": np.array([3])},
        r"classes\[0\] must be a whole number, not a value of type int64",
    ),
    "no class": ("heads", {"classes": []}, "classes must be a list of at least 1"),
    "nothing": ("heads", {"classes": None}, "how many classes?"),
    "a text for a class by name": ("heads", {"classes": {"a": "3"}}, r"classes.`a` must be a whole number, not `3`"),
    "an unknown pooling": ("heads", {"head": [{"classes": 3, "pool": "sum"}]}, r"head\[0\].pool must be one of avg"),
    "an unknown field": ("heads", {"head": [{"class": 3}]}, r"head.*has an unknown field|must be"),
    "too much dropout": ("heads", {"head": [{"classes": 3, "dropout": 2.0}]}, r"head\[0\].dropout must be a number"),
    "no hidden features": (
        "heads",
        {"head": [{"classes": 3, "hidden": [0]}]},
        r"hidden\[0\] must be a whole",
    ),
    "endless classes": ("heads", {"classes": range(1, 10**12)}, "classes must be a list of at most"),
    "a number for a name": ("heads", {"classes": [3], "names": [3]}, r"names\[0\] must be text, not 3"),
    "bytes for a name": ("heads", {"classes": [3], "names": b"a"}, r"names\[0\] must be text"),
    "a name that is not Unicode": ("heads", {"classes": [3], "names": ["a\ud800"]}, r"cannot be called `a\\ud800`"),
    "an empty list of layers": ("heads", {"classes": [3, 5], "own": []}, "own must be one of none, layer1"),
    "a number of a layer": ("heads", {"classes": [3, 5], "own": 4}, "own must be one of none, layer1"),
    "true for a count": ("remove", {"last": True}, "last must be a whole number, not True"),
    "a text for a count": ("remove", {"last": "1"}, "last must be a whole number, not `1`"),
    "a number for a layer": ("remove", {"layers": [3]}, r"layers\[0\] must be text, not 3"),
    "a number for layers": ("remove", {"layers": 3}, r"layers\[0\] must be text, not 3"),
    "no layer": ("remove", {"layers": []}, "layers must be a list of at least 1"),
    "code for a layer": ("remove", {"layers": ["fc; exit"]}, "no network has a layer"),
    "half of a character": ("remove", {"layers": ["fc\udc00"]}, r"layers\[0\] must be the name of a layer"),
    "a layer of a million letters": ("remove", {"layers": ["f" * 10**6]}, r"layers\[0\] must be text of at most"),
}


@pytest.mark.parametrize(("operation", "options", "reason"), WRONG.values(), ids=WRONG.keys())
def test_an_option_of_the_wrong_type_is_wrong_usage(operation: str, options: dict[str, Any], reason: str) -> None:
    network = rs.open("resnet18", weights="random")
    with pytest.raises(UsageError, match=f"^{operation}: .*{reason}"):
        getattr(network, operation)(**options)


# Wherever a seed enters.
DOORS: dict[str, Callable[[Any], object]] = {
    "open": lambda seed: rs.open("resnet18", weights="random", seed=seed),
    "inspect": lambda seed: rs.inspect("resnet18", weights="random", seed=seed),
    "adapt": lambda seed: rs.open("resnet18", weights="random").adapt(1, init="random", seed=seed),
    "heads": lambda seed: rs.open("resnet18", weights="random").heads([3], seed=seed),
}


@pytest.mark.parametrize("seed", [1.5, None, "a", True, [1], 2**128, -(2**127) - 1, 2**9999])
@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS.keys())
def test_what_is_no_seed_is_refused_at_once(door: Callable[[Any], object], seed: Any) -> None:
    with pytest.raises(UsageError, match="seed must be a whole number"):
        door(seed)


@pytest.mark.parametrize("seed", [0, -1, -(2**127), 2**64, 2**128 - 1])
@pytest.mark.parametrize("door", ["open", "adapt", "heads"])
def test_whatever_is_a_seed_is_read_again(door: str, seed: int) -> None:
    network: Any = DOORS[door](seed)
    assert from_json(network.manifest().to_json()) == network.manifest()


@pytest.mark.parametrize(
    "options", [{"weights": 3}, {"weights": 0}, {"weights": b"random"}, {"key": 5}, {"key": ["a"]}]
)
def test_what_chooses_weights_and_networks_is_text(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"^{next(iter(options))} must be text, not"):
        rs.open("resnet18", **{"weights": "random", **options})
