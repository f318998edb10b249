"""Published weights: from torch's hub cache, else downloaded into it. Torch finds there what this puts there, and the
other way round.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import tempfile
from pathlib import Path

from resnet_surgeon.errors import WeightsError
from resnet_surgeon.formats.files import CHUNK
from resnet_surgeon.sources.catalog import Entry
from resnet_surgeon.sources.progress import Progress

_TIMEOUT = 30  # seconds without a sign of life
_LIMIT = 1 << 31  # no published ResNet is nearly as large


def cache_folder() -> Path:
    """Where torch keeps published weights: the folder of `torch.hub.load_state_dict_from_url`."""
    home = os.environ.get("TORCH_HOME") or os.path.join(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "torch")
    return Path(os.path.expanduser(home)) / "hub" / "checkpoints"


def download_url(entry: Entry) -> str:
    """The file's address: torchvision's, or the same file name under `RESNET_SURGEON_MIRROR` where that is set."""
    mirror = os.environ.get("RESNET_SURGEON_MIRROR")
    return f"{mirror.rstrip('/')}/{entry.file_name}" if mirror else entry.url


def fetch(entry: Entry, progress: Progress) -> Path:
    """The path of the entry's file in the cache; if it is not there it is downloaded, and kept only if its digest is
    right.

    Raises WeightsError. A cached file's digest is checked when it is read.
    """
    path = cache_folder() / entry.file_name
    if not path.exists():
        url = download_url(entry)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _download(url, path, entry.digest, progress)
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise WeightsError(
                f"cannot download {url}: {_reason(error)}",
                subject=f"{entry.architecture} {entry.weights}",
                hint=f"put the file at {path}, or start from random weights with `--weights random`",
            ) from None
    return path


def _download(url: str, path: Path, digest: str, progress: Progress) -> None:
    """Downloads to a temporary file beside `path`, which it becomes when it is whole and right."""
    with _answer(url) as response:
        length = response.headers.get("Content-Length")
        total = int(length) if length else None
        descriptor, temporary = tempfile.mkstemp(prefix=f"{path.name}.", suffix=".partial", dir=path.parent)
        try:
            with open(descriptor, "wb") as file, progress(f"downloading {path.name}", total) as advance:
                found = hashlib.sha256()
                while chunk := response.read(CHUNK):
                    file.write(chunk)
                    found.update(chunk)
                    advance(len(chunk))
                    if file.tell() > _LIMIT:
                        raise ValueError("the server sends more than any of these files holds")
                if total is not None and file.tell() != total:
                    raise ValueError(f"the connection broke after {file.tell()} of {total} bytes")
                if not found.hexdigest().startswith(digest):
                    begin = found.hexdigest()[: len(digest)]
                    raise ValueError(f"its SHA-256 begins {begin}, expected {digest}: not the published file")
                file.flush()
                os.fsync(file.fileno())
            _give_usual_mode(temporary)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise


def _answer(url: str) -> http.client.HTTPResponse:
    import urllib.error
    import urllib.request

    request = urllib.request.Request(url, headers={"User-Agent": "resnet-surgeon"})
    try:
        response: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        raise ValueError(f"the server answers {error.code} {error.reason}") from None
    return response


def _give_usual_mode(path: str) -> None:
    """mkstemp makes files private; the cache's files have the mode that the umask gives."""
    umask = os.umask(0o077)
    os.umask(umask)
    os.chmod(path, 0o666 & ~umask)


def _reason(error: Exception) -> str:
    inner = getattr(error, "reason", None)
    if isinstance(inner, OSError):
        error = inner
    return getattr(error, "strerror", None) or str(inner or error) or type(error).__name__
