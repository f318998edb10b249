"""The Network: what was opened, what it has become, what was done to it. Nothing is read until it is saved."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnet_surgeon import manifest as documents
from resnet_surgeon._version import __version__
from resnet_surgeon.architecture.dilation import dilated
from resnet_surgeon.architecture.parameters import parameters
from resnet_surgeon.architecture.recognise import check_fit, describe, recognise
from resnet_surgeon.architecture.spec import Architecture, Head
from resnet_surgeon.errors import CheckpointError, OperationError, SurgeonError, message
from resnet_surgeon.formats.files import TiedToFile
from resnet_surgeon.formats.safetensors_index import index_of
from resnet_surgeon.formats.tensors import Computed, Initialised, LazyTensor
from resnet_surgeon.operations import OPERATIONS
from resnet_surgeon.operations.checkpoint import Checkpoint, Operation
from resnet_surgeon.output import Document, document, stream, write
from resnet_surgeon.plan import Step, by_identity, plan
from resnet_surgeon.sources import catalog
from resnet_surgeon.sources.location import DEFAULT_NAME, Location
from resnet_surgeon.sources.names import file_name
from resnet_surgeon.sources.progress import Progress, silent
from resnet_surgeon.sources.source import MANIFEST_KEY, Source, open_source


@dataclass(frozen=True)
class Network(TiedToFile):
    """A ResNet's architecture and lazy tensors, with their history.

    Each operation of the command line is a method of the same name and options, and returns a new network:

    >>> open("resnet50", weights="random").adapt(in_channels=1).heads([3, 5]).save("model.safetensors")
    """

    source: Source
    opened: Checkpoint
    checkpoint: Checkpoint
    history: documents.Manifest | None = None
    operations: tuple[Operation, ...] = ()

    @property
    def architecture(self) -> Architecture:
        return self.checkpoint.architecture

    @property
    def tensors(self) -> Mapping[str, LazyTensor]:
        """The lazy tensors by name, in torchvision's order."""
        return self.checkpoint.tensors

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {message(self.label)}: {describe(self.architecture)}>"

    def apply(self, operation: Operation) -> Network:
        """The network after the operation. Raises OperationError if it makes no sense on this network."""
        done = (*(self.history.operations if self.history else ()), *self.operations)
        try:
            if len(done) >= documents.MOST_OPERATIONS:
                raise OperationError(
                    f"{len(done)} operations lie behind the network, which is all that a manifest tells"
                )
            resolved = operation.resolved(self.architecture)
            checkpoint = resolved.apply(self.checkpoint)
        except SurgeonError as error:
            raise error.about(operation.name) from None
        checkpoint = replace(checkpoint, operations=self.checkpoint.operations + 1)
        return replace(self, checkpoint=checkpoint, operations=(*self.operations, resolved))

    if TYPE_CHECKING:

        def __getattr__(self, operation: str) -> Callable[..., Network]: ...

    def plan(self) -> tuple[Step, ...]:
        """What happens to each tensor between the source and this network."""
        return plan(self.opened.tensors, self.tensors)

    @property
    def records(self) -> Mapping[str, documents.TensorRecord]:
        """Where each tensor is from, as the manifest says; reads nothing."""
        if self.history is not None and not self.operations:
            return self.history.tensors
        return self._records(self.tensors)

    def manifest(self) -> documents.Manifest:
        """The manifest of this network, with the SHA-256 of its source: reads the source once if it is a file that has
        none yet.
        """
        manifest = self._manifest()
        if manifest.source.container is not None and manifest.source.sha256 is None:
            manifest = replace(manifest, source=self.source.identified())
        return manifest

    def check(self) -> None:
        """Raises CheckpointError if the file would be one that nobody could open; reads and writes nothing."""
        self._document().header()

    def save(self, output: str | os.PathLike[str], *, force: bool = False, progress: Progress = silent) -> Path:
        """Writes the safetensors file `output` and, beside it, the manifest (`model.json` for `model.safetensors`).

        Returns the file's path. Raises AccessError if the file exists and not `force`, or cannot be written; then
        nothing was changed.
        """
        return write(self._document(), Path(output), force=force, progress=progress)

    def stream(self, descriptor: int, *, progress: Progress = silent) -> None:
        """Sends the safetensors file to an open descriptor, such as a pipe's."""
        stream(self._document(), descriptor, progress)

    @property
    def label(self) -> str:
        """What people call the network: its model's or file's name; for a stream, that of the file it began with."""
        if self.history is None or not self.source.is_anonymous:
            return self.source.label
        origin = self.history.source
        return origin.architecture or Path(origin.file or self.source.label).stem

    @property
    def default_name(self) -> str:
        """The file name for this network: its label and what was done since, such as `resnet50-in1.safetensors`.

        One component of letters, digits, `.`, `_` and `-`, whatever file, address or manifest say.
        """
        operations = list(self.operations)
        if self.history is not None and self.source.is_anonymous:
            operations = [*map(documents.operation_from_record, self.history.operations), *operations]
        return file_name("-".join([self.label, *(operation.suffix for operation in operations)])) + ".safetensors"

    def _document(self) -> Document:
        try:
            return document(self.tensors, self._manifest(), self.source)
        except CheckpointError as error:
            raise error.about(self.source.subject) from None

    def _manifest(self) -> documents.Manifest:
        """Continues the source's own manifest where it has one, so that a pipe, a chain and files in between come to
        the same.
        """
        history = self.history
        if history is not None and not self.operations:
            return history
        records = self._records(self.tensors)
        known = _kept_names(self._records(self.opened.tensors)) | set(history.dropped if history else ())
        return documents.Manifest(
            architecture=self.architecture,
            inputs=documents.Inputs(self.architecture.in_channels, self.checkpoint.preprocessing),
            outputs=self._outputs(),
            operations=(*(history.operations if history else ()), *map(documents.operation_record, self.operations)),
            source=history.source if history else self.source.described,
            tensors=records,
            dropped=tuple(sorted(known - _kept_names(records))),
            versions={"resnet_surgeon": __version__},
        )

    def _records(self, tensors: Mapping[str, LazyTensor]) -> dict[str, documents.TensorRecord]:
        names = by_identity(self.opened.tensors)

        def provenance(tensor: LazyTensor) -> documents.Provenance:
            name = names.get(id(tensor))
            if name is not None and self.history is not None:
                return self.history.tensors[name].provenance
            if isinstance(tensor, Initialised):
                return documents.Initialised(tensor.law, tensor.seed, tensor.stream)
            if name is not None:
                return documents.Kept(self.source.found.names.get(name, name))
            assert isinstance(tensor, Computed)
            return documents.Computed(tensor.formula, tuple(provenance(source) for source in tensor.inputs))

        return {name: documents.TensorRecord(tensor.dtype, provenance(tensor)) for name, tensor in tensors.items()}

    def _outputs(self) -> tuple[documents.Output, ...]:
        architecture = self.architecture
        heads: tuple[Head | None, ...] = architecture.heads or (None,)
        return tuple(
            documents.Output(
                name=head.name if head else architecture.output_kind,
                kind=architecture.output_kind,
                shape=architecture.output_shape(head, 224, 224),
                classes=head.classes if head else None,
                categories=self._categories(head) if head else None,
            )
            for head in heads
        )

    def _categories(self, head: Head) -> tuple[str, ...] | None:
        """The names of the head's classes, known while its linear layer is the source's own."""
        weight = self.tensors[f"{self.architecture.prefix(head)}fc.weight"]
        for old in self.opened.architecture.heads:
            if weight is self.opened.tensors[f"{self.opened.architecture.prefix(old)}fc.weight"]:
                if self.history is not None:
                    return next((output.categories for output in self.history.outputs if output.name == old.name), None)
                return catalog.categories() if self.source.entry else None
        return None


def _kept_names(records: Mapping[str, documents.TensorRecord]) -> set[str]:
    """The source's tensors that are kept, or that others are computed from."""

    def names(provenance: documents.Provenance) -> Iterator[str]:
        if isinstance(provenance, documents.Kept):
            yield provenance.tensor
        elif isinstance(provenance, documents.Computed):
            for source in provenance.inputs:
                yield from names(source)

    return {name for record in records.values() for name in names(record.provenance)}


def open(
    source: Location = DEFAULT_NAME,
    *,
    weights: str | None = None,
    seed: int = 0,
    key: str | None = None,
    progress: Progress = silent,
) -> Network:
    """Opens a model name (`weights`: DEFAULT, IMAGENET1K_V1, IMAGENET1K_V2 or random), a checkpoint's path, `-` for
    standard input, bytes, or a binary stream. `key` chooses one of several networks in a file.

    Raises UsageError, AccessError, WeightsError, or CheckpointError for what is no ResNet of torchvision's kind.
    """
    opened = open_source(source, weights, seed, key, progress)
    try:
        checkpoint, history = recognised(opened)
    except CheckpointError as error:
        raise error.about(opened.subject) from None
    return Network(opened, checkpoint, checkpoint, history)


def recognised(source: Source) -> tuple[Checkpoint, documents.Manifest | None]:
    """The source's checkpoint, by its own manifest or else by its names and shapes; tensors in torchvision's order."""
    index = index_of(source.origin.file or "")
    if index is not None:
        hint = f"give the index, `{index}`, with all shards beside it"
        raise CheckpointError("it is one of several shards, not a whole network", hint=hint)
    text = source.metadata.get(MANIFEST_KEY)
    history = documents.from_json(text) if text is not None else None
    if history is None:
        architecture = dilated(recognise(source.tensors), source.found.dilated_stages)
        preprocessing = source.entry.preprocessing if source.entry else None
    else:
        architecture, preprocessing = history.architecture, history.inputs.preprocessing
        check_fit(architecture, source.tensors)
        if history.tensors.keys() != source.tensors.keys():
            raise CheckpointError("its manifest does not list the tensors that it has")
    tensors = {parameter.name: source.tensors[parameter.name] for parameter in parameters(architecture)}
    operations = len(history.operations) if history else 0
    return Checkpoint(architecture, tensors, preprocessing, operations), history


def _as_method(operation: type[Operation]) -> Callable[..., Network]:
    def method(self: Network, *args: Any, **kwargs: Any) -> Network:
        return self.apply(operation(*args, **kwargs))

    method.__name__ = operation.name
    method.__qualname__ = f"Network.{operation.name}"
    method.__doc__ = operation.__doc__
    this = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    signature = inspect.signature(operation)
    signature = signature.replace(parameters=[this, *signature.parameters.values()], return_annotation=Network)
    method.__signature__ = signature  # type: ignore[attr-defined]
    return method


for _operation in OPERATIONS.values():
    setattr(Network, _operation.name, _as_method(_operation))
