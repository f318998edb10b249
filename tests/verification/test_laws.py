"""Zeros are the law of one tensor alone: that by which an inserted block hands on what it is given."""

from __future__ import annotations

import io
from functools import cache

import pytest
import torch
from torchvision.models.resnet import BasicBlock, Bottleneck

import resnet_surgeon as rs
from resnet_surgeon.arithmetic.laws import Constant
from resnet_surgeon.manifest import Initialised, Manifest
from resnet_surgeon.verification.laws import hands_on
from tests.fixtures import small_network

BLOCKS = {"basic": BasicBlock, "bottleneck": Bottleneck}


@cache
def deepened(block: str) -> Manifest:
    """Of a network without maxpool, with one more block in layer1 and two in layer3."""
    buffer = io.BytesIO()
    torch.save(small_network(BLOCKS[block]).state_dict(), buffer)
    return rs.open(buffer.getvalue()).remove(layers=["maxpool"]).depth([2, 1, 3, 1]).manifest()


def zeros(stream: str, value: float = 0.0) -> Initialised:
    return Initialised(Constant(value), 0, stream)


@pytest.mark.parametrize(("block", "last"), [("basic", "bn2"), ("bottleneck", "bn3")])
def test_the_last_norms_of_inserted_blocks_hand_on(block: str, last: str) -> None:
    manifest = deepened(block)
    drawn = {
        record.provenance.stream
        for record in manifest.tensors.values()
        if isinstance(record.provenance, Initialised) and hands_on(record.provenance, manifest)
    }
    assert drawn == {f"depth 2/{path}.{last}.weight" for path in ("layer1.1", "layer3.1", "layer3.2")}


OTHERS = {
    "an old block": "depth 2/layer1.0.bn2.weight",
    "a block behind the last one": "depth 2/layer1.2.bn2.weight",
    "a stage without new blocks": "depth 2/layer2.1.bn2.weight",
    "another norm": "depth 2/layer1.1.bn1.weight",
    "the norm's bias": "depth 2/layer1.1.bn2.bias",
    "another operation": "depth 1/layer1.1.bn2.weight",
    "an operation that there is not": "depth 3/layer1.1.bn2.weight",
    "an operation before all": "depth 0/layer1.1.bn2.weight",
    "an endless number": f"depth 2/layer1.{'9' * 30}.bn2.weight",
    "no operation": "layer1.1.bn2.weight",
}


@pytest.mark.parametrize("stream", OTHERS.values(), ids=OTHERS.keys())
def test_no_other_tensor_hands_on(stream: str) -> None:
    assert not hands_on(zeros(stream), deepened("basic"))


def test_what_is_not_zero_hands_nothing_on() -> None:
    assert not hands_on(zeros("depth 2/layer1.1.bn2.weight", 1.0), deepened("basic"))
