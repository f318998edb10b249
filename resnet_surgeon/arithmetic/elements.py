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
    Cast,
    Combination,
    FoldedBias,
    FoldedInputMean,
    FoldedInputWeight,
    FoldedWeight,
    NormalisedWeight,
    Product,
)
from resnet_surgeon.arithmetic.numbers import SIZES
from resnet_surgeon.arithmetic.operand import Operand
from resnet_surgeon.errors import OperationError

if TYPE_CHECKING:
    Floats = np.ndarray[Any, np.dtype[Any]]

_PIECE = 1 << 17  # numbers that are worked out at once


def evaluate(
    formula: Combination
    | Product
    | Cast
    | NormalisedWeight
    | FoldedWeight
    | FoldedBias
    | FoldedInputWeight
    | FoldedInputMean,
    dtype: str,
    operands: Sequence[Operand],
) -> Iterator[bytes]:
    """The tensor that the formula makes of the operands, which it takes."""
    with np.errstate(all="ignore"):
        if isinstance(formula, Combination):
            for numbers in _in_step(operands):
                yield _encoded(_combined(numbers, formula.factors), dtype, numbers, formula)
        elif isinstance(formula, Product):
            for numbers in _in_step(operands):
                yield _encoded(numbers[0] * numbers[1], dtype, numbers, formula)
        elif isinstance(formula, Cast):
            for numbers in _in_step(operands):
                yield _encoded(numbers[0], dtype, numbers, formula)
        elif isinstance(formula, NormalisedWeight):
            magnitude, direction = operands
            yield from _scaled(direction, dtype, _over_norms(_whole(magnitude), direction), formula)
        elif isinstance(formula, FoldedWeight):
            weight, gamma, variance = operands
            yield from _scaled(weight, dtype, iter(_whole(gamma) / np.sqrt(_whole(variance) + formula.eps)), formula)
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
    if dtype == "BF16":  # the upper half of a float32
        return (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4").astype("f8")
    return np.frombuffer(data, {"F64": "<f8", "F32": "<f4", "F16": "<f2"}[dtype]).astype("f8")


def encode(numbers: Floats, dtype: str) -> bytes:
    """The numbers as `dtype`, little-endian, rounded to nearest even."""
    if dtype == "BF16":
        bits = numbers.astype("<f4").view("<u4")
        rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")
        rounded[np.isnan(numbers)] = 0x7FC0
    else:
        rounded = numbers.astype({"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8"}[dtype])
    return bytes(rounded.data)


def _combined(numbers: Sequence[Floats], factors: Sequence[float]) -> Floats:
    total = numbers[0] * factors[0]
    for more, factor in zip(numbers[1:], factors[1:], strict=True):
        total = total + more * factor
    return total


def _folded_bias(gamma: Floats, beta: Floats, mean: Floats, variance: Floats, *, eps: float) -> Floats:
    return beta - mean * (gamma / np.sqrt(variance + eps))


def _in_step(operands: Sequence[Operand]) -> Iterator[list[Floats]]:
    """The operands, which are of one shape, piece by piece."""
    readers = [operand.pieces(_PIECE * SIZES[operand.dtype]) for operand in operands]
    for data in zip(*readers, strict=True):
        yield [decode(piece, operand.dtype) for piece, operand in zip(data, operands, strict=True)]


def _whole(operand: Operand) -> Floats:
    size = math.prod(operand.shape) * SIZES[operand.dtype]
    return decode(b"".join(operand.pieces(max(1, size))), operand.dtype)


def _filters(weight: Operand) -> Iterator[Floats]:
    """The weight filter by filter: what belongs to one output channel."""
    for data in weight.pieces(max(1, math.prod(weight.shape[1:]) * SIZES[weight.dtype])):
        yield decode(data, weight.dtype)


def _scaled(weight: Operand, dtype: str, factors: Iterator[float], formula: object) -> Iterator[bytes]:
    """Each filter times its factor."""
    for numbers in _filters(weight):
        factor = next(factors)
        yield _encoded(numbers * factor, dtype, [numbers, np.array([factor])], formula)


def _responses(weight: Operand, image: Sequence[float]) -> Iterator[float]:
    """What each filter gives for an image whose channels are constant; each sum is exact, and rounded once."""
    channels = np.array(image)[:, np.newaxis]
    for numbers in _filters(weight):
        products = (numbers.reshape(len(channels), -1) * channels).ravel()
        yield math.fsum(products) if np.isfinite(products).all() else float(products.sum())


def _over_norms(magnitudes: Floats, direction: Operand) -> Iterator[float]:
    for magnitude, numbers in zip(magnitudes, _filters(direction), strict=True):
        norm = math.sqrt(math.fsum(numbers * numbers)) if np.isfinite(numbers).all() else math.nan
        yield magnitude / norm if norm else math.nan


def _encoded(numbers: Floats, dtype: str, sources: Sequence[Floats], formula: object) -> bytes:
    """Raises OperationError where all that a piece is made from is finite, and the piece is not."""
    data = encode(numbers.astype("f4") if dtype in ("F16", "BF16") else numbers, dtype)
    finite = np.isfinite(decode(data, dtype))
    if not finite.all() and all(np.isfinite(source).all() for source in sources):
        raise OperationError(
            f"the result would hold numbers that are not finite in {dtype}", subject=str(formula), hint=None
        )
    return data
