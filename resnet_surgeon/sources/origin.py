"""What a manifest records of where a network comes from. Opens nothing."""

from __future__ import annotations

import re
from typing import Annotated

from resnet_surgeon.dataclass import dataclass
from resnet_surgeon.fields import LINE, Digest, Line, Seed, Text
from resnet_surgeon.formats.container import ContainerKind
from resnet_surgeon.sources.found import Wrapping

FileName = Annotated[str, Text("the name of a file, without a folder", r"(?!\.\.?$)[^/\x00\ud800-\udfff]*")]
Word = Annotated[str, Text("a name of letters, digits and `_`", r"[A-Za-z0-9_]+", 100)]
RecordedUrl = Annotated[str, Text("a URL", rf"(https?|hf)://(?!\s){LINE}")]


@dataclass(frozen=True)
class Origin:
    """Where a network is from: a file (name, container, SHA-256), published weights (more besides), or random ones.

    `url` never tells a user's name, a password, or what follows a `?`, which often is a key. `warnings` say what of the
    file is odd, and was taken all the same; `not_loaded` are the classes and functions that it names, of whose objects
    nothing was read.
    """

    file: FileName | None = None
    container: ContainerKind | None = None
    sha256: Digest | None = None
    architecture: Word | None = None
    weights: Word | None = None
    url: RecordedUrl | None = None
    seed: Seed | None = None
    wrapping: Wrapping | None = None
    warnings: tuple[Line, ...] = ()
    not_loaded: tuple[Line, ...] = ()

    def __post_init__(self) -> None:
        if self.url is not None:
            object.__setattr__(self, "url", _public(self.url))


def _public(url: str) -> str:
    """The URL without user, query and fragment; 0.1.0 wrote them down."""
    return re.sub(r"^(\w+://)[^/]*@", r"\1", re.split(r"[?#]", url, maxsplit=1)[0])
