"""A whole module, as `torch.save(model)` pickles it: its state_dict rebuilt, and what each layer says of itself.

A module's pickle is its attributes, among them its parameters, buffers and children as plain dicts: nothing is executed
or looked up. Knows no network.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from resnet_surgeon.dataclass import dataclass
from resnet_surgeon.formats.pickled import Global, Opaque, Parameter, View

_DEEPEST = 64  # modules in each other
_MOST = 1_000_000  # attributes, tensors and children of all modules in a file: ResNet-152 has 20,000


_CHARACTERS = 64  # of the paths in a module, for which one of these is counted


@dataclass(frozen=True)
class Layer:
    """A module of a module: its class as the file names it, its attributes that are plain data (with those that are
    None in a tensor's or a child's place), and whether a hook of a class or function that torch.nn does not have stands
    around its forward, or an attribute in the place of that. `source` is the text of its class, where the file has it.
    """

    kind: str
    attributes: Mapping[str, object]
    has_hooks: bool
    source: str | None = None


def common_path(paths: Sequence[str]) -> str:
    """The path of the module around all of these."""
    components = zip(*(path.split(".") for path in paths), strict=False)
    return ".".join(names[0] for names in itertools.takewhile(lambda names: len({*names}) == 1, components))


@dataclass(frozen=True)
class Rebuilt:
    """A module's tensors by the names of its state_dict, and its layers by their paths ("" for the module itself), both
    in order; `kinds` are their classes.
    """

    tensors: Mapping[str, object]
    layers: Mapping[str, Layer]
    kinds: frozenset[Global]


class ModuleNode(Mapping[str, object]):
    """What a module became: a mapping of its state_dict, with its layers beside it."""

    def __init__(self, layers: Mapping[str, Layer]) -> None:
        self.tensors: dict[str, object] = {}
        self.layers = layers

    def __getitem__(self, name: str) -> object:
        return self.tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)


class StateDictNode(dict[Any, object]):
    """What a state_dict became of which torch noted the modules: `paths` has theirs as keys, among whatever else."""

    def __init__(self, paths: Mapping[Any, object]) -> None:
        super().__init__()
        self.paths = paths


def is_module(value: object) -> bool:
    """Whether an object that stayed closed is a module of torch, eager or of TorchScript."""
    return isinstance(value, Opaque) and (_is_eager(value) or _is_script(value))


def visits() -> Iterator[int]:
    """A number for each attribute, tensor and child that the modules of a file may have."""
    return iter(range(_MOST))


def rebuilt(module: Opaque, visits: Iterator[int], sources: Mapping[Global, str]) -> Rebuilt | None:
    """The module's state_dict and layers; None for one without end, or where no visits are left. `sources` are the
    texts of classes.

    What stands in a tensor's place and is none is kept, for whoever needs it to say so.
    """
    tensors: dict[str, object] = {}
    layers: dict[str, Layer] = {}
    kinds: set[Global] = set()

    def visit(node: Opaque, path: str, depth: int) -> bool:
        if depth > _DEEPEST or not _take(visits, _size(node)):
            return False
        own, children = _script(node) if _is_script(node) else _eager(node)
        if not _take(visits, sum(len(path) + len(name) for name in (*own, *children)) // _CHARACTERS):
            return False
        layers[path] = _layer(node, sources.get(node.kind))
        kinds.add(node.kind)
        prefix = f"{path}." if path else ""
        tensors.update((prefix + name, tensor) for name, tensor in own.items())
        for name, child in children.items():
            if not is_module(child):
                tensors[prefix + name] = child
            elif not visit(child, prefix + name, depth + 1):  # type: ignore[arg-type]
                return False
        return True

    return Rebuilt(tensors, layers, frozenset(kinds)) if visit(module, "", 0) else None


def _take(visits: Iterator[int], count: int) -> bool:
    """Whether so many were left."""
    return sum(1 for _ in itertools.islice(visits, count)) == count


def _size(module: Opaque) -> int:
    """How much there is to look at in one layer."""
    state = _state(module)
    return 1 + len(state) + sum(len(part) for part in state.values() if isinstance(part, (dict, list)))


# What torch.fx rebuilds a module with, from its attributes and code, with the class that it becomes.
_GRAPHS = {"torch.fx.graph_module.reduce_graph_module": "torch.fx.graph_module.GraphModule"}
_PARTS = ("_parameters", "_buffers", "_modules")


def _state(module: Opaque) -> Mapping[object, object]:
    """The attributes that were set."""
    is_graph = module.kind.qualified in _GRAPHS and len(module.arguments) > 0
    state = module.arguments[0] if is_graph else module.state
    return state if isinstance(state, dict) else {}


def _is_eager(module: Opaque) -> bool:
    return all(isinstance(_state(module).get(part), dict) for part in _PARTS)


def _is_script(module: Opaque) -> bool:
    return module.kind.module.startswith("__torch__") and isinstance(module.state, dict)


def _eager(module: Opaque) -> tuple[dict[str, object], dict[str, object]]:
    """Parameters and buffers by name, and children, as `state_dict` takes them."""
    state = _state(module)
    listed = state.get("_non_persistent_buffers_set")
    transient = {name for name in listed if type(name) is str} if isinstance(listed, list) else set()
    buffers = {name: item for name, item in _named(state.get("_buffers")) if name not in transient}
    own = {**dict(_named(state.get("_parameters"))), **buffers}
    return {name: item for name, item in own.items() if item is not None}, {
        name: item for name, item in _named(state.get("_modules")) if item is not None
    }


def _script(module: Opaque) -> tuple[dict[str, object], dict[str, object]]:
    """A module of TorchScript has its tensors and children as attributes."""
    items = dict(_named(module.state))
    own = {name: item for name, item in items.items() if type(item) in (View, Parameter)}
    return own, {name: item for name, item in items.items() if is_module(item)}


def _named(part: object) -> Iterator[tuple[str, object]]:
    return ((name, item) for name, item in part.items() if type(name) is str) if isinstance(part, dict) else iter(())


def _layer(module: Opaque, source: str | None) -> Layer:
    state = _state(module)
    absent = {name: None for part in _PARTS for name, item in _named(state.get(part)) if item is None}
    plain = {name: item for name, item in _named(state) if not name.startswith("_") and _is_plain(item)}
    outputs = _outputs(state)
    if isinstance(outputs, list) and len(outputs) <= _LONGEST_TUPLE and _is_plain(tuple(outputs)):
        plain[OUTPUTS] = tuple(outputs)
    hooks = [hook for part in ("_forward_hooks", "_forward_pre_hooks") for hook in _hooks(state.get(part))]
    overridden = [name for name in _METHODS if name in state]
    has_hooks = bool(overridden) or any(not _is_of_torch(hook) for hook in hooks)
    return Layer(_class(module), {**absent, **plain}, has_hooks, source)


def _outputs(state: Mapping[object, object]) -> object:
    """What a backbone of transformers returns: its own attribute, without `_` at first, or its configuration's."""
    config = state.get("config")
    stated = config.state if isinstance(config, Opaque) and isinstance(config.state, dict) else {}
    names = (OUTPUTS, OUTPUTS.removeprefix("_"))
    return next((part[name] for part in (state, stated) for name in names if part.get(name) is not None), None)


def _class(module: Opaque) -> str:
    """The qualified name of its class, without what TorchScript puts around that."""
    name = _GRAPHS.get(module.kind.qualified, module.kind.qualified)
    if not _is_script(module):
        return name
    return ".".join(part for part in name.split(".")[1:] if not part.startswith("___torch_mangle_"))


def _is_plain(value: object) -> bool:
    if type(value) is tuple:
        return len(value) <= _LONGEST_TUPLE and all(type(item) in _PLAIN for item in value)
    if isinstance(value, dict):
        return len(value) <= _MOST_NAMES and all(type(item) is str for pair in value.items() for item in pair)
    return type(value) in _PLAIN


# What computes a layer's output; an attribute of the name stands in its place.
_METHODS = ("forward", "_forward_impl", "_conv_forward", "_call_impl", "_wrapped_call_impl")
OUTPUTS = "_out_features"  # the names of what transformers' backbones return, in a list
_PLAIN = {int, float, bool, str, type(None)}
_LONGEST_TUPLE = 8  # sizes, one for each dimension or side
_MOST_NAMES = 16  # of outputs, by those of the layers that give them


def _hooks(part: object) -> Iterator[object]:
    return iter(part.values()) if isinstance(part, dict) else iter(())


def _is_of_torch(hook: object) -> bool:
    """Whether it is one of those by which torch.nn.utils computes a weight (prune, weight_norm)."""
    return isinstance(hook, Opaque) and hook.kind.module.startswith("torch.nn.utils.")
