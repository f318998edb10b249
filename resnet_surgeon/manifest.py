"""The manifest: one JSON document that says what a file's network is, how it came about, and how to use it.

Writes, reads and validates the document. Knows nothing of how tensors are made or files written.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from resnet_surgeon.architecture.initialisation import Law
from resnet_surgeon.architecture.spec import Architecture, OutputKind
from resnet_surgeon.errors import CheckpointError
from resnet_surgeon.operations import OPERATIONS
from resnet_surgeon.operations.checkpoint import Operation
from resnet_surgeon.sources.catalog import Preprocessing
from resnet_surgeon.sources.source import Origin

if TYPE_CHECKING:
    from pydantic import TypeAdapter

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
    from pydantic import TypeAdapter, ValidationError

    if len(record) != 1 or next(iter(record)) not in OPERATIONS:
        raise CheckpointError(f"an operation is one of {', '.join(OPERATIONS)}")
    ((name, options),) = record.items()
    try:
        return TypeAdapter(OPERATIONS[name]).validate_python(options)
    except ValidationError as error:
        raise CheckpointError(f"operation {name}: {_first(error)}") from None


def from_json(text: str) -> Manifest:
    """The manifest in `text`. Raises CheckpointError for what is not JSON, of a newer format, or not exactly of the
    schema.
    """
    from pydantic import ValidationError

    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise CheckpointError("its manifest is not JSON") from None
    version = document.get("format_version") if isinstance(document, dict) else None
    if version != FORMAT_VERSION:
        newer = type(version) is int and version > FORMAT_VERSION
        raise CheckpointError(
            f"its manifest's format_version is {version if newer else 'unknown'}, this version reads {FORMAT_VERSION}",
            hint="update resnet-surgeon" if newer else None,
        )
    try:
        manifest = _adapter().validate_python(document)
    except (ValidationError, RecursionError) as error:
        raise CheckpointError(f"its manifest is not valid: {_first(error)}") from None
    for record in manifest.operations:
        operation_from_record(record)
    # Validation passes over fields that it does not know and takes true for 1; the round trip does not.
    if json.dumps(_adapter().dump_python(manifest, mode="json"), sort_keys=True) != json.dumps(
        document, sort_keys=True
    ):
        raise CheckpointError("its manifest is not valid: it has fields or values that the format does not know")
    return manifest


@functools.cache
def _adapter() -> TypeAdapter[Manifest]:
    from pydantic import TypeAdapter

    return TypeAdapter(Manifest)


def schema() -> dict[str, Any]:
    """The JSON Schema of manifests, as it is published in `manifest.schema.json` in this package."""
    from pydantic import TypeAdapter

    document = _adapter().json_schema(mode="serialization")
    operations: list[dict[str, Any]] = []
    for name, operation in OPERATIONS.items():
        options = TypeAdapter(operation).json_schema(mode="serialization")
        operations.append(
            {"type": "object", "required": [name], "properties": {name: options}, "additionalProperties": False}
        )
    document["properties"]["operations"]["items"] = {"oneOf": operations}
    for definition in [
        document,
        *document["$defs"].values(),
        *(item for one in operations for item in one["properties"].values()),
    ]:
        if definition.get("type") == "object" and "properties" in definition:
            definition["additionalProperties"] = False
            definition["required"] = sorted(definition["properties"])
    document["properties"]["format_version"] = {"const": FORMAT_VERSION}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **document}


def published_schema() -> dict[str, Any]:
    """The schema that ships with this package."""
    return dict(json.loads(Path(__file__).with_name("manifest.schema.json").read_text("utf-8")))


def _first(error: Exception) -> str:
    """A validation error in one line: the first place and what is wrong there."""
    details = getattr(error, "errors", None)
    if details is None:
        return "it is nested too deeply"
    first = details(include_url=False, include_input=False)[0]
    return f"{'.'.join(str(part) for part in first['loc'][:4])}: {first['msg']}"


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
