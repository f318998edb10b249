"""Where a network is, as the user says it: a name, a path, a URL, `-`, bytes, or a binary stream. Opens nothing."""

from __future__ import annotations

import os
from typing import IO, Union

from resnet_surgeon.dataclass import dataclass
from resnet_surgeon.errors import UsageError

DEFAULT_NAME = "resnet50"
STANDARD_INPUT = "-"


@dataclass(frozen=True)
class PassingInput:
    """Standard input for a network that is written once: its bytes pass through, and are gone then."""


Location = Union[str, "os.PathLike[str]", bytes, IO[bytes], PassingInput]


def check_distinct(one: object, other: object) -> None:
    """Raises UsageError for two locations that are both standard input, which can be read only once."""
    if one == other == STANDARD_INPUT:
        raise UsageError("both are standard input, which can be read only once", subject="sources", hint="name a file")
