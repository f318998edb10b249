"""Stages whose stride is replaced by dilation, so that their feature map keeps its resolution."""

from __future__ import annotations

from dataclasses import replace

from resnet_surgeon.architecture.spec import Architecture


def dilated(architecture: Architecture, stages: tuple[str, ...]) -> Architecture:
    """The network with these stages' stride replaced by dilation: `replace_stride_with_dilation` of torchvision."""
    dilation, made = 1, []
    for stage in architecture.stages:
        first = dilation
        if stage.name in stages:
            dilation *= stage.stride
            stage = replace(stage, stride=1)
        made.append(replace(stage, first_dilation=first, dilation=dilation))
    return replace(architecture, stages=tuple(made))
