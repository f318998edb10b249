"""What comes out of a network for an image of some size: names, kinds and shapes. Knows no tensors."""

from __future__ import annotations

from collections.abc import Iterator

from resnet_surgeon.architecture.layers import Convolution, MaxPool, block, stem
from resnet_surgeon.architecture.spec import Architecture, Head, OutputKind
from resnet_surgeon.dataclass import dataclass

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
    """Of every head in their order, or of a network without heads its feature maps, or the one output that it has.

    >>> [output.shape for output in outputs(resnet50)]
    [(1000,)]
    """
    kind = architecture.output_kind
    if architecture.heads:
        return tuple(Output(head.name, kind, (head.classes,), head) for head in architecture.heads)
    if architecture.maps:
        given = ((one.name, map_shape(architecture, one.layer, height, width)) for one in architecture.maps)
        return tuple(Output(name, kind, shape) for name, shape in given)
    shape = map_shape(architecture, architecture.trunk_children[-1], height, width)
    return (Output(kind, kind, shape[:1] if architecture.avgpool else shape),)


def map_shape(architecture: Architecture, layer: str, height: int = IMAGE, width: int = IMAGE) -> tuple[int, int, int]:
    """The channels, height and width of the map that a child of the trunk gives for an image of `height` x `width`.

    >>> map_shape(resnet50, "layer4")
    (2048, 7, 7)
    """
    channels = architecture.in_channels
    for part in _up_to(architecture, layer):
        if isinstance(part, Convolution):
            channels = part.out_channels
        height, width = part.size(height), part.size(width)
    return channels, height, width


def _up_to(architecture: Architecture, layer: str) -> Iterator[Convolution | MaxPool]:
    """The layers up to the end of this one that may change channels or size: in a stage, those of its first block."""
    for part in stem(architecture):
        if isinstance(part, (Convolution, MaxPool)):
            yield part
        if part.name == layer:
            return
    for stage in architecture.stages:
        yield from (part for part in block(architecture, stage, stage.name, 0).layers if isinstance(part, Convolution))
        if stage.name == layer:
            return
