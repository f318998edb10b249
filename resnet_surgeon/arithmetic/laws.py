"""The laws that fresh tensors are drawn from, as plain data. Knows formulas; draws nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from resnet_surgeon.dataclass import dataclass


@dataclass(frozen=True)
class Constant:
    """Every element is `value`."""

    value: float
    distribution: Literal["constant"] = "constant"

    def __str__(self) -> str:
        return f"{self.value:g}"


@dataclass(frozen=True)
class Uniform:
    """Uniform in [-bound, bound)."""

    bound: float
    distribution: Literal["uniform"] = "uniform"

    def __str__(self) -> str:
        return f"uniform(-{self.bound:.6g}, {self.bound:.6g})"


@dataclass(frozen=True)
class Normal:
    """Normal with mean 0 and standard deviation `std`."""

    std: float
    distribution: Literal["normal"] = "normal"

    def __str__(self) -> str:
        return f"normal(0, {self.std:.6g})"


Law = Constant | Uniform | Normal


def linear_default(in_features: int) -> Uniform:
    """The law of both weight and bias in `torch.nn.Linear.reset_parameters`: bound 1/sqrt(in_features)."""
    return Uniform(1 / math.sqrt(in_features))


def conv2d_default(weight_shape: Sequence[int]) -> Uniform:
    """The law of `torch.nn.Conv2d.reset_parameters` (Kaiming uniform, a=sqrt 5) of [out, in/groups, kh, kw]."""
    return Uniform(1 / math.sqrt(math.prod(weight_shape[1:])))


def kaiming_normal_fan_out(weight_shape: Sequence[int]) -> Normal:
    """The law of every convolution in `torchvision.models.ResNet.__init__`, for a weight [out, in/groups, kh, kw].

    He et al. 2015 (arXiv:1502.01852), as in `torch.nn.init.kaiming_normal_(mode="fan_out", nonlinearity="relu")`:
    the deviation is sqrt(2 / (out * kh * kw)).
    """
    out, _, *kernel = weight_shape
    return Normal(math.sqrt(2 / (out * math.prod(kernel))))
