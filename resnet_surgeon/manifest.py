"""The manifest: one JSON document that says what a file's network is, how it came about, and how to use it.

Writes, reads and validates the document. Knows nothing of how tensors are made or files written.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, cast, get_args, get_origin, get_type_hints

from resnet_surgeon.architecture.initialisation import Law
from resnet_surgeon.architecture.spec import Architecture, OutputKind
from resnet_surgeon.errors import CheckpointError, UsageError
from resnet_surgeon.operations import OPERATIONS
from resnet_surgeon.operations.checkpoint import Operation
from resnet_surgeon.sources.catalog import Preprocessing
from resnet_surgeon.sources.source import Origin

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Kept:
    """The bytes of the source's tensor of this name."""

    tensor: str
    how: Literal["kept"] = "kept"


@dataclass(frozen=True)
class Computed:
    """Worked out by a formula from other tensors."""

    formula: str
    inputs: tuple[Provenance, ...]
    how: Literal["computed"] = "computed"


@dataclass(frozen=True)
class Initialised:
    """Drawn from a law with a seed, in the stream of random numbers of this name."""

    law: Law
    seed: int
    stream: str
    how: Literal["initialised"] = "initialised"


Provenance = Kept | Computed | Initialised


@dataclass(frozen=True)
class TensorRecord:
    """A tensor of the file: its dtype (a safetensors name) and where its numbers are from. Its shape follows from the
    architecture.
    """

    dtype: str
    provenance: Provenance


@dataclass(frozen=True)
class Inputs:
    """What the network takes: images of so many channels, prepared so (null: not known)."""

    channels: int
    preprocessing: Preprocessing | None


@dataclass(frozen=True)
class Output:
    """One output for an image of 224x224: `shape` is [classes], [channels] or [channels, height, width]."""

    name: str
    kind: OutputKind
    shape: tuple[int, ...]
    classes: int | None
    categories: tuple[str, ...] | None


@dataclass(frozen=True)
class Manifest:
    """The document. `operations` are single-key objects, {name: {option: value}}, in the order in which they were
    applied to `source`.
    """

    architecture: Architecture
    inputs: Inputs
    outputs: tuple[Output, ...]
    operations: tuple[Mapping[str, Any], ...]
    source: Origin
    tensors: Mapping[str, TensorRecord]
    dropped: tuple[str, ...]
    versions: Mapping[str, str]
    format_version: int = FORMAT_VERSION

    def to_json(self) -> str:
        """The document's one text, with keys sorted and no time, path or machine: equal manifests are equal bytes."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True, indent=1, ensure_ascii=False) + "\n"


def operation_record(operation: Operation) -> dict[str, Any]:
    """The operation as it stands in a manifest: {name: {option: value}}."""
    return {operation.name: {field: _plain(value) for field, value in dataclasses.asdict(cast(Any, operation)).items()}}


def operation_from_record(record: Mapping[str, Any]) -> Operation:
    """The operation that a record describes. Raises CheckpointError for one that is not known, or whose options are
    wrong.
    """
    if len(record) != 1 or next(iter(record)) not in OPERATIONS:
        raise CheckpointError(f"an operation is one of {', '.join(OPERATIONS)}")
    ((name, options),) = record.items()
    try:
        operation: Operation = decoded(OPERATIONS[name], options)
    except (ValueError, UsageError) as error:
        raise CheckpointError(f"operation {name}: {error}") from None
    return operation


def from_json(text: str) -> Manifest:
    """The manifest in `text`. Raises CheckpointError for what is not JSON, of a newer format, or not exactly of the
    schema.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise CheckpointError("its manifest is not JSON") from None
    version = document.get("format_version") if isinstance(document, dict) else None
    if type(version) is not int or version != FORMAT_VERSION:
        newer = type(version) is int and version > FORMAT_VERSION
        raise CheckpointError(
            f"its manifest's format_version is {version if newer else 'unknown'}, this version reads {FORMAT_VERSION}",
            hint="update resnet-surgeon" if newer else None,
        )
    try:
        manifest: Manifest = decoded(Manifest, document)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"its manifest is not valid: {error}") from None
    for record in manifest.operations:
        operation_from_record(record)
    return manifest


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

    return tuple(compare(dataclasses.asdict(one), dataclasses.asdict(other), ""))


def published_schema() -> dict[str, Any]:
    """The schema that ships with this package."""
    return dict(json.loads(Path(__file__).with_name("manifest.schema.json").read_text("utf-8")))


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def decoded(hint: Any, value: Any, where: str = "") -> Any:
    """`value`, as JSON gives it, as the dataclass or other type `hint`: exactly, with no field more or less.

    By hand, since the libraries that do this take longer to import than a ResNet-50 takes to copy. Raises ValueError.
    """
    origin = get_origin(hint)
    if dataclasses.is_dataclass(hint):
        return _decoded_dataclass(hint, value, where)
    if origin in (Union, UnionType):
        return _decoded_union(get_args(hint), value, where)
    if origin is Literal:
        _require(any(type(value) is type(choice) and value == choice for choice in get_args(hint)), where, "is unknown")
        return value
    if origin is tuple:
        _require(type(value) is list, where, "is no list")
        return tuple(decoded(get_args(hint)[0], item, f"{where}[{index}]") for index, item in enumerate(value))
    if origin is Mapping:
        _require(type(value) is dict, where, "is no object")
        return {key: decoded(get_args(hint)[1], item, f"{where}.{key}") for key, item in value.items()}
    if hint is float and type(value) is int and abs(value) < 2**1000:
        return float(value)  # 1.0 and 1 are one number in JSON
    _require(hint is Any or type(value) is hint, where, f"is no {getattr(hint, '__name__', hint)}")
    return value


def _decoded_dataclass(kind: Any, value: Any, where: str) -> Any:
    _require(type(value) is dict, where, "is no object")
    hints = _hints(kind)
    for name in hints.keys() ^ value.keys():
        _require(False, where, f"has an unknown field {name}" if name in value else f"lacks the field {name}")
    return kind(**{name: decoded(hints[name], item, f"{where}.{name}") for name, item in value.items()})


def _decoded_union(hints: tuple[Any, ...], value: Any, where: str) -> Any:
    """The one type that fits: they differ in their Literal fields, or as JSON's own types do."""
    problems = []
    for hint in hints:
        try:
            return decoded(hint, value, where)
        except ValueError as error:
            problems.append(str(error))
    raise ValueError(problems[0])


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _require(condition: bool, where: str, problem: str) -> None:
    if not condition:
        raise ValueError(f"{where.lstrip('.') or 'it'} {problem}")
