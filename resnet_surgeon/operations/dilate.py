"""dilate: last stages with dilation in the place of their strides, for larger feature maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, ClassVar

from resnet_surgeon.architecture.dilation import dilated, output_strides, undilated
from resnet_surgeon.architecture.spec import Architecture, Stage
from resnet_surgeon.errors import OperationError, listed
from resnet_surgeon.fields import Range
from resnet_surgeon.operations.checkpoint import Checkpoint, operation, option, settle

_LARGEST = 1 << 16
OutputStride = Annotated[int, Range(1, _LARGEST)]


@operation
class Dilate:
    """Replace the strides of the last stages by dilation, so that their feature maps are larger.

    `--output-stride 16` gives maps of 1/16 of the image's height and width, `8` of 1/8, where torchvision's networks
    give 1/32, which `32` brings back. Stages from that size on keep it, as with torchvision's
    `replace_stride_with_dilation=[False, False, True]` and `[False, True, True]`. No tensor changes. Only bottlenecks
    can be dilated, as in torchvision.
    """

    name: ClassVar[str] = "dilate"
    example: ClassVar[str] = "resnet-surgeon dilate resnet50 --output-stride 8"
    keeps_packing: ClassVar[bool] = False

    output_stride: OutputStride = option("How many times smaller the last feature map is than the image: 8, 16 or 32.")

    def __post_init__(self) -> None:
        settle(self)

    @property
    def suffix(self) -> str:
        return f"stride{self.output_stride}"

    @classmethod
    def advice(cls, architecture: Architecture) -> str:
        try:
            now, others = _output_stride(architecture), _possible(architecture)
        except OperationError as error:
            return error.reason
        shown = " or ".join(f"--output-stride {stride}" for stride in others if stride != now)
        return f"the output stride is {now}; {shown}" if shown else f"the output stride is {now}, and stays"

    def resolved(self, checkpoint: Checkpoint) -> Dilate:
        architecture = checkpoint.architecture
        possible = _possible(architecture)
        if self.output_stride not in possible:
            choices = [str(stride) for stride in possible if stride != _output_stride(architecture)]
            raise OperationError(
                f"its strides cannot come to an output stride of {self.output_stride}",
                hint=f"use `--output-stride {choices[0]}`" + (f", or {listed(choices[1:])}" if choices[1:] else "")
                if choices
                else "its stem alone comes to that",
            )
        if self.output_stride == _output_stride(architecture):
            raise OperationError(f"its output stride is {self.output_stride} already")
        return self

    def apply(self, checkpoint: Checkpoint) -> Checkpoint:
        """Every tensor is kept; strides and dilations of the stages change, of those that heads own too."""
        old = checkpoint.architecture
        trunk = self._dilated(old, old.stages)
        heads = tuple(
            replace(head, stages=self._dilated(old, old.stages + head.stages)[len(trunk) :]) for head in old.heads
        )
        return replace(checkpoint, architecture=replace(old, stages=trunk, heads=heads))

    def _dilated(self, architecture: Architecture, stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
        plain = _plain(stages)
        before = output_strides(architecture, plain)
        return dilated(
            plain, [stage.name for stage, stride in zip(plain, before, strict=False) if stride >= self.output_stride]
        )


def _chains(architecture: Architecture) -> Sequence[tuple[Stage, ...]]:
    """The stages that an image passes on its way to each output."""
    return [architecture.stages + head.stages for head in architecture.heads] or [architecture.stages]


def _plain(stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
    """The stages without dilation. Raises OperationError for those that are dilated in another way."""
    try:
        return undilated(stages)[0]
    except ValueError as error:
        raise OperationError(
            f"{error}, so that their strides are not known", hint="dilate a network whose strides are torchvision's"
        ) from None


def _output_stride(architecture: Architecture) -> int:
    """That of the deepest output."""
    return max([*output_strides(architecture, stages)][-1] for stages in _chains(architecture))


def _possible(architecture: Architecture) -> list[int]:
    """The output strides that there can be, the largest first. Raises OperationError if it cannot be dilated."""
    if not architecture.depth:
        raise OperationError("the network has no stages")
    if architecture.block == "basic":
        raise OperationError(
            "torchvision has no dilated basic blocks, and other libraries differ in what they take for one",
            hint="dilate a network of bottlenecks, such as resnet50",
        )
    longest = max(_chains(architecture), key=len)
    return sorted({*output_strides(architecture, _plain(longest))}, reverse=True)
