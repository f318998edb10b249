"""Writes what follows from the code: docs/cli.md and the manual page from the app, the schemas. Tests check it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import man
from pydantic import TypeAdapter

from resnet_surgeon.fields import unsaid_names
from resnet_surgeon.manifest import FORMAT_VERSION, Manifest
from resnet_surgeon.operations import RECORDED
from resnet_surgeon.recipes import schema as recipes

DOCS = Path(__file__).resolve().parent
SCHEMA = DOCS.parent / "resnet_surgeon" / "manifest.schema.json"
MAN = DOCS / "resnet-surgeon.1"
RECIPES = SCHEMA.with_name("recipe.schema.json")


def cli_page() -> str:
    """The reference of the command line, by typer's own generator."""
    command = [sys.executable, "-m", "typer", "resnet_surgeon.cli.app", "utils", "docs"]
    command += ["--name", "resnet-surgeon", "--title", "Command line"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.rstrip() + "\n"


def manifest_schema() -> dict[str, Any]:
    """The JSON Schema of manifests, by pydantic from the dataclasses."""
    document = TypeAdapter(Manifest).json_schema(mode="serialization")
    operations: list[dict[str, Any]] = []
    for name, operation in RECORDED.items():
        options = TypeAdapter(operation).json_schema(mode="serialization")
        one = {"type": "object", "required": [name], "properties": {name: options}, "additionalProperties": False}
        operations.append(one)
    document["properties"]["operations"]["items"] = {"oneOf": operations}
    unsaid = {
        kind.__name__: names for top in (Manifest, *RECORDED.values()) for kind, names in unsaid_names(top).items()
    }
    every_option = (item for one in operations for item in one["properties"].values())
    for definition in [document, *document["$defs"].values(), *every_option]:
        if definition.get("type") == "object" and "properties" in definition:
            definition["additionalProperties"] = False
            definition["required"] = sorted(
                definition["properties"].keys() - unsaid.get(definition["title"], frozenset())
            )
    document["properties"]["format_version"] = {"const": FORMAT_VERSION}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **document}


def recipe_schema() -> dict[str, Any]:
    """The JSON Schema of recipes."""
    return recipes.schema(lambda hint: TypeAdapter(hint).json_schema(mode="serialization"))


if __name__ == "__main__":
    MAN.write_text(man.page(), "utf-8")
    RECIPES.write_text(json.dumps(recipe_schema(), indent=1) + "\n", "utf-8")
    (DOCS / "cli.md").write_text(cli_page(), "utf-8")
    SCHEMA.write_text(json.dumps(manifest_schema(), indent=1) + "\n", "utf-8")
