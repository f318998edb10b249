"""Evaluates formulas piece by piece, so that memory does not grow with a tensor.

A mix of input channels, and kernels of another size, are worked out in Python's own arrays, in float32 (float64 for
such) and rounded once at the end; everything else with numpy, see `elements`. Knows nothing of files.
"""

from __future__ import annotations

import math
import operator
from array import array
from collections.abc import Iterator, Sequence
from typing import TypeAlias

from resnet_surgeon.arithmetic.formulas import Formula, Mixing, Resizing, Row
from resnet_surgeon.arithmetic.numbers import SIZES, decode, encode
from resnet_surgeon.arithmetic.operand import Operand
from resnet_surgeon.errors import CheckpointError, OperationError


def needs_numpy(formula: Formula) -> bool:
    return not isinstance(formula, (Mixing, Resizing))


def evaluate(formula: Formula, dtype: str, shape: tuple[int, ...], operands: Sequence[Operand]) -> Iterator[bytes]:
    """The tensor of this dtype and shape that the formula makes of the operands, little-endian.

    Raises CheckpointError for operands that the formula does not take, OperationError where finite numbers would become
    infinite.
    """
    if any(operand.dtype not in SIZES for operand in operands):
        raise CheckpointError(f"no arithmetic is done on dtype {', '.join(operand.dtype for operand in operands)}")
    if formula.input_shapes(shape) != tuple(operand.shape for operand in operands):
        shapes = ", ".join(str(list(operand.shape)) for operand in operands)
        raise CheckpointError(f"`{formula}` cannot make a tensor of shape {list(shape)} of {shapes}")
    if isinstance(formula, Mixing):
        yield from _mixed(formula, dtype, operands)
        return
    if isinstance(formula, Resizing):
        yield from _resized(formula, dtype, operands[0])
        return
    from resnet_surgeon.arithmetic import elements

    yield from elements.evaluate(formula, dtype, operands)


_KERNELS = 1 << 10  # that are resized at once
# Numbers that are worked out alike: a filter's weight for one input channel, or one place of many kernels. Each
# operation on them rounds once, in the array's own precision.
Plane: TypeAlias = "array[float]"


def _mixed(formula: Mixing, dtype: str, operands: Sequence[Operand]) -> Iterator[bytes]:
    """Filter by filter; the rows are used in turn."""
    rows, new = formula.rows[: formula.new], formula.new
    plane = math.prod(operands[0].shape[2:])
    readers = [operand.pieces(operand.shape[1] * plane * SIZES[operand.dtype]) for operand in operands]
    for filters in zip(*readers, strict=True):
        old = [
            _Channel(operand.dtype, part)
            for operand, data in zip(operands, filters, strict=True)
            for part in _cut(data, plane * SIZES[operand.dtype])
        ]
        made = {row: _made(row, old, dtype, formula) for row in dict.fromkeys(rows)}
        yield b"".join(made[rows[channel % len(rows)]] for channel in range(new))


class _Channel:
    """A filter's weight for one input channel, as it is stored and as numbers."""

    def __init__(self, dtype: str, data: bytes) -> None:
        self.dtype = dtype
        self.data = data
        self.numbers = decode(data, dtype)


def _cut(data: bytes, size: int) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


def _made(row: Row, old: Sequence[_Channel], dtype: str, formula: Mixing) -> bytes:
    """The new channel; its very bytes, where it is an old one."""
    if [weight for _, weight in row.terms] == [1] and row.divisor == 1:
        (kept,) = (old[channel] for channel, _ in row.terms)
        if kept.dtype == dtype:
            return kept.data
    return _encoded(row, [channel.numbers for channel in old], dtype, formula)


def _resized(formula: Resizing, dtype: str, weight: Operand) -> Iterator[bytes]:
    """So many kernels at a time."""
    rows, area = formula.rows, formula.old**2
    for data in weight.pieces(_KERNELS * area * SIZES[weight.dtype]):
        numbers = decode(data, weight.dtype)
        old = [numbers[place::area] for place in range(area)]
        made = decode(bytes(len(old[0]) * len(rows) * SIZES[dtype]), dtype)
        for place, row in enumerate(rows):
            made[place :: len(rows)] = decode(_encoded(row, old, dtype, formula), dtype)
        yield encode(made, dtype)


def _encoded(row: Row, planes: Sequence[Plane], dtype: str, formula: Mixing | Resizing) -> bytes:
    data = encode(_sum(row, planes), dtype)
    if _overflows(decode(data, dtype), [planes[index] for index, _ in row.terms]):
        is_mix = isinstance(formula, Mixing)
        fallback = _FALLBACKS.get(formula.kind, "mean" if is_mix else "crop")
        raise OperationError(
            f"the new filters would hold numbers that are too large for {dtype}, and would be infinite",
            subject="mixing the input channels" if is_mix else "resampling the kernels",
            hint=f"use `--init {fallback}`" + ", or scale the weights down first" * (fallback == "random")
            if fallback
            else "give the channels smaller weights",
        )
    return data


_FALLBACKS = {"mean": "random", "mix": None}


def _sum(row: Row, planes: Sequence[Plane]) -> Plane:
    """One plane after the other."""
    terms = [_times(planes[channel], weight) for channel, weight in row.terms]
    if not terms:
        return array(planes[0].typecode, bytes(len(planes[0]) * planes[0].itemsize))
    total = terms[0]
    for term in terms[1:]:
        total = array(total.typecode, map(operator.add, total, term))
    return total if row.divisor == 1 else array(total.typecode, (number / row.divisor for number in total))


def _times(plane: Plane, weight: float) -> Plane:
    if weight == 1:
        return plane
    (factor,) = array(plane.typecode, [weight])
    return array(plane.typecode, (number * factor for number in plane))


def _overflows(plane: Plane, sources: Sequence[Plane]) -> bool:
    """Whether a number of the plane is not finite, though all that it may be made from are."""
    return not all(map(math.isfinite, plane)) and any(
        not math.isfinite(number) and all(map(math.isfinite, numbers))
        for number, *numbers in zip(plane, *sources, strict=True)
    )
