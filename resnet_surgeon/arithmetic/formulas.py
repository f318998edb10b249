"""The formulas of computed tensors, as plain data that a manifest holds. Knows shapes; computes nothing.

Each says in words what it does (`str`), and what shapes its inputs have for a result of a given shape.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from resnet_surgeon.dataclass import dataclass
from resnet_surgeon.fields import Count, Range, Size, Text, unsaid

LARGEST_KERNEL = 31
LARGEST = 1 << 16  # channels on either side of a mix, as of any network
MOST_INPUTS = 64
MOST_WEIGHTS = 1 << 20  # of a matrix
_MOST_ROWS = 1 << 24  # of a classifier

Shape = tuple[int, ...]
Channels = Annotated[int, Range(1, LARGEST)]
Kernel = Annotated[int, Range(1, LARGEST_KERNEL)]
FloatingPoint = Annotated[str, Text("a floating point dtype", "F64|F32|F16|BF16")]


@dataclass(frozen=True)
class Row:
    """One new input channel: the sum of old channels, each times its weight, in this order; all divided by `divisor`.

    A weight of 1 multiplies nothing, and a divisor of 1 divides nothing.
    """

    terms: tuple[tuple[int, float], ...]
    divisor: int = 1


@dataclass(frozen=True)
class Mean:
    """Each of `new` input channels is the mean of the `old` ones. As torch's `weight.mean(1, keepdim=True)`."""

    old: Channels
    new: Channels
    kind: Literal["mean"] = "mean"

    def __str__(self) -> str:
        return f"mean over the {self.old} input channels, for each of {self.new}"

    @property
    def rows(self) -> tuple[Row, ...]:
        return (Row(tuple((channel, 1.0) for channel in range(self.old)), self.old),)

    def input_shapes(self, shape: Shape) -> tuple[Shape, ...]:
        return _mixed_from(shape, self.old, self.new)


@dataclass(frozen=True)
class Scaled:
    """Each of `new` input channels is the mean of the `old` ones times old / new, which is their sum / new."""

    old: Channels
    new: Channels
    kind: Literal["scaled"] = "scaled"

    def __str__(self) -> str:
        return f"sum over the {self.old} input channels / {self.new}, for each of {self.new}"

    @property
    def rows(self) -> tuple[Row, ...]:
        return (Row(tuple((channel, 1.0) for channel in range(self.old)), self.new),)

    def input_shapes(self, shape: Shape) -> tuple[Shape, ...]:
        return _mixed_from(shape, self.old, self.new)


@dataclass(frozen=True)
class Repeat:
    """The `old` input channels in turn, times old / new; for one new channel their sum. As
    `timm.models._manipulate.adapt_input_conv`.
    """

    old: Channels
    new: Channels
    kind: Literal["repeat"] = "repeat"

    def __str__(self) -> str:
        if self.new == 1:
            return f"the sum of the {self.old} input channels"
        return f"the {self.old} input channels in turn, times {self.old}/{self.new}"

    @property
    def rows(self) -> tuple[Row, ...]:
        if self.new == 1:
            return (Row(tuple((channel, 1.0) for channel in range(self.old))),)
        return tuple(Row(((channel, self.old / self.new),)) for channel in range(min(self.old, self.new)))

    def input_shapes(self, shape: Shape) -> tuple[Shape, ...]:
        return _mixed_from(shape, self.old, self.new)


@dataclass(frozen=True)
class Mix:
    """New input channel i is the sum over the old ones, j, of `matrix[i][j]` times channel j.

    The old ones are those of one input, or of several in turn, which then have as many as `parts` says.
    """

    matrix: Annotated[tuple[tuple[float, ...], ...], Count(1, LARGEST)]
    kind: Literal["mix"] = "mix"
    parts: Annotated[tuple[Channels, ...], Count(0, MOST_INPUTS)] = unsaid(())

    def __post_init__(self) -> None:
        if len({len(row) for row in self.matrix}) != 1 or not 0 < self.old * self.new <= MOST_WEIGHTS:
            raise ValueError(f"a matrix has rows of one length, and at most {MOST_WEIGHTS} weights")
        if self.parts and sum(self.parts) != self.old:
            raise ValueError("a matrix has a column for each channel of its inputs")

    def __str__(self) -> str:
        several = f"of {len(self.parts)} tensors " * (len(self.parts) > 1)
        return f"the {self.old} input channels {several}mixed into {self.new} by a matrix"

    @property
    def old(self) -> int:
        return len(self.matrix[0])

    @property
    def new(self) -> int:
        return len(self.matrix)

    @property
    def rows(self) -> tuple[Row, ...]:
        return tuple(
            Row(tuple((channel, weight) for channel, weight in enumerate(weights) if weight)) for weights in self.matrix
        )

    def input_shapes(self, shape: Shape) -> tuple[Shape, ...]:
        return tuple(_mixed_from(shape, part, self.new)[0] for part in self.parts or (self.old,))


@dataclass(frozen=True)
class Crop:
    """The centre of kernels of `old` x `old`, as ones of `new` x `new`, both odd; larger ones have zeros around it."""

    old: Kernel
    new: Kernel
    kind: Literal["crop"] = "crop"

    def __post_init__(self) -> None:
        _check_kernels(self.old, self.new)

    def __str__(self) -> str:
        size = f"{self.old}x{self.old}"
        return f"the centre of {size} kernels" if self.new < self.old else f"{size} kernels with zeros around them"

    @property
    def rows(self) -> tuple[Row, ...]:
        """For each place in the new kernel, row by row, what it is made from of the old one's places."""
        shift = (self.old - self.new) // 2
        places = [(row + shift, column + shift) for row in range(self.new) for column in range(self.new)]
        inside = range(self.old)
        return tuple(
            Row(((row * self.old + column, 1.0),) if row in inside and column in inside else ())
            for row, column in places
        )

    def input_shapes(self, shape: Shape) -> tuple[Shape, ...]:
        return _resized_from(shape, self.old, self.new)


@dataclass(frozen=True)
class AreaResampled:
    """Kernels of `old` x `old` as ones of `new` x `new` over the same area, so that each keeps the sum of its numbers:
    a new number is the sum of the old ones, each times the share of its area that the new one covers. Both are odd.
    """

    old: Kernel
    new: Kernel
    kind: Literal["area_resampled"] = "area_resampled"

    def __post_init__(self) -> None:
        _check_kernels(self.old, self.new)

    def __str__(self) -> str:
        return f"{self.old}x{self.old} kernels resampled by area, with the same sum"

    @property
    def rows(self) -> tuple[Row, ...]:
        """For each place in the new kernel, row by row, what it is made from of the old one's places."""
        shares = [_overlaps(self.old, self.new, place) for place in range(self.new)]
        return tuple(
            Row(
                tuple((row * self.old + column, float(high * wide)) for row, high in down for column, wide in across),
                self.new**2,
            )
            for down in shares
            for across in shares
        )

    def input_shapes(self, shape: Shape) -> tuple[Shape, ...]:
        return _resized_from(shape, self.old, self.new)


@dataclass(frozen=True)
class Combination:
    """The sum of the inputs, each times its factor; all of one shape. One input is scaled, two can be subtracted, and
    with equal factors it is an average.
    """

    factors: Annotated[tuple[float, ...], Count(1, MOST_INPUTS)]
    kind: Literal["combination"] = "combination"

    def __str__(self) -> str:
        return f"sum of the inputs times {', '.join(f'{factor:g}' for factor in self.factors)}"

    def input_shapes(self, shape: Shape) -> tuple[Shape, ...]:
        return (shape,) * len(self.factors)


@dataclass(frozen=True)
class Average:
    """The weighted mean of inputs of one shape, (w1 x1 + w2 x2 + ...) / (w1 + w2 + ...), summed in this order: with
    weights of 1 it is torch's `(x1.double() + x2.double() + ...) / n`.
    """

    weights: Annotated[tuple[float, ...], Count(1, MOST_INPUTS)]
    kind: Literal["average"] = "average"

    def __post_init__(self) -> None:
        if not all(weight > 0 for weight in self.weights) or not math.isfinite(self.total):
            raise ValueError("the weights of an average are greater than 0, and their sum is finite")

    def __str__(self) -> str:
        if set(self.weights) == {1.0}:
            return f"mean of {len(self.weights)}"
        return f"mean of {len(self.weights)}, weighted {', '.join(f'{weight:g}' for weight in self.weights)}"

    @property
    def total(self) -> float:
        return sum(self.weights)

    def input_shapes(self, shape: Shape) -> tuple[Shape, ...]:
        return (shape,) * len(self.weights)


@dataclass(frozen=True)
class Product:
    """The product of two inputs of one shape, such as a pruned weight and its mask."""

    kind: Literal["product"] = "product"

    def __str__(self) -> str:
        return "product of the two inputs"

    def input_shapes(self, shape: Shape) -> tuple[Shape, ...]:
        return (shape, shape)


@dataclass(frozen=True)
class Cast:
    """The input's numbers, which were of dtype `old`, rounded to that of the result."""

    old: FloatingPoint
    kind: Literal["cast"] = "cast"

    def __str__(self) -> str:
        return f"cast from {self.old}"

    def input_shapes(self, shape: Shape) -> tuple[Shape, ...]:
        return (shape,)


@dataclass(frozen=True)
class NormalisedWeight:
    """Salimans & Kingma 2016 (arXiv:1602.07868): of a magnitude g [out, 1, ...] and a direction v [out, ...], the
    weight v * (g / ||v||), the norm over all axes but the first. As `torch.nn.utils.weight_norm` with dim=0.
    """

    kind: Literal["normalised_weight"] = "normalised_weight"

    def __str__(self) -> str:
        return "magnitude times the direction's unit vector"

    def input_shapes(self, shape: Shape) -> tuple[Shape, ...]:
        return ((*shape[:1], *(1 for _ in shape[1:])), shape)


@dataclass(frozen=True)
class RowMeans:
    """New row i is the mean of those rows of the first input, which has `old`, that `groups[i]` names in ascending
    order; where it names none, row i of the second input, which there is if any group is empty.
    """

    old: Annotated[int, Range(1, _MOST_ROWS)]
    groups: Annotated[tuple[tuple[int, ...], ...], Count(1, _MOST_ROWS)]
    kind: Literal["row_means"] = "row_means"

    def __post_init__(self) -> None:
        if not any(self.groups) or any(list(group) != sorted({*group}) for group in self.groups):
            raise ValueError("a group has rows in ascending order, each once, and some group has a row")
        if any(not 0 <= row < self.old for group in self.groups for row in group):
            raise ValueError(f"a row is one of {self.old}")

    def __str__(self) -> str:
        drawn = sum(not group for group in self.groups)
        means = f"means of rows of {self.old}, for {len(self.groups) - drawn} of {len(self.groups)} rows"
        return f"{means}; {drawn} drawn" if drawn else means

    def input_shapes(self, shape: Shape) -> tuple[Shape, ...]:
        if len(shape) not in (1, 2) or shape[0] != len(self.groups):
            raise ValueError(f"means for {len(self.groups)} rows give no tensor of the shape {list(shape)}")
        old = (self.old, *shape[1:])
        return (old,) if all(self.groups) else (old, shape)


@dataclass(frozen=True)
class FoldedWeight:
    """A convolution's weight [out, ...] with the batch norm after it: of weight, gamma [out] and running_var [out],
    weight * (gamma / sqrt(running_var + eps)). `norm` is the batch norm's dtype, where it is not the weight's.
    """

    eps: float
    kind: Literal["folded_weight"] = "folded_weight"
    norm: FloatingPoint | None = unsaid(None)

    def __post_init__(self) -> None:
        _check_eps(self.eps)

    def __str__(self) -> str:
        return f"the weight with its batch norm folded in, eps {self.eps:g}"

    def input_shapes(self, shape: Shape) -> tuple[Shape, ...]:
        return (shape, shape[:1], shape[:1])


@dataclass(frozen=True)
class FoldedBias:
    """The bias [out] of a convolution with the batch norm after it: of gamma, beta, running_mean and running_var (each
    [out]), beta - running_mean * (gamma / sqrt(running_var + eps)). `norm` is their dtype, where it is not the bias's.
    """

    eps: float
    kind: Literal["folded_bias"] = "folded_bias"
    norm: FloatingPoint | None = unsaid(None)

    def __post_init__(self) -> None:
        _check_eps(self.eps)

    def __str__(self) -> str:
        return f"the bias of the folded batch norm, eps {self.eps:g}"

    def input_shapes(self, shape: Shape) -> tuple[Shape, ...]:
        return (shape,) * 4


_Numbers = Annotated[tuple[float, ...], Count(1, LARGEST)]  # one for each input channel


@dataclass(frozen=True)
class FoldedInputWeight:
    """A convolution's weight [out, in, ...] that takes the images as they are: each input channel over its `std`, by
    which the images were divided before.
    """

    std: _Numbers
    kind: Literal["folded_input_weight"] = "folded_input_weight"

    def __post_init__(self) -> None:
        if not all(0 < number < math.inf for number in self.std):
            raise ValueError("a standard deviation is a positive number")

    def __str__(self) -> str:
        return "the weight with the images' std folded in"

    def input_shapes(self, shape: Shape) -> tuple[Shape, ...]:
        return _mixed_from(shape, len(self.std), len(self.std))


@dataclass(frozen=True)
class FoldedInputMean:
    """The running_mean [out] of the batch norm after such a convolution, of running_mean and the convolution's folded
    weight [out, in, *kernel], which is of dtype `weight`: running_mean plus, over all inputs, the sum of weight times
    the channel's `mean`, which was subtracted from the images before.
    """

    mean: _Numbers
    kernel: Annotated[tuple[Size, ...], Count(1, 3)]
    weight: FloatingPoint
    kind: Literal["folded_input_mean"] = "folded_input_mean"

    def __str__(self) -> str:
        return "the running mean with the images' mean folded in"

    def input_shapes(self, shape: Shape) -> tuple[Shape, ...]:
        return (shape, (*shape, len(self.mean), *self.kernel))


# From a weight [out, old, ...] to one [out, new, ...].
Mixing = Mean | Scaled | Repeat | Mix
# From a weight [out, in, old, old] to one [out, in, new, new].
Resizing = Crop | AreaResampled
# Over whole tensors, large ones too.
Elementwise = (
    Combination
    | Average
    | Product
    | Cast
    | NormalisedWeight
    | RowMeans
    | FoldedWeight
    | FoldedBias
    | FoldedInputWeight
    | FoldedInputMean
)
Formula = Mixing | Resizing | Elementwise


def input_dtypes(formula: Formula, dtype: str, count: int) -> tuple[str, ...]:
    """Of the `count` inputs for a result of this dtype, which most have too."""
    if isinstance(formula, Cast):
        return (formula.old,)
    if isinstance(formula, FoldedWeight):
        return (dtype, *[formula.norm or dtype] * 2)
    if isinstance(formula, FoldedBias):
        return (formula.norm or dtype,) * 4
    if isinstance(formula, FoldedInputMean):
        return (dtype, formula.weight)
    return (dtype,) * count


def _mixed_from(shape: Shape, old: int, new: int) -> tuple[Shape, ...]:
    """Raises ValueError for a result that has not `new` input channels."""
    if len(shape) < 2 or shape[1] != new:
        raise ValueError(f"a mix into {new} input channels gives no tensor of the shape {list(shape)}")
    return ((shape[0], old, *shape[2:]),)


def _resized_from(shape: Shape, old: int, new: int) -> tuple[Shape, ...]:
    """Raises ValueError for a result that has no kernels of `new` x `new`."""
    if len(shape) != 4 or shape[2:] != (new, new):
        raise ValueError(f"kernels of {new}x{new} are not in a tensor of the shape {list(shape)}")
    return ((*shape[:2], old, old),)


def _overlaps(old: int, new: int, place: int) -> list[tuple[int, int]]:
    """Along one axis, divided into `old` parts and into `new` ones: which old parts the new one at `place` covers, and
    how much of each, in units of 1 / new of an old part.
    """
    return [
        (part, share)
        for part in range(old)
        if (share := min((place + 1) * old, (part + 1) * new) - max(place * old, part * new)) > 0
    ]


def _check_kernels(old: int, new: int) -> None:
    if not all(0 < size <= LARGEST_KERNEL and size % 2 for size in (old, new)):
        raise ValueError(f"the sides of kernels are odd numbers of at most {LARGEST_KERNEL}")


def _check_eps(eps: float) -> None:
    if not (0 <= eps < 1 and math.isfinite(eps)):
        raise ValueError("eps is at least 0 and less than 1")
