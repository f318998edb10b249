"""Builds a `torch.nn.Module` from an Architecture and fills it with a checkpoint's tensors. The only room that imports
torch at its top.

The submodules have torchvision's names and the forward pass is torchvision's (`torchvision.models.resnet`), operation
by operation.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor, nn

from resnet_surgeon.architecture.spec import Architecture, Head, Stage
from resnet_surgeon.formats.tensors import LazyTensor, Stored, chunks
from resnet_surgeon.manifest import Manifest
from resnet_surgeon.network import open as open_network
from resnet_surgeon.platform.memory import ask_for_huge_pages
from resnet_surgeon.sources.location import Location

DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
}  # fmt: skip


def load(
    path: Location,
    device: torch.device | str | int | None = None,
    dtype: torch.dtype | None = None,
    *,
    key: str | None = None,
) -> ResNet:
    """The network in a file that this tool wrote (or any checkpoint that it reads), as a module in training mode, ready
    to train.

    `path` is all that `resnet_surgeon.open` takes, and `key` chooses one of several networks in it. `device` and
    `dtype` say where the parameters live and in which floating point type; left out, they are on the CPU (or torch's
    default device) in the file's own. Every tensor and every parameter must fit. Raises the errors of `open`.

    >>> load("resnet50-heads-3-5.safetensors")(torch.zeros(2, 3, 224, 224))     # two tensors, [2, 3] and [2, 5]
    """
    network = open_network(path, key=key)
    target = torch.get_default_device() if device is None else torch.device(device)
    with ThreadPoolExecutor(1) as executor:
        manifest = executor.submit(network.manifest)  # reads the file through for its digest, if it has no manifest yet
        with torch.device("meta"):
            module = ResNet(network.architecture)
        state = {name: to_torch(tensor).to(target) for name, tensor in network.tensors.items()}
        module.load_state_dict(state, strict=True, assign=True)
        module.manifest = manifest.result()
    if network.source.container is not None:
        network.source.container.check_unchanged()
    return module.to(dtype=dtype) if dtype is not None else module


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: `torchvision.models.resnet.BasicBlock`."""

    def __init__(self, in_channels: int, stage: Stage, stride: int, dilation: int, downsample: bool) -> None:
        super().__init__()
        self.conv1 = _conv3x3(in_channels, stage.width, stride, dilation)
        self.bn1 = nn.BatchNorm2d(stage.width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = _conv3x3(stage.width, stage.out_channels, dilation=dilation)
        self.bn2 = nn.BatchNorm2d(stage.out_channels)
        self.downsample = _downsample(in_channels, stage, stride) if downsample else None

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += identity
        return self.relu(out)  # type: ignore[no-any-return]


class Bottleneck(nn.Module):
    """A 3x3 convolution between two 1x1 ones and a shortcut: `torchvision.models.resnet.Bottleneck`."""

    def __init__(
        self, in_channels: int, stage: Stage, strides: tuple[int, int], dilation: int, downsample: bool, groups: int
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, stage.width, kernel_size=1, stride=strides[0], bias=False)
        self.bn1 = nn.BatchNorm2d(stage.width)
        self.conv2 = _conv3x3(stage.width, stage.width, strides[1], dilation, groups)
        self.bn2 = nn.BatchNorm2d(stage.width)
        self.conv3 = nn.Conv2d(stage.width, stage.out_channels, kernel_size=1, bias=False)
        self.bn3 = nn.BatchNorm2d(stage.out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _downsample(in_channels, stage, strides[0] * strides[1]) if downsample else None

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        out += identity
        return self.relu(out)  # type: ignore[no-any-return]


class HeadModule(nn.Module):
    """One of several heads: its own stages, pooling unless the trunk pooled, flatten, and a linear layer `fc`."""

    def __init__(self, architecture: Architecture, head: Head) -> None:
        super().__init__()
        for stage in head.stages:
            self.add_module(stage.name, _stage(architecture, stage))
        if not architecture.avgpool:
            self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(architecture.features(head), head.classes)
        self._order = tuple(self._modules)

    def forward(self, x: Tensor) -> Tensor:
        return _run(self, self._order, x)


class ResNet(nn.Module):
    """The network that an Architecture describes, its children named and ordered as in torchvision.

    The forward pass takes [batch, in_channels, height, width] and gives the logits [batch, classes] of a single head, a
    list of such tensors for several heads in their order, the pooled embedding [batch, channels], or a feature map
    [batch, channels, height, width].
    """

    manifest: Manifest | None = None

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        for name in architecture.stem:
            self.add_module(name, _stem_layer(architecture, name))
        for stage in architecture.stages:
            self.add_module(stage.name, _stage(architecture, stage))
        if architecture.avgpool:
            self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        if len(architecture.heads) == 1:
            self.fc = nn.Linear(architecture.trunk_channels, architecture.heads[0].classes)
        elif architecture.heads:
            self.heads = nn.ModuleDict({head.name: HeadModule(architecture, head) for head in architecture.heads})

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        if len(self.architecture.heads) <= 1:
            return _run(self, self.architecture.children, x)
        features = _run(self, self.architecture.children[:-1], x)
        return [head(features) for head in self.heads.values()]


def _run(module: nn.Module, children: tuple[str, ...], x: Tensor) -> Tensor:
    """`x` through the named children; what avgpool gives is flattened. Other attached modules are left alone."""
    for name in children:
        x = getattr(module, name)(x)
        if name == "avgpool":
            x = torch.flatten(x, 1)
    return x


def _stem_layer(architecture: Architecture, name: str) -> nn.Module:
    if name == "conv1":
        return nn.Conv2d(architecture.in_channels, 64, kernel_size=7, stride=2, padding=3, bias=False)
    if name == "bn1":
        return nn.BatchNorm2d(64)
    if name == "relu":
        return nn.ReLU(inplace=True)
    return nn.Identity() if architecture.maxpool_is_identity else nn.MaxPool2d(kernel_size=3, stride=2, padding=1)


def _stage(architecture: Architecture, stage: Stage) -> nn.Sequential:
    blocks: list[nn.Module] = []
    for index in range(stage.blocks):
        first = index == 0
        in_channels = stage.in_channels if first else stage.out_channels
        stride = stage.stride if first else 1
        dilation = stage.first_dilation if first else stage.dilation
        downsample = first and stage.downsample
        if architecture.block == "basic":
            blocks.append(BasicBlock(in_channels, stage, stride, dilation, downsample))
        else:
            strides = (stride, 1) if architecture.bottleneck_stride == "conv1" else (1, stride)
            blocks.append(Bottleneck(in_channels, stage, strides, dilation, downsample, architecture.groups))
    return nn.Sequential(*blocks)


def _conv3x3(in_channels: int, out_channels: int, stride: int = 1, dilation: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(
        in_channels, out_channels, 3, stride, padding=dilation, dilation=dilation, groups=groups, bias=False
    )


def _downsample(in_channels: int, stage: Stage, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, stage.out_channels, kernel_size=1, stride=stride, bias=False),
        nn.BatchNorm2d(stage.out_channels),
    )


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
