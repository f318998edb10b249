"""The formulas of computed tensors, worked out by torch: independent of the code that wrote them, equal to the bit."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from resnet_surgeon.arithmetic.formulas import (
    AreaResampled,
    Average,
    Cast,
    Combination,
    Crop,
    FoldedBias,
    FoldedInputMean,
    FoldedInputWeight,
    FoldedWeight,
    Formula,
    Mean,
    Mix,
    Mixing,
    NormalisedWeight,
    Product,
    Repeat,
    Resizing,
    RowMeans,
    Scaled,
)


def apply(formula: Formula, inputs: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """The tensor of `dtype` that the formula makes of its inputs.

    Mixes add channel by channel, and kernels are resized place by place, in float32 (float64 for such); everything else
    is worked out in float64. All round once at the end. Raises ValueError for another number of inputs than the formula
    takes.
    """
    if isinstance(formula, Mixing):
        weight = torch.cat([part.to(torch.promote_types(part.dtype, torch.float32)) for part in inputs], dim=1)
        return _mixed(formula, weight).to(dtype)
    if isinstance(formula, Resizing):
        (weight,) = inputs
        return _resized(formula, weight.to(torch.promote_types(weight.dtype, torch.float32))).to(dtype)
    return _elementwise(formula, [tensor.double() for tensor in inputs]).to(dtype)


def _mixed(formula: Mixing, weight: Tensor) -> Tensor:
    """From a weight [out, old, kh, kw] to one [out, new, kh, kw]."""
    planes = weight.unbind(1)
    if isinstance(formula, (Mean, Scaled)):
        channels = [_sum(planes) / (formula.old if isinstance(formula, Mean) else formula.new)] * formula.new
    elif isinstance(formula, Repeat):
        factor = formula.old / formula.new
        channels = [planes[channel % formula.old] * factor for channel in range(formula.new)]
        if formula.new == 1:
            channels = [_sum(planes)]
    else:
        channels = [
            _sum(
                [plane * factor for plane, factor in zip(planes, row, strict=True) if factor]
                or [planes[0].new_zeros(planes[0].shape)]
            )
            for row in formula.matrix
        ]
    return torch.stack(channels, dim=1)


def _resized(formula: Resizing, weight: Tensor) -> Tensor:
    """From a weight [out, in, old, old] to one [out, in, new, new]."""
    old, new = formula.old, formula.new
    if isinstance(formula, Crop):
        around = (new - old) // 2  # zeros, or if negative what is cut off
        return torch.nn.functional.pad(weight, [around] * 4)
    assert isinstance(formula, AreaResampled)

    def shares(place: int) -> Counter[int]:
        # With every old row cut into `new` strips, a new row is `old` strips: so many of each old row.
        return Counter(strip // new for strip in range(place * old, (place + 1) * old))

    made = [
        _sum(
            [
                weight[:, :, i, k] * (high * wide)
                for i, high in shares(row).items()
                for k, wide in shares(column).items()
            ]
        )
        for row in range(new)
        for column in range(new)
    ]
    return (torch.stack(made, dim=-1) / new**2).reshape(*weight.shape[:2], new, new)


def _sum(planes: Sequence[Tensor]) -> Tensor:
    """One after the other."""
    total = planes[0]
    for plane in planes[1:]:
        total = total + plane
    return total


def _elementwise(formula: Formula, inputs: Sequence[Tensor]) -> Tensor:
    if isinstance(formula, Combination):
        return _sum([tensor * factor for tensor, factor in zip(inputs, formula.factors, strict=True)])
    if isinstance(formula, Average):
        return _sum([tensor * weight for tensor, weight in zip(inputs, formula.weights, strict=True)]) / formula.total
    if isinstance(formula, Product):
        one, other = inputs
        return one * other
    if isinstance(formula, Cast):
        (number,) = inputs
        return number
    if isinstance(formula, NormalisedWeight):
        magnitude, direction = inputs
        norm: Tensor = torch.linalg.vector_norm(direction.flatten(1), dim=1)
        return direction * (magnitude / norm.reshape(magnitude.shape))
    if isinstance(formula, RowMeans):
        old, *drawn = inputs
        rows = [
            _sum(old[[*group]].unbind(0)) / len(group) if group else drawn[0][i]
            for i, group in enumerate(formula.groups)
        ]
        return torch.stack(rows)
    if isinstance(formula, FoldedWeight):
        weight, gamma, variance = inputs
        factor: Tensor = (gamma / _root(variance + formula.eps)).reshape(-1, *[1] * (weight.dim() - 1))
        return weight * factor
    if isinstance(formula, FoldedInputWeight):
        (weight,) = inputs
        return weight / _by_channel(formula.std, weight)
    if isinstance(formula, FoldedInputMean):
        mean, weight = inputs
        return mean + _exact_sums((weight * _by_channel(formula.mean, weight)).flatten(1))
    assert isinstance(formula, FoldedBias)
    gamma, beta, mean, variance = inputs
    return beta - mean * (gamma / _root(variance + formula.eps))


def _by_channel(numbers: Sequence[float], weight: Tensor) -> Tensor:
    """One number for each input channel, in the shape that meets a weight [out, in, ...]."""
    return torch.tensor(numbers, dtype=weight.dtype).reshape(1, -1, *[1] * (weight.dim() - 2))


def _exact_sums(rows: Tensor) -> Tensor:
    """The sum of each row, rounded once."""
    sums = [math.fsum(row.tolist()) if bool(row.isfinite().all()) else float(row.sum()) for row in rows]
    return torch.tensor(sums, dtype=rows.dtype)


def _root(tensor: Tensor) -> Tensor:
    """Rounded as IEEE 754 has it; torch's own, of float64, can be that of a library that is one bit off."""
    roots = [math.sqrt(number) if number >= 0 else math.nan for number in tensor.tolist()]
    return torch.tensor(roots, dtype=tensor.dtype)


def is_exact(formula: Formula) -> bool:
    """Whether everybody who works it out comes to the same bits: not where torch adds in an order of its own."""
    return not isinstance(formula, NormalisedWeight)


# What makes a weight [out, new, kh, kw] of one [out, old, kh, kw], or of several that have `old` channels together.
Linear = Mixing | FoldedInputWeight


def channels(formula: Linear) -> tuple[int, int]:
    """How many input channels there are before and after."""
    if isinstance(formula, FoldedInputWeight):
        return len(formula.std), len(formula.std)
    return formula.old, formula.new


def mixed_image(formula: Linear, image: Tensor) -> Tensor:
    """From an image [batch, new, h, w] to one [batch, old, h, w]: the new layer on the first is the old one on the
    second.
    """
    batch, _, *size = image.shape
    if isinstance(formula, FoldedInputWeight):
        return image / _by_channel(formula.std, image)
    if isinstance(formula, Repeat) and formula.new > 1:
        old = torch.arange(formula.new) % formula.old
        factor = formula.old / formula.new
        return image.new_zeros(batch, formula.old, *size).index_add_(1, old, image * factor)
    if isinstance(formula, (Mean, Scaled, Repeat)):
        share = image.sum(1, keepdim=True) / (formula.old if isinstance(formula, Mean) else formula.new)
        return share.expand(batch, formula.old, *size)
    return torch.einsum("bnhw,no->bohw", image, torch.tensor(formula.matrix, dtype=image.dtype))


def mixed_sizes(formula: Linear, sizes: Tensor) -> Tensor:
    """The same of the numbers' absolute values, where none cancels another."""
    if isinstance(formula, Mix):
        formula = replace(formula, matrix=tuple(tuple(map(abs, row)) for row in formula.matrix))
    return mixed_image(formula, sizes)


def gain(formula: Linear) -> float:
    """The largest sum of the shares, by size, that the old channels have in one new channel."""
    if isinstance(formula, FoldedInputWeight):
        return 1 / min(formula.std)
    if isinstance(formula, Mean):
        return 1.0
    if isinstance(formula, (Scaled, Repeat)):
        return formula.old / formula.new
    return max(sum(map(abs, row)) for row in formula.matrix)
