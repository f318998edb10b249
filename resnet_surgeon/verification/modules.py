"""The file and its source as modules that run: torchvision's own class wherever its options make such a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn
from torchvision.models import resnet as torchvision

from resnet_surgeon.architecture.dilation import dilated
from resnet_surgeon.architecture.spec import STAGE_NAMES, Architecture, standard_stages
from resnet_surgeon.architecture.variants import variant_name
from resnet_surgeon.formats.tensors import LazyTensor
from resnet_surgeon.module import ResNet, to_torch


def common_dtype(*networks: Mapping[str, LazyTensor]) -> torch.dtype:
    """One in which all numbers of all of them can be represented, and convolutions run everywhere."""
    is_double = any(tensor.dtype == "F64" for tensors in networks for tensor in tensors.values())
    return torch.float64 if is_double else torch.float32


def loaded(
    build: Callable[[Architecture], nn.Module],
    architecture: Architecture,
    tensors: Mapping[str, LazyTensor],
    dtype: torch.dtype,
) -> nn.Module:
    """The module in evaluation mode, its numbers in `dtype`. Raises RuntimeError if not all tensors fit."""
    with torch.device("meta"):
        module = build(architecture)
    state = {name: to_torch(tensor) for name, tensor in tensors.items()}
    module.load_state_dict(state, strict=True, assign=True)
    return module.to(dtype).eval()


def witness(architecture: Architecture, tensors: Mapping[str, LazyTensor], dtype: torch.dtype) -> tuple[nn.Module, str]:
    """The source as a module, and what people call it."""
    if torchvision_has(architecture):
        name = variant_name(architecture) or "ResNet"
        return loaded(as_torchvision, architecture, tensors, dtype), f"torchvision's {name}"
    return loaded(ResNet, architecture, tensors, dtype), "the source"


def torchvision_has(architecture: Architecture) -> bool:
    """Whether torchvision's options make the network, but for its input channels and what it lacks at its end."""
    depths = tuple(stage.blocks for stage in architecture.stages)
    replaced = _replaced_strides(architecture)
    stages = standard_stages(architecture.block, depths, architecture.groups, _width_per_group(architecture))
    is_plain = architecture.groups == 1 and not any(replaced)
    return (
        bool(depths)
        and len(architecture.heads) <= 1
        and architecture.bottleneck_stride == "conv2"
        and (architecture.block == "bottleneck" or is_plain)
        and architecture.stages
        == dilated(
            Architecture(architecture.block, 3, stages, (), architecture.groups),
            tuple(name for name, is_replaced in zip(STAGE_NAMES[1:], replaced, strict=True) if is_replaced),
        ).stages
    )


def as_torchvision(architecture: Architecture) -> nn.Module:
    """torchvision's module; identities stand for layers that the architecture has not."""
    depths = [stage.blocks for stage in architecture.stages]
    module: nn.Module = torchvision.ResNet(
        torchvision.BasicBlock if architecture.block == "basic" else torchvision.Bottleneck,
        depths + [1] * (len(STAGE_NAMES) - len(depths)),
        num_classes=1,
        groups=architecture.groups,
        width_per_group=_width_per_group(architecture),
        replace_stride_with_dilation=_replaced_strides(architecture),
    )
    module.conv1 = nn.Conv2d(architecture.in_channels, 64, kernel_size=7, stride=2, padding=3, bias=False)
    if architecture.heads:
        module.fc = nn.Linear(architecture.trunk_channels, architecture.heads[0].classes)
    absent = [
        *STAGE_NAMES[len(depths) :],
        *["avgpool"] * (not architecture.avgpool),
        *["fc"] * (not architecture.heads),
    ]
    for name in [*absent, *["maxpool"] * architecture.maxpool_is_identity]:
        setattr(module, name, nn.Identity())
    return module


def _width_per_group(architecture: Architecture) -> int:
    is_basic = architecture.block == "basic" or not architecture.stages
    return 64 if is_basic else architecture.stages[0].width // architecture.groups


def _replaced_strides(architecture: Architecture) -> list[bool]:
    """`replace_stride_with_dilation`: for layer2, layer3, layer4."""
    replaced = [stage.stride == 1 for stage in architecture.stages[1:]]
    return replaced + [False] * (len(STAGE_NAMES) - 1 - len(replaced))
