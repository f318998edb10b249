"""features gives the maps of `create_feature_extractor`, and what torchvision builds on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision.models import ResNet
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.feature_extraction import create_feature_extractor
from torchvision.ops import FeaturePyramidNetwork

import resnet_surgeon as rs
from resnet_surgeon.errors import OperationError, UsageError
from resnet_surgeon.network import Network
from tests.fixtures import images


def maps(network: Network, image: torch.Tensor) -> dict[str, torch.Tensor]:
    with torch.no_grad():
        found: dict[str, torch.Tensor] = rs.load(network).eval()(image)
    return found


@pytest.mark.parametrize("layers", [("relu", "maxpool", "layer1"), ("layer2", "layer4")])
def test_they_are_those_of_create_feature_extractor(layers: tuple[str, ...], checkpoints: Path, basic: ResNet) -> None:
    network = rs.open(checkpoints / "basic.pth").features(layers, [f"map_{layer}" for layer in layers])
    with torch.no_grad():
        expected = create_feature_extractor(basic, {layer: f"map_{layer}" for layer in layers})(images())
    found = maps(network, images())
    assert [*found] == [*expected]
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_what_no_map_needs_is_dropped_and_each_output_is_listed(checkpoints: Path) -> None:
    network = rs.open(checkpoints / "bottleneck.pth").features(["layer3", "layer1"], ["1", "0"])
    assert network.architecture.children == ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3")
    assert [(output.name, output.kind, output.shape) for output in network.manifest().outputs] == [
        ("0", "feature_map", (256, 56, 56)),
        ("1", "feature_map", (1024, 14, 14)),
    ]
    assert repr(network).endswith("2 feature maps (0: 256, 1: 1024)>")


def test_layers_of_a_head_are_the_trunks(checkpoints: Path, basic: ResNet) -> None:
    network = rs.open(checkpoints / "basic.pth").heads([3, 5], names=["a", "b"], own="layer3")
    found = network.features(["layer2", "heads.b.layer4"])
    with torch.no_grad():
        expected = create_feature_extractor(basic, ["layer2", "layer4"])(images())
    assert all(torch.equal(value, expected[name]) for name, value in maps(found, images()).items())
    with pytest.raises(OperationError, match="the maps of 2 heads"):
        network.features(["heads.a.layer4", "heads.b.layer4"], ["a", "b"])


def test_it_goes_into_torchvisions_pyramid_and_detector(checkpoints: Path) -> None:
    network = rs.open(checkpoints / "bottleneck.pth").features(["layer1", "layer2", "layer3", "layer4"], list("0123"))
    backbone, channels = rs.load(network).eval(), [256, 512, 1024, 2048]
    pyramid = FeaturePyramidNetwork(channels, 16).eval()
    returned = {f"layer{number}": str(number - 1) for number in range(1, 5)}
    both = BackboneWithFPN(backbone, returned, channels, 16).eval()
    both.fpn.load_state_dict(pyramid.state_dict(), strict=False)
    with torch.no_grad():
        ours, theirs = pyramid(backbone(images())), both(images())
        assert all(torch.equal(ours[name], theirs[name]) for name in "0123")
        (found,) = FasterRCNN(both, num_classes=2, min_size=64, max_size=64).eval()([images()[0]])
    assert {"boxes", "labels", "scores"} == found.keys()


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
def test_it_can_be_scripted(checkpoints: Path) -> None:
    model = rs.load(rs.open(checkpoints / "basic.pth").features(["layer1", "layer2"], ["0", "1"])).eval()
    with torch.no_grad():
        expected, scripted = model(images()), torch.jit.script(model)(images())
    assert [*scripted] == ["0", "1"]
    assert all(torch.equal(scripted[name], expected[name]) for name in expected)


def test_what_comes_after_it_composes_or_says_why_not(checkpoints: Path) -> None:
    network = rs.open(checkpoints / "bottleneck.pth").features(["layer1", "layer3"])
    assert network.adapt(1).dilate(8).stem(stride=1).remove(layers=["layer3.1", "maxpool"]).architecture.maps
    assert network.features(["layer1"], ["x"]).architecture.children[-1] == "layer1"
    assert not network.heads([3]).architecture.maps
    with pytest.raises(OperationError, match="`layer3` gives the map `layer3`") as caught:
        network.remove(last=1)
    assert caught.value.hint == "take fewer maps: `features --layers layer1`"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"layers": ["avgpool"]}, "not a layer whose feature map can be had"),
        ({"layers": ["layer1"], "names": ["a", "b"]}, "2 names for 1 layers"),
        ({"layers": ["layer1", "layer1"]}, "the same name, or the same layer"),
        ({"layers": ["layer1", "layer2"], "names": ["a", "a"]}, "the same name"),
        ({"layers": ["layer1"], "names": ["a.b"]}, "a map cannot be called `a.b`"),
        ({"layers": []}, "layers must be a list of at least 1"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], reason: str, checkpoints: Path) -> None:
    with pytest.raises(UsageError, match=reason):
        rs.open(checkpoints / "basic.pth").features(**options)


def test_layers_that_there_are_not_are_refused_with_those_that_there_are(checkpoints: Path) -> None:
    with pytest.raises(OperationError, match="the network has no `heads.a.layer4`") as caught:
        rs.open(checkpoints / "basic.pth").remove(last=3).features(["layer1", "heads.a.layer4"])
    assert caught.value.hint == "its feature maps are those of relu, maxpool, layer1, layer2, layer3"


def test_a_library_that_cannot_say_so_is_refused(checkpoints: Path, tmp_path: Path) -> None:
    network = rs.open(checkpoints / "bottleneck.pth").features(["layer1", "layer4"])
    with pytest.raises(OperationError, match="transformers has no way to say feature maps by name"):
        network.save(tmp_path / "a.safetensors", names="transformers")
