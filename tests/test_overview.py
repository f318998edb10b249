"""The overview sums up a plan layer by layer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import resnet_surgeon as rs
from resnet_surgeon.network import Network
from resnet_surgeon.overview import Overview, overview
from tests.work import calls


@pytest.fixture(scope="module")
def resnet50() -> Network:
    return rs.open("resnet50", weights="random")


def summed_up(before: Network, after: Network) -> Overview:
    return overview(after.plan(), before.architecture, after.architecture)


def fates(found: Overview) -> str:
    """`stem:changed layer1:kept ...`, what changed in brackets."""
    layers = (f"{layer.name}:{layer.fate}{f'({layer.note})' if layer.note else ''}" for layer in found.trunk)
    return " ".join(layers)


KEPT = "layer1:kept layer2:kept layer3:kept"


@pytest.mark.parametrize(
    ("operate", "expected"),
    [
        (lambda network: network, f"stem:kept {KEPT} layer4:kept fc:kept"),
        (lambda network: network.adapt(1), f"stem:changed(in 3 -> 1) {KEPT} layer4:kept fc:kept"),
        (lambda network: network.remove(last=1), f"stem:kept {KEPT} layer4:kept fc:gone"),
        (lambda network: network.remove(last=3), f"stem:kept {KEPT} layer4:gone avgpool:gone fc:gone"),
        (lambda network: network.heads([7]), f"stem:kept {KEPT} layer4:kept fc:new(7 classes)"),
        (lambda network: network.heads([3, 5]), f"stem:kept {KEPT} fc:gone"),
        (
            lambda network: network.remove(layers=["maxpool", "layer3.1", "layer3.4"]),
            "stem:kept maxpool:changed(identity) layer1:kept layer2:kept layer3:changed(-2 blocks) layer4:kept fc:kept",
        ),
        (
            lambda network: network.remove(last=7),
            "stem:kept maxpool:gone layer1:gone layer2:gone layer3:gone layer4:gone avgpool:gone fc:gone",
        ),
    ],
)
def test_the_fate_of_each_layer(operate: Callable[[Network], Network], expected: str, resnet50: Network) -> None:
    assert fates(summed_up(resnet50, operate(resnet50))) == expected


def test_heads_have_layers_of_their_own(resnet50: Network) -> None:
    branches = summed_up(resnet50, resnet50.heads([3, 5], names=["a", "b"])).branches
    assert [(branch.name, branch.classes) for branch in branches] == [("a", 3), ("b", 5)]
    assert [[(layer.name, layer.fate) for layer in branch.layers] for branch in branches] == [
        [("layer4", "copied"), ("fc", "new")]
    ] * 2


def test_many_heads_take_work_in_proportion(resnet50: Network) -> None:
    def work(heads: int) -> int:
        network = resnet50.heads([2] * heads, own="none")
        return calls(lambda: summed_up(resnet50, network))

    assert work(800) < 2.5 * work(400)


def test_heads_that_are_removed_are_shown_as_gone(resnet50: Network, tmp_path: Path) -> None:
    heads = rs.open(resnet50.heads([3, 5]).save(tmp_path / "heads.safetensors"))
    branches = summed_up(heads, heads.remove(layers=["heads"])).branches
    assert {layer.fate for branch in branches for layer in branch.layers} == {"gone"}


def test_parameters_and_bytes_add_up_to_the_network(resnet50: Network) -> None:
    layers = summed_up(resnet50, resnet50).trunk
    assert sum(layer.parameters for layer in layers) == 25_557_032  # as torchvision's documentation says
    assert sum(layer.bytes for layer in layers) == sum(step.after.bytes for step in resnet50.plan() if step.after)


def test_stages_have_the_fates_of_their_blocks(resnet50: Network) -> None:
    cut = summed_up(resnet50, resnet50.remove(layers=["layer3.4", "layer4", "avgpool", "fc"]))
    blocks = {layer.name: layer.blocks for layer in cut.trunk}
    assert blocks["layer3"] == ("kept",) * 5
    assert blocks["layer4"] == ("gone",) * 3


def test_layers_say_what_they_do(resnet50: Network) -> None:
    heads = summed_up(resnet50, resnet50.heads([3, 5], names=["a", "b"]))
    assert [layer.detail for layer in heads.trunk[:2]] == ["conv1 bn1 relu maxpool", "64 -> 256 channels"]
    assert heads.trunk[-1].detail == "2048 features -> 1000"
    assert [layer.detail for layer in heads.branches[1].layers] == ["1024 -> 2048 channels", "2048 features -> 5"]
