"""Opens a source: from named tensors, and what the file says of itself, to a checkpoint and its history.

Reads names, shapes and documents. Knows no operation's meaning, and reads no tensor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypedDict

from resnet_surgeon import manifest as documents
from resnet_surgeon.architecture.dilation import dilated
from resnet_surgeon.architecture.parameters import parameters
from resnet_surgeon.architecture.recognise import check_fit, recognise
from resnet_surgeon.architecture.spec import Architecture
from resnet_surgeon.errors import ArchitectureError, CheckpointError
from resnet_surgeon.formats.files import TiedToFile
from resnet_surgeon.formats.modules import ModuleNode
from resnet_surgeon.formats.safetensors_index import index_of
from resnet_surgeon.formats.tensors import LazyTensor
from resnet_surgeon.operations.checkpoint import Checkpoint
from resnet_surgeon.sources import modules
from resnet_surgeon.sources.source import MANIFEST_KEY, Source


class Opening(TypedDict, total=False):
    """How a source is opened: the keywords of `resnet_surgeon.open`, to which every function that opens one passes them
    on.
    """

    weights: str | None
    seed: int
    key: str | None
    fc: str | None
    ignore: Sequence[str]


@dataclass(frozen=True)
class Opened(TiedToFile):
    """A source in which a network was recognised: its checkpoint, and its own manifest if it has one."""

    source: Source
    checkpoint: Checkpoint
    history: documents.Manifest | None = None

    @property
    def architecture(self) -> Architecture:
        return self.checkpoint.architecture

    @property
    def tensors(self) -> Mapping[str, LazyTensor]:
        """The lazy tensors by torchvision's names, in its order."""
        return self.checkpoint.tensors


def recognised(source: Source) -> Opened:
    """The source's network, by its own manifest or else by its names and shapes.

    Raises CheckpointError for what is no ResNet of torchvision's kind, or does not fit its manifest.
    """
    index = index_of(source.origin.file or "")
    if index is not None:
        hint = f"give the index, `{index}`, with all shards beside it"
        raise CheckpointError("it is one of several shards, not a whole network", hint=hint)
    if source.found.problem is not None:
        raise source.found.problem
    text = source.metadata.get(MANIFEST_KEY)
    history = documents.from_json(text) if text is not None else None
    if history is None:
        architecture = dilated(recognise(source.tensors), source.found.dilated_stages)
        architecture = replace(architecture, maxpool_is_identity=not source.found.maxpool)
        _check_module(source, architecture)
        preprocessing = source.entry.preprocessing if source.entry else None
    else:
        architecture, preprocessing = history.architecture, history.inputs.preprocessing
        check_fit(architecture, source.tensors)
        if history.tensors.keys() != source.tensors.keys():
            raise CheckpointError("its manifest does not list the tensors that it has")
    tensors = {parameter.name: source.tensors[parameter.name] for parameter in parameters(architecture)}
    operations = len(history.operations) if history else 0
    return Opened(source, Checkpoint(architecture, tensors, preprocessing, operations), history)


def _check_module(source: Source, architecture: Architecture) -> None:
    """Raises ArchitectureError for a whole module that says of itself what its tensors do not show."""
    key = source.found.wrapping.key if source.found.wrapping else None
    node = modules.at(source.container.root, key) if source.container else None
    if not isinstance(node, ModuleNode):
        return
    plain = {
        "stem_stride": 2,
        "maxpool": "none" if architecture.maxpool_is_identity else "torchvision",
        "eps": 1e-5,
        "bottleneck_stride": "conv2",
        "strides": (1, 2, 2, 2)[: len(architecture.stages)],
        "dilated": (),
    }
    for name, value in modules.says(node, source.found.names, architecture, settled=False).items():
        if value != plain[name]:
            raise ArchitectureError(f"its module has {name} {value}, torchvision's {plain[name]}")
