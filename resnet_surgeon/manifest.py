"""The manifest: one JSON document that says what a file's network is, how it came about, and how to use it.

Writes, reads and validates the document. Knows nothing of how tensors are made or files written.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from resnet_surgeon import fields
from resnet_surgeon.architecture.facts import Assumed
from resnet_surgeon.architecture.preprocessing import Preprocessing
from resnet_surgeon.architecture.recognise import FLOATS
from resnet_surgeon.architecture.spec import HEAD_NAME, Architecture, OutputKind
from resnet_surgeon.arithmetic.formulas import MOST_INPUTS, Formula
from resnet_surgeon.arithmetic.laws import Law
from resnet_surgeon.dataclass import dataclass
from resnet_surgeon.errors import CheckpointError, UsageError
from resnet_surgeon.fields import Count, Line, Name, Range, Seed, Size, Text, decoded, plain, unsaid
from resnet_surgeon.formats.json_text import parsed
from resnet_surgeon.formats.tensors import LazyTensor
from resnet_surgeon.operations import RECORDED
from resnet_surgeon.operations.channels import ChannelNames
from resnet_surgeon.operations.checkpoint import MOST_SOURCES, Operation, others_of
from resnet_surgeon.operations.training import TensorName, Training
from resnet_surgeon.sources.origin import Origin
from resnet_surgeon.sources.sidecar import MANIFEST_LIMIT
from resnet_surgeon.upgrades import upgraded

FORMAT_VERSION = 2  # 1: formulas were words
MOST_OPERATIONS = 100  # one after the other, each of which may put a formula round the last one's

_MOST_BEHIND = 1000  # tensors from which one is computed, those on the way counted

# A tensor's name, or `heads 2/fc.weight`: the operation that draws it, and its place in the history.
Stream = Annotated[str, Text("a stream of random numbers", r"([a-z]+ [0-9]+/)?[A-Za-z0-9_.]+", 240)]
Dtype = Annotated[str, Text("a dtype that a ResNet has", "|".join((*FLOATS, "I64")))]
Version = Annotated[str, Text("a version", r"[A-Za-z0-9_.+!-]+", 100)]


@dataclass(frozen=True)
class Kept:
    """The bytes of a source's tensor of this name: of the first source, or of the other one of this number."""

    tensor: Name
    how: Literal["kept"] = "kept"
    source: Annotated[int, Range(0, MOST_SOURCES)] = unsaid(0)


@dataclass(frozen=True)
class Computed:
    """Worked out by a formula from other tensors, as many as it takes."""

    formula: Formula
    inputs: Annotated[tuple[Provenance, ...], Count(1, MOST_INPUTS)]
    how: Literal["computed"] = "computed"


@dataclass(frozen=True)
class Initialised:
    """Drawn from a law with a seed, in the stream of random numbers of this name."""

    law: Law
    seed: Seed
    stream: Stream
    how: Literal["initialised"] = "initialised"


@dataclass(frozen=True)
class Trained:
    """Trained since it was what `began` says, if it is not the same to the bit by chance: that is all that is known."""

    began: Kept | Computed | Initialised
    how: Literal["trained"] = "trained"


Provenance = Kept | Computed | Initialised | Trained


@dataclass(frozen=True)
class TensorRecord:
    """A tensor of the file: its dtype (a safetensors name) and where its numbers are from. Its shape follows from the
    architecture.
    """

    dtype: Dtype
    provenance: Provenance


@dataclass(frozen=True)
class Inputs:
    """What the network takes: images of so many channels, prepared so (null: not known). `channel_names` are there
    once somebody named them; a channel without a name has its number.
    """

    channels: Size
    preprocessing: Preprocessing | None
    channel_names: ChannelNames = unsaid(())


@dataclass(frozen=True)
class Output:
    """One output for an image of 224x224: `shape` is [classes], [channels] or [channels, height, width]."""

    name: Annotated[str, Text("the name of an output, such as heads have", HEAD_NAME.pattern)]
    kind: OutputKind
    shape: Annotated[tuple[Size, ...], Count(1, 3)]
    classes: Size | None
    categories: tuple[Line, ...] | None


@dataclass(frozen=True)
class OtherSource:
    """A checkpoint that an operation took tensors from, besides the first source. What it was itself made from is its
    own manifest's matter. `facts` are what its tensors do not show.
    """

    origin: Origin
    facts: Annotated[tuple[Assumed, ...], Count(0, 20)] = unsaid(())


@dataclass(frozen=True)
class Manifest:
    """The document. `operations` are single-key objects, {name: {option: value}}, in the order in which they were
    applied to `source`; `facts` are what tensors do not show, as they were taken of `source`. The operations name
    `other_sources` by their numbers, from 1 on, and `dropped` are tensors of the first source alone. `share_blocks`:
    the file's bytes are placed so that a file system can share blocks with the sources.
    """

    architecture: Architecture
    inputs: Inputs
    outputs: Annotated[tuple[Output, ...], Count(1, 1 << 16)]
    operations: Annotated[tuple[Mapping[str, Any], ...], Count(0, MOST_OPERATIONS)]
    source: Origin
    tensors: Mapping[TensorName, TensorRecord]
    dropped: tuple[Name, ...]
    versions: Annotated[Mapping[Version, Version], Count(0, 100)]
    facts: Annotated[tuple[Assumed, ...], Count(0, 20)] = ()
    notes: Annotated[tuple[Line, ...], Count(0, 100)] = ()
    other_sources: Annotated[tuple[OtherSource, ...], Count(0, MOST_SOURCES)] = unsaid(())
    share_blocks: bool = unsaid(False)
    format_version: int = FORMAT_VERSION

    def to_json(self) -> str:
        """The document's one text, with keys sorted and no time, path or machine: equal manifests are equal bytes.

        Raises CheckpointError for what JSON cannot say, or is too long.
        """
        try:
            text = json.dumps(plain(self), sort_keys=True, indent=1, ensure_ascii=False) + "\n"
        except (ValueError, RecursionError) as error:
            raise _not_valid(error) from None
        if len(text.encode()) > MANIFEST_LIMIT:
            raise CheckpointError(f"its manifest would be longer than {MANIFEST_LIMIT} bytes")
        return text

    def check(self) -> None:
        """Raises CheckpointError if `from_json` would not read the text of this manifest again."""
        try:
            _validated(plain(self))
        except (ValueError, RecursionError, CheckpointError) as error:
            raise _not_valid(error) from None


def _not_valid(error: Exception) -> CheckpointError:
    return CheckpointError(f"its manifest would not be valid: {_reason(error)}")


def operation_record(operation: Operation) -> dict[str, Any]:
    """The operation as it stands in a manifest: {name: {option: value}}."""
    return {operation.name: plain(operation)}


def operation_from_record(record: Mapping[str, Any]) -> Operation:
    """The operation that a record describes. Raises CheckpointError for one that is not known, or whose options are
    wrong.
    """
    if len(record) != 1 or next(iter(record)) not in RECORDED:
        raise CheckpointError(f"an operation is one of {', '.join(RECORDED)}")
    ((name, options),) = record.items()
    try:
        operation: Operation = decoded(RECORDED[name], options)
        if not all(type(other) is int for other in others_of(operation)):
            raise ValueError("it names another source by its number")
    except UsageError as error:
        raise CheckpointError(f"operation {name}: {error.what}") from None
    except ValueError as error:
        raise CheckpointError(f"operation {name}: {error}") from None
    return operation


def joined(records: Iterable[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    """The records with neighbours that tell of training as one: however often it was saved in between."""
    history: list[Mapping[str, Any]] = []
    for record in records:
        if history and record.keys() == history[-1].keys() == {Training.name}:
            both = [*history.pop()[Training.name]["tensors"], *record[Training.name]["tensors"]]
            record = {Training.name: {"tensors": sorted(set(both))}}
        history.append(record)
    return tuple(history)


def trained_since(manifest: Manifest, tensors: Mapping[str, LazyTensor]) -> Manifest:
    """The manifest of the network when something else has saved it since: any of its tensors may have been trained."""
    operations = joined((*manifest.operations, operation_record(Training(tuple(sorted(tensors))))))
    records = {
        name: TensorRecord(tensors[name].dtype, record.provenance)
        if isinstance(record.provenance, Trained)
        else TensorRecord(tensors[name].dtype, Trained(record.provenance))
        for name, record in manifest.tensors.items()
    }
    stated = {head.name: head.labels or None for head in manifest.architecture.heads}
    outputs = tuple(replace(output, categories=stated.get(output.name)) for output in manifest.outputs)
    return replace(manifest, operations=operations, tensors=records, outputs=outputs, notes=())


def prepare() -> None:
    """Gets ready to read a manifest, for a time of waiting: the first one takes three times as long as the next."""
    fields.prepare(Manifest)


def from_json(text: str) -> Manifest:
    """The manifest in `text`, as this version has it if an earlier one wrote it.

    Raises CheckpointError for what is not JSON, of a newer format, or not exactly of the schema.
    """
    if len(text) > MANIFEST_LIMIT:
        raise CheckpointError(f"its manifest is longer than {MANIFEST_LIMIT} bytes")
    document = parsed(text, "its manifest")
    version = document.get("format_version") if isinstance(document, dict) else None
    if type(version) is not int or not 1 <= version <= FORMAT_VERSION:
        newer = type(version) is int and FORMAT_VERSION < version < 1000
        raise CheckpointError(
            f"its manifest's format_version is {version if newer else 'unknown'}, this version reads 1 to "
            f"{FORMAT_VERSION}",
            hint="update resnet-surgeon" if newer else None,
        )
    try:
        return _validated(upgraded(document, version))
    except (ValueError, RecursionError, CheckpointError) as error:
        raise CheckpointError(f"its manifest is not valid: {_reason(error)}") from None


def _validated(document: Any) -> Manifest:
    """The manifest that a document describes, every option of its operations filled in. Raises ValueError or
    CheckpointError.
    """
    manifest: Manifest = decoded(Manifest, document)
    operations = tuple(map(operation_from_record, manifest.operations))
    manifest = replace(manifest, operations=tuple(map(operation_record, operations)))
    count = len(manifest.other_sources)
    if [other for operation in operations for other in others_of(operation)] != [*range(1, count + 1)]:
        raise ValueError("its operations do not name its other sources, each once and in order")
    for record in manifest.tensors.values():
        _check_formulas(record.provenance, count)
    return manifest


def made_from(provenance: Provenance) -> tuple[Provenance, ...]:
    """What a formula was given, or what training began with."""
    if isinstance(provenance, Computed):
        return provenance.inputs
    return (provenance.began,) if isinstance(provenance, Trained) else ()


def _check_formulas(provenance: Provenance, others: int) -> None:
    """Raises ValueError for formulas of formulas that would take anybody who works them out for ever, and for tensors
    of more sources than there are.
    """
    behind: list[Provenance] = [provenance]
    count = 0
    for _ in range(MOST_OPERATIONS + 1):
        if any(isinstance(one, Kept) and one.source > others for one in behind):
            raise ValueError(f"it has a tensor of another source than its {others + 1}")
        behind = [one for provenance in behind for one in made_from(provenance)]
        count += len(behind)
        if not behind:
            break
    if behind or count > _MOST_BEHIND:
        raise ValueError(
            f"it has formulas of formulas, more than {MOST_OPERATIONS} deep or of more than {_MOST_BEHIND} tensors"
        )


def is_manifest(text: bytes) -> bool:
    """Whether this tool wrote the document, in whatever version, valid or not."""
    try:
        document = parsed(text.decode(), "it")
        return type(document["format_version"]) is int and "resnet_surgeon" in document["versions"]
    except (ValueError, TypeError, KeyError, CheckpointError):
        return False


def _reason(error: Exception) -> str:
    if isinstance(error, CheckpointError):
        return error.reason
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)


def differing_fields(one: Manifest, other: Manifest) -> tuple[str, ...]:
    """Where two manifests differ: the paths of their fields, such as `architecture.heads[0].classes`."""

    def compare(a: Any, b: Any, where: str) -> Iterator[str]:
        if isinstance(a, dict) and isinstance(b, dict):
            for key in sorted(a.keys() | b.keys()):
                yield from compare(a.get(key), b.get(key), f"{where}.{key}" if where else key)
        elif isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)) and len(a) == len(b):
            for index, (left, right) in enumerate(zip(a, b, strict=True)):
                yield from compare(left, right, f"{where}[{index}]")
        elif a != b:
            yield where

    return tuple(compare(plain(one), plain(other), ""))


def published_schema() -> dict[str, Any]:
    """The schema that ships with this package."""
    return dict(json.loads(Path(__file__).with_name("manifest.schema.json").read_text("utf-8")))
