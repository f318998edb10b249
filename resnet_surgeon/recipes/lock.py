"""The lock beside a recipe: the size and SHA-256 of every output that it made, so that changed ones are known again.

`recipe.lock.json` for `recipe.yaml`. Knows files and digests alone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Any

from resnet_surgeon.dataclass import dataclass
from resnet_surgeon.errors import AccessError
from resnet_surgeon.fields import Digest, Name, decoded, plain
from resnet_surgeon.formats.files import OpenFile
from resnet_surgeon.writing.unchanged import digest
from resnet_surgeon.writing.write import write_text

_LIMIT = 1 << 24  # bytes


@dataclass(frozen=True)
class Output:
    """A file as it was written."""

    size: int
    sha256: Digest


@dataclass(frozen=True)
class Lock:
    """The lock at `path`, with the outputs by their paths as the recipe names them."""

    path: Path
    outputs: Mapping[str, Output] = field(default_factory=dict)

    @classmethod
    def beside(cls, recipe: Path) -> Lock:
        """That of a recipe, empty where there is none. Raises AccessError for a file that is no lock."""
        path = recipe.with_suffix(".lock.json")
        if not path.exists():
            return cls(path)
        file = OpenFile.at(path)
        try:
            document: Any = json.loads(file.read(0, file.size)) if file.size <= _LIMIT else None
            return cls(path, decoded(Mapping[Name, Output], document["outputs"]))
        except (ValueError, TypeError, KeyError, RecursionError):
            hint = "move it away, and run the recipe again"
            raise AccessError("it is not a lock that this tool wrote", subject=str(path), hint=hint) from None

    def holds(self, output: Path) -> bool:
        """Whether the file is, byte for byte, what was made last."""
        known = self.outputs.get(str(output))
        if known is None or not output.is_file() or os.path.getsize(output) != known.size:
            return False
        return digest(output) == (known.size, known.sha256)

    def with_digests(self, made: Mapping[str, tuple[int | None, str | None]]) -> Lock:
        """The lock after these outputs, by path, have these sizes and digests."""
        new = {path: Output(size, sha256) for path, (size, sha256) in made.items() if size is not None and sha256}
        return Lock(self.path, {**self.outputs, **new})

    def write(self) -> None:
        """Writes it, unless it stands there already. Raises AccessError."""
        document = {"outputs": {path: plain(output) for path, output in self.outputs.items()}}
        text = json.dumps(document, sort_keys=True, indent=1, ensure_ascii=False) + "\n"
        if not self.path.exists() or self.path.read_text("utf-8", "replace") != text:
            write_text(text, self.path)
