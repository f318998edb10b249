"""Builds a `torch.nn.Module` from an Architecture, and torch's tensors from lazy ones. This room and those below it in
docs/house.md import torch at their top, no other does. Knows no files.

The submodules have torchvision's names and the forward pass is torchvision's (`torchvision.models.resnet`), operation
by operation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from resnet_surgeon.architecture import layers
from resnet_surgeon.architecture.parameters import GENERALISED_MEAN
from resnet_surgeon.architecture.spec import MAPPED, Architecture, Function, Head, Pool
from resnet_surgeon.formats.tensors import LazyTensor, Stored, chunks
from resnet_surgeon.manifest import Manifest
from resnet_surgeon.platform.memory import ask_for_huge_pages

DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
}  # fmt: skip


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: `torchvision.models.resnet.BasicBlock`."""

    def __init__(self, block: layers.Block) -> None:
        super().__init__()
        self.conv1, self.bn1, self.relu, self.conv2, self.bn2 = map(_layer, block.layers)
        self.downsample = _shortcut(block)

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += identity
        return self.relu(out)  # type: ignore[no-any-return]


class Bottleneck(nn.Module):
    """A 3x3 convolution between two 1x1 ones and a shortcut: `torchvision.models.resnet.Bottleneck`."""

    def __init__(self, block: layers.Block) -> None:
        super().__init__()
        self.conv1, self.bn1, self.conv2, self.bn2, self.conv3, self.bn3, self.relu = map(_layer, block.layers)
        self.downsample = _shortcut(block)

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        out += identity
        return self.relu(out)  # type: ignore[no-any-return]


class GeneralisedMean(nn.Module):
    """Radenovic et al. 2018 (arXiv:1711.02512): the mean of the p-th powers, and of that the p-th root; p is trained.

    From [batch, channels, height, width] to [batch, channels, 1, 1]. Numbers below 1e-6 count as that.
    """

    def __init__(self) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.full((1,), GENERALISED_MEAN))

    def forward(self, x: Tensor) -> Tensor:
        powers = x.clamp(min=1e-6).pow(self.p)
        return nn.functional.adaptive_avg_pool2d(powers, (1, 1)).pow(1.0 / self.p)


class MeanAndMaximum(nn.Module):
    """Half of the sum of the mean and the maximum over all places, as timm's `avgmax`: [batch, channels, 1, 1]."""

    def forward(self, x: Tensor) -> Tensor:
        mean, maximum = nn.functional.adaptive_avg_pool2d(x, (1, 1)), nn.functional.adaptive_max_pool2d(x, (1, 1))
        return 0.5 * (mean + maximum)


class HeadModule(nn.Module):
    """One of several heads: its own stages, pooling unless the trunk pooled, flatten, and its classifier `fc`."""

    if TYPE_CHECKING:  # the children that there can be; torch.jit.script would want what is annotated here to be there
        layer1: nn.Module
        layer2: nn.Module
        layer3: nn.Module
        layer4: nn.Module
        avgpool: nn.Module
        fc: nn.Module

    def __init__(self, architecture: Architecture, head: Head) -> None:
        super().__init__()
        _add(self, layers.branch(architecture, head))

    def forward(self, x: Tensor) -> Tensor:
        if hasattr(self, "layer1"):
            x = self.layer1(x)
        if hasattr(self, "layer2"):
            x = self.layer2(x)
        if hasattr(self, "layer3"):
            x = self.layer3(x)
        if hasattr(self, "layer4"):
            x = self.layer4(x)
        if hasattr(self, "avgpool"):
            x = torch.flatten(self.avgpool(x), 1)
        return self.fc(x)  # type: ignore[no-any-return]


class Heads(nn.Module):
    """The heads by name, in their order, as in `nn.ModuleDict`: which keeps forty names for itself, and this none."""

    def __init__(self, heads: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self._modules.update(heads)

    def forward(self, x: Tensor) -> list[Tensor]:
        outputs: list[Tensor] = []
        for head in self.children():
            outputs.append(head(x))
        return outputs

    def __getitem__(self, name: str) -> nn.Module:
        module = self._modules[name]
        assert module is not None
        return module

    def __setitem__(self, name: str, module: nn.Module) -> None:
        self._modules[name] = module

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __len__(self) -> int:
        return len(self._modules)

    def __contains__(self, name: str) -> bool:
        return name in self._modules

    def keys(self) -> Iterable[str]:
        return self._modules.keys()

    def values(self) -> Iterable[nn.Module]:
        return [self[name] for name in self]

    def items(self) -> Iterable[tuple[str, nn.Module]]:
        return [(name, self[name]) for name in self]


class ResNet(nn.Module):
    """The network that an Architecture describes, its children named and ordered as in torchvision.

    The forward pass takes [batch, in_channels, height, width] and gives the logits [batch, classes] of the head `fc`, a
    list of such tensors for the heads in `heads` in their order, the pooled embedding [batch, channels], a feature map
    [batch, channels, height, width], or a dict of such maps by name, from the largest to the smallest. With
    `output_names` other outputs come as a dict too, by these names in their order.
    """

    if TYPE_CHECKING:
        conv1: nn.Module
        bn1: nn.Module
        relu: nn.Module
        maxpool: nn.Module
        layer1: nn.Module
        layer2: nn.Module
        layer3: nn.Module
        layer4: nn.Module
        avgpool: nn.Module
        fc: nn.Module

    def __init__(self, architecture: Architecture, output_names: Sequence[str] | None = None) -> None:
        super().__init__()
        if output_names is not None:  # torch.jit.script asks whether it is there
            self.output_names = list(output_names)
        self.manifest: Manifest | None = None
        self.loaded: object = None  # what it was loaded from, for `save` to see what has changed
        self.architecture = architecture
        # What torchvision's own utilities ask of a ResNet, such as its detectors.
        self.inplanes = architecture.trunk_channels
        self.groups = architecture.groups
        names = {one.layer: one.name for one in architecture.maps}
        self.maps = {layer: names.get(layer, "") for layer in MAPPED}
        _add(self, layers.trunk(architecture))
        if architecture.branches:
            self.heads = Heads({head.name: HeadModule(architecture, head) for head in architecture.branches})

    def forward(self, x: Tensor) -> Tensor | list[Tensor] | dict[str, Tensor]:
        maps: dict[str, Tensor] = {}
        # Written out, for torch.jit.script: it knows which of these children there are, and compiles no others.
        if hasattr(self, "conv1"):
            x = self.conv1(x)
        if hasattr(self, "bn1"):
            x = self.bn1(x)
        if hasattr(self, "relu"):
            x = self._mapped("relu", self.relu(x), maps)
        if hasattr(self, "maxpool"):
            x = self._mapped("maxpool", self.maxpool(x), maps)
        if hasattr(self, "layer1"):
            x = self._mapped("layer1", self.layer1(x), maps)
        if hasattr(self, "layer2"):
            x = self._mapped("layer2", self.layer2(x), maps)
        if hasattr(self, "layer3"):
            x = self._mapped("layer3", self.layer3(x), maps)
        if hasattr(self, "layer4"):
            x = self._mapped("layer4", self.layer4(x), maps)
        if hasattr(self, "avgpool"):
            x = torch.flatten(self.avgpool(x), 1)
        if hasattr(self, "fc"):
            x = self.fc(x)
        outputs: list[Tensor] = [x]
        if hasattr(self, "heads"):
            outputs = self.heads(x)
        if hasattr(self, "output_names"):
            return dict(zip(self.output_names, outputs))  # noqa: B905 (torch.jit.script knows no `strict`)
        if hasattr(self, "heads"):
            return outputs
        if len(maps) > 0:
            return maps
        return x

    def _mapped(self, layer: str, x: Tensor, maps: dict[str, Tensor]) -> Tensor:
        """What the layer gives, which is put among the maps if it is one of those that come out."""
        if self.maps[layer] != "":
            maps[self.maps[layer]] = x
        return x


def _add(module: nn.Module, parts: Iterable[layers.Part]) -> None:
    """Adds each part by the last of its names; numbers to a Sequential, be it of blocks or of a head's layers."""
    for part in parts:
        *_, parent, name = ["", *part.name.split(".")]
        made = _BLOCKS[part.kind](part) if isinstance(part, layers.Block) else _layer(part)
        if name.isdigit():
            if parent not in module._modules:
                module.add_module(parent, nn.Sequential())
            module.get_submodule(parent).add_module(name, made)
        else:
            module.add_module(name, made)


_BLOCKS = {"basic": BasicBlock, "bottleneck": Bottleneck}


def _shortcut(block: layers.Block) -> nn.Module | None:
    return nn.Sequential(*map(_layer, block.shortcut)) if block.shortcut else None


def _layer(layer: layers.Layer) -> nn.Module:
    if isinstance(layer, layers.Convolution):
        return nn.Conv2d(
            layer.in_channels,
            layer.out_channels,
            layer.kernel,
            layer.stride,
            layer.padding,
            layer.dilation,
            layer.groups,
            layer.bias,
        )
    if isinstance(layer, layers.Norm):
        return nn.BatchNorm2d(layer.channels, layer.eps)
    if isinstance(layer, layers.FeatureNorm):
        return nn.BatchNorm1d(layer.channels, layer.eps)
    if isinstance(layer, layers.Activation):
        return _FUNCTIONS[layer.function]()
    if isinstance(layer, layers.Dropout):
        return nn.Dropout(layer.probability)
    if isinstance(layer, layers.MaxPool):
        return nn.MaxPool2d(layer.kernel, layer.stride, layer.padding, ceil_mode=layer.ceil_mode)
    if isinstance(layer, layers.GlobalPool):
        return _POOLS[layer.kind]()
    if isinstance(layer, layers.Linear):
        return nn.Linear(layer.in_features, layer.out_features, layer.bias)
    return nn.Identity()


_POOLS: dict[Pool, Callable[[], nn.Module]] = {
    "avg": partial(nn.AdaptiveAvgPool2d, (1, 1)),
    "max": partial(nn.AdaptiveMaxPool2d, (1, 1)),
    "avgmax": MeanAndMaximum,
    "gem": GeneralisedMean,
}
_FUNCTIONS: dict[Function, Callable[[], nn.Module]] = {
    "relu": partial(nn.ReLU, inplace=True),
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}


@contextmanager
def without_numbers() -> Iterator[None]:
    """Modules that are made within have shapes alone: numbers, which are put in their place later, are not drawn."""
    with torch.device("meta"), _Undrawn():
        yield


class _Undrawn(TorchFunctionMode):
    """Filling a tensor in place does nothing: on the meta device it takes as long as all else that makes a module."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        return args[0] if func in _FILLING else func(*args, **(kwargs or {}))


_FILLING = (Tensor.normal_, Tensor.uniform_, Tensor.fill_, Tensor.zero_)


def to_torch(tensor: LazyTensor) -> Tensor:
    """A new torch tensor of its own storage with the lazy tensor's content."""
    result = torch.empty(tensor.shape, dtype=DTYPES[tensor.dtype])
    ask_for_huge_pages(result.data_ptr(), result.nbytes)
    buffer = memoryview(result.view(-1).view(torch.uint8).numpy().data)
    if isinstance(tensor, Stored):
        tensor.file.read_into(tensor.offset, buffer)
        return result
    position = 0
    for chunk in chunks(tensor):
        buffer[position : position + len(chunk)] = chunk
        position += len(chunk)
    return result
