"""Where an output may go: what stands in its place, and whether that may be replaced.

A manifest takes only a manifest's place, a page only a page's; and no two of output, manifest and source are one file,
by whatever names. Writes nothing.
"""

from __future__ import annotations

import json
import os
import shlex
import stat
from collections.abc import Sequence
from pathlib import Path

from resnet_surgeon.dataclass import dataclass
from resnet_surgeon.errors import AccessError, UsageError
from resnet_surgeon.formats.files import OpenFile
from resnet_surgeon.manifest import is_manifest
from resnet_surgeon.platform.names import OPEN_FILES_MOVE
from resnet_surgeon.sources.sidecar import MANIFEST_LIMIT, manifest_path
from resnet_surgeon.writing.forms import form_of

_CHECKPOINTS = (".safetensors", ".pth", ".pt", ".ckpt", ".bin", ".tar", ".onnx", ".json")
_CONFIGURATION = 1 << 22  # bytes of a configuration that names a ResNet's classes
_BEGINNING = 1024  # bytes of a page in which it says that it is one


@dataclass(frozen=True)
class Pair:
    """The files that an output and its manifest are written to, with every link followed."""

    output: Path
    manifest: Path


def checked_pair(path: Path, force: bool, sources: Sequence[Sequence[OpenFile]]) -> Pair:
    """The places for the output `path` and its manifest, made from `sources`, each of one file or several, before
    anything is read.

    Raises UsageError for a name that cannot be an output's; AccessError for a place that cannot be written, where a
    file stands without `force`, or where one stands that is not to be replaced even with it.
    """
    check_name(path)
    beside = manifest_path(path)
    _check_regular(beside)
    _check_folder(path)
    pair = Pair(path.resolve(), beside.resolve())
    _check_manifest(beside, pair, [file for files in sources for file in files])
    if not force:
        _check_free(path, beside)
    for files in sources:
        if not any(_is_same(pair.output, file) for file in files):
            continue
        if len(files) > 1:
            raise AccessError("it is a part of the source", subject=str(path), hint="write to another file")
        if not OPEN_FILES_MOVE:
            reason = "it is the source, and this system replaces no file that is open"
            raise AccessError(reason, subject=str(path), hint="write to another file")
    return pair


def is_folder(output: str) -> bool:
    """Whether an output as it was stated is a folder for a file of the default name."""
    return output.endswith(os.sep) or os.path.isdir(output)


def output_path(output: str | None, default_name: str) -> str:
    """The file to write: of no name or a folder's, that of the default name, there."""
    if output is None:
        return default_name
    return os.path.join(output, default_name) if is_folder(output) else output


def check_name(path: Path) -> None:
    """Raises UsageError for a name that does not say what to write, or that links to one which says otherwise;
    AccessError for what is there and is not a file.
    """
    if not path.name:
        raise UsageError("the output names no file", subject=f"{path}", hint="for instance `-o model.safetensors`")
    _check_regular(path)
    form, real = form_of(path), path.resolve()
    if real.suffix and real.name != path.name and form_of(real) != form:
        hint = f"write to {real.name}, or remove the link"
        raise UsageError(f"it is a link to {real.name}, whose name says otherwise", subject=str(path), hint=hint)


def checked_companion(path: Path, force: bool) -> Path:
    """The place for a configuration beside an output, with every link followed: free, or with `force` that of another
    ResNet. Raises AccessError.
    """
    _check_regular(path)
    if not force:
        _check_free(path)
    if path.exists() and not _is_configuration(path):
        reason, hint = "it is not a ResNet's configuration, and would be replaced", "write to another folder"
        raise AccessError(reason, subject=str(path), hint=hint)
    return path.resolve()


def checked_page(path: Path, force: bool) -> Path:
    """The place for the page `path`, with every link followed. Raises the errors of `checked_pair`."""
    if not path.name:
        raise UsageError("the output names no file", subject=f"{path}", hint="for instance `-o report.html`")
    for name in (path, path.resolve()):
        if name.suffix.lower() in _CHECKPOINTS:
            raise UsageError("a report is an HTML page", subject=str(path), hint="end its name in .html")
    _check_regular(path)
    _check_folder(path)
    if not force:
        _check_free(path)
    if path.exists() and not _is_page(path):
        raise AccessError(
            "it is not a page, and a report never replaces anything else",
            subject=str(path),
            hint="write to another file, or remove this one first",
        )
    return path.resolve()


def _check_regular(*targets: Path) -> None:
    """What stands in these places, if anything does, is a file."""
    for target in targets:
        try:
            mode = target.stat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, ValueError) as error:
            raise cannot_write(target, error) from None
        if not stat.S_ISREG(mode):
            kind = "a folder" if stat.S_ISDIR(mode) else "not a regular file"
            raise AccessError(
                f"it is {kind}", subject=str(target), hint="name a file, or `-` for a stream on standard output"
            )


def _check_free(*targets: Path) -> None:
    for target in targets:
        if target.exists():
            raise AccessError(
                "it exists already",
                subject=str(target),
                hint="use `--force` to replace it, or `--output` to write elsewhere",
            )


def _check_folder(path: Path) -> None:
    folder = path.resolve().parent
    if not folder.is_dir():
        raise AccessError(
            f"the folder {folder} does not exist" if not folder.exists() else f"{folder} is not a folder",
            subject=str(path),
            hint=None if folder.exists() else f"make it first: `mkdir -p {shlex.quote(str(path.parent))}`",
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        raise AccessError(f"no permission to write into {folder}", subject=str(path))


def _check_manifest(beside: Path, pair: Pair, sources: Sequence[OpenFile]) -> None:
    """The manifest's place, which the user has not named, is free, or holds a manifest that nothing else needs."""
    hint = "give the output another name, or move that file away"
    if pair.manifest.parent not in (pair.output.parent, beside.parent.resolve()):
        raise AccessError(f"it is a link to {pair.manifest}, in another folder", subject=str(beside), hint=hint)
    if pair.manifest == pair.output or (pair.manifest.exists() and _are_one(pair)):
        raise AccessError("it is the output itself, under another name", subject=str(beside), hint=hint)
    if any(_is_same(pair.manifest, source) for source in sources):
        raise AccessError("it is the source, which the manifest would replace", subject=str(beside), hint=hint)
    if pair.manifest.exists() and not _holds_manifest(pair.manifest):
        raise AccessError(
            f"it is not a manifest, and that of {pair.output.name} would replace it", subject=str(beside), hint=hint
        )


def _are_one(pair: Pair) -> bool:
    return pair.output.exists() and os.path.samefile(pair.output, pair.manifest)


def _holds_manifest(path: Path) -> bool:
    file = OpenFile.at(path)
    return file.size <= MANIFEST_LIMIT and is_manifest(file.read(0, file.size))


def _is_configuration(path: Path) -> bool:
    file = OpenFile.at(path)
    try:
        document = json.loads(file.read(0, file.size)) if file.size <= _CONFIGURATION else None
    except (ValueError, RecursionError):
        return False
    return isinstance(document, dict) and document.get("model_type") == "resnet"


def _is_same(path: Path, source: OpenFile) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(source.descriptor))
    except (FileNotFoundError, NotADirectoryError):
        return False


def _is_page(path: Path) -> bool:
    file = OpenFile.at(path)
    head = file.read(0, min(file.size, _BEGINNING)).removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    return not file.size or head.startswith((b"<!doctype html", b"<html"))


def cannot_write(path: Path, error: Exception) -> AccessError:
    """The error of a path that cannot be written, for whatever reason the system gives."""
    reason = getattr(error, "strerror", None) or str(error)
    return AccessError(f"writing failed: {reason[:1].lower()}{reason[1:]}", subject=str(path))
