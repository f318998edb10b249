"""Strides of stages that are replaced by dilation, as torchvision's `replace_stride_with_dilation` does it, and how
much smaller a feature map is than the image. Knows no tensors.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from resnet_surgeon.architecture.layers import Convolution, MaxPool, stem
from resnet_surgeon.architecture.spec import Architecture, Stage


def dilated(stages: Sequence[Stage], names: Collection[str]) -> tuple[Stage, ...]:
    """The stages, which are not dilated, with the strides of those that are named replaced by a dilation that stays for
    the stages after them. As `torchvision.models.ResNet._make_layer` does it: a stage's first block still has the
    dilation of the stage before.
    """
    dilation, made = 1, []
    for stage in stages:
        first = dilation
        if stage.name in names:
            dilation *= stage.stride
            stage = replace(stage, stride=1)
        made.append(replace(stage, first_dilation=first, dilation=dilation))
    return tuple(made)


def undilated(stages: Sequence[Stage]) -> tuple[tuple[Stage, ...], tuple[str, ...]]:
    """The stages with the strides that they had before they were dilated, and the names of those whose stride was
    replaced. Raises ValueError for stages that are dilated in another way than `dilated` does it.
    """
    dilation, made, names = 1, [], []
    for stage in stages:
        replaced = stage.dilation // dilation if stage.first_dilation == dilation else 1
        made.append(replace(stage, stride=stage.stride * replaced, first_dilation=1, dilation=1))
        names += [stage.name] * (replaced > 1)
        dilation *= replaced
    if dilated(made, names) != tuple(stages):
        raise ValueError("the stages are dilated in another way than torchvision does it")
    return tuple(made), tuple(names)


def stem_stride(architecture: Architecture) -> int:
    """How much smaller the stem's feature map is than the image: 4 in torchvision's networks."""
    return math.prod(layer.stride for layer in stem(architecture) if isinstance(layer, (Convolution, MaxPool)))


def output_strides(architecture: Architecture, stages: Sequence[Stage]) -> Iterator[int]:
    """How much smaller the feature map is than the image after the stem, and after each of the stages."""
    stride = stem_stride(architecture)
    yield stride
    for stage in stages:
        stride *= stage.stride
        yield stride
