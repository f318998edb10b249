"""Opens a source: from named tensors, and what the file says of itself, to a checkpoint and its history.

Reads names, shapes and documents. Knows no operation's meaning, and reads no tensor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypedDict

from resnet_surgeon import manifest as documents
from resnet_surgeon.architecture.facts import (
    Assumed,
    Claim,
    ContradictionError,
    Facts,
    applied,
    assumed,
    facts_of,
    merged,
    spelled,
)
from resnet_surgeon.architecture.parameters import parameters
from resnet_surgeon.architecture.recognise import check_fit, recognise
from resnet_surgeon.architecture.spec import Architecture
from resnet_surgeon.errors import ArchitectureError, CheckpointError
from resnet_surgeon.formats.files import TiedToFile
from resnet_surgeon.formats.safetensors_index import index_of
from resnet_surgeon.formats.tensors import LazyTensor
from resnet_surgeon.operations.checkpoint import Checkpoint
from resnet_surgeon.sources import doubts, evidence
from resnet_surgeon.sources.source import MANIFEST_KEY, Source


class Opening(TypedDict, total=False):
    """How a source is opened: the keywords of `resnet_surgeon.open`, to which every function that opens one passes them
    on.
    """

    weights: str | None
    seed: int
    key: str | None
    assume: str | Mapping[str, object] | None
    fc: str | None
    ignore: Sequence[str]


@dataclass(frozen=True)
class Opened(TiedToFile):
    """A source in which a network was recognised: its checkpoint, its own manifest if it has one, and the facts that
    its tensors do not show.
    """

    source: Source
    checkpoint: Checkpoint
    history: documents.Manifest | None = None
    facts: tuple[Assumed, ...] = ()

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
        source, architecture, facts = _with_facts(source, recognise(source.tensors))
        preprocessing = source.entry.preprocessing if source.entry else None
    else:
        architecture, preprocessing = history.architecture, history.inputs.preprocessing
        check_fit(architecture, source.tensors)
        if history.tensors.keys() != source.tensors.keys():
            raise CheckpointError("its manifest does not list the tensors that it has")
        facts = history.facts
        _check_stated(source.stated, {fact.name: fact.value for fact in facts}, architecture)
    tensors = {parameter.name: source.tensors[parameter.name] for parameter in parameters(architecture)}
    operations = len(history.operations) if history else 0
    return Opened(source, Checkpoint(architecture, tensors, preprocessing, operations), history, facts)


def _with_facts(source: Source, architecture: Architecture) -> tuple[Source, Architecture, tuple[Assumed, ...]]:
    """The network as the file and the user describe it, and the source with the warnings that come of it.

    Raises ArchitectureError for facts that contradict each other or the tensors, and where the packing leaves open what
    nobody has said.
    """
    claims = (*evidence.claims(source, architecture), Claim(source.stated, "user"))
    known = Facts()
    for claim in claims:
        try:
            known = merged(known, claim.facts)
        except ContradictionError as error:
            by = next(other.place for other in claims if error.name in other.facts.items())
            raise ArchitectureError(f"{error.reason}: {by} says the first", hint="leave it out of `--assume`") from None
    doubts.ask(source, architecture, known, source.stated)
    described = applied(known, architecture)
    try:
        check_fit(described, source.tensors)
    except ArchitectureError as error:
        said = ",".join(f"{name}={spelled(value)}" for name, value in source.stated.items().items())
        raise ArchitectureError(f"`{said}` contradicts its tensors: {error.reason}") from None
    warnings = tuple(dict.fromkeys((*source.origin.warnings, *doubts.warnings(source, known))))
    return replace(source, origin=replace(source.origin, warnings=warnings)), described, assumed(described, claims)


def _check_stated(stated: Facts, recorded: Mapping[str, str], architecture: Architecture) -> None:
    """Raises ArchitectureError for what contradicts the file's manifest."""
    truth = {name: spelled(value) for name, value in facts_of(architecture).items().items()} | {**recorded}
    for name, value in stated.items().items():
        if truth.get(name) != spelled(value):
            raise ArchitectureError(
                f"{name} cannot be {spelled(value)}: its manifest says {truth.get(name, 'that there is none')}",
                hint="leave it out of `--assume`",
            )
