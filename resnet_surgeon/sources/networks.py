"""Where ResNets stand among named tensors: their stages by the shape of the names, their stem by a table.

A block is found by the name of its first convolution, and blocks that differ only in a stage's number belong together;
the stem is the nearest pair of modules above them that some library calls so. Knows no habit of saving, and no value.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cached_property

from resnet_surgeon.architecture.naming import BLOCK_MODULES, FIRST_CONVOLUTIONS, NAMINGS, STEMS
from resnet_surgeon.dataclass import dataclass
from resnet_surgeon.errors import CheckpointError, printable
from resnet_surgeon.formats.tensors import LazyTensor
from resnet_surgeon.formats.unread import Unread

# Modules that wrap another one and add a component to its tensors' names.
_WRAPPERS = frozenset({"module", "_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module"})
_PARAMETRIZED = ".parametrizations.weight"  # torch.nn.utils.parametrize: the module's path goes on after its tensors'
_LONGEST_PATH = 1000  # of a network's module, in characters
_FURTHEST_STEM = 5  # components that a stem may stand above its stages
_MOST_STAGES = 4
_ENDS = tuple(f".{path}" for path in FIRST_CONVOLUTIONS)


@dataclass(frozen=True)
class Leaf:
    """One tensor of a module, or what stands in its place, with its name in the file."""

    name: str
    node: LazyTensor | Unread

    @property
    def shape(self) -> tuple[int, ...]:
        """The tensor's; () for what is none."""
        return () if isinstance(self.node, Unread) else self.node.shape

    @property
    def tensor(self) -> LazyTensor:
        """Raises CheckpointError for what cannot be read."""
        self.check_readable()
        assert not isinstance(self.node, Unread)
        return self.node

    def check_readable(self) -> None:
        """Raises CheckpointError for what no tensor can be made of, such as a quantised one."""
        if isinstance(self.node, Unread):
            raise CheckpointError(f"the network's {printable(self.name)} is {self.node.what}", hint=self.node.hint)


# By a module's path the tensors that it has, each by its own name: `weight`, `running_mean` ...
Modules = Mapping[str, Mapping[str, Leaf]]


@dataclass(frozen=True)
class Place:
    """Where a ResNet stands: what its modules' paths begin with, its stem, and its stages with their numbers from 1.

    `first` is the number that the first stage has in the file.
    """

    scope: str
    stem: tuple[str, str]
    stages: Mapping[str, int]
    first: int

    @cached_property
    def library(self) -> str:
        """Whose names these are."""
        stem = tuple(path.removeprefix(self.scope) for path in self.stem)
        names = [name for name in ("transformers", "detectron2", "sequential") if NAMINGS[name].stem == stem]
        return names[0] if names else "torchvision"

    def ours(self, path: str) -> str | None:
        """torchvision's path of a module, or None if it is not part of the ResNet."""
        if path in self.stem:
            return ("conv1", "bn1")[self.stem.index(path)]
        stage = self.stage_of(path)
        if stage is None:
            return None
        index, _, within = path[len(stage) + 1 :].partition(".")
        module = BLOCK_MODULES.get(within)
        return f"layer{self.stages[stage]}.{index}.{module}" if module and _is_number(index) else None

    def stage_of(self, path: str) -> str | None:
        """The path of the stage that a module is in."""
        return next((stage for stage, begin in self._begins if path.startswith(begin)), None)

    @cached_property
    def _begins(self) -> tuple[tuple[str, str], ...]:
        return tuple((stage, f"{stage}.") for stage in self.stages)


def modules(nodes: Mapping[str, LazyTensor | Unread]) -> dict[str, dict[str, Leaf]]:
    """The tensors by the module that they belong to; wrappers in the middle of a path are passed over."""
    made: dict[str, dict[str, Leaf]] = {}
    for name, node in nodes.items():
        path, _, leaf = name.rpartition(".")
        if path.endswith(_PARAMETRIZED):
            path, leaf = path.removesuffix(_PARAMETRIZED), f"parametrizations.weight.{leaf}"
        inner = _without_wrappers(path) if "mod" in path else path
        if leaf in made.setdefault(inner, {}):
            inner = path  # the wrapped module and a bare one have names of their own
        made.setdefault(inner, {})[leaf] = Leaf(name, node)
    return {path: leaves for path, leaves in made.items() if leaves}


def places(found: Modules) -> list[Place]:
    """Every ResNet; where no blocks have a stem, those that torchvision's names make one."""
    by_stem: dict[str, list[Place]] = {}
    stemless: list[Place] = []
    for (head, tail), stages in _groups(found).items():
        first = 1 if (head.endswith("layer") and not tail and min(stages.values()) > 0) else min(stages.values())
        numbered = {path: number - first + 1 for path, number in stages.items() if number - first < _MOST_STAGES}
        stem = _stem(found, head)
        if stem is not None:
            by_stem.setdefault(stem[1][0], []).append(Place(*stem, numbered, first))
        elif 1 in stages.values() and head.endswith("layer") and not tail:
            scope = head.removesuffix("layer")
            stemless.append(Place(scope, (f"{scope}conv1", f"{scope}bn1"), numbered, first))
    return [_one_of(group, found) for group in by_stem.values()] or stemless


def _groups(found: Modules) -> dict[tuple[str, str], dict[str, int]]:
    """The paths of stages with their numbers, by what stands before and after the number."""
    groups: dict[tuple[str, str], dict[str, int]] = {}
    for path in found:
        if not path.endswith(_ENDS) or len(path) > _LONGEST_PATH:
            continue
        end = next(end for end in _ENDS if path.endswith(end))
        stage, _, index = path.removesuffix(end).rpartition(".")
        match = re.fullmatch(r"(?s)(.*[^0-9]|)([0-9]{1,3})([^0-9]*)", stage)
        if match and _is_number(index):
            groups.setdefault((match[1], match[3]), {})[stage] = int(match[2])
    return groups


def _stem(found: Modules, head: str) -> tuple[str, tuple[str, str]] | None:
    """The scope and the modules of the nearest stem to stages that begin with `head`."""
    for scope in _scopes(head):
        for convolution, norm in STEMS:
            if f"{scope}{convolution}" in found and f"{scope}{norm}" in found:
                return scope, (f"{scope}{convolution}", f"{scope}{norm}")
    return None


def _scopes(head: str) -> Iterator[str]:
    """What a path that begins with `head` may have in common with its stem's, the longest first."""
    ends = [match.end() for match in re.finditer(r"[._]", head)]
    for end in [*reversed(ends[-_FURTHEST_STEM:]), 0]:
        yield head[:end]


def _one_of(group: list[Place], found: Modules) -> Place:
    """Of stages that share a stem, those that take its channels; a decoder's do not."""
    channels = _channels(found[group[0].stem[0]])
    following = [place for place in group if _taken(place, found) == channels]
    return max(following or group, key=lambda place: len(place.stages))


def _taken(place: Place, found: Modules) -> int | None:
    """The input channels of the first stage."""
    for stage, number in place.stages.items():
        for convolution in FIRST_CONVOLUTIONS if number == 1 else ():
            if leaves := found.get(f"{stage}.0.{convolution}"):
                return _channels(leaves, axis=1)
    return None


def _channels(leaves: Mapping[str, Leaf], axis: int = 0) -> int | None:
    return next((leaf.shape[axis] for leaf in leaves.values() if len(leaf.shape) > 2), None)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 3


def _without_wrappers(path: str) -> str:
    """The path without the wrappers that stand after another component: those before it are a prefix."""
    parts = path.split(".")
    if _WRAPPERS.isdisjoint(parts):
        return path
    first = next((index for index, part in enumerate(parts) if part not in _WRAPPERS), len(parts))
    return ".".join([*parts[:first], *(part for part in parts[first:] if part not in _WRAPPERS)])
