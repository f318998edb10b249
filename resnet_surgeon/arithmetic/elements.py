"""Formulas over large tensors, with numpy: every operation in float64, rounded once to the result's dtype (to F16 and
BF16 by way of float32, as torch does).

Addition, multiplication, division and square roots alone, which IEEE 754 rounds the same everywhere; a norm adds its
squares exactly. Imports numpy at its top, so it is imported when a formula needs it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from resnet_surgeon.arithmetic.formulas import (
    Average,
    Cast,
    Combination,
    Elementwise,
    FoldedInputMean,
    FoldedInputWeight,
    FoldedWeight,
    NormalisedWeight,
    Product,
    RowMeans,
)
from resnet_surgeon.arithmetic.numbers import SIZES
from resnet_surgeon.arithmetic.operand import Operand
from resnet_surgeon.dataclass import dataclass
from resnet_surgeon.errors import OperationError

if TYPE_CHECKING:
    Floats = np.ndarray[Any, np.dtype[Any]]

_PIECE = 1 << 17  # numbers that are worked out at once


def evaluate(formula: Elementwise, dtype: str, operands: Sequence[Operand]) -> Iterator[bytes]:
    """The tensor that the formula makes of the operands, which it takes."""
    with np.errstate(all="ignore"):
        if isinstance(formula, Combination):
            for numbers in _in_step(operands):
                yield _encoded(_combined(numbers, formula.factors), dtype, numbers, formula)
        elif isinstance(formula, Average):
            yield from _averaged(operands, dtype, formula)
        elif isinstance(formula, Product):
            for numbers in _in_step(operands):
                yield _encoded(numbers[0] * numbers[1], dtype, numbers, formula)
        elif isinstance(formula, Cast):
            for data in operands[0].pieces(_PIECE * SIZES[operands[0].dtype]):
                whole = _numbers(data, operands[0].dtype)
                yield _encoded(whole, dtype, [whole], formula)
        elif isinstance(formula, NormalisedWeight):
            magnitude, direction = operands
            yield from _scaled(direction, dtype, _over_norms(_whole(magnitude), direction), formula)
        elif isinstance(formula, RowMeans):
            yield from _row_means(formula, dtype, operands)
        elif isinstance(formula, FoldedWeight):
            weight, gamma, variance = operands
            yield from _scaled(weight, dtype, _whole(gamma) / np.sqrt(_whole(variance) + formula.eps), formula)
        elif isinstance(formula, FoldedInputWeight):
            (weight,) = operands
            std = np.array(formula.std)[:, np.newaxis]
            for whole in _filters(weight):
                yield _encoded((whole.reshape(len(std), -1) / std).ravel(), dtype, [whole], formula)
        elif isinstance(formula, FoldedInputMean):
            running_mean, weight = operands
            vectors = [_whole(running_mean), np.array([*_responses(weight, formula.mean)])]
            yield _encoded(vectors[0] + vectors[1], dtype, vectors, formula)
        else:
            vectors = [_whole(operand) for operand in operands]
            yield _encoded(_folded_bias(*vectors, eps=formula.eps), dtype, vectors, formula)


def decode(data: bytes, dtype: str) -> Floats:
    """The numbers in float64. `data` is little-endian."""
    return _numbers(data, dtype).astype("f8", copy=False)


def _numbers(data: bytes, dtype: str) -> Floats:
    """The numbers in float32, float64 for such."""
    if dtype == "BF16":  # the upper half of a float32
        return (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4")
    numbers: Floats = np.frombuffer(data, {"F64": "<f8", "F32": "<f4", "F16": "<f2"}[dtype])
    return numbers.astype("f4") if dtype == "F16" else numbers


def encode(numbers: Floats, dtype: str) -> bytes:
    """The numbers as `dtype`, little-endian, rounded to nearest even (to BF16 by way of float32)."""
    if dtype == "BF16":
        bits = numbers.astype("<f4", copy=False).view("<u4")
        rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")
        rounded[np.isnan(numbers)] = 0x7FC0
    else:
        rounded = numbers.astype({"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8"}[dtype], copy=False)
    return bytes(rounded.data)


def _cast(numbers: Floats, dtype: str) -> bytes:
    """The numbers as `dtype`; to F16 and BF16 by way of float32, as torch does."""
    return encode(numbers.astype("f4", copy=False) if dtype in ("F16", "BF16") else numbers, dtype)


def _combined(numbers: Sequence[Floats], factors: Sequence[float]) -> Floats:
    total = numbers[0] * factors[0]
    for more, factor in zip(numbers[1:], factors[1:], strict=True):
        total = total + more * factor
    return total


def _averaged(operands: Sequence[Operand], dtype: str, formula: Average) -> Iterator[bytes]:
    """Of each operand one piece is in memory at a time, however many there are."""
    readers = [operand.pieces(_PIECE * SIZES[operand.dtype]) for operand in operands]
    for first in readers[0]:
        total = decode(first, operands[0].dtype) * formula.weights[0]
        is_finite = np.isfinite(total).all()
        for reader, operand, weight in zip(readers[1:], operands[1:], formula.weights[1:], strict=True):
            numbers = decode(next(reader), operand.dtype)
            is_finite = is_finite and np.isfinite(numbers).all()
            total += numbers * weight  # not in place: float64 is read where it lies
        total /= formula.total
        yield _encoded(total, dtype, [] if is_finite else [np.array([np.nan])], formula)


def _folded_bias(gamma: Floats, beta: Floats, mean: Floats, variance: Floats, *, eps: float) -> Floats:
    return beta - mean * (gamma / np.sqrt(variance + eps))


def _in_step(operands: Sequence[Operand]) -> Iterator[list[Floats]]:
    """The operands, which are of one shape, piece by piece."""
    readers = [operand.pieces(_PIECE * SIZES[operand.dtype]) for operand in operands]
    for data in zip(*readers, strict=True):
        yield [decode(piece, operand.dtype) for piece, operand in zip(data, operands, strict=True)]


@dataclass(frozen=True)
class Rounding:
    """What rounding does to a tensor's finite numbers: the largest |rounded - x| over the largest |x|, and how many
    become zero and how many infinite, which do not count for the first.
    """

    error: float
    zeros: int
    overflows: int


def rounding(operand: Operand, dtype: str) -> Rounding:
    """Of a tensor that is cast to `dtype`. Differences are worked out in float32 (float64 for such), where they are
    exact.
    """
    error, largest, zeros, overflows = 0.0, 0.0, 0, 0
    with np.errstate(all="ignore"):
        for data in operand.pieces(_PIECE * SIZES[operand.dtype]):
            numbers = _numbers(data, operand.dtype)
            rounded = _numbers(_cast(numbers, dtype), dtype).astype(numbers.dtype, copy=False)
            sizes, errors = np.abs(numbers), np.abs(rounded - numbers)
            if not np.isfinite(errors).all():
                finite = np.isfinite(numbers)
                overflows += int(np.count_nonzero(np.isinf(rounded) & finite))
                sizes, errors = sizes[finite], errors[np.isfinite(errors)]
            error = max(error, float(errors.max(initial=0)))
            largest = max(largest, float(sizes.max(initial=0)))
            zeros += int(np.count_nonzero(numbers) - np.count_nonzero(rounded))
    return Rounding(error / largest if largest else 0.0, zeros, overflows)


def _whole(operand: Operand) -> Floats:
    size = math.prod(operand.shape) * SIZES[operand.dtype]
    return decode(b"".join(operand.pieces(max(1, size))), operand.dtype)


def _filters(weight: Operand, count: int = 1) -> Iterator[Floats]:
    """The weight by filters, [count, ...]: what belongs to so many output channels."""
    size = math.prod(weight.shape[1:])
    for data in weight.pieces(max(1, count * size * SIZES[weight.dtype])):
        yield decode(data, weight.dtype).reshape(-1, size)


def _scaled(weight: Operand, dtype: str, factors: Floats, formula: object) -> Iterator[bytes]:
    """Each filter times its factor."""
    count = max(1, _PIECE // math.prod(weight.shape[1:]))
    for number, numbers in enumerate(_filters(weight, count)):
        factor = factors[number * count :][: len(numbers), None]
        yield _encoded(numbers * factor, dtype, [numbers, factor], formula)


def _responses(weight: Operand, image: Sequence[float]) -> Iterator[float]:
    """What each filter gives for an image whose channels are constant; each sum is exact, and rounded once."""
    channels = np.array(image)[:, np.newaxis]
    for numbers in _filters(weight):
        products = (numbers.reshape(len(channels), -1) * channels).ravel()
        yield math.fsum(products) if np.isfinite(products).all() else float(products.sum())


def _row_means(formula: RowMeans, dtype: str, operands: Sequence[Operand]) -> Iterator[bytes]:
    """The rows of the first operand are added in their order, so that it is read once, row by row."""
    rows, width = operands[0], math.prod(operands[0].shape[1:])
    groups: dict[int, list[int]] = {}
    for new, group in enumerate(formula.groups):
        for row in group:
            groups.setdefault(row, []).append(new)
    sums = np.zeros((len(formula.groups), width))
    finite = np.ones(len(formula.groups), dtype=bool)
    for row, data in enumerate(rows.pieces(max(1, width * SIZES[rows.dtype]))):
        if row in groups:
            numbers = decode(data, rows.dtype)
            sums[groups[row]] += numbers
            finite[groups[row]] &= np.isfinite(numbers).all()
    drawn = operands[1].pieces(max(1, width * SIZES[operands[1].dtype])) if len(operands) > 1 else iter(())
    fresh = drawn if len(operands) > 1 else (b"" for _ in formula.groups)
    for new, (group, data) in enumerate(zip(formula.groups, fresh, strict=True)):
        made = sums[new] / len(group) if group else decode(data, operands[-1].dtype)
        sources = [made] if not finite[new] else []
        yield _encoded(made, dtype, sources, formula)


def _over_norms(magnitudes: Floats, direction: Operand) -> Floats:
    """Each filter's magnitude over its norm."""
    norms = (
        math.sqrt(math.fsum((numbers * numbers).flat)) if np.isfinite(numbers).all() else math.nan
        for numbers in _filters(direction)
    )
    return np.array(
        [magnitude / norm if norm else math.nan for magnitude, norm in zip(magnitudes, norms, strict=True)], "f8"
    )


def _encoded(numbers: Floats, dtype: str, sources: Sequence[Floats], formula: object) -> bytes:
    """Raises OperationError where all that a piece is made from is finite, and the piece is not."""
    data = _cast(numbers, dtype)
    if not np.isfinite(_numbers(data, dtype)).all() and all(np.isfinite(source).all() for source in sources):
        raise OperationError(
            f"the result would hold numbers that are not finite in {dtype}",
            subject=str(formula),
            hint="write it in a wider type first: `cast --dtype float32`" if dtype == "F16" else None,
        )
    return data
