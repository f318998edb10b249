"""The Network: what was opened, what it has become, what was done to it. Nothing is read until it is saved."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MethodType
from typing import Any, Concatenate, Generic, ParamSpec, overload

from resnet_surgeon import manifest as documents
from resnet_surgeon import operations as registry
from resnet_surgeon.architecture.recognise import describe
from resnet_surgeon.architecture.spec import Architecture
from resnet_surgeon.dataclass import dataclass
from resnet_surgeon.errors import CheckpointError, OperationError, SurgeonError, UsageError, message
from resnet_surgeon.formats.files import OpenFile, TiedToFile
from resnet_surgeon.formats.tensors import LazyTensor
from resnet_surgeon.history import recording
from resnet_surgeon.history.notes import notes_of
from resnet_surgeon.history.opening import Opened, recognised
from resnet_surgeon.location import DEFAULT_NAME, Location, PassingInput
from resnet_surgeon.operations.checkpoint import (
    MOST_SOURCES,
    Checkpoint,
    Operation,
    Other,
    Unopened,
    others_of,
    with_others,
)
from resnet_surgeon.plan import Elsewhere, Step, plan
from resnet_surgeon.sources import catalog
from resnet_surgeon.sources.names import file_name
from resnet_surgeon.sources.origin import Origin
from resnet_surgeon.sources.packing import Packing, packing
from resnet_surgeon.sources.progress import Progress, silent
from resnet_surgeon.sources.source import Source, open_source
from resnet_surgeon.writing.document import Document, document
from resnet_surgeon.writing.forms import SAFETENSORS, form_of
from resnet_surgeon.writing.names import Names
from resnet_surgeon.writing.spelling import Change
from resnet_surgeon.writing.unchanged import is_written
from resnet_surgeon.writing.write import stream, write

Options = ParamSpec("Options")


class Method(Generic[Options]):
    """An operation as a method of Network, with the operation's options and help, imported when it is first looked
    at.
    """

    def __init__(self, operation: Callable[[], Callable[Options, Operation]]) -> None:
        self._operation = operation

    @overload
    def __get__(self, network: None, owner: type) -> Callable[Concatenate[Network, Options], Network]: ...

    @overload
    def __get__(self, network: Network, owner: type) -> Callable[Options, Network]: ...

    def __get__(self, network: Network | None, owner: type) -> Callable[..., Network]:
        function = _applied(self._operation())
        return function if network is None else MethodType(function, network)


@functools.cache
def _applied(kind: Any) -> Callable[..., Network]:
    """The function from a network and an operation's options to the network after it."""

    def applied(self: Network, /, *args: Any, **kwargs: Any) -> Network:
        return self.apply(kind(*args, **kwargs))

    applied.__name__ = kind.name
    applied.__qualname__ = f"Network.{kind.name}"
    applied.__doc__ = kind.__doc__
    this = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    options = inspect.signature(kind).parameters.values()
    applied.__signature__ = inspect.Signature([this, *options], return_annotation="Network")  # type: ignore[attr-defined]
    return applied


@dataclass(frozen=True)
class Network(TiedToFile):
    """A ResNet's architecture and lazy tensors, with their history.

    Each operation of the command line is a method of the same name and options, and returns a new network:

    >>> open("resnet50", weights="random").adapt(in_channels=1).heads([3, 5]).save("model.safetensors")
    """

    opened: Opened
    checkpoint: Checkpoint
    operations: tuple[Operation, ...] = ()
    others: tuple[Opened, ...] = ()  # the sources besides, in the order of their numbers

    @property
    def sources(self) -> tuple[Source, ...]:
        """The first source and the others."""
        return (self.source, *(other.source for other in self.others))

    @property
    def source(self) -> Source:
        return self.opened.source

    @property
    def history(self) -> documents.Manifest | None:
        """The source's own manifest."""
        return self.opened.history

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
        """The network after the operation, which opens the others that it takes.

        Raises OperationError if it makes no sense on this network, and the errors of `open`.
        """
        try:
            return self.joined(operation, [_opened(other) for other in others_of(operation)])
        except SurgeonError as error:
            raise error.about(operation.name) from None

    def joined(self, operation: Operation, others: Sequence[Opened]) -> Network:
        """The network after an operation that takes these others, whatever it calls them. Raises OperationError."""
        done, first = recording.done(self.opened, self.operations), recording.first_number(self.opened)
        numbers = range(first + len(self.others), first + len(self.others) + len(others))
        if len(done) >= documents.MOST_OPERATIONS:
            raise OperationError(f"{len(done)} operations were applied already, as many as a manifest can record")
        if numbers.stop > MOST_SOURCES:
            raise OperationError(f"a manifest can record {MOST_SOURCES} sources besides the first")
        taken = {number: other.checkpoint for number, other in zip(numbers, others, strict=True)}
        before = replace(self.checkpoint, others=taken)
        resolved = with_others(operation, numbers).resolved(before)
        checkpoint = resolved.apply(before)
        operations = (*self.operations, resolved)
        checkpoint = replace(checkpoint, operations=len(recording.done(self.opened, operations)), others={})
        return replace(self, checkpoint=checkpoint, operations=operations, others=(*self.others, *others))

    adapt = Method(lambda: registry.Adapt)
    stem = Method(lambda: registry.Stem)
    remove = Method(lambda: registry.Remove)
    dilate = Method(lambda: registry.Dilate)
    features = Method(lambda: registry.Features)
    heads = Method(lambda: registry.Heads)
    graft = Method(lambda: registry.Graft)
    average = Method(lambda: registry.Average)
    depth = Method(lambda: registry.Depth)
    cast = Method(lambda: registry.Cast)
    fuse = Method(lambda: registry.Fuse)

    def plan(self) -> tuple[Step, ...]:
        """What happens to each tensor between the source and this network."""
        others = [Elsewhere(other.source.label, other.tensors) for other in self.others]
        return plan(self.opened.tensors, self.tensors, others)

    @property
    def records(self) -> Mapping[str, documents.TensorRecord]:
        """Where each tensor is from, as the manifest says; reads nothing."""
        if self.history is not None and not self.operations:
            return self.history.tensors
        return recording.records(self.opened, self.tensors, self.others)

    def manifest(self) -> documents.Manifest:
        """The manifest of this network, with the SHA-256 of its sources: reads each once if it is a file that has none
        yet.
        """
        for source in self.sources[1:] if self.history else self.sources:
            source.identified()
        return self.recorded

    @property
    def recorded(self) -> documents.Manifest:
        """The manifest, without the SHA-256 of sources that nobody has worked out yet; reads nothing."""
        return recording.manifest(self.opened, self.checkpoint, self.operations, self.others)

    def check_unchanged(self) -> None:
        """Raises CheckpointError if a source was written to since it was opened."""
        for source in self.sources:
            if source.container is not None:
                source.container.check_unchanged()

    def identified(self) -> Network:
        """The network with its source's SHA-256 worked out, for which that is read once: so no save has to."""
        if self.history is not None:  # which has that of the first source
            return self
        return replace(self, opened=replace(self.opened, source=self.source.with_digest()))

    def is_written(
        self,
        output: str | os.PathLike[str],
        *,
        names: Names = "torchvision",
        share_blocks: bool = False,
        progress: Progress = silent,
    ) -> bool:
        """Whether the file `output` and its manifest are there already, byte for byte as `save` would write them.
        Raises CheckpointError for a damaged source.
        """
        return is_written(self._document(names, share_blocks), Path(output), progress)

    def check(
        self,
        output: str | os.PathLike[str] | None = None,
        *,
        names: Names = "torchvision",
        share_blocks: bool = False,
    ) -> None:
        """Raises CheckpointError if the file `output`, or the stream, would be one that nobody could open; reads and
        writes nothing.
        """
        form = SAFETENSORS if output is None else form_of(Path(output))
        content = self._document(names, share_blocks)
        content.check_manifest()
        form.layout(content)

    def save(
        self,
        output: str | os.PathLike[str],
        *,
        force: bool = False,
        names: Names = "torchvision",
        share_blocks: bool = False,
        progress: Progress = silent,
    ) -> Path:
        """Writes the file `output` and, beside it, the manifest (`model.json` for `model.safetensors`).

        The form follows the name: safetensors, or for .pth, .pt, .pth.tar, .ckpt and .bin what torch.save writes. With
        `share_blocks` the tensors are placed so that a file system that shares blocks (XFS, btrfs) keeps one copy of
        what was not changed.
        Returns the file's path. Raises AccessError if the file exists and not `force`, or cannot be written; then
        nothing was changed.
        """
        return write(self._read(names, share_blocks), Path(output), force=force, progress=progress)

    def stream(self, descriptor: int, *, names: Names = "torchvision", progress: Progress = silent) -> None:
        """Sends the safetensors file to an open descriptor, such as a pipe's."""
        stream(self._read(names, share_blocks=False), descriptor, progress)

    @property
    def notes(self) -> tuple[str, ...]:
        """What people should know of it before they use it, as the manifest says."""
        return notes_of(self.recorded)

    @property
    def packing(self) -> Packing:
        """The state_dict that the network stands in, and what was saved beside it. Raises CheckpointError if a tensor
        of it cannot be read.
        """
        container = self.source.container
        return packing(container.root, self.source.found) if container else Packing(self.opened.tensors)

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
        operations, origin = list(self.operations), self.source.origin
        if self.history is not None and self.source.is_anonymous:
            operations = [*map(documents.operation_from_record, self.history.operations), *operations]
            origin = self.history.source
        weights = _weights(origin) if self.label == origin.architecture else []
        parts = [self.label, *weights, *(operation.suffix for operation in operations)]
        return file_name("-".join(parts)) + ".safetensors"

    def read_ahead(self) -> None:
        """Begins to read the source for its digest, which `save` and `stream` need, while other things are done."""
        if self.history is None:  # which has that of the first source
            self.source.read_ahead()

    def _read(self, names: Names, share_blocks: bool) -> Document:
        """The document, of which the source is read for its digest while the manifest is still being made."""
        self.read_ahead()
        return self._document(names, share_blocks)

    def _document(self, names: Names, share_blocks: bool) -> Document:
        for operation in self.operations:
            if names == "packed" and not operation.keeps_packing:
                reason = "a network that it has changed no longer fits what it was packed with"
                raise OperationError(reason, subject=operation.name)
        try:
            others = tuple(other.source for other in self.others)
            change = Change(self.source, self.opened.tensors, self.tensors, others)
            return document(change, self.recorded, names, share_blocks=share_blocks)
        except CheckpointError as error:
            raise error.about(self.source.subject) from None


def _opened(other: Other) -> Opened:
    """Another network that an operation takes. Raises UsageError for one that nobody can open again."""
    if isinstance(other, int):
        raise UsageError("another network is a path, a model's name, or an opened network, not a number")
    if isinstance(other, Unopened):
        return open(other.location, **other.opening).opened
    network = other if hasattr(other, "checkpoint") else open(other)
    if not isinstance(network, Network) or network.operations:
        hint = "save it, and give the path of what was saved"
        raise UsageError("it was changed since it was opened, and is in no file", subject=str(network), hint=hint)
    return network.opened


def _weights(origin: Origin) -> list[str]:
    """What tells a model's weights from its default ones, in a file's name."""
    if origin.weights == "random":
        return ["random", *([f"seed{origin.seed}"] if origin.seed else [])]
    default = any(
        entry.is_default
        for entry in catalog.entries()
        if (entry.architecture, entry.weights) == (origin.architecture, origin.weights)
    )
    return [] if default or origin.weights is None else [origin.weights]


def open(
    source: Location | OpenFile = DEFAULT_NAME,
    *,
    weights: str | None = None,
    seed: int = 0,
    key: str | None = None,
    assume: str | Mapping[str, object] | None = None,
    fc: str | None = None,
    ignore: Sequence[str] = (),
    manifest: str | os.PathLike[str] | None = None,
    progress: Progress = silent,
) -> Network:
    """Opens a model name (`weights`: DEFAULT, IMAGENET1K_V1, IMAGENET1K_V2 or random), a checkpoint's path, `-` for
    standard input, bytes, or a binary stream.

    `key` chooses one of several networks in a file. `assume` states what tensors do not show, where it is not
    torchvision's: `"caffe,eps=0"`, or values by name, `{"strides": (1, 2, 2, 1)}`. `fc` is the name in the file of the
    linear layer that is the classifier, or `none`. `ignore` are patterns (as a shell's) of the names of layers that may
    be left out, though the data passes through them. `manifest` is the path of the file's manifest, if that is neither
    in the file nor beside it under the same name in .json; of such a file every tensor may have been trained since.

    Raises UsageError, AccessError, WeightsError, or CheckpointError for what is no ResNet of torchvision's kind.
    """
    if isinstance(source, PassingInput):  # while the command before it starts
        documents.prepare()
    found = open_source(source, weights, seed, key, progress, fc, ignore, manifest, assume)
    try:
        opened = recognised(found)
    except CheckpointError as error:
        raise error.about(found.subject) from None
    return Network(opened, opened.checkpoint)
