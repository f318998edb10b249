"""The laws that tensors may have been drawn from, by their layer and the operation that drew them: by records alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from resnet_surgeon.architecture.spec import Architecture
from resnet_surgeon.arithmetic.laws import Constant, Law, conv2d_default, kaiming_normal_fan_out, linear_default
from resnet_surgeon.manifest import Initialised, Manifest

_BY_DEPTH = re.compile(r"depth ([0-9]+)/(?:heads\.\w+\.)?layer([1-4])\.([0-9]+)\.(.+)")


def by_shape(shape: tuple[int, ...]) -> tuple[Law, ...]:
    """Of a convolution's weight, a linear layer's, or a batch norm's vectors, on the way to another tensor."""
    if len(shape) == 4:
        return conv2d_default(shape), kaiming_normal_fan_out(shape)
    return (linear_default(shape[1]),) if len(shape) == 2 else (Constant(0.0), Constant(1.0))


def hands_on(drawn: Initialised, manifest: Manifest) -> bool:
    """Whether it is the tensor of zeros by which a block that `depth` inserted hands on what it is given: the record of
    that operation says that its stage has such a block, and that it is no old one.
    """
    match = _BY_DEPTH.fullmatch(drawn.stream)
    if match is None or drawn.law != Constant(0.0) or match[4] not in _last(manifest.architecture):
        return False
    place, stage, block = (int(number[:9]) for number in match.groups()[:3])
    if not 0 < place <= len(manifest.operations):
        return False
    options: Mapping[str, Any] = manifest.operations[place - 1].get("depth", {})
    if not options.get("kept") or stage > min(len(options["kept"]), len(options["blocks"])):
        return False
    kept, blocks = options["kept"][stage - 1], options["blocks"][stage - 1]
    return block in range(len(kept), blocks)


def _last(architecture: Architecture) -> tuple[str, str]:
    """The tensors, within a block, of its last batch norm or, where that was folded away before, convolution."""
    return ("bn2.weight", "conv2.weight") if architecture.block == "basic" else ("bn3.weight", "conv3.weight")
