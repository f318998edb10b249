"""URLs taken apart: what is asked for, what may be shown and recorded, what is promised of the file.

User info, query and fragment can be secrets: they are sent to the one host that they are meant for, and nowhere else.
Fetches nothing.
"""

from __future__ import annotations

import base64
import hashlib
import re
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit
from urllib.request import url2pathname

from resnet_surgeon.dataclass import dataclass
from resnet_surgeon.errors import UsageError
from resnet_surgeon.sources.names import file_name

_DIGEST_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.[A-Za-z0-9.]+$")  # as torchvision names its files


@dataclass(frozen=True)
class Url:
    """A file on the web.

    `request` is what the server is asked for, `shown` what people and manifests get to see of it. `authorization` is
    the header that the user info asks for. `name` is what the file is called, one safe path component. `digest` begins
    its SHA-256, where the URL promises one: after `#sha256=`, or in the name.
    """

    request: str
    shown: str
    authorization: str | None
    name: str
    digest: str | None

    @property
    def cache_name(self) -> str:
        """The file's name in a cache: another one for every URL and every digest."""
        key = hashlib.sha256(f"{self.shown}#{self.digest}".encode()).hexdigest()[:16]
        return f"{key}-{self.name}"


def parse(url: str) -> Url:
    """An `https://` or `http://` URL. Raises UsageError, which never repeats a secret of it.

    >>> parse("https://user:password@example.org/a/model.pth?signature=1#sha256=0123456789ab").shown
    'https://example.org/a/model.pth'
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        parts, host, port = urlsplit(""), None, None
    is_plain = url.isascii() and url.isprintable() and " " not in url
    if not host or not is_plain:
        hint = "write https://host/path, with every other character as %XX"
        raise UsageError("the URL is not valid", subject=scheme_of(url), hint=hint)
    place = f"[{host}]" if ":" in host else host
    place += f":{port}" if port is not None else ""
    last = re.split(r"[/\\]", unquote(parts.path.rsplit("/", 1)[-1]))[-1]
    shown = urlunsplit((parts.scheme, place, parts.path, "", ""))
    return Url(
        request=urlunsplit((parts.scheme, place, parts.path or "/", parts.query, "")),
        shown=shown,
        authorization=_authorization(parts),
        name=file_name(last),
        digest=_digest(last, parts.fragment, shown),
    )


def path_of(url: str) -> str:
    """The path of a `file://` URL. Raises UsageError for one of another machine."""
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = urlsplit("file://?")
    if parts.netloc not in ("", "localhost") or not parts.path:
        raise UsageError("the URL is not one of this machine", subject="file://", hint="write file:///path/of/the/file")
    return url2pathname(parts.path)


def scheme_of(location: str) -> str | None:
    """`https://`, `hf://`, `s3://` or whatever a URL begins with, in lower case; None for any other location."""
    match = re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", location)
    return match[0].lower() if match else None


def without_secrets(text: str) -> str:
    """The text with user info, query and fragment taken out of every URL in it."""

    def bare(match: re.Match[str]) -> str:
        scheme, rest = match.groups()
        place, *path = re.split(r"(?=[/?#])", rest, maxsplit=1)
        return scheme + place.rsplit("@", 1)[-1] + re.split(r"[?#]", "".join(path), maxsplit=1)[0]

    return re.sub(r"([A-Za-z][A-Za-z0-9+.-]*://)([^\s'\"<>]*)", bare, text)


def _authorization(parts: SplitResult) -> str | None:
    """HTTP's basic authentication (RFC 7617), as curl sends it for user info."""
    if parts.username is None:
        return None
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return f"Basic {base64.b64encode(pair.encode()).decode('ascii')}"


def _digest(name: str, fragment: str, shown: str) -> str | None:
    if fragment:
        match = re.fullmatch(r"sha256=([0-9a-fA-F]{8,64})", fragment)
        if not match:
            hint = "write #sha256=... with 8 to 64 hexadecimal digits"
            raise UsageError("the part after # is not a digest", subject=shown, hint=hint)
        return match[1].lower()
    found = _DIGEST_IN_NAME.search(name)
    return found[1] if found else None
