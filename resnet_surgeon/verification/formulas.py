"""The formulas of computed tensors, worked out by torch: independent of the code that wrote them, equal to the bit."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from resnet_surgeon.arithmetic.formulas import (
    AreaResampled,
    Cast,
    Combination,
    Crop,
    FoldedBias,
    FoldedWeight,
    Formula,
    Mean,
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
        (weight,) = inputs
        return _mixed(formula, weight.to(torch.promote_types(weight.dtype, torch.float32))).to(dtype)
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
            _sum([plane * factor for plane, factor in zip(planes, row, strict=True) if factor] or [planes[0] * 0])
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
    assert isinstance(formula, FoldedBias)
    gamma, beta, mean, variance = inputs
    return beta - mean * (gamma / _root(variance + formula.eps))


def _root(tensor: Tensor) -> Tensor:
    """Rounded as IEEE 754 has it; torch's own, of float64, can be that of a library that is one bit off."""
    roots = [math.sqrt(number) if number >= 0 else math.nan for number in tensor.tolist()]
    return torch.tensor(roots, dtype=tensor.dtype)


def is_exact(formula: Formula) -> bool:
    """Whether everybody who works it out comes to the same bits: not where torch adds in an order of its own."""
    return not isinstance(formula, NormalisedWeight)


def mixed_image(formula: Mixing, image: Tensor) -> Tensor:
    """From an image [batch, new, h, w] to one [batch, old, h, w]: the new layer on the first is the old one on the
    second.
    """
    batch, _, *size = image.shape
    if isinstance(formula, Repeat) and formula.new > 1:
        channels = torch.arange(formula.new) % formula.old
        factor = formula.old / formula.new
        return image.new_zeros(batch, formula.old, *size).index_add_(1, channels, image * factor)
    if isinstance(formula, (Mean, Scaled, Repeat)):
        share = image.sum(1, keepdim=True) / (formula.old if isinstance(formula, Mean) else formula.new)
        return share.expand(batch, formula.old, *size)
    return torch.einsum("bnhw,no->bohw", image, torch.tensor(formula.matrix, dtype=image.dtype))


def gain(formula: Mixing) -> float:
    """The largest sum of the shares, by size, that the old channels have in one new channel."""
    if isinstance(formula, Mean):
        return 1.0
    if isinstance(formula, (Scaled, Repeat)):
        return formula.old / formula.new
    return max(sum(map(abs, row)) for row in formula.matrix)
