"""What stands around the network in a whole module: the layers without tensors that data may pass before it, behind it
or, in a Sequential, in it; and which of them change nothing where they stand.

Knows classes by their names. Opens nothing, and judges no layer that has tensors.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from functools import cached_property

from resnet_surgeon.dataclass import dataclass
from resnet_surgeon.formats.modules import Layer

# Layers that pass on what they are given, at least in inference.
IDENTITIES = {
    "Identity", "Dropout", "Dropout2d", "DropPath", "Flatten", "QuantStub", "DeQuantStub", "FloatFunctional",
}  # fmt: skip
ACTIVATIONS = {"ReLU"}
MEANS = {"AdaptiveAvgPool2d", "AvgPool2d", "SelectAdaptivePool2d"}
# What changes nothing, by the place where it stands on the data's way: which ReLU, maxpool and mean is whose is looked
# at elsewhere, and what a ReLU has passed, another one leaves as it is.
BEFORE_STEM = IDENTITIES - {"Flatten"}
BEHIND_STEM = IDENTITIES | ACTIVATIONS | {"MaxPool2d"}
AMONG_BLOCKS = IDENTITIES | ACTIVATIONS
BEHIND_BLOCKS = IDENTITIES | ACTIVATIONS | MEANS
BEHIND_CLASSIFIER = IDENTITIES
BESIDE = IDENTITIES  # with losses and metrics; and means, where the network itself does not pool
_ASIDE = ("torch.nn.modules.loss.", "torchmetrics.")  # whose classes work on outputs, and are part of none
# Modules of libraries that call the one module in them, and nothing else.
_WRAPPERS = {"DataParallel", "DistributedDataParallel", "OptimizedModule", "AveragedModel", "FullyShardedDataParallel"}
_LIBRARIES = ("torch.", "torchvision.", "timm.", "transformers.", "segmentation_models_pytorch.", "resnet_surgeon.")


def own_name(layer: Layer) -> str:
    """The name of its class, without the module that it stands in."""
    return layer.kind.rpartition(".")[2]


def is_wrapper(layer: Layer) -> bool:
    return own_name(layer) in _WRAPPERS and layer.kind.startswith("torch.")


@dataclass(frozen=True)
class Surroundings:
    """A module's layers by their paths, those paths that have tensors, and where its network is: the module around stem
    and stages, the layers of the stem, the blocks and the layers of the classifier, each in their order.
    """

    layers: Mapping[str, Layer]
    filled: Collection[str]
    scope: str
    stem: tuple[str, ...]
    blocks: tuple[str, ...]
    classifier: tuple[str, ...]

    def passed(self, proven: Collection[str]) -> Iterator[tuple[str, Collection[str]]]:
        """Every layer without tensors that data may pass, with the classes that change nothing there.

        Nothing is said of those in a larger model, whose order its class alone knows, nor in modules that are `proven`.
        """
        for path in self.around:
            if self._is_row(path):
                yield from self._in_order(path)
            elif path in self.alone and path not in proven:
                yield from ((child, self._beside) for child in self._leaves_beside(path))
        if self._is_row(self.scope):
            yield from self._in_order(self.scope)

    def left_out(self) -> Iterator[str]:
        """The layers without tensors that may stand before or behind the network in a larger model."""
        for path in self.around:
            if path not in self.alone and not self._is_row(path):
                beside = self._leaves_beside(path)
                yield from (child for child in beside if own_name(self.layers[child]) not in self._beside)

    def unread(self, proven: Collection[str]) -> Iterator[str]:
        """The modules around the network alone whose forward may compute more than it."""
        for path in self.alone:
            is_known = self._is_row(path) or self.layers[path].kind.startswith(_LIBRARIES)
            if not is_known and path not in proven:
                yield path

    @property
    def hooked(self) -> Iterator[str]:
        """The modules around the network alone that have hooks."""
        return (path for path in self.alone if self.layers[path].has_hooks)

    @cached_property
    def alone(self) -> tuple[str, ...]:
        """The modules around the network that have no other layers with tensors, and so are no larger model."""
        return tuple(path for path in self.around if not self._is_larger(path))

    @cached_property
    def around(self) -> tuple[str, ...]:
        """The modules that the network is in, the whole first."""
        ends = [index for index, letter in enumerate(self.scope) if letter == "."]
        paths = ["", *(self.scope[:end] for end in ends)] if self.scope else []
        return tuple(path for path in paths if path in self.layers)

    def _is_row(self, path: str) -> bool:
        """Whether it calls its layers, one after the other, and nothing else."""
        return own_name(self.layers[path]) == "Sequential"

    def _is_larger(self, path: str) -> bool:
        """Whether a module has layers with tensors that are not the network's."""
        return any(
            _holds(path, own) and own != path and not (self._is_of_network(own) or _holds(self.scope, own))
            and not self.layers.get(own, self.layers[path]).kind.startswith(_ASIDE)
            for own in self.filled
        )  # fmt: skip

    @cached_property
    def _beside(self) -> Collection[str]:
        pools = any(own_name(layer) in MEANS for path, layer in self.layers.items() if _holds(self.scope, path))
        return BESIDE if pools or not self._is_row(self.scope) else BESIDE | MEANS

    def _in_order(self, path: str) -> Iterator[tuple[str, Collection[str]]]:
        """The layers without tensors in a Sequential, from the first to the last; to the last one of the network, where
        layers follow that have tensors, and so are another part.
        """
        leaves = [*self._leaves(path)]
        last = max(index for index, leaf in enumerate(leaves) if self._is_of_network(leaf))
        is_followed = any(map(self._has_tensors, leaves[last + 1 :]))
        place: Collection[str] | None = BEFORE_STEM
        for leaf in leaves[: last + 1 if is_followed else None]:
            if self._is_of_network(leaf):
                place = self._behind(leaf)
            elif place is not None and not self._has_tensors(leaf):
                yield leaf, place

    def _behind(self, leaf: str) -> Collection[str] | None:
        """What changes nothing behind a layer of the network; None in its classifier, of which others know."""
        if any(_holds(leaf, own) for own in self.classifier):
            return BEHIND_CLASSIFIER if _holds(leaf, self.classifier[-1]) else None
        if leaf in self.stem:
            return BEHIND_STEM
        return AMONG_BLOCKS if leaf in self.blocks[:-1] else BEHIND_BLOCKS

    def _is_of_network(self, path: str) -> bool:
        return path in self._network or _holds(path, self.scope)

    @cached_property
    def _network(self) -> frozenset[str]:
        return frozenset((*self.stem, *self.blocks, *self.classifier))

    def _leaves(self, path: str) -> Iterator[str]:
        """The layers in a module, in their order; in the place of a Sequential those in it."""
        for child in self._children.get(path, ()):
            yield from [child] if self._is_of_network(child) or not self._is_row(child) else self._leaves(child)

    def _leaves_beside(self, path: str) -> Iterator[str]:
        """The layers without tensors in a module, beside the network, that may be on the data's way."""
        for leaf in self._leaves(path):
            is_aside = self.layers[leaf].kind.startswith(_ASIDE)
            if not (is_aside or self._is_of_network(leaf) or self._has_tensors(leaf)):
                yield leaf

    def _has_tensors(self, path: str) -> bool:
        return path in self._holders

    @cached_property
    def _holders(self) -> frozenset[str]:
        """The modules that have tensors, and all that these are in."""
        found: set[str] = set()
        for path in self.filled:
            while path and path not in found:
                found.add(path)
                path = path.rpartition(".")[0]
        return frozenset(found)

    @cached_property
    def _children(self) -> Mapping[str, list[str]]:
        children: dict[str, list[str]] = {}
        for path in filter(None, self.layers):
            children.setdefault(path.rpartition(".")[0], []).append(path)
        return children


def _holds(path: str, other: str) -> bool:
    """Whether the module with this path is the other, or has it in it."""
    return not path or other == path or other.startswith(f"{path}.")
