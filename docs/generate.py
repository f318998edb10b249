"""Writes what follows from the code: docs/cli.md from the app, and the schema of manifests; tests check both."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from resnet_surgeon.manifest import schema

DOCS = Path(__file__).resolve().parent
SCHEMA = DOCS.parent / "resnet_surgeon" / "manifest.schema.json"


def cli_page() -> str:
    """The reference of the command line, by typer's own generator."""
    command = [sys.executable, "-m", "typer", "resnet_surgeon.cli.app", "utils", "docs"]
    command += ["--name", "resnet-surgeon", "--title", "Command line"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.rstrip() + "\n"


if __name__ == "__main__":
    (DOCS / "cli.md").write_text(cli_page(), "utf-8")
    SCHEMA.write_text(json.dumps(schema(), indent=1) + "\n", "utf-8")
