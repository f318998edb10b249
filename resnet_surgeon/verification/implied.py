"""What a manifest's words on source and operations imply for the rest of it, whether the source is given or not.

Restates the rules of the operations, and does not call them. Knows no tensors' values.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from resnet_surgeon.architecture.preprocessing import Preprocessing
from resnet_surgeon.architecture.spec import STAGE_NAMES, Architecture, Stage
from resnet_surgeon.manifest import Kept, Manifest
from resnet_surgeon.sources import catalog
from resnet_surgeon.verification.case import MOST_CHANNELS, published

# Packings that say that stages are dilated in place of their stride; names and shapes of tensors cannot.
_DILATED = {"torchvision segmentation": ("layer3", "layer4")}


def contradictions(manifest: Manifest) -> Iterator[str]:
    """The paths of the fields that are not what source and operations lead to: `architecture.bottleneck_stride`."""
    yield from _of_architecture(manifest)
    if manifest.inputs.preprocessing != _preprocessing(manifest):
        yield "inputs.preprocessing"
    for index, output in enumerate(manifest.outputs):
        if output.categories != _categories(manifest, index):
            yield f"outputs[{index}].categories"


def _of_architecture(manifest: Manifest) -> Iterator[str]:
    """No source and no operation moves a bottleneck's stride or dilates a stage, but for the packings above."""
    architecture = manifest.architecture
    if architecture.bottleneck_stride != "conv2":
        yield "architecture.bottleneck_stride"
    if architecture.maxpool_is_identity != ("maxpool" in architecture.stem and _removes_maxpool(manifest)):
        yield "architecture.maxpool_is_identity"
    wrapping = manifest.source.wrapping
    strides = _strides(_DILATED.get(wrapping.kind, ()) if wrapping else ())
    for where, stage in _stages(architecture):
        for field, expected in strides[stage.name].items():
            if getattr(stage, field) != expected:
                yield f"{where}.{field}"


def _stages(architecture: Architecture) -> Iterator[tuple[str, Stage]]:
    for index, stage in enumerate(architecture.stages):
        yield f"architecture.stages[{index}]", stage
    for number, head in enumerate(architecture.heads):
        for index, stage in enumerate(head.stages):
            yield f"architecture.heads[{number}].stages[{index}]", stage


def _strides(dilated: tuple[str, ...]) -> dict[str, dict[str, int]]:
    """torchvision's strides 1, 2, 2, 2, where a dilated stage has its stride as dilation, which then stays."""
    dilation, strides = 1, {}
    for name in STAGE_NAMES:
        stride, first = (1 if name == "layer1" else 2), dilation
        if name in dilated:
            dilation, stride = dilation * stride, 1
        strides[name] = {"stride": stride, "first_dilation": first, "dilation": dilation}
    return strides


def _removes_maxpool(manifest: Manifest) -> bool:
    return any("maxpool" in (options.get("layers") or ()) for options in _operations(manifest, "remove"))


def _preprocessing(manifest: Manifest) -> Preprocessing | None:
    """A published file's, which `adapt` carries over to the new channels; else it is not known."""
    entry = published(manifest.source)
    if entry is None:
        return None
    known = entry.preprocessing
    for options in _operations(manifest, "adapt"):
        channels = range(options["in_channels"])
        if len(channels) > MOST_CHANNELS:
            return manifest.inputs.preprocessing  # not judged
        if options["init"] == "repeat":
            mean, std = (tuple(old[index % len(old)] for index in channels) for old in (known.mean, known.std))
        else:
            mean, std = (tuple(round(sum(old) / len(old), 6) for _ in channels) for old in (known.mean, known.std))
        known = replace(known, mean=mean, std=std)
    return known


def _categories(manifest: Manifest, index: int) -> tuple[str, ...] | None:
    """ImageNet's, as long as the output is that of a published file's own classifier."""
    architecture = manifest.architecture
    if index >= len(architecture.heads) or published(manifest.source) is None:
        return None
    record = manifest.tensors.get(f"{architecture.prefix(architecture.heads[index])}fc.weight")
    return catalog.categories() if record and record.provenance == Kept("fc.weight") else None


def _operations(manifest: Manifest, name: str) -> list[Mapping[str, Any]]:
    return [record[name] for record in manifest.operations if name in record]
