"""Finds the ResNet in what people save: under keys, behind prefixes, by other libraries' names, among other tensors.

Told by content alone. Each way of naming and each habit of saving is an entry of a table; knows no bytes.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated

from resnet_surgeon.architecture.initialisation import Constant
from resnet_surgeon.errors import CheckpointError, listed, printable
from resnet_surgeon.fields import Name, Text
from resnet_surgeon.formats.tensors import Initialised, LazyTensor
from resnet_surgeon.formats.views import Unread

_DEEPEST = 4  # keys on the way to a state_dict
_LONGEST_KEY = 1000  # of these keys, in characters
_SHOWN = 10  # places named in one message


@dataclass(frozen=True)
class Wrapping:
    """How a ResNet was packed: by whose habit, under which key and prefix; what lay beside it, and what it lacked."""

    kind: Annotated[str, Text("the name of a packing", r"[A-Za-z0-9_. -]+", 100)]
    key: Name | None = None
    prefix: Name = ""
    left_out: tuple[Name, ...] = ()
    filled: tuple[Name, ...] = ()


@dataclass(frozen=True)
class Found:
    """The tensors of a ResNet by torchvision's names, how they were packed, and what the packing says of the network.

    `names` are those in the file, by torchvision's, where they differ.
    """

    tensors: Mapping[str, LazyTensor]
    names: Mapping[str, str] = field(default_factory=dict)
    wrapping: Wrapping | None = None
    dilated_stages: tuple[str, ...] = ()

    @classmethod
    def bare(cls, root: object) -> Found:
        """A plain state_dict, as it is. Raises CheckpointError if `root` is none."""
        if not isinstance(root, Mapping) or not all(isinstance(tensor, LazyTensor) for tensor in root.values()):
            raise CheckpointError("it holds other things than tensors")
        return cls(root)


def unwrap(root: object, key: str | None = None) -> Found:
    """The ResNet in `root`; `key` chooses one of several, by the key or prefix that it stands under.

    Where there is none, the tensors as they are, for the caller to say what is odd about them. Raises CheckpointError
    for what holds no named tensors, for several ResNets without `key`, and for two tensors that would get one name.
    """
    mappings = [*_mappings(root)]
    if not any(_tensors(mapping) for _, mapping in mappings):
        what = "a single tensor" if isinstance(root, LazyTensor) else f"a {type(root).__name__} without named tensors"
        what = root.what if isinstance(root, Unread) else what
        raise CheckpointError(
            f"it holds {what}, expected a state_dict", hint="save with torch.save(model.state_dict(), path)"
        )
    found = {
        (find.path, find.prefix, find.naming.name): find for path, nodes in mappings for find in _finds(path, nodes)
    }
    finds = _preferred([find for find in found.values() if key is None or key in (find.key, find.prefix.rstrip("."))])
    if len(finds) > 1:
        raise CheckpointError(f"it holds {len(finds)} ResNets, under {_places(finds)}", hint="choose one with `--key`")
    if key is not None and not finds:
        hint: str | None = f"those that it holds are under {_places([*found.values()])}" if found else None
        raise CheckpointError(f"it holds no ResNet under the key {printable(key)}", hint=hint)
    if not finds:
        with_tensors = [(path, tensors) for path, nodes in mappings if (tensors := _tensors(nodes))]
        path, tensors = min(with_tensors, key=lambda mapping: len(".".join(mapping[0])))
        return Found(tensors, {}, Wrapping("nested", ".".join(path)) if path else None)
    return _found(finds[0], root)


@dataclass(frozen=True)
class _Naming:
    """A library's names for the parts of a ResNet. `mark` is the tensor that gives it away, after any prefix."""

    name: str
    mark: str
    rename: Callable[[str], str | None]


@dataclass(frozen=True)
class _Find:
    """A ResNet in a mapping; `path` are the keys on the way to it."""

    path: tuple[str, ...]
    prefix: str
    naming: _Naming
    tensors: Mapping[str, LazyTensor]
    unread: Mapping[str, Unread]

    @property
    def key(self) -> str:
        return ".".join(self.path)


_OWN = r"(conv1|bn1|layer[1-4]|heads)\..+|fc\.(weight|bias)"


def _torchvision(name: str) -> str | None:
    return name if re.fullmatch(_OWN, name) else None


def _sequential(name: str) -> str | None:
    """`nn.Sequential(*model.children())`, as fastai and many tutorials cut networks."""
    parts = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4", "9": "fc"}
    index, _, rest = name.partition(".")
    return _torchvision(f"{parts.get(index, '-')}.{rest}")


def _transformers(name: str) -> str | None:
    """`ResNetModel` of transformers."""
    if match := re.fullmatch(r"embedder\.embedder\.(convolution|normalization)\.(\w+)", name):
        return f"{'conv1' if match[1] == 'convolution' else 'bn1'}.{match[2]}"
    match = re.fullmatch(
        r"encoder\.stages\.(\d)\.layers\.(\d+)\.(shortcut|layer\.(\d))\.(convolution|normalization)\.(\w+)", name
    )
    if not match:
        return None
    convolution = match[5] == "convolution"
    if match[3] == "shortcut":
        part = f"downsample.{0 if convolution else 1}"
    else:
        part = f"{'conv' if convolution else 'bn'}{int(match[4]) + 1}"
    return f"layer{int(match[1]) + 1}.{match[2]}.{part}.{match[6]}"


def _detectron2(name: str) -> str | None:
    """detectron2's `build_resnet_backbone`."""
    if match := re.fullmatch(r"stem\.conv1\.(norm\.)?(\w+)", name):
        return f"{'bn1' if match[1] else 'conv1'}.{match[2]}"
    match = re.fullmatch(r"res([2-5])\.(\d+)\.(shortcut|conv(\d))\.(norm\.)?(\w+)", name)
    if not match:
        return None
    if match[3] == "shortcut":
        part = f"downsample.{1 if match[5] else 0}"
    else:
        part = f"{'bn' if match[5] else 'conv'}{match[4]}"
    return f"layer{int(match[1]) - 1}.{match[2]}.{part}.{match[6]}"


_NAMINGS = (
    _Naming("torchvision", "layer1.0.conv1.weight", _torchvision),
    _Naming("nn.Sequential", "4.0.conv1.weight", _sequential),
    _Naming("transformers", "embedder.embedder.convolution.weight", _transformers),
    _Naming("detectron2", "res2.0.conv1.weight", _detectron2),
)


@dataclass(frozen=True)
class _Habit:
    """A way of packing that people know by name. The first of the table that fits gives a wrapping its name."""

    name: str
    fits: Callable[[_Find, Mapping[object, object]], bool]
    drops_fc: bool = False
    dilated_stages: tuple[str, ...] = ()


def _beside(find: _Find, pattern: str) -> bool:
    """Whether a tensor of this name lies in the same mapping."""
    return any(re.fullmatch(pattern, name) for name in find.tensors)


_HABITS = (
    _Habit("MoCo", lambda find, root: find.prefix.endswith(("encoder_q.", "base_encoder.")), drops_fc=True),
    _Habit("torchvision detection", lambda find, root: find.prefix.endswith("backbone.body.")),
    _Habit(
        "torchvision segmentation",
        lambda find, root: find.prefix.endswith("backbone.") and _beside(find, r"classifier\.4\..*"),
        dilated_stages=("layer3", "layer4"),
    ),
    _Habit(
        "segmentation_models_pytorch", lambda find, root: find.prefix == "encoder." and _beside(find, r"decoder\..*")
    ),
    _Habit("self-supervised", lambda find, root: _beside(find, r"(.*\.)?(projector|projection_head|head)\..*")),
    _Habit("transformers", lambda find, root: find.naming.name == "transformers"),
    _Habit("detectron2", lambda find, root: find.naming.name == "detectron2"),
    _Habit("fastai", lambda find, root: find.naming.name == "nn.Sequential" and find.prefix.endswith("0.")),
    _Habit("nn.Sequential", lambda find, root: find.naming.name == "nn.Sequential"),
    _Habit("PyTorch Lightning", lambda find, root: "pytorch-lightning_version" in root),
    _Habit("torch.compile", lambda find, root: "_orig_mod." in find.prefix),
    _Habit("DistributedDataParallel", lambda find, root: find.prefix.startswith("module.")),
)

# Of twins that are trained together, the one that people take: (the one, its twin).
_TWINS = (("encoder_q.", "encoder_k."), ("base_encoder.", "momentum_encoder."))


_Nodes = Mapping[str, LazyTensor | Unread]


def _tensors(nodes: _Nodes) -> dict[str, LazyTensor]:
    return {name: node for name, node in nodes.items() if isinstance(node, LazyTensor)}


def _mappings(root: object) -> Iterator[tuple[tuple[str, ...], _Nodes]]:
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
    tensors = _tensors(nodes)
    unread = {name: node for name, node in nodes.items() if isinstance(node, Unread)}
    for naming in _NAMINGS:
        for name in nodes:
            prefix = name.removesuffix(naming.mark)
            if prefix != name and (not prefix or prefix.endswith(".")):
                yield _Find(path, prefix, naming, tensors, unread)


def _check_read(find: _Find) -> None:
    """Raises CheckpointError for a part of the network that is no tensor, such as a quantised layer."""
    for name, node in find.unread.items():
        inner = name.removeprefix(find.prefix)
        is_inside = name.startswith(find.prefix) and (inner.split(".")[0] in _LAYERS or find.naming.rename(inner))
        if is_inside and "." in inner:
            raise CheckpointError(f"the network's {printable(name)} is {node.what}", hint=node.hint)


_LAYERS = {"conv1", "bn1", "layer1", "layer2", "layer3", "layer4", "fc"}


def _preferred(finds: list[_Find]) -> list[_Find]:
    for one, twin in _TWINS:
        if any(find.prefix.endswith(one) for find in finds):
            finds = [find for find in finds if not find.prefix.endswith(twin)]
    return finds


def _places(finds: list[_Find]) -> str:
    """What `--key` takes to tell them apart: their keys, or their prefixes where they share a key."""
    by_key = len({find.key for find in finds}) == len(finds)
    places = [find.key if by_key else find.prefix.rstrip(".") for find in finds]
    return listed([printable(place) if place else "the top level" for place in places])


def _found(find: _Find, root: object) -> Found:
    habit = next((habit for habit in _HABITS if isinstance(root, Mapping) and habit.fits(find, root)), None)
    _check_read(find)
    tensors: dict[str, LazyTensor] = {}
    names: dict[str, str] = {}
    left_out: list[str] = []
    for name, tensor in find.tensors.items():
        new = _renamed(name, find)
        if new is None or (habit and habit.drops_fc and new.startswith("fc.")):
            left_out.append(name)
        elif new in tensors:
            raise CheckpointError(f"tensors {printable(names[new])} and {printable(name)} would both be `{new}`")
        else:
            tensors[new], names[new] = tensor, name
    filled = dict(_missing_counters(tensors))
    is_plain = not (find.key or find.prefix or left_out or filled) and find.naming.name == "torchvision"
    kind = habit.name if habit else ("nested" if find.key else "prefixed" if find.prefix else "plain")
    wrapping = Wrapping(kind, find.key or None, find.prefix, tuple(left_out), tuple(filled))
    return Found(
        {**tensors, **filled},
        names,
        None if is_plain else wrapping,
        habit.dilated_stages if habit else (),
    )


def _renamed(name: str, find: _Find) -> str | None:
    """torchvision's name of a tensor, or None if it is no part of the ResNet."""
    if find.naming.name == "transformers":
        outer = find.prefix.removesuffix("resnet.")
        if name in (f"{outer}classifier.1.weight", f"{outer}classifier.1.bias"):
            return f"fc.{name.rsplit('.', 1)[1]}"
    if not name.startswith(find.prefix):
        return None
    return find.naming.rename(name.removeprefix(find.prefix))


def _missing_counters(tensors: Mapping[str, LazyTensor]) -> Iterator[tuple[str, LazyTensor]]:
    """Zeros for `num_batches_tracked`, which old and frozen batch norms lack and which inference never reads."""
    for name in tensors:
        counter = name.replace("running_mean", "num_batches_tracked")
        if counter not in tensors:
            yield counter, Initialised("I64", (), Constant(0.0), 0, counter)
