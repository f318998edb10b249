"""Published weights: from the cache of torch, else downloaded into it, where torch finds them too."""

from __future__ import annotations

import os
from pathlib import Path

from resnet_surgeon.errors import WeightsError
from resnet_surgeon.sources.cache import OTHER_FOLDER, cache_folder
from resnet_surgeon.sources.catalog import Entry
from resnet_surgeon.sources.progress import Progress


def download_url(entry: Entry) -> str:
    """The file's URL: torchvision's, or the same file name under `RESNET_SURGEON_MIRROR` where that is set."""
    mirror = os.environ.get("RESNET_SURGEON_MIRROR")
    return f"{mirror.rstrip('/')}/{entry.file_name}" if mirror else entry.url


def fetch(entry: Entry, progress: Progress) -> Path:
    """The path of the entry's file in the cache; downloaded if it is not there, and kept only if its digest is right.

    `RESNET_SURGEON_MIRROR` may be a folder, whose file is read in its place. Raises WeightsError. The digest of a file
    that is there is checked when it is read.
    """
    mirror = os.environ.get("RESNET_SURGEON_MIRROR", "")
    if mirror and "://" not in mirror:
        return _in_folder(Path(mirror), entry)
    path = cache_folder() / entry.file_name
    if not path.exists():
        # A cached file is opened without all that it takes to fetch one.
        from resnet_surgeon.sources import download
        from resnet_surgeon.sources.url import parse

        url = parse(download_url(entry))
        try:
            download.to_cache(url, path, entry.digest, progress)
        except download.FAILURES as error:
            raise WeightsError(
                f"cannot download {url.shown}: {download.reason(error)}",
                subject=_subject(entry),
                hint=OTHER_FOLDER
                if isinstance(error, download.UnwritableError)
                else f"put the file at {path}, or start from random weights with `--weights random`",
            ) from None
    return path


def _in_folder(folder: Path, entry: Entry) -> Path:
    path = folder / entry.file_name
    if not path.exists():
        hint = f"put the file at {path}, or unset RESNET_SURGEON_MIRROR"
        raise WeightsError(
            "the folder that RESNET_SURGEON_MIRROR names has no such file", subject=_subject(entry), hint=hint
        )
    return path


def _subject(entry: Entry) -> str:
    return f"{entry.architecture} {entry.weights}"
