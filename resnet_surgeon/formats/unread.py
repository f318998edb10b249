"""What stands in the place of a tensor that cannot be made. Knows no container."""

from __future__ import annotations

from resnet_surgeon.dataclass import dataclass


@dataclass(frozen=True)
class Unread:
    """Where something stands that no tensor can be made of. Only where a network needs one, it is in the way.

    `what` goes on from "it is", with the name of the class that a pickle gave escaped; `hint` says what to do.
    """

    what: str
    hint: str | None = None
