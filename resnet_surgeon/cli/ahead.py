"""A command's source, opened before the rest of the program is imported: that takes as long as it takes to read a
ResNet-50 for its digest, and both can go on at once.
"""

from __future__ import annotations

import os

from resnet_surgeon.cli.options import Writing
from resnet_surgeon.errors import AccessError
from resnet_surgeon.formats.files import OpenFile
from resnet_surgeon.sources.sidecar import MANIFEST_KEY

_BEGINNING = 256  # bytes, in which a file of ours names its manifest


def begun(source: str, writing: Writing) -> str | OpenFile:
    """The source, open and being read, if it is a safetensors file whose digest will be asked for; else as it was
    stated.
    """
    if writing.dry_run or not source.endswith(".safetensors") or not os.path.isfile(source):
        return source
    try:
        file = OpenFile.at(source)
    except AccessError:  # which is told when the network is opened
        return source
    if MANIFEST_KEY.encode() not in file.beginning(_BEGINNING):  # a file of ours says what it was made of
        file.read_ahead()
    return file
