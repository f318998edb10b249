"""The operations, one file each. This registry is all that the other rooms know of them.

To add one: write its file, name it here, among the methods of `Network` and in the program's help. The command, the
manifest's schema and the docs follow from its fields. The file of each is imported when it is asked for: a command
needs one of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from resnet_surgeon.operations.adapt import Adapt as Adapt
    from resnet_surgeon.operations.average import Average as Average
    from resnet_surgeon.operations.cast import Cast as Cast
    from resnet_surgeon.operations.checkpoint import Operation
    from resnet_surgeon.operations.depth import Depth as Depth
    from resnet_surgeon.operations.dilate import Dilate as Dilate
    from resnet_surgeon.operations.features import Features as Features
    from resnet_surgeon.operations.fuse import Fuse as Fuse
    from resnet_surgeon.operations.graft import Graft as Graft
    from resnet_surgeon.operations.heads import Heads as Heads
    from resnet_surgeon.operations.remove import Remove as Remove
    from resnet_surgeon.operations.stem import Stem as Stem

_NAMES = ("adapt", "stem", "remove", "depth", "dilate", "features", "heads", "cast", "fuse", "graft", "average")


class _Files(Mapping[str, "type[Operation]"]):
    """Operations by their names, in files of these names; each is the class of that name."""

    def __init__(self, files: Mapping[str, str]) -> None:
        self._files = files

    def __getitem__(self, name: str) -> type[Operation]:
        file = self._files[name]
        operation: type[Operation] = getattr(import_module(f"{__name__}.{file}"), file.capitalize())
        return operation

    def __contains__(self, name: object) -> bool:
        return name in self._files

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


OPERATIONS: Mapping[str, type[Operation]] = _Files({name: name for name in _NAMES})
# What a manifest can record.
RECORDED: Mapping[str, type[Operation]] = _Files({**{name: name for name in _NAMES}, "trained": "training"})


def __getattr__(name: str) -> Any:
    if name.lower() not in OPERATIONS or name != name.capitalize():
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return OPERATIONS[name.lower()]
