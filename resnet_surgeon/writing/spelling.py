"""What a network's tensors are called in a file: torchvision's names, another library's, or those of its source, among
what stood beside them there.

Refuses what the library could not rebuild from these names and its own defaults. Knows no container.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import field

from resnet_surgeon.architecture.naming import NAMINGS
from resnet_surgeon.architecture.spec import STEM_CHANNELS, Architecture, standard_stages
from resnet_surgeon.arithmetic.formulas import Average
from resnet_surgeon.dataclass import dataclass
from resnet_surgeon.errors import OperationError, UsageError, printable
from resnet_surgeon.formats.tensors import LazyTensor, Stored
from resnet_surgeon.manifest import Computed, Initialised, Kept, Manifest, Provenance
from resnet_surgeon.sources.packing import packing
from resnet_surgeon.sources.source import Source
from resnet_surgeon.writing.names import Names

# What a network may have that torchvision's default has not, in words.
_FACTS = {
    "heads": "heads beside each other",
    "parts": "a network without its last stages",
    "groups": "groups or other widths than ResNet's",
    "bottleneck_stride": "the stride in the first convolution of a bottleneck",
    "strides": "other strides than ResNet's",
    "dilation": "dilation",
    "stem": "another kernel or stride of the stem, or another layer in the place of maxpool",
    "eps": "another eps of the batch norms",
    "fused": "a network without batch norms",
    "pool": "another pooling than the mean",
    "classifier": "a classifier of several layers, or without bias",
    "maps": "feature maps by name",
}
# Which of them a library can be told beside the names: by the model's name, or by its configuration.
_SAID = {
    "torchvision": {*_FACTS},
    "original": {*_FACTS},
    "packed": {*_FACTS},
    "timm": {"groups"},
    "transformers": {"parts", "bottleneck_stride"},
    "detectron2": {"parts", "groups", "bottleneck_stride", "maps"},
    "sequential": {*_FACTS} - {"heads", "fused", "pool", "classifier", "maps"},
}
_CONFIG, _LOOKED_FOR = "config.json", ("model.safetensors", "pytorch_model.bin")  # by transformers, in a folder


@dataclass(frozen=True)
class Change:
    """The tensors of the network in `source`, and what has become of them, by torchvision's names; and the sources that
    tensors came from besides.
    """

    source: Source
    before: Mapping[str, LazyTensor]
    after: Mapping[str, LazyTensor]
    others: tuple[Source, ...] = ()


@dataclass(frozen=True)
class Spelled:
    """The tensors by their names in the file; what stands beside it, and under which names the library then looks for
    the file itself: any, if none is given.
    """

    tensors: Mapping[str, LazyTensor]
    companions: Mapping[str, bytes] = field(default_factory=dict)
    file_names: tuple[str, ...] = ()


def spelled(change: Change, manifest: Manifest, names: Names) -> Spelled:
    """The tensors of the network that `manifest` describes under these names. Raises OperationError where they cannot
    say what it is, UsageError for names of no library, CheckpointError for a packing that cannot be kept.
    """
    tensors = change.after
    if names not in _SAID:
        raise UsageError(f"{names!r} is not one of {', '.join(_SAID)}", subject="names")
    architecture = manifest.architecture
    for fact in _facts(architecture):
        if fact not in _SAID[names]:
            raise OperationError(
                f"{names} has no way to say {_FACTS[fact]}",
                subject="--names",
                hint="use `--names torchvision`: the manifest says it",
            )
    if names == "torchvision":
        return Spelled(tensors)
    if names == "packed":
        return Spelled(_packed(change))
    if names == "original":
        return Spelled(_original(tensors, manifest))
    renamed = {NAMINGS[names].written(name): tensor for name, tensor in tensors.items()}
    return Spelled(renamed, {_CONFIG: _config(manifest)}, _LOOKED_FOR) if names == "transformers" else Spelled(renamed)


def _facts(architecture: Architecture) -> Iterator[str]:
    """Those of `_FACTS` that hold."""
    stages = architecture.stages
    standard = standard_stages(architecture.block, tuple(stage.blocks for stage in stages))
    if architecture.branches:
        yield "heads"
    if len(stages) < 4 or not architecture.avgpool:
        yield "parts"
    if architecture.groups != 1 or [stage.width for stage in stages] != [stage.width for stage in standard]:
        yield "groups"
    if architecture.block == "bottleneck" and architecture.bottleneck_stride == "conv1":
        yield "bottleneck_stride"
    if any((stage.first_dilation, stage.dilation) != (1, 1) for stage in stages):
        yield "dilation"
    elif [stage.stride for stage in stages] != [stage.stride for stage in standard]:
        yield "strides"
    has_pool = architecture.maxpool == "torchvision" and not architecture.maxpool_is_identity
    if (architecture.stem_kernel, architecture.stem_stride) != (7, 2) or not has_pool:
        yield "stem"
    if architecture.maps:
        yield "maps"
    if architecture.eps != 1e-5:
        yield "eps"
    if architecture.fused:
        yield "fused"
    if architecture.pool != "avg":
        yield "pool"
    if any(head.hidden or not head.bias for head in architecture.heads):
        yield "classifier"


def _packed(change: Change) -> dict[str, LazyTensor]:
    """The whole state_dict that the network stands in. Only what was edited differs, under all of its names."""
    container = change.source.container
    if container is None:
        return dict(change.after)
    tensors = dict(packing(container.root, change.source.found).tensors)
    for name in change.before.keys() | change.after.keys():
        old, new = change.before.get(name), change.after.get(name)
        if new is old:
            continue
        if old is None or new is None or tensors.get(change.source.found.names.get(name, name)) is not old:
            raise OperationError(
                f"{printable(name)} is not one tensor of the file, in whose place another could stand",
                subject="--keep-packing",
                hint="leave `--keep-packing` out: the network then stands alone",
            )
        tensors |= {other: new for other, tensor in tensors.items() if _place(tensor) == _place(old)}
    return tensors


def _place(tensor: LazyTensor) -> object:
    """Equal for tensors of the same bytes."""
    return (tensor.file, tensor.offset, tensor.dtype, tensor.shape) if isinstance(tensor, Stored) else id(tensor)


def _original(tensors: Mapping[str, LazyTensor], manifest: Manifest) -> dict[str, LazyTensor]:
    """The names that the tensors had in the source; counters that it lacked are left out."""
    renamed: dict[str, LazyTensor] = {}
    for name, tensor in tensors.items():
        provenance = manifest.tensors[name].provenance
        original = _name(provenance)
        if original is None and name.endswith("num_batches_tracked") and isinstance(provenance, Initialised):
            continue
        if original is None or original in renamed:
            what = "is not made from one tensor of the source" if original is None else "is one of several copies"
            raise OperationError(
                f"{printable(name)} {what}, and so has no name there",
                subject="--names",
                hint="use `--names torchvision`",
            )
        renamed[original] = tensor
    return renamed


def _name(provenance: Provenance) -> str | None:
    """The name of the one tensor of the source that this is, or is computed from: of several networks' mean, the first
    one's.
    """
    while isinstance(provenance, Computed) and (len(provenance.inputs) == 1 or isinstance(provenance.formula, Average)):
        provenance = provenance.inputs[0]
    return provenance.tensor if isinstance(provenance, Kept) and provenance.source == 0 else None


def _config(manifest: Manifest) -> bytes:
    """What transformers' `ResNetConfig` says of the network."""
    architecture = manifest.architecture
    (output,) = manifest.outputs
    labels = output.categories or [f"LABEL_{index}" for index in range(output.classes or 0)]
    document = {
        "architectures": ["ResNetForImageClassification" if architecture.classifier else "ResNetModel"],
        "depths": [stage.blocks for stage in architecture.stages],
        "downsample_in_bottleneck": architecture.bottleneck_stride == "conv1",
        "downsample_in_first_stage": False,
        "embedding_size": STEM_CHANNELS,
        "hidden_act": "relu",
        "hidden_sizes": [stage.out_channels for stage in architecture.stages],
        "id2label": dict(enumerate(labels)),
        "label2id": {label: index for index, label in enumerate(labels)},
        "layer_type": architecture.block,
        "model_type": "resnet",
        "num_channels": architecture.in_channels,
    }
    if not labels:
        del document["id2label"], document["label2id"]
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()
