"""adapt: another number of input channels, with the pretrained filters of conv1 kept."""

from __future__ import annotations

import math
import operator
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, TypeAlias

from resnet_surgeon.architecture.initialisation import conv2d_default
from resnet_surgeon.architecture.preprocessing import Preprocessing
from resnet_surgeon.architecture.spec import STEM_WEIGHT, Architecture, Channels
from resnet_surgeon.errors import OperationError
from resnet_surgeon.fields import Seed
from resnet_surgeon.formats.numbers import decode, encode
from resnet_surgeon.formats.tensors import Computed, Initialised, LazyTensor, byte_size, pieces
from resnet_surgeon.operations.checkpoint import Checkpoint, option, settle

Init = Literal["mean", "scaled", "repeat", "random"]


@dataclass(frozen=True)
class Adapt:
    """Adapt the input channels of conv1, keeping its pretrained filters.

    `mean` gives every new channel the mean of the old ones. `scaled` does the same times old/new channels, which keeps
    the size of the responses: one channel then computes exactly what the original does on a gray image fed as R=G=B.
    `repeat` takes the old channels in turn, scaled likewise, as timm does. `random` draws a new layer.
    """

    name: ClassVar[str] = "adapt"
    example: ClassVar[str] = "resnet-surgeon adapt resnet50 --in-ch 1"

    in_channels: Channels = option("Channels of the images that the network will take.", spelling="--in-ch")
    init: Init = option("How the new filters are made from the old ones.", default="mean")
    seed: Seed = option("Seed of what is drawn at random.", default=0)

    def __post_init__(self) -> None:
        settle(self)

    @property
    def suffix(self) -> str:
        return f"in{self.in_channels}"

    @classmethod
    def advice(cls, architecture: Architecture) -> str:
        return f"from {architecture.in_channels} channels to any number: --in-ch N"

    def resolved(self, architecture: Architecture) -> Adapt:
        if "conv1" not in architecture.stem:
            raise OperationError("the network has no conv1")
        return self

    def apply(self, checkpoint: Checkpoint) -> Checkpoint:
        """conv1.weight [64, C, 7, 7] becomes [64, in_channels, 7, 7]; every other tensor is kept."""
        weight = self._weight(checkpoint.tensors[STEM_WEIGHT], checkpoint.stream(self.name, STEM_WEIGHT))
        return replace(
            checkpoint,
            architecture=replace(checkpoint.architecture, in_channels=self.in_channels),
            tensors={**checkpoint.tensors, STEM_WEIGHT: weight},
            preprocessing=self._preprocessing(checkpoint.preprocessing),
        )

    def _weight(self, weight: LazyTensor, stream: str) -> LazyTensor:
        out, channels, *kernel = weight.shape
        shape = (out, self.in_channels, *kernel)
        if self.init == "random":
            return Initialised(weight.dtype, shape, conv2d_default(shape), self.seed, stream)
        if self.init == "repeat" and self.in_channels == channels:
            return weight
        formula, function = _FORMULAS[self.init]

        def compute(source: LazyTensor) -> Iterator[bytes]:
            for data in pieces(source, byte_size(source) // out):
                old = _planes(decode(data, source.dtype), channels)
                new = function(old, self.in_channels)
                encoded = {
                    key: encode(plane, source.dtype) for key, plane in {id(plane): plane for plane in new}.items()
                }
                if any(_overflows(decode(plane, source.dtype), old) for plane in encoded.values()):
                    raise self._overflow(source.dtype)
                yield b"".join(encoded[id(plane)] for plane in new)

        return Computed(weight.dtype, shape, (weight,), formula.format(old=channels, new=self.in_channels), compute)

    def _overflow(self, dtype: str) -> OperationError:
        return OperationError(
            f"`conv1.weight` would hold numbers that are too large for {dtype}, and would be infinite",
            subject="adapt",
            hint="use `--init mean`" if self.init != "mean" else "use `--init random`, or scale the weights down first",
        )

    def _preprocessing(self, old: Preprocessing | None) -> Preprocessing | None:
        """The old channels' mean and std in turn for `repeat`, their average for every channel otherwise."""
        if old is None:
            return None
        channels = range(self.in_channels)
        if self.init == "repeat":
            mean, std = (tuple(values[channel % len(values)] for channel in channels) for values in (old.mean, old.std))
        else:
            mean, std = (tuple(round(sum(values) / len(values), 6) for _ in channels) for values in (old.mean, old.std))
        return replace(old, mean=mean, std=std)


# A filter's weight for one input channel: kh * kw numbers. Each operation on one rounds once, in the array's own
# precision.
Plane: TypeAlias = "array[float]"


def mean(planes: Sequence[Plane], in_channels: int) -> list[Plane]:
    """One filter's C planes -> `in_channels` planes: the mean over C, repeated. Agrees with torch's `weight.mean(1,
    keepdim=True)`.
    """
    return [_each(_sum(planes), lambda number: number / len(planes))] * in_channels


def scaled(planes: Sequence[Plane], in_channels: int) -> list[Plane]:
    """One filter's C planes -> `in_channels` planes: the mean over C times C / in_channels, which is the sum /
    in_channels.
    """
    return [_each(_sum(planes), lambda number: number / in_channels)] * in_channels


def repeat(planes: Sequence[Plane], in_channels: int) -> list[Plane]:
    """One filter's C planes -> `in_channels` planes: in turn, times C / in_channels; the sum for one channel.

    Agrees with `timm.models._manipulate.adapt_input_conv`.
    """
    if in_channels == 1:
        return [_sum(planes)]
    (factor,) = array(planes[0].typecode, [len(planes) / in_channels])
    scaled_planes = [_each(plane, lambda number: number * factor) for plane in planes[:in_channels]]
    return [scaled_planes[channel % len(planes)] for channel in range(in_channels)]


def _sum(planes: Sequence[Plane]) -> Plane:
    """One plane after the other."""
    total = planes[0]
    for plane in planes[1:]:
        total = array(total.typecode, map(operator.add, total, plane))
    return total


def _each(plane: Plane, function: Callable[[float], float]) -> Plane:
    return array(plane.typecode, map(function, plane))


def _overflows(plane: Plane, sources: Sequence[Plane]) -> bool:
    """Whether a number of the plane is not finite, though all that it may be made from are."""
    return not all(map(math.isfinite, plane)) and any(
        not math.isfinite(number) and all(map(math.isfinite, numbers))
        for number, *numbers in zip(plane, *sources, strict=True)
    )


def _planes(weight: Plane, channels: int) -> list[Plane]:
    """The planes of one filter [channels, kh, kw]."""
    size = len(weight) // channels
    return [weight[start : start + size] for start in range(0, len(weight), size)]


_FORMULAS: dict[Init, tuple[str, Callable[[Sequence[Plane], int], list[Plane]]]] = {
    "mean": ("mean over the {old} input channels, for each of {new}", mean),
    "scaled": ("sum over the {old} input channels / {new}, for each of {new}", scaled),
    "repeat": ("the {old} input channels in turn, times {old}/{new}", repeat),
}
