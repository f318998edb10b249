"""The same function, spelled otherwise: tensors that training tools split up, or that torchvision's ResNets do not
have, become those that they do. Works out nothing: what must be computed is a formula.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from resnet_surgeon.architecture.initialisation import Constant
from resnet_surgeon.formats.tensors import Initialised, LazyTensor
from resnet_surgeon.sources.networks import Leaf


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
        _fill(
            f"{norm}.num_batches_tracked", Initialised("I64", (), Constant(0.0), 0, f"{norm}.num_batches_tracked"), made
        )
    weight = made.tensors.get("fc.weight")
    if weight is not None:
        _fill("fc.bias", Initialised(weight.dtype, weight.shape[:1], Constant(0.0), 0, "fc.bias"), made)
    return made


def _leaves(module: str, leaves: Mapping[str, Leaf], made: Spelled) -> dict[str, LazyTensor]:
    """The module's tensors, its weight in one; those that are as they were keep their names in the file."""
    tensors: dict[str, LazyTensor] = {}
    for leaf, found in leaves.items():
        tensors[leaf] = found.tensor
        made.names[f"{module}.{leaf}"] = found.name
    return tensors


def _fill(name: str, tensor: LazyTensor, made: Spelled) -> None:
    if name not in made.tensors:
        made.tensors[name] = tensor
        made.filled.append(name)
