"""Finds the ResNet in what people save: under keys, behind prefixes, by other libraries' names, among other tensors.

Recognised by content alone. Each habit of saving is a line of a table; knows no bytes.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence

from resnet_surgeon.architecture.other_kinds import refuse_other_kinds
from resnet_surgeon.dataclass import dataclass
from resnet_surgeon.errors import Answer, ArchitectureError, CheckpointError, listed, printable
from resnet_surgeon.formats.tensors import LazyTensor, Stored, Strided
from resnet_surgeon.formats.unread import Unread
from resnet_surgeon.sources.found import Found, Wrapping
from resnet_surgeon.sources.networks import Leaf, Modules, Place, modules, places
from resnet_surgeon.sources.remainder import NO_CLASSIFIER, remainder
from resnet_surgeon.sources.spelling import spelled

_DEEPEST = 4  # keys on the way to a state_dict
_LONGEST_KEY = 1000  # of these keys, in characters
_SHOWN = 10  # networks named in one message
_MOST_NETWORKS = 64  # in a file; each is compared with all names around it
TOP = "."  # what `--key` calls a network under no key and behind no prefix
_OUR_HEADS = re.compile(r"heads\.\w+\.(fc|avgpool|layer[1-4])(\.|$)")


def unwrap(root: object, key: str | None = None, fc: str | None = None, ignore: Sequence[str] = ()) -> Found:
    """The ResNet in `root`; `key` chooses one of several, `fc` names its classifier, and `ignore` are patterns of
    layers that may go.

    Where there is none, or the user must say more about it, the tensors as they are, with the problem. Raises
    CheckpointError for what holds no named tensors, for several ResNets without `key`, and for a `key` that fits none.
    """
    mappings = [*named_mappings(root)]
    if not any(_tensors(nodes) for _, nodes in mappings):
        what = "a single tensor" if isinstance(root, LazyTensor) else f"a {type(root).__name__} without named tensors"
        what = root.what if isinstance(root, Unread) else what
        raise CheckpointError(
            f"it holds {what}, expected a state_dict", hint="save with torch.save(model.state_dict(), path)"
        )
    every = [find for path, nodes in mappings for find in _finds(path, nodes)]
    if len(every) > _MOST_NETWORKS:
        raise CheckpointError(f"it holds {len(every)} ResNets, more than {_MOST_NETWORKS}")
    find = _chosen(_distinct(every), key)
    if find is None:
        with_tensors = [(path, tensors) for path, nodes in mappings if (tensors := _tensors(nodes))]
        path, tensors = min(with_tensors, key=lambda mapping: len(".".join(mapping[0])))
        return Found(tensors, wrapping=Wrapping("nested", ".".join(path)) if path else None)
    others = [other.place for other in every if other is not find and other.modules is find.modules]
    try:
        return _found(find, others, root, fc, tuple(ignore))
    except ArchitectureError as problem:
        return Found(find.tensors, wrapping=Wrapping("nested", find.key) if find.key else None, problem=problem)


@dataclass(frozen=True, eq=False)
class _Find:
    """A ResNet in a mapping; `path` are the keys on the way to it."""

    path: tuple[str, ...]
    place: Place
    tensors: Mapping[str, LazyTensor]
    modules: Modules

    @property
    def key(self) -> str:
        return ".".join(self.path)

    @property
    def prefix(self) -> str:
        return self.place.scope.rstrip("._")


@dataclass(frozen=True)
class _Habit:
    """A way of packing that people know by name. The first of the table that fits gives a wrapping its name."""

    name: str
    fits: Callable[[_Find, Mapping[object, object]], bool]
    drops_fc: bool = False
    dilated_stages: tuple[str, ...] = ()


def _beside(find: _Find, pattern: str, dimensions: int | None = None) -> bool:
    """Whether a tensor of this name, and of so many dimensions, lies in the same mapping."""
    return any(
        re.search(pattern, name) and dimensions in (None, len(tensor.shape)) for name, tensor in find.tensors.items()
    )


_HABITS = (
    _Habit("MoCo", lambda find, root: find.place.scope.endswith(("encoder_q.", "base_encoder.")), drops_fc=True),
    _Habit("torchvision detection", lambda find, root: find.place.scope.endswith("backbone.body.")),
    _Habit(
        "torchvision segmentation",
        # Its head ends with a convolution, and torchvision dilates bottlenecks only.
        lambda find, root: (
            find.place.scope.endswith("backbone.")
            and _beside(find, r"(^|\.)classifier\.4\.weight$", dimensions=4)
            and _beside(find, r"layer1\.0\.conv3\.weight$")
        ),
        dilated_stages=("layer3", "layer4"),
    ),
    _Habit(
        "segmentation_models_pytorch",
        lambda find, root: find.place.scope == "encoder." and _beside(find, r"^decoder\."),
    ),
    _Habit("OpenMMLab", lambda find, root: "meta" in root and find.place.scope.endswith("backbone.")),
    _Habit("self-supervised", lambda find, root: _beside(find, r"(^|\.)(projector|projection_head|head\.mlp)\.")),
    _Habit("transformers", lambda find, root: find.place.library == "transformers"),
    _Habit("detectron2", lambda find, root: find.place.library == "detectron2"),
    _Habit("fastai", lambda find, root: find.place.library == "sequential" and find.place.scope.endswith("0.")),
    _Habit("nn.Sequential", lambda find, root: find.place.library == "sequential"),
    _Habit("PyTorch Lightning", lambda find, root: "pytorch-lightning_version" in root),
    _Habit("torch.compile", lambda find, root: any("_orig_mod." in name for name in find.tensors)),
    _Habit("DistributedDataParallel", lambda find, root: find.place.scope.startswith("module.")),
)

# Of twins that are trained together, the one that people take: (the one, its twin).
_TWINS = (("encoder_q.", "encoder_k."), ("base_encoder.", "momentum_encoder."))


_Nodes = Mapping[str, LazyTensor | Unread]


def _tensors(nodes: _Nodes) -> dict[str, LazyTensor]:
    return {name: node for name, node in nodes.items() if isinstance(node, LazyTensor)}


def named_mappings(root: object) -> Iterator[tuple[tuple[str, ...], _Nodes]]:
    """Every mapping with named tensors, or what stands for them, after the keys on the way to it; each once, however
    often it is referred to.
    """
    seen: set[int] = set()
    waiting: deque[tuple[tuple[str, ...], object]] = deque([((), root)])
    while waiting:
        path, node = waiting.popleft()
        if not isinstance(node, Mapping) or len(path) > _DEEPEST or id(node) in seen:
            continue
        seen.add(id(node))
        named = [(name, item) for name, item in node.items() if type(name) is str]
        nodes = {name: item for name, item in named if isinstance(item, LazyTensor | Unread)}
        if nodes:
            _check_names(*path, *nodes)
            yield path, nodes
        waiting += [
            ((*path, name), item) for name, item in named if isinstance(item, Mapping) and len(name) <= _LONGEST_KEY
        ]


def _check_names(*names: str) -> None:
    """Raises CheckpointError for a name that cannot be written down: pickles may hold half of a surrogate pair."""
    for name in names:
        if not name.isascii() and re.search("[\ud800-\udfff]", name):
            raise CheckpointError(f"it holds the name {printable(name)}, which is not Unicode text")


def _finds(path: tuple[str, ...], nodes: _Nodes) -> Iterator[_Find]:
    found = modules(nodes)
    for place in places(found):
        yield _Find(path, place, _tensors(nodes), found)


def _distinct(finds: list[_Find]) -> list[_Find]:
    """Each network once, by whatever keys and prefixes the very same tensors are there."""
    if len(finds) < 2:
        return finds
    return [*{_identity(find): find for find in reversed(finds)}.values()][::-1]


def _identity(find: _Find) -> object:
    """Equal for two finds of the very same tensors: where each is in its file."""
    parts: list[object] = []
    for path, leaves in find.modules.items():
        if (ours := find.place.ours(path)) is not None:
            parts += (
                (ours, name, id(leaf.node.file), leaf.node.offset, leaf.shape)
                if isinstance(leaf.node, Stored | Strided)
                else id(leaf.node)
                for name, leaf in leaves.items()
            )
    return frozenset(parts)


def _chosen(finds: list[_Find], key: str | None) -> _Find | None:
    """The network that `key` chooses, or the only one. Raises CheckpointError for several, and for none of that key."""
    if key is None:
        left = _preferred(finds)
    else:
        # A whole name says more than a prefix or a key alone.
        whole = [find for find, name in zip(finds, _whole_names(finds), strict=True) if name == key]
        left = whole or [find for find in finds if find.prefix == key] or [find for find in finds if find.key == key]
    if len(left) == 1:
        return left[0]
    if key is None and not left:
        return None
    shown = {*(left or finds)}
    names = [name for find, name in zip(finds, _told_apart(finds), strict=True) if find in shown]
    places = listed(["the top level" if name == TOP else printable(name) for name in names], _SHOWN)
    reason = f"it holds {len(left)} ResNets, under {places}"
    if not left:
        reason = f"it holds no ResNet under the key {printable(key or '')}" + (f", but under {places}" if names else "")
    answers = [
        Answer("key", name, f"the one {'at the top level' if name == TOP else f'under {printable(name)}'}")
        for name in names[:_SHOWN]
    ]
    raise CheckpointError(reason, answers=answers)


def _preferred(finds: list[_Find]) -> list[_Find]:
    for one, twin in _TWINS:
        if any(find.place.scope.endswith(one) for find in finds):
            finds = [find for find in finds if not find.place.scope.endswith(twin)]
    return finds


def _told_apart(finds: list[_Find]) -> list[str]:
    """What `--key` takes for each: its key or its prefix where that is enough, else both."""
    for names in ([find.key or TOP for find in finds], [find.prefix or TOP for find in finds]):
        if len({*names}) == len(names):
            return names
    return _whole_names(finds)


def _whole_names(finds: list[_Find]) -> list[str]:
    """Each network's key and prefix; those that read alike are numbered."""
    names = [".".join(filter(None, (find.key, find.prefix))) or TOP for find in finds]
    seen: Counter[str] = Counter()
    made = []
    for name in names:
        seen[name] += 1
        made.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return made


def _found(find: _Find, others: list[Place], root: object, fc: str | None, ignore: tuple[str, ...]) -> Found:
    habit = next((habit for habit in _HABITS if isinstance(root, Mapping) and habit.fits(find, root)), None)
    network, beside = _parted(find)
    refuse_other_kinds({name: leaf.shape for name, leaf in _relative(find.place, network, beside)})
    for leaf in itertools.chain.from_iterable(leaves.values() for leaves in network.values()):
        leaf.check_readable()
    has_heads = any(module.startswith("heads.") for module in network)
    stated = fc or (NO_CLASSIFIER if has_heads or (habit and habit.drops_fc) else None)
    rest = remainder(find.place, beside, _in_channels(network), _channels(network), others, stated, ignore)
    if rest.classifier is not None:
        network |= {ours: find.modules[path] for ours, path in rest.members}
    made = spelled(network)
    classifier = rest.classifier if rest.classifier != f"{find.place.scope}fc" else None
    is_plain = not (find.key or find.place.scope or rest.left_out or made.filled or classifier or rest.ignored)
    is_plain = is_plain and all(name == ours for ours, name in made.names.items()) and not made.parts
    kind = habit.name if habit else ("nested" if find.key else "prefixed" if find.place.scope else "plain")
    wrapping = Wrapping(
        kind,
        find.key or None,
        find.place.scope,
        rest.left_out,
        tuple(made.filled),
        NO_CLASSIFIER if fc == NO_CLASSIFIER else classifier,
        rest.ignored,
    )
    return Found(
        made.tensors,
        made.names,
        None if is_plain else wrapping,
        made.parts,
        habit.dilated_stages if habit else (),
        maxpool=_has_maxpool(find.place),
        path=find.path,
    )


def _parted(find: _Find) -> tuple[dict[str, Mapping[str, Leaf]], dict[str, Mapping[str, Leaf]]]:
    """The modules of the network by torchvision's paths, and those beside it by their own.

    Raises CheckpointError for two modules that would get one path.
    """
    network: dict[str, Mapping[str, Leaf]] = {}
    beside: dict[str, Mapping[str, Leaf]] = {}
    for path, leaves in find.modules.items():
        ours = _ours(path, find.place)
        if ours is not None and ours in network:
            one, other = next(iter(network[ours].values())), next(iter(leaves.values()))
            reason = f"tensors {printable(one.name)} and {printable(other.name)} would both be of `{ours}`"
            raise CheckpointError(reason)
        if ours is None:
            beside[path] = leaves
        else:
            network[ours] = leaves
    return network, beside


def _ours(path: str, place: Place) -> str | None:
    """torchvision's path of a module, or our own of a head's; None if it is neither."""
    if not path.startswith(place.scope):
        return None
    inner = path[len(place.scope) :]
    return inner if inner.startswith("heads.") and _OUR_HEADS.match(inner) else place.ours(path)


def _relative(place: Place, network: Modules, beside: Modules) -> Iterator[tuple[str, Leaf]]:
    """Every tensor of the network by torchvision's name, and its neighbours by their own."""
    for module, leaves in network.items():
        yield from ((f"{module}.{name}", leaf) for name, leaf in leaves.items())
    for path, leaves in beside.items():
        if path.startswith(place.scope):
            yield from ((f"{path[len(place.scope) :]}.{name}", leaf) for name, leaf in leaves.items())


def _in_channels(network: Mapping[str, Mapping[str, Leaf]]) -> int:
    """The channels of the images; 0 if they cannot be told."""
    return next((leaf.shape[1] for leaf in network.get("conv1", {}).values() if len(leaf.shape) == 4), 0)


def _channels(network: Mapping[str, Mapping[str, Leaf]]) -> int:
    """The channels of the last stage; 0 if they cannot be told."""
    last = max((module for module in network if module.startswith("layer")), default="")[:6]
    for convolution in ("conv3", "conv2"):
        for module, leaves in network.items():
            if module.startswith(last) and module.endswith(convolution):
                return next((leaf.shape[0] for leaf in leaves.values() if len(leaf.shape) == 4), 0)
    return 0


def _has_maxpool(place: Place) -> bool:
    """Whether there is room for it between the stem and the stages of an nn.Sequential: 0, 1, (relu, maxpool), 4.

    Raises ArchitectureError where the numbers leave room for something else.
    """
    if place.library != "sequential" or place.first == 4:
        return True
    if place.first == 3:
        return False
    reason = f"its stages begin at {place.first} of an nn.Sequential, which leaves open whether it has a maxpool"
    raise ArchitectureError(reason)
