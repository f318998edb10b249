"""stem: another kernel or stride of conv1, with or without maxpool, for images of another size."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar, Literal

from resnet_surgeon.architecture.spec import STEM_WEIGHT, Architecture, Kernel, Stride
from resnet_surgeon.arithmetic.formulas import AreaResampled, Crop
from resnet_surgeon.arithmetic.laws import conv2d_default
from resnet_surgeon.errors import OperationError, UsageError
from resnet_surgeon.fields import Seed
from resnet_surgeon.formats.tensors import Computed, Initialised, LazyTensor
from resnet_surgeon.operations.checkpoint import Checkpoint, operation, option, settle

MaxPool = Literal["none", "torchvision", "caffe"]


@operation
class Stem:
    """Give the stem another kernel, stride or maxpool, for images that are smaller than ImageNet's.

    Networks for CIFAR's images of 32x32, SimCLR's too, have `--kernel 3 --stride 1 --maxpool none`; what is left out
    stays. `crop` makes the new kernels from the centre of the old ones, to the bit, with zeros around them where they
    grow. `area` resamples the old ones over their area, and keeps the sum of each: on flat parts of an image conv1 then
    responds as before. `random` draws new ones.
    """

    name: ClassVar[str] = "stem"
    example: ClassVar[str] = "resnet-surgeon stem resnet50 --kernel 3 --stride 1 --maxpool none"
    keeps_packing: ClassVar[bool] = False

    kernel: Kernel | None = option("Height and width of conv1's kernels: an odd number.", default=None)
    stride: Stride | None = option("Stride of conv1.", default=None)
    maxpool: MaxPool | None = option("What stands behind conv1, bn1 and relu; none: nothing does.", default=None)
    init: Literal["crop", "area", "random"] = option(
        "How kernels of another size are made from the old ones.", default="crop"
    )
    seed: Seed = option("Seed for whatever is drawn at random.", default=0)

    def __post_init__(self) -> None:
        settle(self)
        if self.kernel is not None and self.kernel % 2 == 0:
            raise UsageError(
                f"a kernel of {self.kernel}x{self.kernel} has no centre",
                subject="stem",
                hint=f"use an odd number: `--kernel {self.kernel + 1}`",
            )
        if (self.kernel, self.stride, self.maxpool) == (None, None, None):
            raise UsageError(
                "give kernel, stride or maxpool",
                subject="stem",
                hint="for instance `--kernel 3 --stride 1 --maxpool none`",
            )

    @property
    def suffix(self) -> str:
        """`stem3-stride1-nopool`; kernels that are not cropped say how they are made."""
        parts = [f"stem{self.kernel or ''}"]
        parts += [self.init] * (self.init != "crop")
        parts += [f"seed{self.seed}"] * (self.init == "random" and self.seed != 0)
        parts += [f"stride{self.stride}"] * (self.stride is not None)
        parts += [_SUFFIXES[self.maxpool]] if self.maxpool else []
        return "-".join(parts)

    @classmethod
    def advice(cls, architecture: Architecture) -> str:
        kernel, stride = architecture.stem_kernel, architecture.stem_stride
        return f"from a kernel of {kernel}x{kernel} and stride {stride}: --kernel K --stride S --maxpool none"

    def resolved(self, checkpoint: Checkpoint) -> Stem:
        """With what was left out as it is."""
        architecture = checkpoint.architecture
        if "maxpool" not in architecture.stem and self.maxpool is not None:
            raise OperationError("the network has no maxpool", hint="leave `--maxpool` out")
        filled = replace(
            self,
            kernel=self.kernel or architecture.stem_kernel,
            stride=self.stride or architecture.stem_stride,
            maxpool=self.maxpool or _maxpool(architecture),
        )
        if filled.init != "random" and filled._changed(architecture) == architecture:
            raise OperationError("the network has this stem already")
        return filled

    def apply(self, checkpoint: Checkpoint) -> Checkpoint:
        """conv1.weight [64, C, k, k] becomes [64, C, kernel, kernel]; every other tensor is kept."""
        weight = self._weight(checkpoint.tensors[STEM_WEIGHT], checkpoint.stream(self.name, STEM_WEIGHT))
        return replace(
            checkpoint,
            architecture=self._changed(checkpoint.architecture),
            tensors={**checkpoint.tensors, STEM_WEIGHT: weight},
        )

    def _changed(self, architecture: Architecture) -> Architecture:
        kind: dict[str, Any] = {} if self.maxpool in (None, "none") else {"maxpool": self.maxpool}
        return replace(
            architecture,
            stem_kernel=self.kernel or architecture.stem_kernel,
            stem_stride=self.stride or architecture.stem_stride,
            maxpool_is_identity=self.maxpool == "none",
            **kind,
        )

    def _weight(self, weight: LazyTensor, stream: str) -> LazyTensor:
        out, channels, old, _ = weight.shape
        new = self.kernel or old
        shape = (out, channels, new, new)
        if self.init == "random":
            return Initialised(weight.dtype, shape, conv2d_default(shape), self.seed, stream)
        if new == old:
            return weight
        formula = Crop(old, new) if self.init == "crop" else AreaResampled(old, new)
        return Computed(weight.dtype, shape, (weight,), formula)


_SUFFIXES: dict[MaxPool, str] = {"none": "nopool", "torchvision": "pool", "caffe": "caffepool"}


def _maxpool(architecture: Architecture) -> MaxPool | None:
    if "maxpool" not in architecture.stem:
        return None
    return "none" if architecture.maxpool_is_identity else architecture.maxpool
