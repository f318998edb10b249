"""From a network to its manifest: continues the history that the source has, so that a pipe, a chain and files in
between give the same result. Reads nothing and writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from resnet_surgeon import manifest as documents
from resnet_surgeon._version import __version__
from resnet_surgeon.architecture.outputs import outputs
from resnet_surgeon.architecture.spec import Head
from resnet_surgeon.formats.tensors import Computed, Initialised, LazyTensor, Trained
from resnet_surgeon.history.notes import notes_of
from resnet_surgeon.history.opening import Opened
from resnet_surgeon.operations.checkpoint import Checkpoint, Operation
from resnet_surgeon.plan import by_identity


def manifest(
    opened: Opened, now: Checkpoint, operations: tuple[Operation, ...], others: Sequence[Opened] = ()
) -> documents.Manifest:
    """The manifest of the network that `operations` made of `opened`, and of `others` besides; without the SHA-256 of a
    source where nobody has worked it out yet. How a file is laid out is not the network's matter.
    """
    history = opened.history
    if history is not None and not operations:
        return replace(history, share_blocks=False)
    made, behind = records(opened, now.tensors, others), done(opened, operations)
    known = _kept_names(records(opened, opened.tensors)) | set(history.dropped if history else ())
    document = documents.Manifest(
        architecture=now.architecture,
        inputs=documents.Inputs(now.architecture.in_channels, now.preprocessing, now.channel_names),
        outputs=_outputs(now),
        operations=behind,
        source=history.source if history else opened.source.known,
        tensors=made,
        dropped=tuple(sorted(known - _kept_names(made))),
        versions={"resnet_surgeon": __version__},
        facts=opened.facts,
        other_sources=(
            *(history.other_sources if history else ()),
            *(documents.OtherSource(other.source.known, other.facts) for other in others),
        ),
    )
    return replace(document, notes=notes_of(document))


def first_number(opened: Opened) -> int:
    """The number of the next other source: those that `opened` has behind it are numbered before."""
    return 1 + (len(opened.history.other_sources) if opened.history else 0)


def done(opened: Opened, operations: tuple[Operation, ...]) -> tuple[Mapping[str, Any], ...]:
    """All operations behind the network, those before it was opened too, as they are recorded."""
    history = opened.history.operations if opened.history else ()
    return documents.joined((*history, *map(documents.operation_record, operations)))


def records(
    opened: Opened, tensors: Mapping[str, LazyTensor], others: Sequence[Opened] = ()
) -> dict[str, documents.TensorRecord]:
    """Where each of the tensors is from: those of `opened` by its own history, those of the others by their files."""
    names, parts = by_identity(opened.tensors), by_identity(opened.source.found.parts)
    elsewhere = {
        id(tensor): provenance
        for number, other in enumerate(others, first_number(opened))
        for provenance, tensor in in_file(other, number).items()
    }

    def provenance(tensor: LazyTensor) -> documents.Provenance:
        name = names.get(id(tensor))
        if name is not None and opened.history is not None:
            return opened.history.tensors[name].provenance
        if isinstance(tensor, Initialised):
            return documents.Initialised(tensor.law, tensor.seed, tensor.stream)
        if isinstance(tensor, Computed):
            return documents.Computed(tensor.formula, tuple(provenance(source) for source in tensor.inputs))
        if name is not None:
            return documents.Kept(opened.source.found.names.get(name, name))
        if isinstance(tensor, Trained):
            began = provenance(tensor.began)
            return began if isinstance(began, documents.Trained) else documents.Trained(began)
        return elsewhere.get(id(tensor)) or documents.Kept(parts[id(tensor)])

    return {name: documents.TensorRecord(tensor.dtype, provenance(tensor)) for name, tensor in tensors.items()}


def in_file(other: Opened, number: int) -> dict[documents.Kept, LazyTensor]:
    """The tensors in the file of another source, which has this number: its own history is not told again."""
    parts = other.source.found.parts
    return {
        **{kept: other.tensors[name] for name, kept in names_in_file(other, number).items()},
        **{documents.Kept(name, source=number): tensor for name, tensor in parts.items()},
    }


def names_in_file(other: Opened, number: int) -> dict[str, documents.Kept]:
    """What the tensors of another source are in its file, by torchvision's names."""
    names = other.source.found.names
    return {name: documents.Kept(names.get(name, name), source=number) for name in other.tensors}


def _outputs(now: Checkpoint) -> tuple[documents.Output, ...]:
    return tuple(
        documents.Output(
            output.name,
            output.kind,
            output.shape,
            output.classes,
            _categories(now, output.head) if output.head else None,
        )
        for output in outputs(now.architecture)
    )


def _categories(now: Checkpoint, head: Head) -> tuple[str, ...] | None:
    """The names of the head's classes: as stated for it, else those of its linear layer, while that is still the one
    that they are known of.
    """
    weight = now.tensors[f"{now.architecture.prefix(head)}{head.last}.weight"]
    return head.labels or now.categories_of(weight)


def _kept_names(made: Mapping[str, documents.TensorRecord]) -> set[str]:
    """The first source's tensors that are kept, or that others are computed from."""

    def names(provenance: documents.Provenance) -> Iterator[str]:
        if isinstance(provenance, documents.Kept) and provenance.source == 0:
            yield provenance.tensor
        for source in documents.made_from(provenance):
            yield from names(source)

    return {name for record in made.values() for name in names(record.provenance)}
