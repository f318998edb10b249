"""adapt: another number of input channels, with the pretrained filters of conv1 kept."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal

from resnet_surgeon.architecture.preprocessing import Preprocessing
from resnet_surgeon.architecture.spec import STEM_WEIGHT, Architecture, Channels
from resnet_surgeon.arithmetic.formulas import Mean, Repeat, Scaled
from resnet_surgeon.arithmetic.laws import conv2d_default
from resnet_surgeon.errors import OperationError
from resnet_surgeon.fields import Seed
from resnet_surgeon.formats.tensors import Computed, Initialised, LazyTensor
from resnet_surgeon.operations.checkpoint import Checkpoint, operation, option, settle

Init = Literal["mean", "scaled", "repeat", "random"]


@operation
class Adapt:
    """Adapt the input channels of conv1, keeping its pretrained filters.

    `mean` gives every new channel the mean of the old ones. `scaled` does the same times old/new channels, which keeps
    the size of the responses: one channel then computes exactly what the original does on a gray image fed as R=G=B.
    `repeat` takes the old channels in turn, scaled likewise, as timm does. `random` draws a new layer.
    """

    name: ClassVar[str] = "adapt"
    example: ClassVar[str] = "resnet-surgeon adapt resnet50 --in-ch 1"
    keeps_packing: ClassVar[bool] = True

    in_channels: Channels = option("Channels of the images that the network will take.", spelling="--in-ch")
    init: Init = option("How the new filters are made from the old ones.", default="mean")
    seed: Seed = option("Seed for whatever is drawn at random.", default=0)

    def __post_init__(self) -> None:
        settle(self)

    @property
    def suffix(self) -> str:
        """`in1`; what is not made by the mean says how, and what is drawn from another seed says which."""
        init = f"-{self.init}" if self.init != "mean" else ""
        return f"in{self.in_channels}{init}" + (f"-seed{self.seed}" if self.init == "random" and self.seed else "")

    @classmethod
    def advice(cls, architecture: Architecture) -> str:
        return f"from {architecture.in_channels} channels to any number: --in-ch N"

    def resolved(self, checkpoint: Checkpoint) -> Adapt:
        if "conv1" not in checkpoint.architecture.stem:
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
        return Computed(weight.dtype, shape, (weight,), _FORMULAS[self.init](channels, self.in_channels))

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


_FORMULAS: dict[Init, type[Mean | Scaled | Repeat]] = {"mean": Mean, "scaled": Scaled, "repeat": Repeat}
