"""The plan: a table of (operations, what happens), which begins with the identity."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

import resnet_surgeon as rs
from resnet_surgeon.network import Network
from resnet_surgeon.plan import plan

# bottleneck 1-2-3-1: 6 tensors in the stem, 24 a block with downsample, 18 a block without, 2 in fc.
TENSORS = 6 + 4 * 24 + 3 * 18 + 2
CASES: list[tuple[Callable[[Network], Network], dict[str, int]]] = [
    (lambda network: network, {"kept": TENSORS}),
    (lambda network: network.adapt(1), {"kept": TENSORS - 1, "computed": 1}),
    (lambda network: network.adapt(3, init="repeat"), {"kept": TENSORS}),
    (lambda network: network.adapt(1, init="random"), {"kept": TENSORS - 1, "initialised": 1, "dropped": 1}),
    (lambda network: network.remove(last=1), {"kept": TENSORS - 2, "dropped": 2}),
    (lambda network: network.remove(layers=["maxpool"]), {"kept": TENSORS}),
    (lambda network: network.remove(layers=["layer3.1"]), {"kept": TENSORS - 36, "renamed": 18, "dropped": 18}),
    (lambda network: network.heads([3]), {"kept": TENSORS - 2, "initialised": 2, "dropped": 2}),
    (lambda network: network.heads([3, 5]), {"kept": TENSORS - 26, "copied": 48, "initialised": 4, "dropped": 2}),
    (lambda network: network.heads([3, 5], own="none"), {"kept": TENSORS - 2, "initialised": 4, "dropped": 2}),
]


@pytest.mark.parametrize(("operate", "expected"), CASES)
def test_what_happens_to_each_tensor(
    operate: Callable[[Network], Network], expected: dict[str, int], checkpoints: Path
) -> None:
    network = operate(rs.open(checkpoints / "bottleneck.pth"))
    assert Counter(step.action for step in network.plan()) == expected


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """From where to where files are read, call by call."""
    found: list[tuple[int, int]] = []
    preadv = os.preadv

    def noted(descriptor: int, buffers: list[memoryview], offset: int) -> int:
        found.append((offset, offset + sum(map(len, buffers))))
        return preadv(descriptor, buffers, offset)

    def refuse(*_: object) -> int:
        raise AssertionError("read in another way")

    monkeypatch.setattr(os, "preadv", noted)
    for call in ("pread", "read", "readv", "sendfile", "copy_file_range", "splice"):
        monkeypatch.setattr(os, call, refuse)
    return found


@pytest.mark.parametrize("extension", ["pth", "safetensors"])
def test_opening_reads_little_and_planning_reads_nothing(
    extension: str, checkpoints: Path, reads: list[tuple[int, int]]
) -> None:
    path = checkpoints / f"bottleneck.{extension}"
    network = rs.open(path)
    assert 0 < sum(end - begin for begin, end in reads) < path.stat().st_size // 50
    reads.clear()
    changed = network.adapt(1).remove(last=2).heads([3, 5])
    assert plan(network.tensors, changed.tensors) == changed.plan()
    assert reads == []


def test_shapes_and_sizes_before_and_after(checkpoints: Path) -> None:
    (step,) = (step for step in rs.open(checkpoints / "basic.pth").adapt(1).plan() if step.action == "computed")
    assert step.sources == ("conv1.weight",)
    assert step.before
    assert step.after
    assert (step.before.shape, step.before.bytes) == ((64, 3, 7, 7), 64 * 3 * 49 * 4)
    assert (step.after.shape, step.after.bytes) == ((64, 1, 7, 7), 64 * 49 * 4)
