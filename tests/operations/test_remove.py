"""remove gives what cutting torchvision's own children gives, and refuses what would not run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torchvision.models import ResNet
from torchvision.models.resnet import BasicBlock, Bottleneck

import resnet_surgeon as rs
from resnet_surgeon.architecture.variants import VARIANTS
from resnet_surgeon.errors import CheckpointError, OperationError, UsageError
from resnet_surgeon.manifest import operation_from_record
from resnet_surgeon.operations.remove import Remove
from tests.fixtures import images


def removed(source: Path, tmp_path: Path, **options: Any) -> nn.Module:
    rs.open(source).remove(**options).save(tmp_path / "cut.safetensors")
    return rs.load(tmp_path / "cut.safetensors").eval()


@pytest.mark.parametrize("last", range(1, 10))
@pytest.mark.parametrize("name", ["basic", "bottleneck"])
def test_last_keeps_exactly_the_first_children(
    last: int, name: str, checkpoints: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    original: ResNet = request.getfixturevalue(name)
    ours = removed(checkpoints / f"{name}.safetensors", tmp_path, last=last)
    with torch.no_grad():
        expected = nn.Sequential(*list(original.children())[:-last])(images())
        expected = expected.flatten(1) if last == 1 else expected
        assert torch.equal(ours(images()), expected)
    assert [key for key, _ in ours.named_children()] == [key for key, _ in original.named_children()][:-last]


@pytest.mark.parametrize("layers", [("fc",), ("fc", "avgpool"), ("layer4", "avgpool", "fc")])
def test_last_children_can_be_named_in_any_order(layers: tuple[str, ...], checkpoints: Path) -> None:
    network = rs.open(checkpoints / "basic.pth")
    assert network.remove(layers=layers).manifest() == network.remove(last=len(layers)).manifest()


def test_maxpool_becomes_the_identity(checkpoints: Path, basic: ResNet, tmp_path: Path) -> None:
    ours = removed(checkpoints / "basic.pth", tmp_path, layers=["maxpool"])
    assert isinstance(ours.maxpool, nn.Identity)
    witness = ResNet(BasicBlock, [2, 1, 2, 1], num_classes=10)
    witness.load_state_dict(basic.state_dict())
    witness.maxpool = nn.Identity()
    with torch.no_grad():
        assert torch.equal(ours(images()), witness.eval()(images()))


def test_blocks_are_renumbered_so_that_torchvision_loads_the_rest(
    checkpoints: Path, bottleneck: ResNet, tmp_path: Path
) -> None:
    ours = removed(checkpoints / "bottleneck.pth", tmp_path, layers=["layer3.1", "layer2.1"])
    witness = ResNet(Bottleneck, [1, 1, 2, 1], num_classes=10)
    witness.load_state_dict(ours.state_dict(), strict=True)
    assert torch.equal(witness.layer3[1].conv2.weight, bottleneck.layer3[2].conv2.weight)
    bottleneck_cut = nn.Sequential(
        *(child for name, child in bottleneck.named_children() if name not in ("avgpool", "fc"))
    )
    bottleneck_cut[5] = bottleneck.layer2[:1]
    bottleneck_cut[6] = nn.Sequential(bottleneck.layer3[0], bottleneck.layer3[2])
    with torch.no_grad():
        assert torch.equal(ours(images()), bottleneck.fc(bottleneck.avgpool(bottleneck_cut(images())).flatten(1)))


def test_the_first_block_goes_where_its_shortcut_is_the_identity(checkpoints: Path, basic: ResNet) -> None:
    network = rs.open(checkpoints / "basic.pth").remove(layers=["layer1.0"])
    assert network.tensors["layer1.0.conv1.weight"] is rs_tensor(network, "layer1.1.conv1.weight")


def rs_tensor(network: rs.Network, name: str) -> object:
    return network.opened.tensors[name]


REFUSED = [
    ({"layers": ["conv1"]}, "without it no network is left", "adapt"),
    ({"layers": ["layer2"]}, "would get 256 channels, not 512", "`--layers layer2,layer3,layer4,avgpool,fc`"),
    ({"layers": ["layer2"]}, "would get 256 channels", "single blocks of it, such as `layer2.1`"),
    ({"layers": [*VARIANTS["resnet50"].children]}, "without it no network is left", "adapt"),
    ({"layers": ["heads.a"]}, "no head `a`: it has no heads beside each other", None),
    ({"layers": ["bn1"]}, "trained with it", "`--layers bn1,relu"),
    ({"layers": ["avgpool"]}, "trained with it", "`--layers avgpool,fc`"),
    ({"layers": ["layer3.0"]}, "has a downsample", "`layer3.1`"),
    ({"layers": ["layer3.3"]}, "`layer3` has 3, counted from 0", None),
    ({"layers": ["layer4.0"]}, "has a downsample", "the only block"),
    ({"layers": ["heads"]}, "no layer `heads`", "layer3.4"),
    ({"last": 10}, "would leave nothing", "at most 9"),
]


@pytest.mark.parametrize(("options", "reason", "hint"), REFUSED)
def test_what_would_not_run_is_refused_with_what_works(
    options: dict[str, Any], reason: str, hint: str | None, checkpoints: Path
) -> None:
    with pytest.raises(OperationError, match=reason) as caught:
        rs.open(checkpoints / "bottleneck.pth").remove(**options)
    assert str(caught.value).startswith("remove: ")
    assert (hint or "") in (caught.value.hint or "")


@pytest.mark.parametrize("layer", ["layer4", "layer4.0", "fc", "avgpool"])
def test_what_belongs_to_heads_is_removed_with_them(layer: str, checkpoints: Path) -> None:
    network = rs.open(checkpoints / "basic.pth").heads([2, 3])
    for several, hint in ((network, "heads.head1"), (network.remove(layers=["heads.head1"]), "use `--layers heads`")):
        with pytest.raises(OperationError, match=f"`{layer}` belongs to the heads") as caught:
            several.remove(layers=[layer])
        assert hint in str(caught.value.hint)


MISSPELT = {
    "layr4": "did you mean `layer4`?",
    "layer3.01": "did you mean `layer3.1`?",
    "layer3.\N{ARABIC-INDIC DIGIT ONE}": "did you mean `layer3.1`?",
    "layer3.\N{FULLWIDTH DIGIT ONE}\N{FULLWIDTH DIGIT ZERO}": "did you mean `layer3.10`?",
    "layer3.1 ": "layer3",
    "layer3.1\n": "layer3",
    "layer3.+1": "layer3",
    "layer3.1_0": "layer3",
    "layer3.10000": "layer3",
    "layer3.": "layer3",
    "layer3.1.conv1": "layer3",
    "layer5": "did you mean `layer4`?",
    "heads.a.fc": "did you mean `heads`?",
    "FC": "layer3.4",
    "../../etc/passwd": "layer3.4",
}


@pytest.mark.parametrize(("layer", "hint"), MISSPELT.items())
def test_a_layer_has_one_spelling(layer: str, hint: str) -> None:
    """What no network can have is no name of a layer, nor part of a file's."""
    with pytest.raises(UsageError, match="no network has a layer") as caught:
        Remove(layers=(layer,))
    assert hint in (caught.value.hint or "")


def test_layers_in_a_manifest_have_that_spelling(checkpoints: Path) -> None:
    record = {"remove": {"last": None, "layers": ["layer1.00"]}}
    with pytest.raises(CheckpointError, match="operation remove: .*no network has a layer `layer1.00`"):
        operation_from_record(record)


@pytest.mark.parametrize("layer", ["layer1.0", "maxpool", "fc"])
def test_what_is_removed_is_gone(layer: str, checkpoints: Path) -> None:
    network = rs.open(checkpoints / "basic.pth")
    assert network.remove(layers=[layer]).architecture != network.architecture


def test_a_stage_keeps_at_least_one_block(checkpoints: Path) -> None:
    with pytest.raises(OperationError, match="no block of `layer1` would be left"):
        rs.open(checkpoints / "basic.pth").remove(layers=["layer1.0", "layer1.1"])


def test_maxpool_is_removed_once(checkpoints: Path) -> None:
    with pytest.raises(OperationError, match="identity already"):
        rs.open(checkpoints / "basic.pth").remove(layers=["maxpool"]).remove(layers=["maxpool"])


def test_blocks_of_a_deep_stage_are_put_in_order_by_number() -> None:
    network = rs.open("resnet101", weights="random").remove(layers=["layer3.10", "layer3.2", "maxpool"])
    assert network.operations == (Remove(layers=("maxpool", "layer3.2", "layer3.10")),)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"last": 1, "layers": ["fc"]},
        {"last": 0},
        {"last": 1.5},
        {"layers": []},
        {"layers": [""]},
        {"layers": [3]},
        {"layers": "x" * 1_000_000},
    ],
    ids=range(8),
)
def test_wrong_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        Remove(**options)  # type: ignore[arg-type]


def test_a_maxpool_that_is_cut_off_is_no_identity(checkpoints: Path) -> None:
    """Nothing of it is left that could be one."""
    network = rs.open(checkpoints / "basic.pth").remove(layers=["maxpool"]).remove(last=7)
    assert network.architecture.stem == ("conv1", "bn1", "relu")
    assert not network.architecture.maxpool_is_identity
