"""The whole program, as typer takes it."""

from __future__ import annotations

from resnet_surgeon.cli.commands import declared

app = declared()
