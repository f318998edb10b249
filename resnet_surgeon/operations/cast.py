"""cast: the same numbers in another floating point type, rounded as torch rounds them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar, Literal

from resnet_surgeon.architecture.spec import Architecture
from resnet_surgeon.arithmetic import formulas
from resnet_surgeon.dataclass import dataclass
from resnet_surgeon.errors import OperationError, listed
from resnet_surgeon.fields import Size, unsaid
from resnet_surgeon.formats.memory import import_numpy
from resnet_surgeon.formats.tensors import Computed, LazyTensor, is_known, operand
from resnet_surgeon.operations.checkpoint import Checkpoint, found, operation, option, settle
from resnet_surgeon.operations.training import TensorName

Dtype = Literal["float16", "bfloat16", "float32", "float64"]

DTYPES: dict[Dtype, str] = {"float16": "F16", "bfloat16": "BF16", "float32": "F32", "float64": "F64"}
# From each, the dtypes that have all of its numbers.
_WIDER = {"F16": ("F32", "F64"), "BF16": ("F32", "F64"), "F32": ("F64",), "F64": ()}
_SHOWN = 6  # tensors named in one message


@dataclass(frozen=True)
class Rounding:
    """What rounding did: the largest error in a tensor, relative to its largest number, and which tensor that is; and
    how many numbers became zero.
    """

    error: float
    tensor: TensorName
    zeros: Size | None = unsaid(None)


@operation
class Cast:
    """Write the numbers in another floating point type, rounded as torch's `.to()` rounds them, to the bit.

    The summary names the largest rounding error. Numbers that are too large for the type are refused, since they would
    become infinite. `--keep-norm` leaves the batch norms as they are: torch runs a float16 network with float32 norms.
    """

    name: ClassVar[str] = "cast"
    example: ClassVar[str] = "resnet-surgeon cast resnet50 --dtype float16"
    keeps_packing: ClassVar[bool] = False

    dtype: Dtype = option("The type of the new numbers.")
    keep_norm: bool = option("Leave the batch norms in the type that they have.", default=False)
    rounding: Rounding | None = found("What rounding did.", default=None)

    def __post_init__(self) -> None:
        settle(self)

    @property
    def suffix(self) -> str:
        return self.dtype + "-keep-norm" * self.keep_norm

    @classmethod
    def advice(cls, architecture: Architecture) -> str:
        return f"--dtype {', '.join(DTYPES)}"

    def resolved(self, checkpoint: Checkpoint) -> Cast:
        rounded = {
            name: tensor
            for name, tensor in self._changing(checkpoint).items()
            if DTYPES[self.dtype] not in _WIDER[tensor.dtype]
        }
        if not all(map(is_known, rounded.values())):
            return self
        return replace(self, rounding=_rounding(rounded, self.dtype) if rounded else None)

    def apply(self, checkpoint: Checkpoint) -> Checkpoint:
        """Every floating point tensor of another dtype is rounded to this one; counters are kept."""
        dtype = DTYPES[self.dtype]
        made = {
            name: Computed(dtype, tensor.shape, (tensor,), formulas.Cast(tensor.dtype))
            for name, tensor in self._changing(checkpoint).items()
        }
        return replace(checkpoint, tensors={**checkpoint.tensors, **made})

    def _changing(self, checkpoint: Checkpoint) -> dict[str, LazyTensor]:
        norms = {name.rpartition(".")[0] for name in checkpoint.tensors if name.endswith(".running_mean")}
        return {
            name: tensor
            for name, tensor in checkpoint.tensors.items()
            if tensor.dtype not in ("I64", DTYPES[self.dtype])
            and not (self.keep_norm and name.rpartition(".")[0] in norms)
        }


def _rounding(tensors: Mapping[str, LazyTensor], dtype: Dtype) -> Rounding:
    """Reads all numbers once. Raises OperationError for those that would become infinite."""
    import_numpy()
    from resnet_surgeon.arithmetic import elements

    made = {name: elements.rounding(operand(tensor), DTYPES[dtype]) for name, tensor in tensors.items()}
    overflows = [f"{rounding.overflows:,} of `{name}`" for name, rounding in made.items() if rounding.overflows]
    if overflows:
        count = sum(rounding.overflows for rounding in made.values())
        raise OperationError(
            f"{count:,} number{'s are' if count > 1 else ' is'} too large for {dtype}, and would become infinite: "
            f"{listed(overflows, _SHOWN)}",
            hint="use `--dtype bfloat16`, which has the range of float32" if dtype == "float16" else None,
        )
    worst = max(made, key=lambda name: made[name].error)
    zeros = sum(rounding.zeros for rounding in made.values())
    return Rounding(made[worst].error, worst, zeros or None)
