"""heads gives what torchvision's layers composed by hand give, each head with layers and gradients of its own."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import nn
from torchvision.models import ResNet
from torchvision.models.resnet import BasicBlock, Bottleneck

import resnet_surgeon as rs
from resnet_surgeon.errors import OperationError, UsageError
from resnet_surgeon.operations.heads import Heads
from tests.fixtures import images


def with_heads(source: Path, tmp_path: Path, *arguments: Any, **options: Any) -> Any:
    rs.open(source).heads(*arguments, **options).save(tmp_path / "heads.safetensors")
    return rs.load(tmp_path / "heads.safetensors").eval()


@pytest.mark.parametrize("own", [None, "none", "layer1", "layer2", "layer3", "layer4"])
@pytest.mark.parametrize("name", ["basic", "bottleneck"])
def test_heads_compute_what_torchvisions_layers_compute(
    own: str | None, name: str, checkpoints: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    original: ResNet = request.getfixturevalue(name)
    ours = with_heads(checkpoints / f"{name}.pth", tmp_path, [3, 5], own=own)
    outputs = ours(images())
    children = list(original.children())
    cut = {"none": 9, "layer1": 4, "layer2": 5, "layer3": 6}.get(own or "layer4", 7)
    with torch.no_grad():
        trunk = nn.Sequential(*children[:cut])(images())
        for output, head, classes in zip(outputs, ours.heads.values(), (3, 5), strict=True):
            features = nn.Sequential(*children[cut:-1])(trunk).flatten(1)
            assert torch.equal(output, nn.functional.linear(features, head.fc.weight, head.fc.bias))
            assert output.shape == (2, classes)


def test_heads_share_no_storage(checkpoints: Path, tmp_path: Path) -> None:
    model = with_heads(checkpoints / "basic.pth", tmp_path, [3, 5])
    pointers = [tensor.untyped_storage().data_ptr() for tensor in model.state_dict().values()]
    assert len(set(pointers)) == len(pointers)


def test_a_loss_on_one_head_leaves_the_other_without_gradient(checkpoints: Path, tmp_path: Path) -> None:
    model = with_heads(checkpoints / "basic.pth", tmp_path, [3, 5], names=["lesion", "grade"])
    model(images())[0].sum().backward()
    assert all(parameter.grad is not None for parameter in model.heads["lesion"].parameters())
    assert all(parameter.grad is None for parameter in model.heads["grade"].parameters())
    assert model.conv1.weight.grad is not None


@pytest.mark.parametrize(
    ("name", "block", "depths"), [("basic", BasicBlock, [2, 1, 2, 1]), ("bottleneck", Bottleneck, [1, 2, 3, 1])]
)
def test_a_single_head_loads_strictly_into_torchvision(
    name: str, block: type[BasicBlock | Bottleneck], depths: list[int], checkpoints: Path, tmp_path: Path
) -> None:
    ours = with_heads(checkpoints / f"{name}.safetensors", tmp_path, [7])
    witness = ResNet(block, depths, num_classes=7).eval()
    witness.load_state_dict(ours.state_dict(), strict=True)
    with torch.no_grad():
        assert torch.equal(ours(images()), witness(images()))


def test_a_single_head_loads_strictly_into_timm(tmp_path: Path) -> None:
    rs.open("resnet18", weights="random").adapt(in_channels=2).heads([7]).save(tmp_path / "one.safetensors")
    ours = rs.load(tmp_path / "one.safetensors").eval()
    witness = timm.create_model(
        "resnet18", in_chans=2, num_classes=7, checkpoint_path=str(tmp_path / "one.safetensors")
    )
    with torch.no_grad():
        torch.testing.assert_close(ours(images(2)), witness.eval()(images(2)))


def test_owned_layers_are_copies_to_the_bit(checkpoints: Path, basic: ResNet, tmp_path: Path) -> None:
    model = with_heads(checkpoints / "basic.pth", tmp_path, [3, 5])
    for head in model.heads.values():
        for name, tensor in basic.layer4.state_dict().items():
            assert torch.equal(head.layer4.state_dict()[name], tensor)


def test_new_layers_follow_torchs_law_and_differ(checkpoints: Path, tmp_path: Path) -> None:
    model = with_heads(checkpoints / "basic.pth", tmp_path, [40, 40], seed=1)
    weights = [head.fc.weight.detach() for head in model.heads.values()]
    assert not torch.equal(*weights)
    for weight in weights:
        assert 0.99 * 512**-0.5 < float(weight.abs().max()) <= 512**-0.5
        assert abs(float(weight.std()) * (3 * 512) ** 0.5 - 1) < 0.02


def test_heads_attach_to_what_is_left(checkpoints: Path, tmp_path: Path) -> None:
    cut = rs.open(checkpoints / "bottleneck.pth").remove(last=3)
    cut.save(tmp_path / "cut.safetensors")
    features = rs.load(tmp_path / "cut.safetensors").eval()
    model = with_heads(tmp_path / "cut.safetensors", tmp_path, [3, 5])
    assert [head.fc.in_features for head in model.heads.values()] == [1024, 1024]
    with torch.no_grad():
        pooled = features(images()).mean((2, 3))
        torch.testing.assert_close(model(images())[1], model.heads["head2"].fc(pooled))


@pytest.mark.parametrize("last", range(1, 10))
def test_a_head_fits_every_cut(last: int, checkpoints: Path, tmp_path: Path) -> None:
    rs.open(checkpoints / "basic.pth").remove(last=last).heads([4]).save(tmp_path / "one.safetensors")
    assert rs.load(tmp_path / "one.safetensors").eval()(images()).shape == (2, 4)


def test_heads_are_replaced_after_they_are_removed(checkpoints: Path) -> None:
    several = rs.open(checkpoints / "basic.pth").heads([3, 5])
    with pytest.raises(OperationError, match="several heads already"):
        several.heads([2])
    again = several.remove(layers=["heads"]).heads([2])
    assert again.architecture.trunk_channels == 256


def test_options_are_resolved_in_the_history(checkpoints: Path) -> None:
    network = rs.open(checkpoints / "basic.pth")
    assert network.heads([3, 5]).operations == (Heads((3, 5), ("head1", "head2"), "layer4", 0),)
    assert network.heads([3]).operations == (Heads((3,), ("fc",), "none", 0),)
    assert network.remove(last=3).heads([3, 5]).operations[-1] == Heads((3, 5), ("head1", "head2"), "none", 0)


def test_an_owned_layer_must_be_there(checkpoints: Path) -> None:
    with pytest.raises(OperationError, match="no `layer4`"):
        rs.open(checkpoints / "basic.pth").remove(last=3).heads([3, 5], own="layer4")


@pytest.mark.parametrize("own", ["layer4", "layer1"])
def test_a_single_head_owns_no_layers(own: str) -> None:
    """It would have them to itself in any case; its names are those that torchvision knows."""
    with pytest.raises(UsageError, match="a single head has no layers of its own") as caught:
        Heads([5], own=own)  # type: ignore[arg-type]
    assert "leave `--own` out" in (caught.value.hint or "")


def test_a_head_may_have_a_name_that_torchs_modules_have(checkpoints: Path, tmp_path: Path) -> None:
    names = ["train", "items", "__class__", "0"]
    path = rs.open(checkpoints / "basic.pth").heads([2, 3, 4, 5], names=names).save(tmp_path / "model.safetensors")
    model: Any = rs.load(path)
    assert [*model.heads] == names
    assert [output.shape[1] for output in model.train().eval()(images())] == [2, 3, 4, 5]
    assert model.heads["items"].fc.weight.shape == (3, 512)
    assert rs.verify(path, against=checkpoints / "basic.pth").holds


def test_heads_and_classes_have_bounds(checkpoints: Path) -> None:
    network = rs.open(checkpoints / "basic.pth")
    assert len(network.heads([1] * 4096, own="none").architecture.heads) == 4096
    assert network.heads([2**24]).architecture.heads[0].classes == 2**24


@pytest.mark.parametrize(
    "options",
    [
        {"classes": []},
        {"classes": [0]},
        {"classes": [2.0]},
        {"classes": None},
        {"classes": "35"},
        {"classes": [2**24 + 1]},
        {"classes": [1] * 4097},
        {"classes": [3, 5], "names": ["a"]},
        {"classes": [3, 5], "names": ["a", "a"]},
        {"classes": [3, 5], "names": ["a", "b.c"]},
        {"classes": [3, 5], "names": ["a", "x" * 65]},
        {"classes": [3, 5], "names": ["a", ""]},
        {"classes": [3, 5], "own": "fc"},
    ],
    ids=lambda options: str(options)[:40],
)
def test_wrong_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        Heads(**options)  # type: ignore[arg-type]


def test_a_model_with_heads_trains(checkpoints: Path, tmp_path: Path) -> None:
    model = with_heads(checkpoints / "basic.pth", tmp_path, [3, 5]).train()
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    targets = [torch.tensor([0, 2]), torch.tensor([4, 1])]
    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        loss: Any = sum(
            nn.functional.cross_entropy(output, target) for output, target in zip(model(images()), targets, strict=True)
        )
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    assert not torch.equal(before["conv1.weight"], model.conv1.weight)
