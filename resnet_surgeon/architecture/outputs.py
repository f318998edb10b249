"""What comes out of a network for an image of some size: names, kinds and shapes. Knows no tensors."""

from __future__ import annotations

from dataclasses import dataclass

from resnet_surgeon.architecture.layers import Convolution, MaxPool, Part, block, stem
from resnet_surgeon.architecture.spec import Architecture, Head, OutputKind

IMAGE = 224  # pixels: the height and width of the images that torchvision's networks were trained with


@dataclass(frozen=True)
class Output:
    """One output: `shape` is without the batch, [classes], [channels] or [channels, height, width]; `head` is whose."""

    name: str
    kind: OutputKind
    shape: tuple[int, ...]
    head: Head | None = None

    @property
    def classes(self) -> int | None:
        return self.head.classes if self.head else None


def outputs(architecture: Architecture, height: int = IMAGE, width: int = IMAGE) -> tuple[Output, ...]:
    """Of every head in their order, or of a network without heads the one that it has.

    >>> [output.shape for output in outputs(resnet50)]
    [(1000,)]
    """
    kind = architecture.output_kind
    if architecture.heads:
        return tuple(Output(head.name, kind, (head.classes,), head) for head in architecture.heads)
    shape = (architecture.trunk_channels,)
    return (Output(kind, kind, shape if architecture.avgpool else (*shape, *trunk_size(architecture, height, width))),)


def trunk_size(architecture: Architecture, height: int, width: int) -> tuple[int, int]:
    """The height and width of the trunk's feature map for an image of `height` x `width`.

    >>> trunk_size(resnet50, 224, 224)
    (7, 7)
    """
    for part in _reductions(architecture):
        height, width = part.size(height), part.size(width)
    return height, width


def _reductions(architecture: Architecture) -> list[Convolution | MaxPool]:
    """The layers that may make the feature map smaller: in a stage, those of its first block."""
    parts: list[Part] = [*stem(architecture)]
    for stage in architecture.stages:
        parts += block(architecture, stage, stage.name, 0).layers
    return [part for part in parts if isinstance(part, (Convolution, MaxPool))]
