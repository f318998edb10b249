"""The manifest beside a file, or one that a user names in its place: its text, not yet understood.

Knows how files are named and how long a manifest may be, and nothing of what it says.
"""

from __future__ import annotations

import os
from pathlib import Path

from resnet_surgeon.dataclass import dataclass
from resnet_surgeon.errors import AccessError, CheckpointError
from resnet_surgeon.formats.files import OpenFile

MANIFEST_KEY = "resnet_surgeon.manifest"  # where a file holds its manifest itself
NAMES_KEY = "resnet_surgeon.names"  # and whose names its tensors have, if they are not the manifest's
MANIFEST_LIMIT = 1 << 26  # bytes of a manifest, in whatever place it stands
ENDINGS = (".safetensors", ".pth.tar", ".pth", ".pt", ".ckpt", ".bin")  # of files that can have a manifest beside them


@dataclass(frozen=True)
class Sidecar:
    """The text of the file `name`, which the user named, or which lies beside the checkpoint, and may be anything."""

    name: str
    text: str
    is_named: bool


def manifest_path(path: Path) -> Path:
    """Where the manifest of the file `path` stands: `model.json` for `model.safetensors` and for `model.pth`."""
    return path.with_name(path.name[: len(path.name) - len(ending(path) or "")] + ".json")


def ending(path: Path) -> str | None:
    """The ending of a name that is more than that."""
    name = path.name.lower()
    return next((ending for ending in ENDINGS if name.endswith(ending) and name != ending), None)


def named(path: str | os.PathLike[str]) -> Sidecar:
    """Raises AccessError for what cannot be read, CheckpointError for what is too long for a manifest."""
    name = os.fspath(path)
    return Sidecar(name, _text(OpenFile.at(name)), is_named=True)


def beside(file: OpenFile) -> Sidecar | None:
    """What stands where the manifest of the file would, if the file has a folder and there is something."""
    if file.folder is None or ending(Path(file.name)) is None:
        return None
    path = file.folder / manifest_path(Path(file.name)).name
    try:
        text = _text(OpenFile.at(path))
    except (AccessError, CheckpointError):
        return None
    return Sidecar(path.name, text, is_named=False)


def _text(file: OpenFile) -> str:
    if file.size > MANIFEST_LIMIT:
        raise CheckpointError(f"it is longer than {MANIFEST_LIMIT} bytes, so it is not a manifest", subject=file.name)
    return file.read(0, file.size).decode("utf-8", "replace")
