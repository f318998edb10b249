"""Opens a source: from named tensors, and what the file says of itself, to a checkpoint and its history.

Reads names, shapes and documents. Knows no operation's meaning, and reads no tensor.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypedDict

from resnet_surgeon import manifest as documents
from resnet_surgeon.architecture.facts import Assumed, Facts, facts_of, spelled
from resnet_surgeon.architecture.parameters import parameters
from resnet_surgeon.architecture.recognise import check_fit, recognise
from resnet_surgeon.architecture.spec import Architecture
from resnet_surgeon.dataclass import dataclass
from resnet_surgeon.errors import ArchitectureError, CheckpointError, printable
from resnet_surgeon.formats.files import TiedToFile
from resnet_surgeon.formats.safetensors_index import index_of
from resnet_surgeon.formats.tensors import LazyTensor
from resnet_surgeon.operations.checkpoint import Checkpoint
from resnet_surgeon.sources import catalog
from resnet_surgeon.sources.sidecar import MANIFEST_KEY
from resnet_surgeon.sources.source import Source


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
    manifest: str | os.PathLike[str] | None


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
    text = source.metadata.get(MANIFEST_KEY)
    if text is None:
        source, history = _by_sidecar(source)
    else:
        history = documents.from_json(text)
        if source.sidecar is not None and source.sidecar.text != text:
            hint = "leave `--manifest` out"
            raise CheckpointError(f"it holds a manifest, which is not `{source.sidecar.name}`", hint=hint)
    if source.found.problem is not None and history is None:
        raise source.found.problem
    names: tuple[str, ...] = ()
    if history is None:
        from resnet_surgeon.sources.description import described

        source, architecture, facts = described(source, recognise(source.tensors))
        tensors = {parameter.name: source.tensors[parameter.name] for parameter in parameters(architecture)}
        preprocessing = source.entry.preprocessing if source.entry else None
    else:
        architecture, preprocessing = history.architecture, history.inputs.preprocessing
        names = history.inputs.channel_names
        tensors = check_fit(architecture, source.tensors)
        if history.tensors.keys() != source.tensors.keys():
            raise CheckpointError("its manifest does not list the tensors that it has")
        facts = history.facts
        _check_stated(source.stated, facts, architecture)
    if source.layers is not None:
        from resnet_surgeon.sources import graphs

        graphs.check(source.layers, architecture)
    operations = len(history.operations) if history else 0
    checkpoint = Checkpoint(
        architecture, tensors, preprocessing, operations, names, (*_categories(source, architecture, history),)
    )
    return Opened(source, checkpoint, history, facts)


def _check_stated(stated: Facts, recorded: tuple[Assumed, ...], architecture: Architecture) -> None:
    """Raises ArchitectureError for what contradicts the file's manifest."""
    now = {name: spelled(value) for name, value in facts_of(architecture).items().items()}
    taken: dict[str, str] = {fact.name: fact.value for fact in recorded}  # before operations changed it
    for name, value in stated.items().items():
        if spelled(value) not in (now.get(name), taken.get(name)):
            raise ArchitectureError(
                f"{name} cannot be {spelled(value)}: its manifest says {now.get(name, 'that there is none')}",
                hint="leave it out of `--assume`",
            )


def _categories(
    source: Source, architecture: Architecture, history: documents.Manifest | None
) -> Iterator[tuple[LazyTensor, tuple[str, ...]]]:
    """What the classes of each head are called, where the file's manifest, or the catalogue, says it."""
    said = {output.name: output.categories for output in history.outputs} if history else {}
    for head in architecture.heads:
        names = said.get(head.name) if history else catalog.categories() if source.entry else None
        if names:
            yield source.tensors[f"{architecture.prefix(head)}{head.last}.weight"], names


def _by_sidecar(source: Source) -> tuple[Source, documents.Manifest | None]:
    """The source and its history by the manifest that lies beside it or was named, if there is one.

    What lies beside it is passed over if this tool did not write it, or if it tells what was made of this very file.
    Raises CheckpointError for a manifest that the tensors do not fit.
    """
    sidecar = source.sidecar
    if sidecar is None or not (sidecar.is_named or documents.is_manifest(sidecar.text.encode())):
        return source, None
    try:
        manifest = documents.from_json(sidecar.text)
        if not sidecar.is_named and manifest.source.file == source.origin.file:
            source, is_source = _by_digest(source, manifest)
            if is_source:
                return source, None
        names = _names_in(source.tensors, manifest)
        tensors = {name: source.tensors[there] for name, there in names.items()}
        check_fit(manifest.architecture, tensors)
    except CheckpointError as error:
        where = "was named as its manifest" if sidecar.is_named else "lies beside it"
        hint = "name the right one with `--manifest`" + ("" if sidecar.is_named else ", or move the wrong one away")
        reason = f"{printable(sidecar.name)} {where}, but does not fit it: {error.reason}"
        raise CheckpointError(reason, hint=hint) from None
    own = {name: source.found.names.get(there, there) for name, there in names.items()}
    found = replace(source.found, tensors=tensors, names=own, problem=None)
    return replace(source, found=found), documents.trained_since(manifest, tensors)


def _by_digest(source: Source, manifest: documents.Manifest) -> tuple[Source, bool]:
    """Whether the file is what the manifest's network was made of; and the source with its digest, if it took that.

    A file of the same name is, unless it was written over since: then the network in it fits the manifest.
    """
    names = _names_in(source.tensors, manifest)
    try:
        check_fit(manifest.architecture, {name: source.tensors[there] for name, there in names.items()})
    except CheckpointError:
        return source, True
    if manifest.source.sha256 is None or source.container is None:
        return source, True
    source = source.with_digest()
    return source, source.origin.sha256 == manifest.source.sha256


def _names_in(tensors: Mapping[str, LazyTensor], manifest: documents.Manifest) -> dict[str, str]:
    """The manifest's names of the tensors, and those in the file: the same, or behind one prefix that no other has.

    Where there are none such, the names as they are, for the caller to say what is odd about them.
    """
    first = next(iter(manifest.tensors), "")
    prefixes = (name.removesuffix(first) for name in tensors if name.endswith(first))
    for prefix in prefixes:
        if all(prefix + name in tensors for name in manifest.tensors):
            members = [name for name in tensors if name.startswith(prefix)]
            return {name.removeprefix(prefix): name for name in members}
    return {name: name for name in tensors}
