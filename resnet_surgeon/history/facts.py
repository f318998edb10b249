"""What tensors do not show of a network as it is: as it was taken of the source, or as an operation has made it since.

Knows the operations by their names alone.
"""

from __future__ import annotations

from collections.abc import Iterator

from resnet_surgeon.architecture.facts import Assumed, facts_of, spelled
from resnet_surgeon.manifest import Manifest

# The operations that change a fact.
_SET_BY = {
    "strides": ("graft",),
    "stem_stride": ("stem",),
    "maxpool": ("stem", "remove"),
    "dilated": ("dilate",),
    "activation": ("heads", "graft"),
}


def facts_now(manifest: Manifest) -> tuple[Assumed, ...]:
    """The facts of the network that the manifest tells of; none where it has none of the source."""
    return tuple(_facts_now(manifest)) if manifest.facts else ()


def _facts_now(manifest: Manifest) -> Iterator[Assumed]:
    taken: dict[str, Assumed] = {fact.name: fact for fact in manifest.facts}
    for name, value in facts_of(manifest.architecture).items().items():
        old, new = taken.get(name), spelled(value)
        if old is not None and (old.value == new or old.value.startswith(f"{new}-")):  # of the stages that are left
            yield Assumed(old.name, new, old.said_by, old.place)
        elif name != "strides" or value:
            behind = [operation for record in manifest.operations for operation in record]
            by = [operation for operation in behind if operation in _SET_BY.get(name, ())]
            yield Assumed(name, new, "user", by[-1] if by else "an operation")  # type: ignore[arg-type]
