"""fuse gives what torch's own fusion gives, and what the network gave in evaluation mode."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models import ResNet
from torchvision.models.resnet import BasicBlock, Bottleneck

import resnet_surgeon as rs
from resnet_surgeon.errors import ArchitectureError, OperationError
from tests.fixtures import images, small_network


def fused_by_torch(model: ResNet) -> ResNet:
    """torch's own fusion of every pair."""
    for module in [*model.modules()]:
        names = [name for name, child in module.named_children() if isinstance(child, torch.nn.BatchNorm2d)]
        for norm in names:
            convolution = str(int(norm) - 1) if norm.isdigit() else norm.replace("bn", "conv")
            pair: Any = (module.get_submodule(convolution), module.get_submodule(norm))
            setattr(module, convolution, fuse_conv_bn_eval(*pair))
            setattr(module, norm, torch.nn.Identity())
    return model


@pytest.mark.parametrize("block", [BasicBlock, Bottleneck])
def test_names_and_numbers_are_those_of_torchs_fusion(block: type[BasicBlock | Bottleneck], tmp_path: Path) -> None:
    model = small_network(block)
    torch.save(model.state_dict(), tmp_path / "model.pth")
    network = rs.open(tmp_path / "model.pth").fuse()
    image = images()
    with torch.no_grad():
        before = model(image)
        ours = rs.load(network).eval()
        got, theirs = ours(image), fused_by_torch(model)
        assert (got - before).abs().max() < 1e-5 * before.abs().max()
        assert [*ours.state_dict()] == [*theirs.state_dict()]
        for name, tensor in theirs.state_dict().items():
            torch.testing.assert_close(ours.state_dict()[name], tensor, rtol=1e-5, atol=1e-6)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    with torch.no_grad():
        assert torch.equal(theirs(image), got)


def test_it_says_that_it_is_for_inference(checkpoints: Path) -> None:
    network = rs.open(checkpoints / "basic.pth").fuse()
    assert network.notes[0].startswith("for inference")
    assert "batch norms folded away" in repr(network)
    with pytest.raises(OperationError, match="folded away already"):
        network.fuse()
    with pytest.raises(OperationError, match="no batch norm"):
        rs.open(checkpoints / "basic.pth").remove(last=9).fuse()


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_strangers_fused_network_is_recognised(prefix: str, tmp_path: Path) -> None:
    model = fused_by_torch(small_network(Bottleneck))
    state = {f"{prefix}{name}": tensor for name, tensor in model.state_dict().items()}
    torch.save(state, tmp_path / "fused.pth")
    network = rs.open(tmp_path / "fused.pth")
    assert network.architecture.fused
    path = network.adapt(3, init="repeat").depth([2, 1, 1, 1]).save(tmp_path / "model.safetensors")
    with torch.no_grad():
        assert torch.equal(rs.load(path).eval()(images()), model(images()))
    proof = rs.verify(path, against=tmp_path / "fused.pth")
    assert not proof.failed + proof.unproven, str(proof)


def test_a_network_that_lacks_some_norms_is_not_taken_for_fused(tmp_path: Path) -> None:
    state = fused_by_torch(small_network()).state_dict()
    del state["layer1.0.conv1.bias"]
    torch.save(state, tmp_path / "fused.pth")
    with pytest.raises(ArchitectureError, match="`layer1.0.conv1.bias` .* is missing"):
        rs.open(tmp_path / "fused.pth")


CHAINS: dict[str, Any] = {
    "alone": lambda network: network.fuse(),
    "heads": lambda network: network.heads([2, 3]).fuse(),
    "half": lambda network: network.cast("float16", keep_norm=True).fuse().cast("bfloat16"),
    "wide norms": lambda network: network.cast("float64").cast("float32", keep_norm=True).fuse(),
    "deeper": lambda network: network.depth([2, 2, 3, 2]).fuse().adapt(1),
    "dilated": lambda network: network.dilate(8).fuse(),
    "cut": lambda network: network.fuse().remove(last=3).cast("float16"),
}


@pytest.mark.parametrize("chain", [*CHAINS])
def test_verify_proves_every_convolution(chain: str, checkpoints: Path, tmp_path: Path) -> None:
    source = checkpoints / "narrow.pth"
    path = CHAINS[chain](rs.open(source)).save(tmp_path / "model.safetensors")
    proof = rs.verify(path, against=source)
    assert not proof.failed + proof.unproven, str(proof)
    assert "fused" in {check.name for check in proof.checks}
    assert rs.verify(path).holds


def test_a_convolution_of_something_else_is_found(checkpoints: Path, tmp_path: Path) -> None:
    from safetensors import safe_open
    from safetensors.torch import save_file

    source = checkpoints / "basic.pth"
    path = rs.open(source).fuse().save(tmp_path / "model.safetensors")
    state = load_file(path)
    state["layer2.0.conv2.bias"][3] *= 1.001
    with safe_open(path, "pt") as file:
        save_file(state, path, metadata=file.metadata())
    failed = {check.name: check.tensors for check in rs.verify(path, against=source).failed}
    assert failed == {"computed": ("layer2.0.conv2.bias",), "fused": ("layer2.0.conv2",)}


@pytest.mark.parametrize("names", ["timm", "transformers", "detectron2"])
def test_libraries_that_have_no_such_network_are_refused(names: Any, checkpoints: Path, tmp_path: Path) -> None:
    network = rs.open(checkpoints / "basic.pth").fuse()
    with pytest.raises(OperationError, match="no way to say a network without batch norms"):
        network.save(tmp_path / "model.safetensors", names=names)


def test_which_blocks_change_most_cannot_be_told_without_norms(checkpoints: Path) -> None:
    network = rs.open(checkpoints / "narrow.pth").fuse()
    with pytest.raises(OperationError, match="folded away"):
        network.depth([1, 1, 1, 1])
    assert network.depth([1, 1, 1, 1], "first").architecture.depth[1].blocks == 1
