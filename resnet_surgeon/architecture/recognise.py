"""From the names, shapes and dtypes of a state_dict to its Architecture, or an error that says everything that is odd.

Knows no bytes: what cannot be read off names and shapes (dilation, where the stride sits) is torchvision's.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from typing import Protocol, TypeVar

from resnet_surgeon.architecture.classifiers import read_off
from resnet_surgeon.architecture.differences import output
from resnet_surgeon.architecture.other_kinds import refuse_other_kinds
from resnet_surgeon.architecture.parameters import Parameter, parameters
from resnet_surgeon.architecture.spec import (
    LARGEST_KERNEL,
    STEM_CHANNELS,
    STEM_WEIGHT,
    Architecture,
    Block,
    Head,
    standard_stages,
)
from resnet_surgeon.errors import Answer, ArchitectureError, printable

FLOATS = ("F16", "BF16", "F32", "F64")
_SHOWN = 4  # problems or names spelled out in one message


class Described(Protocol):
    """Whatever has a shape and a dtype (a safetensors name)."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> str: ...


D = TypeVar("D", bound=Described)


def recognise(tensors: Mapping[str, Described]) -> Architecture:
    """The torchvision-style ResNet whose state_dict has these tensors: any depths, width, groups, channels, classes;
    `fc` or not.

    Raises ArchitectureError: not a ResNet, or a kind that is not torchvision's (named), or one whose tensors do not fit
    each other (all problems in one message).
    """
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    refuse_other_kinds(shapes)
    try:
        architecture = _read_off(shapes)
    except ValueError as rule:
        raise ArchitectureError(f"no ResNet of torchvision's kind has these shapes: {rule}") from None
    check_fit(architecture, tensors)
    return architecture


def check_fit(architecture: Architecture, tensors: Mapping[str, D]) -> dict[str, D]:
    """The tensors in torchvision's order. Raises ArchitectureError, listing every missing, unexpected or misshapen
    tensor, unless they are exactly the architecture's.
    """
    # One parameter more than there are tensors shows that one is missing; a manifest may ask for endlessly many.
    listed = itertools.islice(parameters(architecture), len(tensors) + 1)
    expected = {parameter.name: parameter for parameter in listed}
    misfits = [*_misfits(expected, tensors)]
    unexpected = [name for name in tensors if name not in expected]
    count = len(misfits) + len(unexpected)
    if count:
        shown = misfits[:_SHOWN]
        shown += [
            f"unexpected tensor {printable(name)} {list(tensors[name].shape)}"
            for name in unexpected[: _SHOWN - len(shown)]
        ]
        more = f"; and {count - _SHOWN} more" if count > _SHOWN else ""
        raise ArchitectureError(
            f"{'; '.join(shown)}{more}",
            hint=f"the rest looks like a {describe(architecture)}; a file must hold a whole network and nothing else",
        )
    return {name: tensors[name] for name in expected}


def describe(architecture: Architecture) -> str:
    """The network in a few words.

    >>> describe(VARIANTS["resnet50"])
    'ResNet with bottleneck blocks 3-4-6-3, 3 input channels, 1000 classes'
    """
    depths = "-".join(str(stage.blocks) for stage in architecture.depth)
    kind = f"ResNet with {architecture.block} blocks {depths}" if depths else "ResNet stem"
    groups = f", {architecture.groups} groups" if architecture.groups > 1 else ""
    norms = ", batch norms folded away" if architecture.fused else ""
    channels = f", {architecture.in_channels} input channel{'s' * (architecture.in_channels != 1)}"
    size = architecture.stem_kernel
    stem = f", {size}x{size} stem" if size != 7 else ""
    return f"{kind}{groups}{stem}{norms}{channels}, {output(architecture)}"


def _misfits(expected: Mapping[str, Parameter], tensors: Mapping[str, Described]) -> Iterator[str]:
    for name, parameter in expected.items():
        tensor = tensors.get(name)
        if tensor is None:
            yield f"tensor `{name}` {list(parameter.shape)} is missing"
        elif tensor.shape != parameter.shape:
            yield f"tensor `{name}` has shape {list(tensor.shape)}, expected {list(parameter.shape)}"
        elif tensor.dtype not in (FLOATS if parameter.dtype == "F32" else ("I64",)):
            kind = "floating point" if parameter.dtype == "F32" else "I64"
            yield f"tensor `{name}` has dtype {tensor.dtype}, expected {kind}"


def _read_off(shapes: Mapping[str, tuple[int, ...]]) -> Architecture:
    stem = shapes.get(STEM_WEIGHT)
    if stem is None:
        raise ArchitectureError(
            "this is not a ResNet's state_dict: no tensor `conv1.weight`" + _names_instead(shapes),
            hint=_missing_stem_hint(shapes),
        )
    if len(stem) != 4 or stem[0] != STEM_CHANNELS or stem[1] < 1 or not _is_kernel(*stem[2:]):
        raise ArchitectureError(
            f"no ResNet of torchvision's kind: `conv1.weight` has shape {list(stem)}, expected [64, channels, 7, 7] "
            "(or another odd number in the place of both 7)"
        )
    if any(name.startswith("heads.") for name in shapes):
        raise ArchitectureError(
            "it has several heads but no manifest, and only a manifest says in which order",
            hint="put its manifest beside it, under its own name in .json, or state where that is",
            answers=[Answer("manifest", "FILE", "the manifest of the network that was trained")],
        )
    block: Block = "bottleneck" if "layer1.0.conv3.weight" in shapes else "basic"
    groups, width_per_group = _grouping(shapes.get("layer1.0.conv2.weight", ())) if block == "bottleneck" else (1, 64)
    depths = tuple(_depths(shapes))
    if not depths:
        raise ArchitectureError("this is not a whole ResNet: it has a stem but no `layer1`")
    classes = shapes.get("fc.weight") or shapes.get("fc.bias")
    stages = standard_stages(block, depths, groups, width_per_group)
    head = Head("fc", classes[0]) if classes else _several_layers(shapes, stages[-1].out_channels)
    # A state_dict without fc does not tell whether the features were pooled: torchvision's avgpool stays, unless a
    # stage is missing too.
    return Architecture(
        block=block,
        in_channels=stem[1],
        stages=stages,
        heads=(head,) if head else (),
        groups=groups,
        stem_kernel=stem[2],
        avgpool=head is not None or len(depths) == 4,
        fused="conv1.bias" in shapes and not any(name.endswith(".running_mean") for name in shapes),
    )


def _is_kernel(height: int, width: int) -> bool:
    return height == width and height % 2 == 1 and height <= LARGEST_KERNEL


def _several_layers(shapes: Mapping[str, tuple[int, ...]], features: int) -> Head | None:
    """The classifier `fc.0`, `fc.1`, ..., if there is one."""
    members: dict[int, dict[str, tuple[int, ...]]] = {}
    for name, shape in shapes.items():
        if match := re.fullmatch(r"fc\.(\d{1,3})\.(\w+)", name):
            members.setdefault(int(match[1]), {})[match[2]] = shape
    return read_off(members, features)


def _depths(shapes: Mapping[str, tuple[int, ...]]) -> Iterator[int]:
    """Blocks in `layer1`, `layer2`, ... A gap in the numbers counts as a block, so that the check of fit names what is
    missing.
    """
    found: dict[int, int] = {}
    for name in shapes:
        match = re.match(r"layer([1-4])\.(\d{1,3})\.", name)
        if match:
            stage, index = int(match[1]), int(match[2])
            found[stage] = max(found.get(stage, 0), index + 1)
    for stage in range(1, max(found, default=0) + 1):
        yield found.get(stage, 1)


def _grouping(conv2: tuple[int, ...]) -> tuple[int, int]:
    """Groups and width per group, from layer1's [width, width / groups, 3, 3]."""
    if len(conv2) != 4 or not conv2[1] or conv2[0] % conv2[1]:
        return 1, 64
    groups = conv2[0] // conv2[1]
    return groups, conv2[1]


def _names_instead(shapes: Mapping[str, tuple[int, ...]]) -> str:
    names = ", ".join(printable(name) for name in list(shapes)[:_SHOWN])
    return f" (it has {names}{', ...' if len(shapes) > _SHOWN else ''})" if names else " (it has no tensor at all)"


def _missing_stem_hint(shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    prefixes = (name.removesuffix(STEM_WEIGHT) for name in shapes if name.endswith(f".{STEM_WEIGHT}"))
    prefix = next((prefix for prefix in prefixes if f"{prefix}conv2.weight" not in shapes), None)  # which blocks have
    if prefix is None:
        return None
    return f"its names begin with {printable(prefix)}: save the state_dict without that prefix"
