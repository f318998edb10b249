"""The formulas of computed tensors, worked out by torch: independent of the code that wrote them, equal to the bit."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Kind = Literal["mean", "scaled", "repeat"]
_TEXTS: dict[Kind, str] = {
    "mean": r"mean over the (?P<old>[1-9][0-9]{0,6}) input channels, for each of (?P<new>[1-9][0-9]{0,6})",
    "scaled": r"sum over the (?P<old>[1-9][0-9]{0,6}) input channels / (?P<new>[1-9][0-9]{0,6}), for each of (?P=new)",
    "repeat": r"the (?P<old>[1-9][0-9]{0,6}) input channels in turn, times (?P=old)/(?P<new>[1-9][0-9]{0,6})",
}


@dataclass(frozen=True)
class Formula:
    """From a weight [out, old, kh, kw] to one [out, new, kh, kw]."""

    kind: Kind
    old: int
    new: int

    def apply(self, weight: Tensor) -> Tensor:
        """The new weight: channels added one after the other in float32 (float64 for such), rounded once at the end."""
        planes = weight.to(torch.promote_types(weight.dtype, torch.float32)).unbind(1)
        total = planes[0]
        for plane in planes[1:]:
            total = total + plane
        if self.kind == "mean":
            channels = [total / self.old] * self.new
        elif self.kind == "scaled":
            channels = [total / self.new] * self.new
        elif self.new == 1:
            channels = [total]
        else:
            channels = [planes[channel % self.old] * (self.old / self.new) for channel in range(self.new)]
        return torch.stack(channels, dim=1).to(weight.dtype)

    def mix(self, image: Tensor) -> Tensor:
        """From an image [batch, new, h, w] to one [batch, old, h, w]: the new layer on the first is the old one on the
        second.
        """
        batch, _, *size = image.shape
        if self.kind == "repeat" and self.new > 1:
            channels = torch.arange(self.new) % self.old
            return image.new_zeros(batch, self.old, *size).index_add_(1, channels, image * (self.old / self.new))
        share = image.sum(1, keepdim=True) / (self.old if self.kind == "mean" else self.new)
        return share.expand(batch, self.old, *size)

    @property
    def gain(self) -> float:
        """The sum of the shares that the old channels have in one new channel."""
        return 1.0 if self.kind == "mean" else self.old / self.new


def parse(text: str) -> Formula | None:
    """The formula that a manifest states; None if it is not known.

    >>> parse("mean over the 3 input channels, for each of 1")
    Formula(kind='mean', old=3, new=1)
    """
    for kind, pattern in _TEXTS.items():
        match = re.fullmatch(pattern, text)
        if match:
            return Formula(kind, int(match["old"]), int(match["new"]))
    return None
