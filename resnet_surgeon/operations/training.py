"""trained: what happened to a network outside this tool, between two of its files. No command does it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, ClassVar

from resnet_surgeon.architecture.spec import Architecture
from resnet_surgeon.errors import OperationError, listed
from resnet_surgeon.fields import Count, Text
from resnet_surgeon.formats.tensors import LazyTensor, Trained
from resnet_surgeon.operations.checkpoint import Checkpoint, operation, option, settle

TensorName = Annotated[str, Text("the name of a tensor", r"[A-Za-z0-9_.]+", 200)]


@operation
class Training:
    """The network was trained, and these tensors may have changed."""

    name: ClassVar[str] = "trained"
    example: ClassVar[str] = ""
    keeps_packing: ClassVar[bool] = False

    tensors: Annotated[Sequence[TensorName], Count(1, 1 << 20)] = option("The tensors that may have changed.")

    def __post_init__(self) -> None:
        settle(self)

    @property
    def suffix(self) -> str:
        return "trained"

    @classmethod
    def advice(cls, architecture: Architecture) -> str:
        return "train the module that resnet_surgeon.load gives, and save it with resnet_surgeon.save"

    def resolved(self, checkpoint: Checkpoint) -> Training:
        return replace(self, tensors=sorted(set(self.tensors)))

    def apply(self, checkpoint: Checkpoint) -> Checkpoint:
        """Each of the tensors becomes one whose numbers nobody can work out again; the rest is kept."""
        if unknown := sorted(set(self.tensors) - checkpoint.tensors.keys()):
            raise OperationError(f"the network has no {listed([f'`{name}`' for name in unknown[:3]])}")
        changed = {name: _trained(checkpoint.tensors[name]) for name in self.tensors}
        return replace(checkpoint, tensors={**checkpoint.tensors, **changed})


def _trained(tensor: LazyTensor) -> Trained:
    began = tensor.began if isinstance(tensor, Trained) else tensor
    return Trained(tensor.dtype, tensor.shape, began)
