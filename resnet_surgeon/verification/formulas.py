"""The formulas of computed tensors, worked out by torch: independent of the code that wrote them, equal to the bit."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Kind = Literal["mean", "scaled", "repeat"]
_MOST_CHANNELS = 4096  # a manifest may state anything, and every channel takes memory
_TEXTS: dict[Kind, str] = {
    "mean": r"mean over the (?P<old>\d{1,6}) input channels, for each of (?P<new>\d{1,6})",
    "scaled": r"sum over the (?P<old>\d{1,6}) input channels / (?P<new>\d{1,6}), for each of (?P=new)",
    "repeat": r"the (?P<old>\d{1,6}) input channels in turn, times (?P=old)/(?P<new>\d{1,6})",
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

    def mixing(self) -> Tensor:
        """[old, new]: the new layer on an image is the old one on the image whose channels are mixed so."""
        if self.kind == "mean":
            return torch.full((self.old, self.new), 1 / self.old, dtype=torch.float64)
        if self.kind == "scaled" or self.new == 1:
            return torch.full((self.old, self.new), 1 / self.new, dtype=torch.float64)
        channels = torch.arange(self.new)
        matrix = torch.zeros(self.old, self.new, dtype=torch.float64)
        matrix[channels % self.old, channels] = self.old / self.new
        return matrix


def parse(text: str) -> Formula | None:
    """The formula that a manifest states; None if it is not known, or of more channels than any image has.

    >>> parse("mean over the 3 input channels, for each of 1")
    Formula(kind='mean', old=3, new=1)
    """
    for kind, pattern in _TEXTS.items():
        match = re.fullmatch(pattern, text)
        if match and all(0 < int(match[channels]) <= _MOST_CHANNELS for channels in ("old", "new")):
            return Formula(kind, int(match["old"]), int(match["new"]))
    return None
