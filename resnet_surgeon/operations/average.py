"""average: the mean of several checkpoints of one network, such as the last epochs of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, ClassVar

from resnet_surgeon.architecture.differences import differences
from resnet_surgeon.architecture.recognise import FLOATS
from resnet_surgeon.architecture.spec import Architecture
from resnet_surgeon.arithmetic import formulas
from resnet_surgeon.arithmetic.formulas import MOST_INPUTS
from resnet_surgeon.errors import OperationError, UsageError
from resnet_surgeon.fields import Count
from resnet_surgeon.formats.tensors import Computed, LazyTensor
from resnet_surgeon.operations.checkpoint import Checkpoint, Other, operation, option, other_option, settle
from resnet_surgeon.operations.images import check_same_images


@operation
class Average:
    """Average several checkpoints of one network: the last epochs of a run, or a soup of fine-tuned models.

    Every number becomes the mean of SOURCE's and the others', added in float64 in the order given and rounded once, as
    `((a.double() + b.double()) / 2).to(a.dtype)` is in torch. `--weights 0.5,0.3,0.2` weights them. Batch norms'
    running statistics are averaged too, which fits none of the networks exactly: run a few batches in training mode
    before you rely on them. `num_batches_tracked`, the preprocessing and what the classes are called stay the first's.
    """

    name: ClassVar[str] = "average"
    example: ClassVar[str] = "resnet-surgeon average epoch8.pth epoch9.pth epoch10.pth -o mean.safetensors"
    keeps_packing: ClassVar[bool] = False

    others: Annotated[Sequence[Other], Count(1, MOST_INPUTS - 1)] = other_option(
        "The other checkpoints, opened as SOURCE is.", spelling="OTHERS..."
    )
    weights: Annotated[Sequence[float], Count(2, MOST_INPUTS)] | None = option(
        "A weight for each checkpoint, SOURCE first: 0.5,0.3,0.2. They are divided by their sum. Left out: equal ones.",
        default=None,
    )

    def __post_init__(self) -> None:
        settle(self)
        if self.weights is None:
            return
        if len(self.weights) != len(self.others) + 1:
            raise UsageError(
                f"{len(self.weights)} weights for {len(self.others) + 1} checkpoints",
                subject="average",
                hint="give one weight for each, SOURCE first",
            )
        try:
            self._formula(self.weights)
        except ValueError as error:
            raise UsageError(str(error), subject="average", hint="for instance `--weights 0.5,0.3,0.2`") from None

    @property
    def suffix(self) -> str:
        return f"mean-of-{len(self.others) + 1}"

    @classmethod
    def advice(cls, architecture: Architecture) -> str:
        return "OTHERS...: the mean of this and other checkpoints of the same network"

    def resolved(self, checkpoint: Checkpoint) -> Average:
        for number, other in enumerate(self._others(checkpoint), 2):
            _check_same(checkpoint, other, f"checkpoint {number}")
        return replace(self, weights=self.weights or (1.0,) * (len(self.others) + 1))

    def apply(self, checkpoint: Checkpoint) -> Checkpoint:
        """Every tensor of floating point numbers is computed; counters are kept."""
        assert self.weights is not None
        formula, others = self._formula(self.weights), self._others(checkpoint)

        def averaged(name: str, tensor: LazyTensor) -> LazyTensor:
            if tensor.dtype not in FLOATS:
                return tensor
            inputs = (tensor, *(other.tensors[name] for other in others))
            return Computed(tensor.dtype, tensor.shape, inputs, formula)

        return replace(
            checkpoint, tensors={name: averaged(name, tensor) for name, tensor in checkpoint.tensors.items()}
        )

    def _others(self, checkpoint: Checkpoint) -> list[Checkpoint]:
        return [checkpoint.others[number] for number in self.others if isinstance(number, int)]

    @staticmethod
    def _formula(weights: Sequence[float]) -> formulas.Average:
        return formulas.Average(tuple(weights))


def _check_same(one: Checkpoint, other: Checkpoint, label: str) -> None:
    """Raises OperationError for networks whose mean would mean nothing."""
    if _without_names(one.architecture) != _without_names(other.architecture):
        found = differences(one.architecture, other.architecture) or ("it is built differently",)
        raise OperationError(
            f"{label} is another network than SOURCE: {'; '.join(found)}",
            hint="only checkpoints of one architecture can be averaged",
        )
    for mine, theirs in zip(one.architecture.heads, other.architecture.heads, strict=True):
        if mine.labels and theirs.labels and mine.labels != theirs.labels:
            reason = f"the classes of {mine.name} have other names in {label} than in SOURCE"
            raise OperationError(reason, hint="only checkpoints of the same classes, in one order, can be averaged")
    for name, tensor in one.tensors.items():
        if other.tensors[name].dtype != tensor.dtype:
            raise OperationError(
                f"`{name}` is {other.tensors[name].dtype} in {label}, and {tensor.dtype} in SOURCE",
                hint="make them so with `cast`, and average these files",
            )
    check_same_images(one, other, label)


def _without_names(architecture: Architecture) -> Architecture:
    """The network whatever its classes are called, and its `fc`."""
    heads = (
        replace(head, labels=(), name="fc" if architecture.classifier else head.name) for head in architecture.heads
    )
    return replace(architecture, heads=tuple(heads))
