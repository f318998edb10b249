"""From a location to an open file, wherever it is: on disk, on the web, on the hub, in standard input or in memory.

Knows how a file is called, not what it holds.
"""

from __future__ import annotations

import difflib
import os
import re
import shlex
import stat
from pathlib import Path

from resnet_surgeon.architecture.variants import VARIANTS
from resnet_surgeon.dataclass import dataclass
from resnet_surgeon.errors import AccessError, CheckpointError, UsageError
from resnet_surgeon.formats.arriving import ArrivingFile
from resnet_surgeon.formats.files import OpenFile
from resnet_surgeon.location import STANDARD_INPUT, Location, PassingInput
from resnet_surgeon.sources import catalog
from resnet_surgeon.sources.progress import Progress

# What copies a file from a store to this folder, by the scheme of its URLs.
_COPIES = {"s3://": "aws s3 cp", "gs://": "gcloud storage cp"}


@dataclass(frozen=True)
class NamedFile:
    """An open file. `label` is how people call it, `name` how the manifest does.

    `url` is where it was fetched from, `digest` the beginning of its SHA-256 that the URL promised. Streams and bytes
    are anonymous.
    """

    file: OpenFile
    label: str
    name: str
    url: str | None = None
    digest: str | None = None
    is_anonymous: bool = False


def published(entry: catalog.Entry, progress: Progress) -> NamedFile:
    """The file of published weights, downloaded where it is not in the cache. Raises WeightsError."""
    from resnet_surgeon.sources.published import fetch

    return _named(OpenFile.at(fetch(entry, progress)), entry.architecture)


def located(location: Location | OpenFile, progress: Progress) -> NamedFile:
    """The file at a path, a URL, `-`, or of bytes or a stream; or one that is open already.

    Raises UsageError, AccessError or WeightsError.
    """
    if isinstance(location, OpenFile):
        return _named(location, Path(location.name).stem)
    if location == STANDARD_INPUT:
        file = _standard_input()
        return _anonymous(whole(file, progress) if isinstance(file, ArrivingFile) else file)
    if isinstance(location, PassingInput):
        return _anonymous(_standard_input())
    if isinstance(location, str) and "://" in location:
        return _from_network(location, progress)
    if isinstance(location, bytes):
        return _anonymous(OpenFile.spooled(location, "bytes"))
    if isinstance(location, (str, os.PathLike)):
        return _named(_at(location), Path(os.fspath(location)).stem)
    if hasattr(location, "read"):
        return _anonymous(OpenFile.spooled(location, "stream"))
    kind = type(location).__name__
    raise UsageError(f"a source is a name, a path, bytes or a binary stream, not {kind}", subject="source")


def _named(file: OpenFile, label: str, url: str | None = None) -> NamedFile:
    name = os.fsencode(Path(file.name).name).decode("utf-8", "replace")  # a manifest is UTF-8, whatever a file's name
    return NamedFile(file, label, name, url)


def _anonymous(file: OpenFile) -> NamedFile:
    return NamedFile(file, "resnet", file.name, is_anonymous=True)


def _from_network(location: str, progress: Progress) -> NamedFile:
    from resnet_surgeon.sources.url import parse, path_of, scheme_of, without_secrets

    scheme = scheme_of(location)
    if scheme == "hf://":
        from resnet_surgeon.sources import hub

        return _named(hub.open_hub(location, progress), location.split("/")[3].partition("@")[0], location)
    if scheme in ("https://", "http://"):
        from resnet_surgeon.sources import download

        url = parse(location)
        file = download.open_url(url, progress)
        return NamedFile(file, Path(url.name).stem, url.name, url.shown, url.digest)
    if scheme == "file://":
        path = path_of(location)
        return _named(_at(path), Path(path).stem)
    if scheme is None:
        return _named(_at(location), Path(location).stem)
    copy = _COPIES.get(scheme)
    hint = f"{copy} {shlex.quote(without_secrets(location))} ." if copy else "download the file, and give its path"
    raise UsageError("URLs begin with https://, http://, hf:// or file://", subject=scheme, hint=hint)


def _at(path: str | os.PathLike[str]) -> OpenFile:
    try:
        if Path(path).is_dir():
            from resnet_surgeon.sources.folder import checkpoint_in

            return OpenFile.at(checkpoint_in(Path(path)))
        file = OpenFile.at(path)
    except AccessError as error:
        name = os.fspath(path)
        if error.hint is None and "." not in name and os.sep not in name:
            error.hint = _near_model(name)
        raise
    if Path(path).suffix == ".distcp":
        folder = shlex.quote(os.fspath(Path(path).parent))
        raise CheckpointError(
            "it is a part of what torch.distributed.checkpoint saved",
            subject=file.name,
            hint=f"give its folder, with the `.metadata` in it: `resnet-surgeon inspect {folder}`",
        )
    return file


def whole(file: ArrivingFile, progress: Progress) -> OpenFile:
    """A stream in a temporary file. Raises AccessError where there is no room."""
    with progress(f"reading {file.name}", None) as advance:
        return file.whole(advance)


def _near_model(name: str) -> str:
    """The model that was probably meant; all of them, where another depth was meant than there is."""
    another_depth = re.fullmatch(r"resnet\d+", name.lower()) and name.lower() not in VARIANTS
    near = [] if another_depth else difflib.get_close_matches(name.lower(), VARIANTS, n=1)
    return f"did you mean the model `{near[0]}`?" if near else f"torchvision's models are {', '.join(VARIANTS)}"


def _standard_input() -> OpenFile:
    """Standard input: read in place where it is a file, else as it arrives."""
    name = "standard input"
    try:
        is_terminal, at_start = os.isatty(0), _is_file_at_start(0)
        descriptor = os.dup(0)
    except OSError:
        raise AccessError("it is closed", subject=name) from None
    file = OpenFile(descriptor, name) if at_start else ArrivingFile(descriptor, name)
    if is_terminal:
        raise UsageError(
            "it is a terminal, not a stream", subject=name, hint="pipe a safetensors file into it, or name a file"
        )
    if not file.reaches(1):
        raise CheckpointError("it is empty", subject=name, hint="the command before it in the pipe may have failed")
    return file


def _is_file_at_start(descriptor: int) -> bool:
    return stat.S_ISREG(os.fstat(descriptor).st_mode) and os.lseek(descriptor, 0, os.SEEK_CUR) == 0
