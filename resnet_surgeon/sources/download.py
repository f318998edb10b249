"""Files from the network, whole and right or not at all. Knows addresses and digests, not what the files hold."""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import tempfile
from pathlib import Path
from typing import IO
from urllib.parse import unquote, urlsplit

from resnet_surgeon.errors import DependencyError, UsageError, WeightsError
from resnet_surgeon.formats.files import CHUNK, OpenFile
from resnet_surgeon.sources.progress import Progress, silent

_TIMEOUT = 30  # seconds without a sign of life
_LIMIT = 1 << 34  # bytes


def cache_folder() -> Path:
    """Where torch keeps published weights: the folder of `torch.hub.load_state_dict_from_url`."""
    home = os.environ.get("TORCH_HOME") or os.path.join(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "torch")
    return Path(os.path.expanduser(home)) / "hub" / "checkpoints"


def open_url(address: str, progress: Progress) -> tuple[OpenFile, str | None]:
    """The file at `https://...`, and how its SHA-256 begins: after `#sha256=`, or in its name as torchvision writes it.

    A file with a digest is kept in torch's cache; one without goes into a temporary file. Raises WeightsError.
    """
    url, _, fragment = address.partition("#")
    name = unquote(urlsplit(url).path.rsplit("/", 1)[-1])
    digest = _digest(name, fragment)
    try:
        if digest:
            path = cache_folder() / name
            if not path.exists():
                to_cache(url, path, digest, progress)
            return OpenFile.at(path), digest
        with tempfile.TemporaryFile() as file:
            _stream(url, file, None, progress, name)
            return OpenFile(os.dup(file.fileno()), name), None
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise WeightsError(f"cannot download: {reason(error)}", subject=url) from None


def _digest(name: str, fragment: str) -> str | None:
    if fragment:
        match = re.fullmatch(r"sha256=([0-9a-f]{8,64})", fragment)
        if not match:
            raise UsageError("the part after # is not a digest", subject=name, hint="write #sha256=... in hexadecimal")
        return match[1]
    found = re.search(r"-([0-9a-f]{8,64})\.[a-z]+$", name)
    return found[1] if found else None


def to_cache(url: str, path: Path, digest: str, progress: Progress) -> None:
    """Downloads to a temporary file beside `path`, which it becomes when it is whole and its SHA-256 begins as said.

    Raises OSError, ValueError or HTTPException.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=f"{path.name}.", suffix=".partial", dir=path.parent)
    try:
        with open(descriptor, "wb") as file:
            _stream(url, file, digest, progress, path.name)
            os.fsync(file.fileno())
        _give_usual_mode(temporary)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _stream(url: str, file: IO[bytes], digest: str | None, progress: Progress, name: str) -> None:
    with _answer(url) as response:
        length = response.headers.get("Content-Length")
        total = int(length) if length else None
        with progress(f"downloading {name}", total) as advance:
            found = hashlib.sha256()
            while chunk := response.read(CHUNK):
                file.write(chunk)
                found.update(chunk)
                advance(len(chunk))
                if file.tell() > _LIMIT:
                    raise ValueError("the server sends more than any ResNet holds")
    if total is not None and file.tell() != total:
        raise ValueError(f"the connection broke after {file.tell()} of {total} bytes")
    if digest and not found.hexdigest().startswith(digest):
        begin = found.hexdigest()[: len(digest)]
        raise ValueError(f"its SHA-256 begins {begin}, expected {digest}: not the published file")
    file.flush()


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


def reason(error: Exception) -> str:
    """Why a download failed, without the layers of the library."""
    inner = getattr(error, "reason", None)
    if isinstance(inner, OSError):
        error = inner
    return getattr(error, "strerror", None) or str(inner or error) or type(error).__name__


_HUB_FILES = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")


def open_hub(address: str, progress: Progress) -> OpenFile:
    """The file at `hf://owner/name[/file][@revision]`, by huggingface_hub with its cache, endpoint and token.

    Without a file: `model.safetensors`, its index, or `pytorch_model.bin`, whichever is there first. Raises
    DependencyError without huggingface_hub, UsageError, and WeightsError.
    """
    match = re.fullmatch(r"hf://([^/@]+/[^/@]+)(?:/([^@]+))?(?:@(.+))?", address)
    if not match:
        hint = "write hf://owner/name[/file][@revision]"
        raise UsageError("this is no address on the hub", subject=address, hint=hint)
    repository, file, revision = match.groups()
    for name in (file,) if file else _HUB_FILES:
        path = _from_hub(address, repository, name, revision, progress)
        if path is not None:
            return OpenFile.at(path)
    raise WeightsError(f"the repository has no {file or ', no '.join(_HUB_FILES)}", subject=address)


def _from_hub(address: str, repository: str, name: str, revision: str | None, progress: Progress) -> str | None:
    """The path of a repository's file in the hub's cache, or None if the repository has no such file."""
    import logging

    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError
        from huggingface_hub.utils.tqdm import disable_progress_bars
    except ModuleNotFoundError:
        hint = "pip install 'resnet-surgeon[hub]'"
        raise DependencyError("huggingface_hub is not installed", subject=address, hint=hint) from None
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # what goes wrong is said once, below
    if progress is silent:
        disable_progress_bars()
    try:
        return hf_hub_download(repository, name, revision=revision)
    except LocalEntryNotFoundError:
        hint = "check the network, or `HF_ENDPOINT` and `HF_HUB_OFFLINE`"
        raise WeightsError(
            "the hub cannot be reached, and its cache lacks the file", subject=address, hint=hint
        ) from None
    except EntryNotFoundError:
        return None
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise WeightsError(f"cannot download: {str(error).splitlines()[0]}", subject=address) from None
