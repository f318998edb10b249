"""What goes to standard output: data, whole and as it is."""

from __future__ import annotations

import os
import sys

from resnet_surgeon._version import __version__
from resnet_surgeon.errors import AccessError
from resnet_surgeon.platform.transfer import write_all

PROGRAM = "resnet-surgeon"


def show_version() -> None:
    """The program and its version, on a line."""
    to_standard_output(f"{PROGRAM} {__version__}")


def to_standard_output(line: str) -> None:
    """Writes the line as it is, whatever the locale; names of files are bytes."""
    try:
        data = os.fsencode(line + "\n")
    except UnicodeEncodeError:  # what the locale has no letters for
        data = (line + "\n").encode(sys.getfilesystemencoding(), "backslashreplace")
    try:
        write_all(1, data)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise AccessError(f"writing failed: {error.strerror}", subject="standard output") from None
