"""What a manifest's words on source and operations imply for the rest of it, whether the source is given or not.

Restates what the operations do (see `effects`), and does not call them. Knows no tensors' values.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce

from resnet_surgeon.architecture.spec import STAGE_NAMES, Architecture, FeatureMap, HiddenActivation, Stage
from resnet_surgeon.fields import plain
from resnet_surgeon.manifest import Kept, Manifest
from resnet_surgeon.sources import catalog
from resnet_surgeon.verification.case import published
from resnet_surgeon.verification.effects import Expected, ExpectedHead, after

# Packings that 0.1.0 took to say that stages are dilated in place of their stride.
_DILATED = {"torchvision segmentation": "layer3-layer4"}


def contradictions(manifest: Manifest) -> Iterator[str]:
    """The paths of the fields that are not what source and operations lead to: `architecture.bottleneck_stride`."""
    yield from _of_facts(manifest)
    expected = expectation(manifest)
    yield from _of_architecture(manifest.architecture, expected)
    yield from _of_heads(manifest.architecture, expected)
    yield from _of_activations(manifest, expected)
    if manifest.inputs.preprocessing != expected.preprocessing and not expected.is_beyond:
        yield "inputs.preprocessing"
    if manifest.inputs.channel_names != expected.channel_names:
        yield "inputs.channel_names"
    for index, output in enumerate(manifest.outputs):
        if not _is_of_another(manifest, index, expected) and output.categories != _categories(
            manifest, index, expected
        ):
            yield f"outputs[{index}].categories"


def expectation(manifest: Manifest) -> Expected:
    """What source and operations lead to."""
    return reduce(after, manifest.operations, _before(manifest))


def _of_heads(architecture: Architecture, expected: Expected) -> Iterator[str]:
    """A head that no operation has made is the source's: without labels, and with one of two poolings, of which one has
    a tensor.
    """
    poolings = _poolings(expected.pool) if not expected.grafted else (architecture.pool,)
    if not architecture.heads and architecture.avgpool and architecture.pool not in poolings:
        yield "architecture.pool"
    for index, head in enumerate(architecture.heads):
        if head.name in expected.grafted:
            continue
        made = expected.heads.get(head.name, ExpectedHead())
        found = {
            "hidden": tuple(map(plain, head.hidden)),
            "bias": head.bias,
            "labels": head.labels,
        }
        is_made = head.name in expected.heads
        for field, value in (found if is_made else {"labels": head.labels}).items():
            if getattr(made, field) != value:
                yield f"architecture.heads[{index}].{field}"
        if (architecture.pool if architecture.avgpool else head.pool) not in _poolings(made.pool if is_made else None):
            yield "architecture.pool" if architecture.avgpool else f"architecture.heads[{index}].pool"


def _of_activations(manifest: Manifest, expected: Expected) -> Iterator[str]:
    """In a head of the first source's own there is the activation that was stated."""
    said = next((fact.value for fact in manifest.facts if fact.name == "activation"), None)
    for index, head in enumerate(manifest.architecture.heads):
        found = {layer.function for layer in head.hidden if isinstance(layer, HiddenActivation)}
        if head.name not in {*expected.heads, *expected.grafted} and found - {said}:
            yield f"architecture.heads[{index}].hidden"


def _poolings(made: str | None) -> tuple[str, ...]:
    """Those that there can be where an operation made one, or none did."""
    return ("avg", "gem") if made is None else (made,)


def _of_architecture(architecture: Architecture, expected: Expected) -> Iterator[str]:
    fields: dict[str, object] = {
        **expected.fields,
        "maxpool_is_identity": "maxpool" in architecture.stem and expected.fields["maxpool_is_identity"],
    }
    for field, value in fields.items():
        if getattr(architecture, field) != value:
            yield f"architecture.{field}"
    for where, stage in _stages(architecture):
        for field, number in expected.stages.get(stage.name, {"stride": 0}).items():
            if getattr(stage, field) != number:
                yield f"{where}.{field}"


def _before(manifest: Manifest) -> Expected:
    """The network in the source: as the facts say, else torchvision's; the preprocessing of a published file."""
    said, entry = _said(manifest), published(manifest.source)
    return Expected(
        fields={
            "bottleneck_stride": said["bottleneck_stride"],
            "stem_stride": _number(said["stem_stride"]),
            "maxpool": "caffe" if said["maxpool"] == "caffe" else "torchvision",
            "maxpool_is_identity": said["maxpool"] == "none",
            "eps": _number(said["eps"]),
            "maps": _own_maps(manifest),
        },
        stages=_strides(said["strides"].split("-"), said["dilated"].split("-")),
        preprocessing=entry.preprocessing if entry else None,
    )


def _own_maps(manifest: Manifest) -> tuple[FeatureMap, ...]:
    """Those that the first source has, unless an operation made others: a whole module of torch's may return maps by
    name, of which nothing is recorded but the architecture.
    """
    return manifest.architecture.maps if manifest.source.container in _OF_MODULES else ()


_OF_MODULES = ("torch_zip", "torch_legacy", "torch_tar", "pickle")
_TORCHVISION: dict[str, str] = {
    "bottleneck_stride": "conv2", "strides": "1-2-2-2", "stem_stride": "2", "maxpool": "torchvision",
    "dilated": "none", "eps": "1e-05",
}  # fmt: skip


def _said(manifest: Manifest) -> dict[str, str]:
    """Each fact as it is written; of manifests that have none, as 0.1.0 took it."""
    wrapping = manifest.source.wrapping
    dilated = _DILATED.get(wrapping.kind) if wrapping and not manifest.facts else None
    said: dict[str, str] = {fact.name: fact.value for fact in manifest.facts}
    return _TORCHVISION | ({"dilated": dilated} if dilated else said)


def _of_facts(manifest: Manifest) -> Iterator[str]:
    """Each is stated once; what nobody said is torchvision's, and so is all of its own weights."""
    names = [fact.name for fact in manifest.facts]
    is_torchvisions = published(manifest.source) is not None or manifest.source.weights == "random"
    for index, fact in enumerate(manifest.facts):
        is_plain = fact.value == _TORCHVISION.get(fact.name) or (
            fact.name == "strides" and _TORCHVISION["strides"].startswith(f"{fact.value}-")
        )
        if names.count(fact.name) > 1 or (not is_plain and (is_torchvisions or fact.said_by == "default")):
            yield f"facts[{index}]"


def _number(text: str) -> float:
    """The number; of what is none, one that no network has."""
    try:
        return float(text)
    except ValueError:
        return -1.0


def _stages(architecture: Architecture) -> Iterator[tuple[str, Stage]]:
    for index, stage in enumerate(architecture.stages):
        yield f"architecture.stages[{index}]", stage
    for number, head in enumerate(architecture.heads):
        for index, stage in enumerate(head.stages):
            yield f"architecture.heads[{number}].stages[{index}]", stage


def _strides(strides: list[str], dilated: list[str]) -> dict[str, dict[str, float]]:
    """The fields of each stage: dilated by its number, or by its stride, which then stays, where it is named."""
    has_numbers = any(text.isdigit() for text in dilated)
    dilation, fields = 1.0, {}
    for index, (name, text) in enumerate(zip(STAGE_NAMES, strides, strict=False)):
        stride, first = _number(text), dilation
        if has_numbers:
            first = dilation = _number(dilated[index]) if index < len(dilated) else -1.0
        elif name in dilated:
            dilation, stride = dilation * stride, 1.0
        fields[name] = {"stride": stride, "first_dilation": first, "dilation": dilation}
    return fields


def _categories(manifest: Manifest, index: int, expected: Expected) -> tuple[str, ...] | None:
    """As they were stated for the head; else ImageNet's, as long as it is a published file's own classifier."""
    architecture = manifest.architecture
    if index >= len(architecture.heads):
        return None
    head = architecture.heads[index]
    made = expected.heads.get(head.name)
    if made is not None and made.labels:
        return made.labels
    if published(manifest.source) is None:
        return None
    record = manifest.tensors.get(f"{architecture.prefix(head)}{head.last}.weight")
    return catalog.categories() if record and record.provenance == Kept("fc.weight") else None


def _is_of_another(manifest: Manifest, index: int, expected: Expected) -> bool:
    """Whether the output's head is from another source, whose own word its categories are."""
    heads = manifest.architecture.heads
    return index < len(heads) and heads[index].name in expected.grafted
