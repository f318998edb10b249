"""Any ResNet of torchvision's kind is known by its names and shapes; other kinds are refused by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import timm
import torch
import torchvision
from torchvision.models.resnet import BasicBlock, Bottleneck

from resnet_surgeon.architecture.recognise import describe, recognise
from resnet_surgeon.architecture.variants import VARIANTS, variant_name
from resnet_surgeon.errors import ArchitectureError
from tests.fixtures import small_network
from tests.work import calls


@dataclass(frozen=True)
class Tensor:
    shape: tuple[int, ...]
    dtype: str = "F32"


def tensors(module: torch.nn.Module) -> dict[str, Tensor]:
    dtypes = {torch.float32: "F32", torch.int64: "I64"}
    return {name: Tensor(tuple(tensor.shape), dtypes[tensor.dtype]) for name, tensor in module.state_dict().items()}


@pytest.mark.parametrize("name", VARIANTS)
def test_each_of_torchvisions_networks_is_recognised(name: str) -> None:
    with torch.device("meta"):
        found = recognise(tensors(torchvision.models.get_model(name)))
    assert found == VARIANTS[name]
    assert variant_name(found) == name


@pytest.mark.parametrize(
    "options",
    [
        {"depths": (1, 3, 2, 1)},
        {"block": Bottleneck, "groups": 4, "width_per_group": 8},
        {"block": Bottleneck, "width_per_group": 96},
        {"in_channels": 13},
        {"classes": 1},
    ],
    ids=str,
)
def test_depths_groups_widths_channels_and_classes_are_read_off(options: dict[str, Any]) -> None:
    found = recognise(tensors(small_network(**options)))
    assert tuple(stage.blocks for stage in found.stages) == options.get("depths", (1, 1, 1, 1))
    assert found.block == ("bottleneck" if options.get("block") is Bottleneck else "basic")
    assert (found.groups, found.in_channels) == (options.get("groups", 1), options.get("in_channels", 3))
    assert found.stages[0].width == options.get("width_per_group", 64) * options.get("groups", 1)
    assert found.heads[0].classes == options.get("classes", 10)


@pytest.mark.parametrize(
    "change",
    [
        {"fc.weight": (0, 512), "fc.bias": (0,)},
        {"fc.weight": (2**24 + 1, 512), "fc.bias": (2**24 + 1,)},
        {"conv1.weight": (64, 65_537, 7, 7)},
        {"layer1.0.conv3.weight": (256, 64, 1, 1), "layer1.0.conv2.weight": (2**20, 2**20, 3, 3)},
    ],
    ids=str,
)
def test_shapes_that_no_network_can_have_are_refused(change: dict[str, tuple[int, ...]]) -> None:
    shapes = tensors(small_network()) | {name: Tensor(shape) for name, shape in change.items()}
    with pytest.raises(ArchitectureError, match="at most|between 1 and 65536"):
        recognise(shapes)


def test_many_other_tensors_are_counted_and_four_are_named() -> None:
    network = tensors(small_network())

    others = {f"other{number}" * 10: Tensor((1,)) for number in range(4000)}

    def refused() -> None:
        with pytest.raises(ArchitectureError, match="unexpected tensor `other3.*; and 3996 more"):
            recognise(network | others)

    assert calls(refused) < 45 * len(others)  # of which few are for each character of a name


def test_without_fc_the_output_is_the_pooled_embedding() -> None:
    model = small_network()
    model.fc = torch.nn.Identity()
    assert recognise(tensors(model)).output_kind == "embedding"


@pytest.mark.parametrize(
    ("model", "word"),
    [
        ("resnet18d", "deep stem"),
        ("seresnet18", "squeeze-and-excitation"),
        ("resnetv2_50", "pre-activation"),
        ("skresnet18", "selective-kernel"),
        ("resnet50_gn", "without batch norms"),
    ],
)
def test_other_kinds_of_timm_are_refused_by_name(model: str, word: str) -> None:
    with torch.device("meta"):
        network = timm.create_model(model)
    with pytest.raises(ArchitectureError, match=word):
        recognise(tensors(network))


def test_cifar_networks_are_refused_by_name() -> None:
    model = small_network()
    model.conv1 = torch.nn.Conv2d(3, 16, 3, bias=False)
    with pytest.raises(ArchitectureError, match="CIFAR ResNet \\(16 channels"):
        recognise(tensors(model))


@pytest.mark.parametrize("name", ["vgg11", "efficientnet_b0", "vit_b_32", "densenet121"])
def test_what_is_no_resnet_is_said_to_be_none(name: str) -> None:
    with torch.device("meta"):
        network = torchvision.models.get_model(name)
    with pytest.raises(ArchitectureError, match="not a ResNet's state_dict: no tensor `conv1.weight`"):
        recognise(tensors(network))


def test_all_that_does_not_fit_is_told_at_once() -> None:
    odd = tensors(small_network(BasicBlock))
    odd["fc.bias"] = Tensor((7,))
    odd["layer2.0.bn1.running_var"] = Tensor((64,))
    odd["layer1.0.conv1.weight"] = Tensor((64, 64, 3, 3), "I64")
    del odd["layer3.0.conv2.weight"]
    odd["optimizer.step"] = Tensor(())
    with pytest.raises(ArchitectureError) as caught:
        recognise(odd)
    assert caught.value.what == (
        "tensor `layer1.0.conv1.weight` has dtype I64, expected floating point; "
        "tensor `layer2.0.bn1.running_var` has shape [64], expected [128]; "
        "tensor `layer3.0.conv2.weight` [256, 256, 3, 3] is missing; "
        "tensor `fc.bias` has shape [7], expected [10]; and 1 more"
    )


def test_a_gap_in_the_blocks_is_a_missing_block() -> None:
    gap = {name.replace("layer3.0", "layer3.1"): tensor for name, tensor in tensors(small_network()).items()}
    with pytest.raises(ArchitectureError, match="`layer3.0.conv1.weight` .* is missing"):
        recognise(gap)


def test_a_block_is_no_network_behind_a_prefix() -> None:
    shifted = {name.replace("layer", "5."): t for name, t in tensors(small_network()).items() if "layer" in name}
    with pytest.raises(ArchitectureError) as caught:
        recognise(shifted)
    assert caught.value.hint is None


def test_a_prefix_is_pointed_at() -> None:
    prefixed = {f"module.{name}": tensor for name, tensor in tensors(small_network()).items()}
    with pytest.raises(ArchitectureError) as caught:
        recognise(prefixed)
    assert "`module.`" in (caught.value.hint or "")


@pytest.mark.parametrize("stem", [(), (64, 3, 7), (64, 3, 7, 0), (64, 0, 7, 7), (32, 3, 7, 7)], ids=str)
def test_a_stem_of_another_shape_is_refused(stem: tuple[int, ...]) -> None:
    odd = {**tensors(small_network()), "conv1.weight": Tensor(stem)}
    with pytest.raises(ArchitectureError, match="`conv1.weight` has shape"):
        recognise(odd)


def test_description() -> None:
    assert describe(VARIANTS["resnext50_32x4d"]) == (
        "ResNet with bottleneck blocks 3-4-6-3, 32 groups, 3 input channels, 1000 classes"
    )
