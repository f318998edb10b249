"""From an Architecture to every tensor of its state_dict: name, shape, dtype and torchvision's initial law, in
torchvision's order.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from resnet_surgeon.architecture.initialisation import Constant, Law, kaiming_normal_fan_out, linear_default
from resnet_surgeon.architecture.spec import STEM_CHANNELS, Architecture, Stage


@dataclass(frozen=True)
class Parameter:
    """One entry of a state_dict (parameter or buffer) as torchvision creates it. `dtype` is a safetensors name: F32 or
    I64.
    """

    name: str
    shape: tuple[int, ...]
    law: Law
    dtype: str = "F32"


def parameters(architecture: Architecture) -> Iterator[Parameter]:
    """Every tensor of `architecture`, named and ordered as in the state_dict of the module.

    >>> next(parameters(resnet50)).shape
    (64, 3, 7, 7)
    """
    if "conv1" in architecture.stem:
        yield _convolution("conv1", (STEM_CHANNELS, architecture.in_channels, 7, 7))
    if "bn1" in architecture.stem:
        yield from _batch_norm("bn1", STEM_CHANNELS)
    for stage in architecture.stages:
        yield from _stage(architecture, stage, stage.name)
    for head in architecture.heads:
        prefix = architecture.prefix(head)
        for stage in head.stages:
            yield from _stage(architecture, stage, prefix + stage.name)
        features = architecture.features(head)
        law = linear_default(features)
        yield Parameter(f"{prefix}fc.weight", (head.classes, features), law)
        yield Parameter(f"{prefix}fc.bias", (head.classes,), law)


def trained(architecture: Architecture) -> int:
    """How many numbers an optimiser changes.

    >>> trained(resnet50)
    25557032
    """
    return sum(math.prod(parameter.shape) for parameter in parameters(architecture) if is_trained(parameter.name))


def is_trained(name: str) -> bool:
    """Whether an optimiser changes the tensor of this name: not a batch norm's statistics."""
    return not name.endswith((".running_mean", ".running_var", ".num_batches_tracked"))


def layer_of(name: str) -> str:
    """`heads.head1.layer4` of `heads.head1.layer4.0.conv1.weight`, `layer4` of `layer4.0.conv1.weight`."""
    parts = name.split(".")
    return ".".join(parts[:3] if parts[0] == "heads" else parts[:1])


def _stage(architecture: Architecture, stage: Stage, prefix: str) -> Iterator[Parameter]:
    for index in range(stage.blocks):
        name = f"{prefix}.{index}"
        in_channels = stage.in_channels if index == 0 else stage.out_channels
        if architecture.block == "basic":
            convolutions = [(stage.width, in_channels, 3, 3), (stage.out_channels, stage.width, 3, 3)]
        else:
            convolutions = [
                (stage.width, in_channels, 1, 1),
                (stage.width, stage.width // architecture.groups, 3, 3),
                (stage.out_channels, stage.width, 1, 1),
            ]
        for number, shape in enumerate(convolutions, start=1):
            yield _convolution(f"{name}.conv{number}", shape)
            yield from _batch_norm(f"{name}.bn{number}", shape[0])
        if index == 0 and stage.downsample:
            yield _convolution(f"{name}.downsample.0", (stage.out_channels, in_channels, 1, 1))
            yield from _batch_norm(f"{name}.downsample.1", stage.out_channels)


def _convolution(name: str, shape: tuple[int, ...]) -> Parameter:
    return Parameter(f"{name}.weight", shape, kaiming_normal_fan_out(shape))


def _batch_norm(name: str, channels: int) -> Iterator[Parameter]:
    yield Parameter(f"{name}.weight", (channels,), Constant(1.0))
    yield Parameter(f"{name}.bias", (channels,), Constant(0.0))
    yield Parameter(f"{name}.running_mean", (channels,), Constant(0.0))
    yield Parameter(f"{name}.running_var", (channels,), Constant(1.0))
    yield Parameter(f"{name}.num_batches_tracked", (), Constant(0.0), dtype="I64")
