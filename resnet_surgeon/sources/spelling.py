"""The same function, spelled otherwise: tensors that training tools split up, or that torchvision's ResNets do not
have, become those that they do. Works out nothing: what must be computed is a formula.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from resnet_surgeon.arithmetic.formulas import Combination, NormalisedWeight, Product
from resnet_surgeon.arithmetic.laws import Constant
from resnet_surgeon.dataclass import dataclass
from resnet_surgeon.errors import CheckpointError, printable
from resnet_surgeon.formats.tensors import Computed, Initialised, LazyTensor
from resnet_surgeon.sources.networks import Leaf

# A weight in two parts, by the names of torch.nn.utils.prune and of both of torch's weight norms.
_SPLIT_WEIGHTS = (
    (("weight_orig", "weight_mask"), Product()),
    (("weight_g", "weight_v"), NormalisedWeight()),
    (("parametrizations.weight.original0", "parametrizations.weight.original1"), NormalisedWeight()),
)


@dataclass(frozen=True)
class Spelled:
    """Tensors by torchvision's names: with the names in the file of those that are there, the file's own tensors that
    others are computed from, and the names of those that it lacks and that are zeros.
    """

    tensors: dict[str, LazyTensor] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    parts: dict[str, LazyTensor] = field(default_factory=dict)
    filled: list[str] = field(default_factory=list)


def spelled(network: Mapping[str, Mapping[str, Leaf]]) -> Spelled:
    """The tensors of the modules, each by torchvision's path.

    Raises CheckpointError for parts that do not fit each other.
    """
    made = Spelled()
    for module, leaves in network.items():
        for leaf, tensor in _leaves(module, leaves, made).items():
            made.tensors[f"{module}.{leaf}"] = tensor
    for norm in [module for module, leaves in network.items() if "running_mean" in leaves]:
        if not norm.startswith("fc."):  # whose layers keep their biases
            _fold_bias(norm, network.get(_convolution(norm), {}), made)
        counter = f"{norm}.num_batches_tracked"
        _fill(counter, Initialised("I64", (), Constant(0.0), 0, counter), made)
    weight = made.tensors.get("fc.weight")
    if weight is not None:
        _fill("fc.bias", Initialised(weight.dtype, weight.shape[:1], Constant(0.0), 0, "fc.bias"), made)
    return made


def _leaves(module: str, leaves: Mapping[str, Leaf], made: Spelled) -> dict[str, LazyTensor]:
    """The module's tensors, its weight in one; those that are as they were keep their names in the file."""
    rest = dict(leaves)
    tensors: dict[str, LazyTensor] = {}
    for (one, other), formula in _SPLIT_WEIGHTS:
        if one in rest and other in rest and "weight" not in rest:
            parts = (rest.pop(one), rest.pop(other))
            shape, dtype = parts[-1].tensor.shape, parts[-1].tensor.dtype
            shapes = tuple(part.shape for part in parts)
            if shapes != formula.input_shapes(shape) or any(part.tensor.dtype != dtype for part in parts):
                raise _misfit(*parts)
            tensors["weight"] = Computed(dtype, shape, _inputs(parts, made), formula)
    for leaf, found in rest.items():
        tensors[leaf] = found.tensor
        made.names[f"{module}.{leaf}"] = found.name
    return tensors


def _inputs(parts: tuple[Leaf, ...], made: Spelled) -> tuple[LazyTensor, ...]:
    made.parts.update((part.name, part.tensor) for part in parts)
    return tuple(part.tensor for part in parts)


def _fold_bias(norm: str, convolution: Mapping[str, Leaf], made: Spelled) -> None:
    """A bias b before a batch norm is subtracted from its mean m: (x + b) - m = x - (m - b)."""
    name = f"{norm}.running_mean"
    bias, mean = convolution.get("bias"), made.tensors[name]
    if bias is None:
        return
    if (bias.tensor.shape, bias.tensor.dtype) != (mean.shape, mean.dtype):
        raise _misfit(bias, Leaf(made.names[name], mean))
    parts = (Leaf(made.names.pop(name), mean), bias)
    made.tensors[name] = Computed(mean.dtype, mean.shape, _inputs(parts, made), Combination((1.0, -1.0)))
    del made.tensors[f"{_convolution(norm)}.bias"], made.names[f"{_convolution(norm)}.bias"]


def _misfit(one: Leaf, other: Leaf) -> CheckpointError:
    return CheckpointError(f"{printable(one.name)} and {printable(other.name)} do not fit each other")


def _convolution(norm: str) -> str:
    """The convolution before a batch norm: `layer1.0.conv1` before `layer1.0.bn1`, `downsample.0` before `.1`."""
    stage, _, last = norm.rpartition(".")
    return f"{stage}.0" if last == "1" else f"{stage}{'.' * bool(stage)}{last.replace('bn', 'conv')}"


def _fill(name: str, tensor: LazyTensor, made: Spelled) -> None:
    if name not in made.tensors:
        made.tensors[name] = tensor
        made.filled.append(name)
