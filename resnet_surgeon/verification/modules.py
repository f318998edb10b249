"""The file and its source as modules that run: torchvision's own class wherever its options make such a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor, nn
from torchvision.models import resnet as torchvision

from resnet_surgeon.architecture.spec import (
    STAGE_NAMES,
    Architecture,
    Function,
    Head,
    HiddenDropout,
    HiddenLinear,
    HiddenNorm,
    Stage,
    standard_stages,
)
from resnet_surgeon.architecture.variants import variant_name
from resnet_surgeon.formats.tensors import LazyTensor
from resnet_surgeon.module import DTYPES, ResNet, to_torch, without_numbers


def common_dtype(*networks: Mapping[str, LazyTensor]) -> torch.dtype:
    """One in which all numbers of all of them can be represented, and convolutions run everywhere."""
    is_double = any(tensor.dtype == "F64" for tensors in networks for tensor in tensors.values())
    return torch.float64 if is_double else torch.float32


def loaded(
    build: Callable[[Architecture], nn.Module],
    architecture: Architecture,
    tensors: Mapping[str, LazyTensor],
    dtype: torch.dtype,
    casts: Mapping[str, tuple[str, ...]] = {},
) -> nn.Module:
    """The module in evaluation mode, its numbers in `dtype`; those named in `casts` were cast to these dtypes before,
    one after the other. Raises RuntimeError if not all tensors fit.
    """
    with without_numbers():
        module = build(architecture)
    state = {name: _cast(to_torch(tensor), casts.get(name, ())) for name, tensor in tensors.items()}
    module.load_state_dict(state, strict=True, assign=True)
    return module.to(dtype).eval()


def _cast(tensor: Tensor, dtypes: tuple[str, ...]) -> Tensor:
    for dtype in dtypes:
        tensor = tensor.to(DTYPES[dtype])
    return tensor


def witness(
    architecture: Architecture,
    tensors: Mapping[str, LazyTensor],
    dtype: torch.dtype,
    casts: Mapping[str, tuple[str, ...]] = {},
) -> tuple[nn.Module, str]:
    """The source as a module, its tensors cast by torch, and what people call it."""
    by_torch = ", cast by torch," if casts else ""
    if torchvision_has(architecture):
        name = variant_name(architecture) or "ResNet"
        return loaded(as_torchvision, architecture, tensors, dtype, casts), f"torchvision's {name}{by_torch}"
    return loaded(ResNet, architecture, tensors, dtype, casts), f"the source{by_torch}"


def torchvision_has(architecture: Architecture) -> bool:
    """Whether it is a network of torchvision's class, but for what is set on its layers and lacks at its end."""
    depths = tuple(stage.blocks for stage in architecture.stages)
    plain = standard_stages(architecture.block, depths, architecture.groups, _width_per_group(architecture))
    return (
        bool(depths)
        and not architecture.branches
        and (architecture.block == "bottleneck" or architecture.groups == 1)
        and [_shape(stage) for stage in plain] == [_shape(stage) for stage in architecture.stages]
    )


def _shape(stage: Stage) -> tuple[int | bool, ...]:
    return stage.in_channels, stage.width, stage.out_channels, stage.downsample


def as_torchvision(architecture: Architecture) -> nn.Module:
    """torchvision's module, by its own options as far as they go: strides and dilations that they do not make are set
    on its layers, and identities stand for layers that the architecture has not.
    """
    depths = [stage.blocks for stage in architecture.stages]
    module: nn.Module = torchvision.ResNet(
        torchvision.BasicBlock if architecture.block == "basic" else torchvision.Bottleneck,
        depths + [1] * (len(STAGE_NAMES) - len(depths)),
        num_classes=1,
        groups=architecture.groups,
        width_per_group=_width_per_group(architecture),
        replace_stride_with_dilation=_replaced_strides(architecture),
        norm_layer=_identity if architecture.fused else partial(nn.BatchNorm2d, eps=architecture.eps),
    )
    kernel, stride = architecture.stem_kernel, architecture.stem_stride
    module.conv1 = nn.Conv2d(architecture.in_channels, 64, kernel, stride, padding=(kernel - 1) // 2, bias=False)
    if architecture.maxpool == "caffe":
        module.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=0, ceil_mode=True)
    if architecture.fused:
        for layer in module.modules():
            if isinstance(layer, nn.Conv2d):
                layer.bias = nn.Parameter(torch.zeros(layer.out_channels))
    for stage in architecture.stages:
        for index, block in enumerate(module.get_submodule(stage.name).children()):
            _set_strides(block, architecture, stage, is_first=index == 0)
    if architecture.pool != "avg":
        module.avgpool = _POOLS[architecture.pool]()
    if architecture.classifier:
        module.fc = _classifier(architecture.trunk_channels, architecture.classifier, architecture.eps)
    absent = [
        *STAGE_NAMES[len(depths) :],
        *["avgpool"] * (not architecture.avgpool),
        *["fc"] * (not architecture.classifier),
    ]
    for name in [*absent, *["maxpool"] * architecture.maxpool_is_identity]:
        setattr(module, name, nn.Identity())
    return module


def _classifier(features: int, head: Head, eps: float) -> nn.Module:
    """The head's layers as people write them, in an nn.Sequential if there are several."""
    members: list[nn.Module] = []
    for hidden in head.hidden:
        if isinstance(hidden, HiddenLinear):
            members.append(nn.Linear(features, hidden.features, bias=hidden.bias))
            features = hidden.features
        elif isinstance(hidden, HiddenNorm):
            members.append(nn.BatchNorm1d(features, eps=eps))
        elif isinstance(hidden, HiddenDropout):
            members.append(nn.Dropout(hidden.probability))
        else:
            members.append(_FUNCTIONS[hidden.function]())
    members.append(nn.Linear(features, head.classes, bias=head.bias))
    return nn.Sequential(*members) if head.hidden else members[0]


class _GeneralisedMean(nn.Module):
    """As in Radenovic's own code: github.com/filipradenovic/cnnimageretrieval-pytorch."""

    def __init__(self) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.ones(1) * 3)

    def forward(self, x: Tensor) -> Tensor:
        pooled: Tensor = nn.functional.adaptive_avg_pool2d(x.clamp(min=1e-6).pow(self.p), 1)
        return pooled.pow(1.0 / self.p)


class _MeanAndMaximum(nn.Module):
    """As `timm.layers.adaptive_avgmax_pool2d`."""

    def forward(self, x: Tensor) -> Tensor:
        mean: Tensor = nn.functional.adaptive_avg_pool2d(x, 1)
        return 0.5 * (mean + nn.functional.adaptive_max_pool2d(x, 1))


_POOLS: dict[str, Callable[[], nn.Module]] = {
    "max": lambda: nn.AdaptiveMaxPool2d(1),
    "avgmax": _MeanAndMaximum,
    "gem": _GeneralisedMean,
}
_FUNCTIONS: dict[Function, Callable[[], nn.Module]] = {
    "relu": nn.ReLU, "leaky_relu": nn.LeakyReLU, "elu": nn.ELU, "gelu": nn.GELU, "silu": nn.SiLU, "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}  # fmt: skip


def _identity(_: int) -> nn.Module:
    """In the place of a norm of so many channels."""
    return nn.Identity()


def _set_strides(block: nn.Module, architecture: Architecture, stage: Stage, *, is_first: bool) -> None:
    """The block's strides and dilation, which torchvision's options may have made others."""
    stride = stage.stride if is_first else 1
    dilation = stage.first_dilation if is_first else stage.dilation
    carrier = architecture.bottleneck_stride if architecture.block == "bottleneck" else "conv1"
    for name, layer in block.named_modules():
        if isinstance(layer, nn.Conv2d):
            layer.stride = (stride, stride) if name in (carrier, "downsample.0") else (1, 1)
        if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3):
            layer.dilation = layer.padding = (dilation, dilation)


def _width_per_group(architecture: Architecture) -> int:
    is_basic = architecture.block == "basic" or not architecture.stages
    return 64 if is_basic else architecture.stages[0].width // architecture.groups


def _replaced_strides(architecture: Architecture) -> list[bool]:
    """`replace_stride_with_dilation`: for layer2, layer3, layer4; basic blocks refuse it."""
    is_bottleneck = architecture.block == "bottleneck"
    replaced = [is_bottleneck and stage.stride == 1 and stage.dilation > 1 for stage in architecture.stages[1:]]
    return replaced + [False] * (len(STAGE_NAMES) - 1 - len(replaced))
