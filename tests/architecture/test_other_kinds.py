"""A ResNet of another kind is refused by that kind's own signs, wherever it stands in the file."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
import timm
import torch
from torch import nn
from torchvision.models import ResNet
from torchvision.models.video import mc3_18, r2plus1d_18, r3d_18

import resnet_surgeon as rs
from resnet_surgeon.errors import ArchitectureError, CheckpointError
from tests.fixtures import small_network

State = dict[str, torch.Tensor]


def saved(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def plain() -> State:
    return dict(small_network().state_dict())


def clip() -> State:
    """`CLIP.visual` of a ResNet: a stem of three convolutions, and attention in the place of pooling."""
    state = {f"visual.{name}": tensor for name, tensor in plain().items() if not name.startswith("fc")}
    stem = {"conv1": (32, 3), "conv2": (32, 32), "conv3": (64, 32)}
    state |= {f"visual.{name}.weight": torch.zeros(*shape, 3, 3) for name, shape in stem.items()}
    return {**state, "visual.attnpool.positional_embedding": torch.zeros(50, 512), "logit_scale": torch.zeros(())}


def kinetics() -> State:
    """Convolutions along three axes, by torchvision's names: Hara et al.'s networks of videos."""
    return {name: tensor.unsqueeze(2) if tensor.dim() == 4 else tensor for name, tensor in plain().items()}


def signals() -> State:
    """Convolutions along one axis: electrocardiograms."""
    return {name: tensor[..., 0] if tensor.dim() == 4 else tensor for name, tensor in plain().items()}


def wide(times: int) -> State:
    return {
        name: torch.zeros(
            [size * times if size > 3 and axis < 2 else size for axis, size in enumerate(tensor.shape)],
            dtype=torch.float16,
        )
        for name, tensor in plain().items()
    }


def cifar() -> State:
    return {**plain(), "conv1.weight": torch.zeros(16, 3, 3, 3)}


def twice_as_wide() -> State:
    return wide(2)


def three_times_as_wide() -> State:
    return wide(3)


def squeezed() -> State:
    return {**plain(), "layer1.0.se.fc1.weight": torch.zeros(4, 64, 1, 1)}


def ibn() -> State:
    return {**plain(), "layer1.0.bn1.IN.weight": torch.zeros(32)}


def deep_stem() -> State:
    with torch.device("meta"):
        model = timm.create_model("resnet18d")
    return {name: torch.zeros(tensor.shape) for name, tensor in model.state_dict().items()}


def hrnet() -> State:
    with torch.device("meta"):
        model = timm.create_model("hrnet_w18_small")
    return {name: torch.zeros(tensor.shape) for name, tensor in model.state_dict().items()}


KINDS = [
    (clip, "CLIP's ResNet"),
    (kinetics, "a 3D ResNet"),
    (signals, "a 1D ResNet"),
    (cifar, r"a CIFAR ResNet \(16 channels from a 3x3 stem\)"),
    (twice_as_wide, "a ResNet 2 times as wide"),
    (three_times_as_wide, "a ResNet 3 times as wide"),
    (squeezed, "squeeze-and-excitation"),
    (ibn, "an IBN-Net"),
    (deep_stem, "a deep stem"),
    (hrnet, "an HRNet"),
]


@pytest.mark.parametrize(("make", "kind"), KINDS, ids=[make.__name__ for make, _ in KINDS])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_it_is_refused_by_its_own_name(make: Callable[[], State], kind: str, prefix: str) -> None:
    with pytest.raises(ArchitectureError, match=f"this is .*{kind}"):
        rs.open(saved({prefix + name: tensor for name, tensor in make().items()}))


@pytest.mark.parametrize("build", [r3d_18, mc3_18, r2plus1d_18], ids=lambda build: build.__name__)
def test_torchvisions_networks_of_videos_are_3d(build: Callable[[], nn.Module]) -> None:
    with torch.device("meta"):
        names = build().state_dict()
    with pytest.raises(ArchitectureError, match="this is a 3D ResNet"):
        rs.open(saved({name: torch.zeros(tensor.shape) for name, tensor in names.items()}))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["conv1.weight", "layer2.0.conv2.weight", "fc.weight"])
def test_a_quantised_tensor_of_the_network_is_named(name: str, basic: ResNet) -> None:
    state = basic.state_dict()
    state[name] = torch.quantize_per_tensor(state[name], 0.1, 0, torch.qint8)
    with pytest.raises(CheckpointError, match=f"the network's `{name}` is a quantised tensor"):
        rs.open(saved(state))


@pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated")
def test_a_quantised_classifier_is_refused(basic: ResNet) -> None:
    quantised = torch.ao.quantization.quantize_dynamic(basic, {nn.Linear}, dtype=torch.qint8)  # type: ignore[no-untyped-call]
    with pytest.raises(CheckpointError, match="quantised"):
        rs.open(saved(quantised.state_dict()))


def test_a_sparse_tensor_of_the_network_is_refused(basic: ResNet) -> None:
    with pytest.raises(CheckpointError, match="sparse"):
        rs.open(saved({**basic.state_dict(), "layer1.0.conv1.weight": torch.zeros(64, 64, 3, 3).to_sparse()}))


def test_inspect_names_the_kind(basic: ResNet) -> None:
    problem = rs.inspect(saved(clip())).problem
    assert problem
    assert "CLIP's ResNet" in problem
