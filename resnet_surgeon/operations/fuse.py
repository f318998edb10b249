"""fuse: batch norms folded into the convolutions before them, for inference."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar

from resnet_surgeon.architecture import layers
from resnet_surgeon.architecture.parameters import parameters
from resnet_surgeon.architecture.spec import Architecture
from resnet_surgeon.arithmetic.formulas import FoldedBias, FoldedWeight
from resnet_surgeon.errors import OperationError
from resnet_surgeon.formats.tensors import Computed, LazyTensor
from resnet_surgeon.operations.checkpoint import Checkpoint, operation, settle


@operation
class Fuse:
    """Fold the batch norms into the convolutions before them, for inference.

    The network gives what it gave in evaluation mode, within rounding, with half as many layers: every convolution has
    a bias, and identities stand in the norms' places, as torch's own fusion leaves them. It is not for training.
    """

    name: ClassVar[str] = "fuse"
    example: ClassVar[str] = "resnet-surgeon fuse resnet50"
    keeps_packing: ClassVar[bool] = False

    def __post_init__(self) -> None:
        settle(self)

    @property
    def suffix(self) -> str:
        return "fused"

    @classmethod
    def advice(cls, architecture: Architecture) -> str:
        return "its batch norms are folded away already" if architecture.fused else "for inference: no options"

    def resolved(self, checkpoint: Checkpoint) -> Fuse:
        architecture = checkpoint.architecture
        if architecture.fused:
            raise OperationError("the network's batch norms are folded away already")
        if "bn1" not in architecture.stem:
            raise OperationError("the network has no batch norm")
        return self

    def apply(self, checkpoint: Checkpoint) -> Checkpoint:
        """Every convolution's weight and bias are computed from itself and the norm after it; the rest is kept."""
        folded: dict[str, LazyTensor] = {}
        for convolution, norm, eps in _pairs(checkpoint.architecture):
            weight = checkpoint.tensors[f"{convolution}.weight"]
            gamma, beta, mean, variance = (
                checkpoint.tensors[f"{norm}.{leaf}"] for leaf in ("weight", "bias", "running_mean", "running_var")
            )
            dtype = variance.dtype if variance.dtype != weight.dtype else None
            formula = FoldedWeight(eps, norm=dtype)
            folded[f"{convolution}.weight"] = Computed(weight.dtype, weight.shape, (weight, gamma, variance), formula)
            vectors = (gamma, beta, mean, variance)
            folded[f"{convolution}.bias"] = Computed(weight.dtype, beta.shape, vectors, FoldedBias(eps, norm=dtype))
        architecture = replace(checkpoint.architecture, fused=True)
        tensors = {**checkpoint.tensors, **folded}
        named = {parameter.name: tensors[parameter.name] for parameter in parameters(architecture)}
        return replace(checkpoint, architecture=architecture, tensors=named)


def _pairs(architecture: Architecture) -> Iterator[tuple[str, str, float]]:
    """The paths of every convolution and of the batch norm after it, with its eps."""
    convolution = ""
    for name, layer in _layers(architecture):
        if isinstance(layer, layers.Convolution):
            convolution = name
        elif isinstance(layer, layers.Norm):
            yield convolution, name, layer.eps


def _layers(architecture: Architecture) -> Iterator[tuple[str, layers.Layer]]:
    for part in layers.parts(architecture):
        if isinstance(part, layers.Block):
            for layer in part.layers + part.shortcut:
                yield f"{part.name}.{layer.name}", layer
        else:
            yield part.name, part
