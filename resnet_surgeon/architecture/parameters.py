"""From an Architecture to every tensor of its state_dict: name, shape, dtype and torchvision's initial law, in
torchvision's order.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from resnet_surgeon.architecture.layers import (
    Block,
    Convolution,
    FeatureNorm,
    GlobalPool,
    Layer,
    Linear,
    Norm,
    parts,
)
from resnet_surgeon.architecture.spec import Architecture
from resnet_surgeon.arithmetic.laws import Constant, Law, kaiming_normal_fan_out, linear_default
from resnet_surgeon.dataclass import dataclass

_ZERO, _ONE = Constant(0.0), Constant(1.0)
GENERALISED_MEAN = 3.0  # the exponent that training begins with: Radenovic et al. 2018, arXiv:1711.02512


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
    for part in parts(architecture):
        if isinstance(part, Block):
            for layer in part.layers + part.shortcut:
                yield from _of_layer(layer, f"{part.name}.{layer.name}")
        else:
            yield from _of_layer(part, part.name)


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


def _of_layer(layer: Layer, name: str) -> Iterator[Parameter]:
    if isinstance(layer, Convolution):
        shape = (layer.out_channels, layer.in_channels // layer.groups, layer.kernel, layer.kernel)
        yield Parameter(f"{name}.weight", shape, kaiming_normal_fan_out(shape))
        if layer.bias:
            yield Parameter(f"{name}.bias", shape[:1], _ZERO)
    elif isinstance(layer, (Norm, FeatureNorm)):
        each = (layer.channels,)
        yield Parameter(f"{name}.weight", each, _ONE)
        yield Parameter(f"{name}.bias", each, _ZERO)
        yield Parameter(f"{name}.running_mean", each, _ZERO)
        yield Parameter(f"{name}.running_var", each, _ONE)
        yield Parameter(f"{name}.num_batches_tracked", (), _ZERO, dtype="I64")
    elif isinstance(layer, Linear):
        law = linear_default(layer.in_features)
        yield Parameter(f"{name}.weight", (layer.out_features, layer.in_features), law)
        if layer.bias:
            yield Parameter(f"{name}.bias", (layer.out_features,), law)
    elif isinstance(layer, GlobalPool) and layer.kind == "gem":
        yield Parameter(f"{name}.p", (1,), Constant(GENERALISED_MEAN))
