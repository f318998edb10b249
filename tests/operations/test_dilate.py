"""dilate gives what torchvision's `replace_stride_with_dilation` gives, and refuses what that does not mean."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torchvision.models import ResNet
from torchvision.models.resnet import Bottleneck

import resnet_surgeon as rs
from resnet_surgeon.errors import OperationError, UsageError
from tests.fixtures import images

REPLACED = {8: [False, True, True], 16: [False, False, True], 4: [True, True, True]}


@pytest.mark.parametrize("output_stride", REPLACED)
def test_it_is_torchvisions(output_stride: int, checkpoints: Path, bottleneck: ResNet) -> None:
    witness = ResNet(Bottleneck, [1, 2, 3, 1], 10, replace_stride_with_dilation=REPLACED[output_stride]).eval()
    witness.load_state_dict(bottleneck.state_dict())
    network = rs.open(checkpoints / "bottleneck.pth").dilate(output_stride)
    assert {step.action for step in network.plan()} == {"kept"}
    ours = rs.load(network).eval()
    with torch.no_grad():
        assert torch.equal(ours(images()), witness(images()))


def test_32_brings_the_strides_back(checkpoints: Path) -> None:
    network = rs.open(checkpoints / "bottleneck.pth")
    assert network.dilate(8).dilate(16).architecture == network.dilate(16).architecture
    assert network.dilate(8).dilate(32).architecture == network.architecture


def test_stages_of_heads_are_dilated_too(checkpoints: Path) -> None:
    network = rs.open(checkpoints / "bottleneck.pth")
    first = network.heads([3, 5], own="layer3").dilate(8).architecture
    assert first == network.dilate(8).heads([3, 5], own="layer3").architecture
    assert [stage.dilation for stage in first.heads[1].stages] == [2, 4]


def test_a_stem_that_keeps_the_size_counts(checkpoints: Path) -> None:
    """CIFAR's stem gives maps as large as the image: from 8 in 32 on, nothing is left to be replaced at 8."""
    network = rs.open(checkpoints / "bottleneck.pth").stem(kernel=3, stride=1, maxpool="none")
    with pytest.raises(OperationError, match="its output stride is 8 already"):
        network.dilate(8)
    assert [stage.stride for stage in network.dilate(4).architecture.stages] == [1, 2, 2, 1]


def test_what_has_no_such_strides_is_refused_with_those_that_there_are(checkpoints: Path) -> None:
    network = rs.open(checkpoints / "bottleneck.pth")
    with pytest.raises(OperationError, match="cannot come to an output stride of 64") as caught:
        network.dilate(64)
    assert caught.value.hint == "use `--output-stride 16`, or 8, 4"
    with pytest.raises(OperationError, match="is 32 already"):
        network.dilate(32)
    with pytest.raises(OperationError, match="no stages"):
        network.remove(last=6).dilate(2)
    with pytest.raises(UsageError, match="output_stride must be a whole number of at least 1"):
        network.dilate(0)


def test_basic_blocks_are_refused(checkpoints: Path) -> None:
    with pytest.raises(OperationError, match="torchvision has no dilated basic blocks") as caught:
        rs.open(checkpoints / "basic.pth").dilate(8)
    assert "resnet50" in str(caught.value.hint)


def test_a_network_that_is_dilated_otherwise_is_refused(checkpoints: Path) -> None:
    with pytest.raises(OperationError, match="dilated in another way"):
        rs.open(checkpoints / "bottleneck.pth", assume="deeplab").dilate(8)
