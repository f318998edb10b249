"""Names for files that are made from what a file, a URL or a manifest says.

Whatever strangers write, it never decides in which folder something is stored. Touches no disk.
"""

from __future__ import annotations

import hashlib
import re

MOST_CHARACTERS = 120  # of 255 that file systems take: temporary names and digests need room too


def file_name(text: str) -> str:
    """`text` as one path component of ASCII letters, digits, `.`, `_` and `-` that begins with a letter or digit.

    Where it is too long it is cut, and ends in a digest of the whole, so that two long texts keep two names.

    >>> file_name("../my résumé.pth")
    'my_r_sum_.pth'
    """
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", text).lstrip("._-") or "resnet"
    if len(name) <= MOST_CHARACTERS:
        return name
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{name[: MOST_CHARACTERS - len(digest) - 1]}-{digest}"
