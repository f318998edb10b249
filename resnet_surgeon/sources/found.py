"""What was found in a file: a network's tensors, and how they were packed. Does not know how they are found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Annotated

from resnet_surgeon.dataclass import dataclass
from resnet_surgeon.errors import CheckpointError
from resnet_surgeon.fields import Name, Text
from resnet_surgeon.formats.tensors import LazyTensor


@dataclass(frozen=True)
class Wrapping:
    """How a ResNet was packed: by whose habit, under which key and prefix; what lay beside it, and what it lacked.

    `classifier` is the module that became `fc`, where it is called otherwise in the file, and `ignored` are tensors
    that the user said may go.
    """

    kind: Annotated[str, Text("the name of a packing", r"[A-Za-z0-9_. -]+", 100)]
    key: Name | None = None
    prefix: Name = ""
    left_out: tuple[Name, ...] = ()
    filled: tuple[Name, ...] = ()
    classifier: Name | None = None
    ignored: tuple[Name, ...] = ()


@dataclass(frozen=True)
class Found:
    """The tensors of a ResNet by torchvision's names, how they were packed, and what the packing says of the network.

    `path` are the keys on the way to the mapping that it stands in, `names` are those in the file, by torchvision's,
    and `parts` the file's tensors, by its names, that others are computed from. `problem` says why the tensors
    are as they were found, and not a network's.
    """

    tensors: Mapping[str, LazyTensor]
    names: Mapping[str, str] = field(default_factory=dict)
    wrapping: Wrapping | None = None
    parts: Mapping[str, LazyTensor] = field(default_factory=dict)
    dilated_stages: tuple[str, ...] = ()
    maxpool: bool = True
    path: tuple[str, ...] = ()
    problem: CheckpointError | None = None

    @classmethod
    def bare(cls, root: object) -> Found:
        """A plain state_dict, as it is. Raises CheckpointError if `root` is none."""
        if not isinstance(root, Mapping) or not all(isinstance(tensor, LazyTensor) for tensor in root.values()):
            raise CheckpointError("it holds things other than tensors")
        return cls(root)


def at(root: object, path: Sequence[str]) -> object:
    """What stands in a file under these keys, one in the other."""
    for key in path:
        root = root.get(key) if isinstance(root, Mapping) else None
    return root
