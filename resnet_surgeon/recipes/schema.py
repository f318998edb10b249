"""The JSON Schema of recipes, for editors: from the operations' own fields. Reads and builds nothing."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from resnet_surgeon.fields import hints_of
from resnet_surgeon.operations import OPERATIONS
from resnet_surgeon.operations.checkpoint import takes_one_other
from resnet_surgeon.recipes.reading import NAMES, OPENING, options, others, spellings

_VARIABLE = {"type": "string", "pattern": r"\$\{[A-Za-z_][A-Za-z0-9_]*\}"}
_SOURCE = {"type": "string", "description": "A model name, or a checkpoint's path or URL."}
_VALUE = {"type": ["string", "number", "boolean", "null", "array"]}


def published() -> dict[str, Any]:
    """The schema that ships with this package."""
    path = Path(__file__).parent.parent / "recipe.schema.json"
    return dict(json.loads(path.read_text("utf-8")))


def schema(of_type: Any) -> dict[str, Any]:
    """The schema; `of_type` gives that of a field's type (pydantic's, which is not imported here)."""

    definitions: dict[str, Any] = {}

    def option(hint: Any) -> dict[str, Any]:
        made = dict(of_type(hint))
        definitions.update(made.pop("$defs", {}))
        return {"anyOf": [made, _VARIABLE]}

    operations = [_operation(name, kind, option) for name, kind in OPERATIONS.items()]
    bare = {"enum": [name for name, kind in OPERATIONS.items() if not _required(kind)]}
    opening = {name: option(hint) for name, hint in OPENING.items()}
    definitions["place"] = _place(opening)
    names = {"enum": list(NAMES), "description": "What the tensors are called."}
    document = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A recipe of resnet-surgeon",
        "type": "object",
        "required": ["operations"],
        "additionalProperties": False,
        "properties": {
            "source": _SOURCE,
            **opening,
            "names": {"anyOf": [names, _VARIABLE]},
            "variables": {"type": "object", "additionalProperties": _VALUE},
            "matrix": {"type": "object", "additionalProperties": {"type": "array", "minItems": 1, "items": _VALUE}},
            "operations": {"type": "array", "items": {"anyOf": [*operations, *([bare] if bare["enum"] else [])]}},
            "output": {
                "type": "string",
                "description": "The file to write; left out: a name from source and operations.",
            },
            "share_blocks": {
                **option(bool),
                "description": "Place the tensors so that a file system can share their blocks with the source's.",
            },
        },
    }
    return {**document, "$defs": definitions} if definitions else document


def _required(kind: Any) -> set[str]:
    return {field.name for field in options(kind) if field.default is dataclasses.MISSING}


def _place(opening: dict[str, Any]) -> dict[str, Any]:
    """Another network: where it is, and how it is opened."""
    stated = {
        "type": "object",
        "required": ["source"],
        "additionalProperties": False,
        "properties": {"source": _SOURCE, **opening},
    }
    return {"anyOf": [{"type": "string"}, stated]}


def _operation(name: str, kind: Any, option: Any) -> dict[str, Any]:
    hints, known = hints_of(kind), spellings(kind)
    helps = {field.name: field.metadata["help"] for field in options(kind)}
    required = [
        {"anyOf": [{"required": [spelling]} for spelling, of in known.items() if of == field]}
        for field in sorted(_required(kind))
    ]
    place = {"$ref": "#/$defs/place"}

    def holds(field: str) -> dict[str, Any]:
        if field not in others(kind):
            return dict(option(hints[field]))
        many = {"anyOf": [place, {"type": "array", "minItems": 1, "items": place}]}
        return dict(place) if takes_one_other(kind) else many

    described: dict[str, Any] = {
        "type": "object",
        "additionalProperties": False,
        "properties": {spelling: {**holds(field), "description": helps[field]} for spelling, field in known.items()},
    }
    if required:
        described["allOf"] = required
    return {
        "type": "object",
        "description": (kind.__doc__ or "").split("\n")[0],
        "required": [name],
        "additionalProperties": False,
        "properties": {name: described if required else {"anyOf": [described, {"type": "null"}]}},
    }
