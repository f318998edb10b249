"""Packings that come in several kinds are refused until it is stated which one a file is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision.models.resnet import BasicBlock, Bottleneck

import resnet_surgeon as rs
from resnet_surgeon.errors import ArchitectureError
from tests.fixtures import Run, small_network


def body(prefix: str, **others: tuple[int, ...]) -> dict[str, Any]:
    state = small_network(Bottleneck).state_dict()
    return {f"{prefix}{name}": tensor for name, tensor in state.items() if not name.startswith("fc.")}


def with_others(prefix: str, *others: str) -> Callable[[], dict[str, Any]]:
    return lambda: body(prefix) | {name: torch.zeros(2048) for name in others}


PACKINGS: dict[str, tuple[str, Callable[[], dict[str, Any]], list[str]]] = {
    "re-identification": (
        "a.pth", with_others("base.", "bottleneck.weight", "bottleneck.running_mean"), ["reid", "strides=1-2-2-2"],
    ),
    "DETR": ("a.pth", with_others("backbone.0.body.", "query_embed.weight"), ["dilated=none", "dc5"]),
    "DeepLab": (
        "a.pth",
        with_others("encoder.", "decoder.aspp.0.weight"),
        ["deeplab", "deeplab8", "dilated=layer4", "dilated=layer3-layer4", "dilated=none"],
    ),
    "MONAI": (
        "a.pth", lambda: body("") | {"layer2.0.downsample.0.bias": torch.zeros(512)}, ["monai", "stem_stride=2"],
    ),
    "CIFAR": (
        "a.pth",
        lambda: body("") | {"conv1.weight": torch.zeros(64, 3, 3, 3)},
        [
            "cifar",
            "stem_stride=1,maxpool=torchvision",
            "stem_stride=2,maxpool=torchvision",
            "stem_stride=2,maxpool=none",
        ],
    ),
    "Caffe": (
        "resnet50_caffe.pth",
        with_others(""),
        ["caffe", "detectron2,maxpool=torchvision", "bottleneck_stride=conv2,maxpool=torchvision"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("packing", [*PACKINGS])
def test_a_packing_of_several_kinds_is_refused_until_it_is_stated(packing: str, tmp_path: Path) -> None:
    name, state, answers = PACKINGS[packing]
    torch.save(state(), tmp_path / name)
    with pytest.raises(ArchitectureError) as caught:
        rs.open(tmp_path / name)
    assert [answer.value for answer in caught.value.answers] == answers
    for answer in answers:
        assert rs.open(tmp_path / name, assume=answer).architecture


def test_answers_do_not_contradict_what_was_stated(tmp_path: Path) -> None:
    torch.save(body(""), tmp_path / "resnet50_caffe.pth")
    with pytest.raises(ArchitectureError) as caught:
        rs.open(tmp_path / "resnet50_caffe.pth", assume="bottleneck_stride=conv1")
    answers = [answer.value for answer in caught.value.answers]
    assert answers == ["bottleneck_stride=conv1,caffe", "bottleneck_stride=conv1,detectron2,maxpool=torchvision"]
    for answer in answers:
        assert rs.open(tmp_path / "resnet50_caffe.pth", assume=answer).architecture.bottleneck_stride == "conv1"


def test_the_error_is_the_commands_to_type(run: Run, tmp_path: Path) -> None:
    torch.save(body("base.") | {"bottleneck.running_mean": torch.zeros(2048)}, tmp_path / "reid.pth")
    done = run("adapt", "reid.pth", "--in-ch", "1", "--assume", "eps=1e-5")
    assert done.returncode == 1
    assert b"resnet-surgeon adapt reid.pth --in-ch 1 --assume eps=1e-05,reid  # layer4 with stride 1" in done.stderr
    done = run("adapt", "reid.pth", "--in-ch", "1", "--assume", "reid")
    assert done.returncode == 0
    assert b"assumed: strides=1-2-2-1 (user)" in done.stderr


def test_what_is_open_is_told_by_inspect(run: Run, tmp_path: Path) -> None:
    torch.save(body("base.") | {"bottleneck.running_mean": torch.zeros(2048)}, tmp_path / "reid.pth")
    assert b"`--assume reid`" in run("inspect", "reid.pth").stdout
    assert b"strides=1-2-2-1 (user)" in run("inspect", "reid.pth", "--assume", "reid").stdout


def test_basic_blocks_of_detectron2_have_their_stride_in_one_place(tmp_path: Path) -> None:
    names = {"layer1": "res2", "layer2": "res3", "layer3": "res4", "layer4": "res5"}
    state = {}
    for name, tensor in small_network(BasicBlock).state_dict().items():
        layer, _, rest = name.partition(".")
        rest = rest.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")
        rest = rest.replace("bn1", "conv1.norm").replace("bn2", "conv2.norm")
        if layer in names:
            state[f"{names[layer]}.{rest}"] = tensor
        elif layer != "fc":
            state[f"stem.conv1.{'norm.' * (layer == 'bn1')}{rest}"] = tensor
    torch.save(state, tmp_path / "a.pth")
    assert rs.open(tmp_path / "a.pth").architecture.block == "basic"


def test_verify_repeats_what_was_stated(tmp_path: Path) -> None:
    torch.save(body("base.") | {"bottleneck.running_mean": torch.zeros(2048)}, tmp_path / "reid.pth")
    made = rs.open(tmp_path / "reid.pth", assume="reid").adapt(1).save(tmp_path / "out.safetensors")
    proof = rs.verify(made, against=tmp_path / "reid.pth")
    assert (proof.failed, proof.unproven) == ((), ())
    assert "strides=1-2-2-1 (user)" in {check.name: check.finding for check in proof.checks}["assumed"]
    assert proof.holds
