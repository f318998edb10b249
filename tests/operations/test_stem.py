"""stem gives torchvision's module with its conv1 and maxpool replaced; networks with such a stem are edited too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torchvision.models import ResNet
from torchvision.models.resnet import BasicBlock

import resnet_surgeon as rs
from resnet_surgeon.errors import ArchitectureError, OperationError, UsageError
from tests.fixtures import images, small_network


def cifar(model: ResNet) -> ResNet:
    """As SimCLR's authors change torchvision's network for CIFAR."""
    model.conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=1, padding=1, bias=False)
    model.maxpool = nn.Identity()
    return model.eval()


@pytest.mark.parametrize("init", ["crop", "area", "random"])
def test_it_is_torchvisions_with_conv1_and_maxpool_replaced(init: Any, checkpoints: Path, basic: ResNet) -> None:
    network = rs.open(checkpoints / "basic.pth").stem(kernel=3, stride=1, maxpool="none", init=init)
    ours = rs.load(network).eval()
    witness = cifar(ResNet(BasicBlock, [2, 1, 2, 1], num_classes=10))
    witness.load_state_dict({**basic.state_dict(), "conv1.weight": ours.state_dict()["conv1.weight"]})
    with torch.no_grad():
        assert torch.equal(ours(images(size=32)), witness(images(size=32)))
    changed = {step.name for step in network.plan() if step.action != "kept"}
    assert changed - {"conv1.weight"} == set()


def test_crop_is_the_centre_to_the_bit_and_area_keeps_the_sum(checkpoints: Path, basic: ResNet) -> None:
    network, old = rs.open(checkpoints / "basic.pth"), basic.state_dict()["conv1.weight"]
    cropped = rs.load(network.stem(kernel=3)).state_dict()["conv1.weight"]
    assert torch.equal(cropped, old[:, :, 2:5, 2:5])
    grown = rs.load(network.stem(kernel=3).stem(kernel=9)).state_dict()["conv1.weight"]
    assert torch.equal(grown, nn.functional.pad(cropped, [3] * 4))
    for kernel in (1, 5, 9):
        resampled = rs.load(network.stem(kernel=kernel, init="area")).state_dict()["conv1.weight"]
        torch.testing.assert_close(resampled.sum((2, 3)), old.sum((2, 3)))


def test_a_kernel_that_grows_by_zeros_computes_the_same(checkpoints: Path) -> None:
    network = rs.open(checkpoints / "basic.pth")
    with torch.no_grad():
        expected = rs.load(network).eval()(images())
        torch.testing.assert_close(rs.load(network.stem(kernel=11)).eval()(images()), expected)


def test_what_is_left_out_stays(checkpoints: Path) -> None:
    network = rs.open(checkpoints / "basic.pth").stem(stride=1)
    (operation,) = network.operations
    assert (operation.kernel, operation.maxpool) == (7, "torchvision")  # type: ignore[attr-defined]
    assert network.plan() == rs.open(checkpoints / "basic.pth").plan()
    assert network.stem(maxpool="caffe").architecture.maxpool == "caffe"
    without = network.remove(layers=["maxpool"]).stem(stride=2).architecture
    assert without.maxpool_is_identity
    assert network.remove(last=7).stem(kernel=3).architecture.stem == ("conv1", "bn1", "relu")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({}, "give kernel, stride or maxpool"),
        ({"kernel": 4}, "a kernel of 4x4 has no centre"),
        ({"kernel": 33}, "kernel must be a whole number of at most 31"),
        ({"stride": 0}, "stride must be a whole number of at least 1"),
        ({"maxpool": "no"}, "maxpool must be one of none, torchvision, caffe"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], reason: str, checkpoints: Path) -> None:
    with pytest.raises(UsageError, match=reason):
        rs.open(checkpoints / "basic.pth").stem(**options)


def test_what_changes_nothing_is_refused(checkpoints: Path) -> None:
    network = rs.open(checkpoints / "basic.pth")
    with pytest.raises(OperationError, match="has this stem already"):
        network.stem(kernel=7, maxpool="torchvision")
    with pytest.raises(OperationError, match="has no maxpool"):
        network.remove(last=7).stem(maxpool="none")


# Networks of others that have such a stem.


def test_a_cifar_stem_is_asked_about_and_then_edited_like_any_other(tmp_path: Path) -> None:
    model = cifar(small_network(BasicBlock))
    torch.save(model.state_dict(), tmp_path / "simclr.pth")
    with pytest.raises(ArchitectureError, match="another kernel than 7x7") as caught:
        rs.open(tmp_path / "simclr.pth")
    assert [answer.value for answer in caught.value.answers][:2] == ["cifar", "stem_stride=1,maxpool=torchvision"]
    network = rs.open(tmp_path / "simclr.pth", assume="cifar")
    with torch.no_grad():
        assert torch.equal(rs.load(network).eval()(images(size=32)), model(images(size=32)))
    path = network.adapt(1).heads([3, 5]).save(tmp_path / "out.safetensors")
    assert rs.open(path).architecture.stem_kernel == 3
    proof = rs.verify(path, against=tmp_path / "simclr.pth")
    assert (proof.failed, proof.unproven) == ((), ())


def test_libraries_that_have_no_such_stem_are_refused(checkpoints: Path, tmp_path: Path) -> None:
    network = rs.open(checkpoints / "basic.pth").stem(kernel=3, stride=1)
    with pytest.raises(OperationError, match="timm has no way to say another kernel or stride of the stem"):
        network.save(tmp_path / "a.safetensors", names="timm")
