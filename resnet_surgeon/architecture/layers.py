"""A network as its layers, in the order of the data's flow: every kernel, stride, padding and width stands here alone.

Parameters, modules, proofs and pictures read it. Knows no tensors and no torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

from resnet_surgeon.architecture.spec import (
    STEM_CHANNELS,
    Architecture,
    Function,
    Head,
    HiddenActivation,
    HiddenDropout,
    HiddenNorm,
    Pool,
    Stage,
)
from resnet_surgeon.dataclass import dataclass


@dataclass(frozen=True)
class Convolution:
    """`torch.nn.Conv2d` with square kernels and zeros for padding."""

    name: str
    in_channels: int
    out_channels: int
    kernel: int
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    groups: int = 1
    bias: bool = False

    def size(self, length: int) -> int:
        """The height (or width) of its output for an input of height `length`."""
        return (length + 2 * self.padding - self.dilation * (self.kernel - 1) - 1) // self.stride + 1


@dataclass(frozen=True)
class Norm:
    """`torch.nn.BatchNorm2d`."""

    name: str
    channels: int
    eps: float


@dataclass(frozen=True)
class FeatureNorm:
    """`torch.nn.BatchNorm1d`."""

    name: str
    channels: int
    eps: float


@dataclass(frozen=True)
class Activation:
    """`torch.nn.ReLU`, or another of torch's functions."""

    name: str
    function: Function = "relu"


@dataclass(frozen=True)
class Dropout:
    """`torch.nn.Dropout`."""

    name: str
    probability: float


@dataclass(frozen=True)
class MaxPool:
    """`torch.nn.MaxPool2d`; `ceil_mode` rounds sizes up, where a window still begins within the image."""

    name: str
    kernel: int
    stride: int
    padding: int
    ceil_mode: bool = False

    def size(self, length: int) -> int:
        """The height (or width) of its output for an input of height `length`, as torch has it."""
        span = length + 2 * self.padding - self.kernel
        size = (-(-span // self.stride) if self.ceil_mode else span // self.stride) + 1
        is_outside = self.ceil_mode and (size - 1) * self.stride >= length + self.padding
        return size - is_outside


@dataclass(frozen=True)
class Identity:
    """`torch.nn.Identity`, in the place of a layer that was removed."""

    name: str


@dataclass(frozen=True)
class GlobalPool:
    """`torch.nn.AdaptiveAvgPool2d` to 1x1, or another pooling over all places; flattened."""

    name: str
    kind: Pool = "avg"


@dataclass(frozen=True)
class Linear:
    """`torch.nn.Linear`."""

    name: str
    in_features: int
    out_features: int
    bias: bool = True


@dataclass(frozen=True)
class Block:
    """A residual block: its `layers` in torchvision's order, named within it, and those of its shortcut, which is the
    identity where it has none. A ReLU follows every norm, or the identity in its place, the last one's after the sum.
    """

    name: str
    kind: Literal["basic", "bottleneck"]
    layers: tuple[Convolution | Norm | Identity | Activation, ...]
    shortcut: tuple[Convolution | Norm | Identity, ...] = ()


Layer = Convolution | Norm | FeatureNorm | Activation | Dropout | MaxPool | Identity | GlobalPool | Linear
Part = Layer | Block


def trunk(architecture: Architecture) -> Iterator[Part]:
    """From the image on: the stem's layers, the residual blocks, avgpool and fc, by their paths in the module."""
    yield from stem(architecture)
    for stage in architecture.stages:
        yield from blocks(architecture, stage, stage.name)
    if architecture.avgpool:
        yield GlobalPool("avgpool", architecture.pool)
    if architecture.classifier:
        yield from classifier(architecture, architecture.classifier)


def branch(architecture: Architecture, head: Head) -> Iterator[Part]:
    """What a child of `heads` makes of the trunk's output, by paths in the module: `heads.head1.fc`."""
    prefix = architecture.prefix(head)
    for stage in head.stages:
        yield from blocks(architecture, stage, prefix + stage.name)
    if not architecture.avgpool:
        yield GlobalPool(f"{prefix}avgpool", head.pool)
    yield from classifier(architecture, head)


def classifier(architecture: Architecture, head: Head) -> Iterator[Layer]:
    """From the pooled features to the classes: `fc`, or its members `fc.0`, `fc.1`, ... where it has hidden layers."""
    prefix, features = architecture.prefix(head), architecture.features(head)
    for number, hidden in enumerate(head.hidden):
        name = f"{prefix}fc.{number}"
        if isinstance(hidden, HiddenNorm):
            yield FeatureNorm(name, features, architecture.eps)
        elif isinstance(hidden, HiddenActivation):
            yield Activation(name, hidden.function)
        elif isinstance(hidden, HiddenDropout):
            yield Dropout(name, hidden.probability)
        else:
            yield Linear(name, features, hidden.features, hidden.bias)
            features = hidden.features
    yield Linear(prefix + head.last, features, head.classes, head.bias)


def parts(architecture: Architecture) -> Iterator[Part]:
    """All of the network, in the order of its state_dict."""
    yield from trunk(architecture)
    for head in architecture.branches:
        yield from branch(architecture, head)


def stem(architecture: Architecture) -> Iterator[Layer]:
    """The layers before the first stage."""
    layers: dict[str, Layer] = {
        "conv1": conv1(architecture),
        "bn1": norm(architecture, "bn1", STEM_CHANNELS),
        "relu": Activation("relu"),
        "maxpool": maxpool(architecture),
    }
    return (layers[name] for name in architecture.stem)


def conv1(architecture: Architecture) -> Convolution:
    """The convolution that takes the image."""
    channels, kernel, stride = architecture.in_channels, architecture.stem_kernel, architecture.stem_stride
    return Convolution("conv1", channels, STEM_CHANNELS, kernel, stride, padding=kernel // 2, bias=architecture.fused)


def norm(architecture: Architecture, name: str, channels: int) -> Norm | Identity:
    """What follows every convolution."""
    return Identity(name) if architecture.fused else Norm(name, channels, architecture.eps)


def maxpool(architecture: Architecture) -> Layer:
    """What stands in the place of torchvision's maxpool."""
    if architecture.maxpool_is_identity:
        return Identity("maxpool")
    return _MAXPOOLS[architecture.maxpool]


_MAXPOOLS = {
    "torchvision": MaxPool("maxpool", kernel=3, stride=2, padding=1),
    "caffe": MaxPool("maxpool", kernel=3, stride=2, padding=0, ceil_mode=True),
}


def maxpool_with(
    kernel: object, stride: object, padding: object, dilation: object, ceil_mode: object
) -> tuple[str, MaxPool] | None:
    """The maxpool of these sizes, each a pair for height and width, with whose it is: torchvision's or Caffe's."""
    for kind, pool in _MAXPOOLS.items():
        sizes = tuple((size, size) for size in (pool.kernel, pool.stride, pool.padding, 1))
        if (kernel, stride, padding, dilation) == sizes and ceil_mode == pool.ceil_mode:
            return kind, pool
    return None


def blocks(architecture: Architecture, stage: Stage, path: str) -> Iterator[Block]:
    """The residual blocks of a stage that stands at `path`."""
    return (block(architecture, stage, path, index) for index in range(stage.blocks))


def block(architecture: Architecture, stage: Stage, path: str, index: int) -> Block:
    """The stage's block of this number. The first has the stage's stride and changes the channels; others keep both."""
    is_first = index == 0
    convolutions = _CONVOLUTIONS[architecture.block](
        architecture,
        stage,
        stage.in_channels if is_first else stage.out_channels,
        stage.stride if is_first else 1,
        stage.first_dilation if is_first else stage.dilation,
    )
    layers: list[Convolution | Norm | Identity | Activation] = []
    for number, convolution in enumerate(convolutions, start=1):
        layers += [replace(convolution, bias=architecture.fused)]
        layers += [norm(architecture, f"bn{number}", convolution.out_channels)]
    layers.insert(2 if architecture.block == "basic" else len(layers), Activation("relu"))  # as torchvision lists them
    return Block(f"{path}.{index}", architecture.block, tuple(layers), _shortcut(architecture, stage, is_first))


def _shortcut(architecture: Architecture, stage: Stage, is_first: bool) -> tuple[Convolution | Norm | Identity, ...]:
    if not (is_first and stage.downsample):
        return ()
    convolution = Convolution(
        "downsample.0", stage.in_channels, stage.out_channels, 1, stage.stride, bias=architecture.fused
    )
    return convolution, norm(architecture, "downsample.1", stage.out_channels)


def _basic(
    architecture: Architecture, stage: Stage, in_channels: int, stride: int, dilation: int
) -> tuple[Convolution, ...]:
    """Two 3x3 convolutions, of which the first has the stride."""
    return (
        Convolution("conv1", in_channels, stage.width, 3, stride, dilation, dilation),
        Convolution("conv2", stage.width, stage.out_channels, 3, 1, dilation, dilation),
    )


def _bottleneck(
    architecture: Architecture, stage: Stage, in_channels: int, stride: int, dilation: int
) -> tuple[Convolution, ...]:
    """A 3x3 convolution between two 1x1 ones."""
    early, late = (stride, 1) if architecture.bottleneck_stride == "conv1" else (1, stride)
    return (
        Convolution("conv1", in_channels, stage.width, 1, early),
        Convolution("conv2", stage.width, stage.width, 3, late, dilation, dilation, architecture.groups),
        Convolution("conv3", stage.width, stage.out_channels, 1),
    )


_CONVOLUTIONS = {"basic": _basic, "bottleneck": _bottleneck}
