"""Files from the web, whole and right or not at all. Knows digests, not what the files hold."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import queue
import re
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Generator
from http.client import HTTPMessage
from pathlib import Path
from typing import IO
from urllib.parse import urljoin, urlsplit

from resnet_surgeon.errors import WeightsError
from resnet_surgeon.formats.files import CHUNK, OpenFile
from resnet_surgeon.sources import catalog
from resnet_surgeon.sources.cache import OTHER_FOLDER, cache_folder
from resnet_surgeon.sources.progress import DOWNLOADING, Progress
from resnet_surgeon.sources.url import Url, without_secrets

_PATIENCE = 30.0  # seconds for an answer, and between two looks at what has come
_SLOWEST = 1024  # bytes a second
_LIMIT = 1 << 34  # bytes
FAILURES = (OSError, ValueError, http.client.HTTPException)  # what a download raises


def open_url(url: Url, progress: Progress) -> OpenFile:
    """The file at a URL: published weights and what has another digest are kept in torch's cache, the latter in
    a folder apart; what has none goes into a temporary file. A cached file's digest is left to the caller to check.
    Raises WeightsError.
    """
    try:
        if url.digest:
            entry = catalog.entry_for_url(url.request)
            path = cache_folder() / (entry.file_name if entry else f"resnet-surgeon/{url.cache_name}")
            if not path.exists():
                to_cache(url, path, url.digest, progress)
            return OpenFile.at(path, alone=True)
        with tempfile.TemporaryFile() as file:
            _stream(url, file, None, progress)
            return OpenFile(os.dup(file.fileno()), url.name)
    except FAILURES as error:
        hint = None
        if isinstance(error, UnwritableError):
            hint = OTHER_FOLDER
        elif isinstance(error, _WrongDigestError):
            hint = "if the digits in its name are not a digest, download the file and give its path"
        raise WeightsError(f"cannot download: {reason(error)}", subject=url.shown, hint=hint) from None


def to_cache(url: Url, path: Path, digest: str, progress: Progress) -> None:
    """Downloads to a temporary file beside `path`, which it becomes when it is whole and its SHA-256 begins as said.

    Raises one of FAILURES.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=f"{path.name}.", suffix=".partial", dir=path.parent)
    except OSError as error:
        raise UnwritableError(f"{path.parent} cannot be written: {error.strerror}") from None
    try:
        with open(descriptor, "wb") as file:
            _stream(url, file, digest, progress)
            os.fsync(file.fileno())
        _give_usual_mode(temporary)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


class _RefusedError(ValueError):
    """What a server does and we do not take, in words of ours."""


class UnwritableError(_RefusedError):
    """The folder for what is downloaded cannot be made or written."""


class _WrongDigestError(_RefusedError):
    """What came is not what was promised."""


def _stream(url: Url, file: IO[bytes], digest: str | None, progress: Progress) -> None:
    with contextlib.closing(_arriving(url)) as arriving:
        first = next(arriving)
        total = first if isinstance(first, int) else None
        with progress(f"{DOWNLOADING}{url.name}", total) as advance:
            found = hashlib.sha256()
            pace = Pace(time.monotonic)
            for chunk in arriving:
                assert isinstance(chunk, bytes)
                file.write(chunk)
                found.update(chunk)
                advance(len(chunk))
                pace.check(file.tell())
                if file.tell() > _LIMIT:
                    raise _RefusedError("the server sends more than any ResNet holds")
    if total is not None and file.tell() != total:
        raise _RefusedError(f"the connection broke after {file.tell()} of {total} bytes")
    if digest and not found.hexdigest().startswith(digest):
        begin = found.hexdigest()[: len(digest)]
        raise _WrongDigestError(f"its SHA-256 begins {begin}, expected {digest}: not the published file")
    file.flush()


class Pace:
    """Watches that a server goes on sending: a timeout for silence alone lets it send a byte a minute for ever."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._since, self._had = clock(), 0

    def check(self, count: int) -> None:
        """`count` bytes have come by now. Raises ValueError if too few of them came lately."""
        seconds = self._clock() - self._since
        if seconds < _PATIENCE:
            return
        if count - self._had < _SLOWEST * seconds:
            raise _RefusedError(f"the server sends less than {_SLOWEST} bytes a second")
        self._since, self._had = self._clock(), count


def _arriving(url: Url) -> Generator[bytes | int | None, None, None]:
    """The length, if the server tells it, and then the bytes as they come.

    They are read in a thread of their own: a server can stretch a connection, a header or a line for ever, however
    short the timeout of each step; here each piece comes in time, or ValueError is raised.
    """
    arrived: queue.Queue[bytes | int | Exception | None] = queue.Queue(maxsize=8)
    abandoned = threading.Event()

    def put(item: bytes | int | Exception | None) -> None:
        while not abandoned.is_set():
            with contextlib.suppress(queue.Full):
                return arrived.put(item, timeout=1)
        raise _RefusedError("nobody waits for it any more")

    def read() -> None:
        with contextlib.suppress(_RefusedError):
            try:
                with _answer(url) as response:
                    length = response.headers.get("Content-Length", "")
                    put(int(length) if re.fullmatch(r"[0-9]{1,18}", length) else None)
                    while chunk := response.read1(CHUNK):
                        put(chunk)
                put(b"")
            except Exception as error:
                put(error)

    try:
        threading.Thread(target=read, daemon=True).start()
        while True:
            item = arrived.get(timeout=_PATIENCE)
            if isinstance(item, Exception):
                raise item
            if item == b"":
                return
            yield item
    except RuntimeError:
        raise MemoryError from None  # no thread can be started
    except queue.Empty:
        raise _RefusedError(f"the server sent nothing within {_PATIENCE:g} seconds") from None
    finally:
        abandoned.set()


def _answer(url: Url) -> http.client.HTTPResponse:
    request = urllib.request.Request(url.request, headers={"User-Agent": "resnet-surgeon"})
    if url.authorization:
        request.add_unredirected_header("Authorization", url.authorization)
    try:
        response: http.client.HTTPResponse = urllib.request.build_opener(_Redirects).open(request, timeout=_PATIENCE)
    except urllib.error.HTTPError as error:
        error.close()
        raise _RefusedError(f"the server answers {error.code} {without_secrets(str(error.reason))}") from None
    return response


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but never from https to anything else, and takes what identifies the user to no other host."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        old, new = urlsplit(req.full_url), urlsplit(urljoin(req.full_url, newurl))
        problem = None
        if new.scheme not in ("http", "https") or (old.scheme, new.scheme) == ("https", "http"):
            problem = f"from {old.scheme} to {new.scheme or 'nowhere'}"
        elif new.username is not None:
            problem = "to a URL with a user name"
        if problem:
            fp.close()
            raise _RefusedError(f"the server redirects {problem}")
        request = super().redirect_request(req, fp, code, msg, headers, newurl)
        authorization = req.get_header("Authorization")
        if request is not None and authorization and (old.scheme, old.netloc) == (new.scheme, new.netloc):
            request.add_unredirected_header("Authorization", authorization)
        return request


def _give_usual_mode(path: str) -> None:
    """mkstemp makes files private; the cache's files have the mode that the umask gives."""
    umask = os.umask(0o077)
    os.umask(umask)
    os.chmod(path, 0o666 & ~umask)


def reason(error: Exception) -> str:
    """Why a download failed, without the layers of the library, and without the URL, which may hold secrets."""
    if isinstance(error, _RefusedError):
        return str(error)
    inner = getattr(error, "reason", None)
    if isinstance(inner, _RefusedError):
        return str(inner)
    if isinstance(inner, OSError):
        error = inner
    if isinstance(error, OSError):
        return error.strerror or without_secrets(str(error)) or type(error).__name__
    return f"the connection failed ({type(error).__name__})"
