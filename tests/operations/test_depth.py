"""depth keeps the blocks that change their input most, and what it inserts changes nothing in torchvision's network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision.models import ResNet, resnet101
from torchvision.models.resnet import BasicBlock, Bottleneck

import resnet_surgeon as rs
from resnet_surgeon.errors import OperationError, UsageError
from resnet_surgeon.operations.depth import Depth
from tests.fixtures import images, small_network
from tests.verification.draws import rewrite


def kept(network: rs.Network) -> Any:
    (operation,) = network.operations
    assert isinstance(operation, Depth)
    return operation.kept


def saved(model: ResNet, path: Path) -> Path:
    torch.save(model.state_dict(), path)
    return path


@pytest.mark.parametrize(("block", "name"), [(BasicBlock, "basic"), (Bottleneck, "bottleneck")])
def test_a_deeper_network_of_torchvision_computes_the_same(
    block: type[BasicBlock | Bottleneck], name: str, checkpoints: Path, request: pytest.FixtureRequest
) -> None:
    deeper = rs.load(rs.open(checkpoints / f"{name}.pth").depth([3, 2, 3, 3], seed=1))
    witness = ResNet(block, [3, 2, 3, 3], num_classes=10).eval()
    witness.load_state_dict(deeper.state_dict(), strict=True)
    with torch.no_grad():
        assert torch.equal(witness(images()), request.getfixturevalue(name)(images()))
    conv = deeper.get_parameter("layer4.2.conv1.weight")
    assert 0 < conv.std() < 0.1  # what is inserted is ready to learn


def test_a_resnet50_becomes_the_start_of_a_resnet101() -> None:
    network = rs.open("resnet50", weights="random").depth([3, 4, 23, 3])
    with torch.device("meta"):
        expected = resnet101().state_dict()
    assert {name: tuple(tensor.shape) for name, tensor in expected.items()} == {
        name: tensor.shape for name, tensor in network.tensors.items()
    }
    assert network.manifest().architecture == rs.open("resnet101", weights="random").architecture


def test_the_blocks_that_change_their_input_most_stay(tmp_path: Path) -> None:
    model = small_network(BasicBlock, (3, 4, 1, 1))
    for stage, scales in (("layer1", (1.0, 0.1, 5.0)), ("layer2", (0.1, 0.5, 3.0, 4.0))):
        for block, scale in zip(model.get_submodule(stage).children(), scales, strict=True):
            torch.nn.init.constant_(block.bn2.weight, scale)
            torch.nn.init.zeros_(block.bn2.bias)
    for name in ("bn1", "layer2.0.downsample.1"):
        torch.nn.init.ones_(model.get_parameter(f"{name}.weight"))
        torch.nn.init.zeros_(model.get_parameter(f"{name}.bias"))
    network = rs.open(saved(model, tmp_path / "model.pth")).depth([1, 2, 1, 1])
    # Of layer1, 1/1, 0.01/2, 25/2.01; of layer2, which keeps its first, 0.25/1.01, 9/1.26, 16/10.26.
    assert kept(network) == ((2,), (0, 2), (0,), (0,))
    assert network.tensors["layer2.1.conv1.weight"] is network.opened.tensors["layer2.2.conv1.weight"]


@pytest.mark.parametrize(("keep", "numbers"), [("first", (0, 1)), ("last", (0, 2))])
def test_blocks_are_kept_by_position(keep: Any, numbers: tuple[int, ...], checkpoints: Path) -> None:
    assert kept(rs.open(checkpoints / "bottleneck.pth").depth([1, 2, 2, 1], keep))[2] == numbers


def test_stages_that_heads_own_change_in_all_of_them(checkpoints: Path, tmp_path: Path) -> None:
    source = checkpoints / "basic.pth"
    network = rs.open(source).heads([2, 3], own="layer3").depth([1, 2, 1, 2])
    assert [[stage.blocks for stage in head.stages] for head in network.architecture.heads] == [[1, 2], [1, 2]]
    proof = rs.verify(network.save(tmp_path / "model.safetensors"), against=source)
    assert not proof.failed + proof.unproven, str(proof)
    (check,) = [check for check in proof.checks if check.name == "inserted"]
    assert check.finding.startswith("3 of 3 inserted blocks")


def test_verify_proves_that_inserted_blocks_change_nothing(checkpoints: Path, tmp_path: Path) -> None:
    source = checkpoints / "narrow.pth"
    path = rs.open(source).depth([2, 2, 3, 1]).cast("bfloat16").save(tmp_path / "model.safetensors")
    proof = rs.verify(path, against=source)
    assert not proof.failed + proof.unproven, str(proof)
    assert {"inserted", "same outputs"} <= {check.name for check in proof.checks}


def kept_another(manifest: dict[str, Any]) -> None:
    manifest["operations"][0]["depth"]["kept"][2] = [0, 1]


def zero_elsewhere(manifest: dict[str, Any]) -> None:
    law = {"distribution": "constant", "value": 0.0}
    manifest["tensors"]["layer1.1.bn2.weight"]["provenance"]["law"] = law


@pytest.mark.parametrize(
    ("lie", "word"),
    [(kept_another, "operations[0].depth.kept[2][1]"), (zero_elsewhere, "`layer1.1.bn2.weight` is said")],
)
def test_a_lie_about_the_blocks_is_found(lie: Any, word: str, checkpoints: Path, tmp_path: Path) -> None:
    source = checkpoints / "narrow.pth"
    path = rs.open(source).depth([2, 2, 2, 1], "last").save(tmp_path / "model.safetensors")
    rewrite(path, lie)
    failed = rs.verify(path, against=source).failed
    assert any(word in check.finding for check in failed), failed


def test_what_was_trained_elsewhere_keeps_the_choice_that_was_made(checkpoints: Path, tmp_path: Path) -> None:
    source = checkpoints / "narrow.pth"
    module = rs.load(source)
    torch.nn.init.zeros_(module.get_parameter("layer3.1.bn3.weight"))
    torch.nn.init.zeros_(module.get_parameter("layer3.1.bn3.bias"))
    trained = rs.save(module, tmp_path / "trained.safetensors")
    path = rs.open(trained).depth([1, 2, 2, 1]).save(tmp_path / "model.safetensors")
    assert not rs.verify(path, against=source).failed


REFUSED: list[tuple[list[int], dict[str, Any], str]] = [
    ([1, 1, 1], {}, "3 numbers of blocks for 4 stages"),
    ([1, 1, 1, 1, 1], {}, "a list of at most 4"),
    ([0, 1, 1, 1], {}, "at least 1"),
    ([1, 1, 1001, 1], {}, "at most 1000"),
    ([1, 1, 1, 1], {"keep": "best"}, "one of norm, first, last"),
]


@pytest.mark.parametrize(("blocks", "options", "reason"), REFUSED, ids=[reason for _, _, reason in REFUSED])
def test_what_makes_no_network_is_refused(
    blocks: list[int], options: dict[str, Any], reason: str, checkpoints: Path
) -> None:
    with pytest.raises((OperationError, UsageError), match=reason):
        rs.open(checkpoints / "bottleneck.pth").depth(blocks, **options)


def test_numbers_that_are_not_finite_say_nothing_of_a_block(tmp_path: Path) -> None:
    model = small_network(BasicBlock, (1, 2, 1, 1))
    torch.nn.init.constant_(model.get_parameter("layer2.1.bn2.weight"), torch.nan)
    network = rs.open(saved(model, tmp_path / "model.pth"))
    with pytest.raises(OperationError, match=r"`layer2.1.bn2` holds numbers that are not finite"):
        network.depth([1, 1, 1, 1])
    assert kept(network.depth([1, 1, 1, 1], "first")) == ((0,), (0,), (0,), (0,))


def test_an_inserted_block_that_was_trained_promises_nothing(checkpoints: Path, tmp_path: Path) -> None:
    source = checkpoints / "basic.pth"
    deeper = rs.open(source).depth([2, 2, 2, 1]).save(tmp_path / "deeper.safetensors")
    module = rs.load(deeper)
    torch.nn.init.ones_(module.get_parameter("layer2.1.bn2.bias"))
    path = rs.save(module, tmp_path / "trained.safetensors")
    proof = rs.verify(path, against=source)
    assert not proof.failed, str(proof)
    assert "inserted" not in {check.name for check in proof.checks}
