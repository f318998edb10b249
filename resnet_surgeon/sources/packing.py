"""The file around a network: every tensor that was saved beside it, by its name there, and what else was saved.

Reads no tensor and changes none.
"""

from __future__ import annotations

from collections.abc import Mapping

from resnet_surgeon.dataclass import dataclass
from resnet_surgeon.errors import CheckpointError, printable
from resnet_surgeon.formats.tensors import LazyTensor
from resnet_surgeon.formats.unread import Unread
from resnet_surgeon.sources.found import Found

_OBJECTS = ("an object of the class", "the class or function")  # how it begins what no tensor can be made of


@dataclass(frozen=True)
class Packing:
    """A state_dict with a network in it, and the names of what was saved with it and is not one of its tensors."""

    tensors: Mapping[str, LazyTensor]
    dropped: tuple[str, ...] = ()


def packing(root: object, found: Found) -> Packing:
    """The state_dict in `root` that the tensors of `found` stand in. Raises CheckpointError if one of its tensors
    cannot be read, or if they do not all stand in one.
    """
    from resnet_surgeon.sources.wrappings import named_mappings

    own = {found.names.get(name, name): tensor for name, tensor in found.tensors.items()}
    if found.names:
        own = {name: found.tensors[ours] for ours, name in found.names.items() if ours in found.tensors}
    for path, nodes in named_mappings(root):
        if all(nodes.get(name) is tensor for name, tensor in own.items()):
            return _packing(root, path, nodes)
    raise CheckpointError("its network does not stand in one state_dict, which could be kept")


def _packing(root: object, path: tuple[str, ...], nodes: Mapping[str, LazyTensor | Unread]) -> Packing:
    for name, node in nodes.items():
        if isinstance(node, Unread) and not ("." not in name and node.what.startswith(_OBJECTS)):
            raise CheckpointError(f"{printable(name)}, which would have to be kept, is {node.what}", hint=node.hint)
    tensors = {name: node for name, node in nodes.items() if not isinstance(node, Unread)}
    dropped: list[str] = []
    for key in (*path, None):
        assert isinstance(root, Mapping)
        dropped += [name for name in root if isinstance(name, str) and name != key and (key or name not in tensors)]
        root = root[key] if key is not None else root
    return Packing(tensors, tuple(dropped))
