"""What a module computes by the source text of its classes, which torch.save used to keep beside it: the layers and
functions that its input passes, in their order.

The text is parsed, and followed by an interpreter of the few forms that such code has; nothing of it is executed. Knows
the functions of torch, and no network.
"""

from __future__ import annotations

import ast
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

from resnet_surgeon.dataclass import dataclass
from resnet_surgeon.formats.modules import Layer
from resnet_surgeon.sources.class_text import ClassText, line_of, parsed
from resnet_surgeon.sources.functions import (
    FLATTEN,
    IDENTITY,
    MEAN,
    RELU,
    SEQUENCE,
    Data,
    Size,
    Step,
    after,
    operation,
    options_of,
)  # fmt: skip

_MOST_TEXT = 1 << 19  # characters of all classes of a network that are parsed
_MOST_NODES = 100_000  # that are followed for a network: ResNet-152 takes 3,000
_DEEPEST = 40  # calls in each other
_MOST_ITEMS = 1000  # of lists in each other
_MOST_STEPS = 1000  # that a tensor has passed
_MOST_STEPS_ASIDE = 8  # of what is added to it: a downsample has two


class UnfollowedError(Exception):
    """A line that is not followed: of the class that the module with this path has."""

    def __init__(self, path: str, line: str) -> None:
        super().__init__(line)
        self.path = path
        self.line = line


class _TooMuchError(Exception):
    """Lists that no forward needs."""


@dataclass(frozen=True)
class _Child:
    """A module, by its path."""

    path: str


@dataclass(frozen=True)
class _Named:
    """A function or module of Python, by the name that the text gives it."""

    name: str


@dataclass(frozen=True)
class _Bound:
    """A method of a value."""

    value: object
    name: str


@dataclass(frozen=True, eq=False)
class _Method:
    path: str
    text: ClassText
    function: ast.FunctionDef


@dataclass(frozen=True, eq=False)
class _Frame:
    """Where a line stands: in the class of the module with this path, among these variables."""

    path: str
    text: ClassText
    variables: dict[str, object]
    depth: int

    def line(self, node: ast.AST) -> str:
        return line_of(self.text.lines, node)

    def refuse(self, node: ast.AST) -> NoReturn:
        raise UnfollowedError(self.path, self.line(node))


class _Unknown:
    """A value that does not matter, or is not followed."""


_UNKNOWN = _Unknown()
_GOES_ON = _Unknown()  # what a block of statements without `return` comes to
_FUNCTIONAL = ("F.", "nn.functional.", "torch.nn.functional.", "functional.", "torch.")
_NEVER = {f"torch.jit.{name}" for name in ("is_scripting", "is_tracing")} | {"torch.is_grad_enabled"}
_CONTEXTS = ("no_grad", "enable_grad", "set_grad_enabled", "autocast", "record_function", "inference_mode")
# Where classes are defined whose names say what they compute.
LIBRARIES = ("torch.", "torchvision.", "timm.", "segmentation_models_pytorch.", "resnet_surgeon.")
_AROUND_FORWARD = ("__call__", "_call_impl", "_wrapped_call_impl", "__getattribute__", "__getattr__")
_FORWARDS = ("forward", "_forward_impl")
# Bases that are torch's and torchvision's own.
_BASES = {
    "Module", "Sequential", "ModuleList", "Conv2d", "BatchNorm2d", "Linear", "ReLU", "Identity", "Flatten",
    "ResNet", "BasicBlock", "Bottleneck",
}  # fmt: skip


class Reader:
    """Follows the modules of one network.

    `stops` has the names of layers that are a step each, by their paths; `known` says what any other layer does, by its
    class: one of the words above, the name of a pooling, or any other text for what it is not known of.
    """

    def __init__(self, layers: Mapping[str, Layer], stops: Mapping[str, str], known: Callable[[str], str]) -> None:
        self.layers = layers
        self.stops = stops
        self.known = known
        self.children: dict[str, list[str]] = {}
        for path in layers:
            if path:
                self.children.setdefault(path.rpartition(".")[0], []).append(path)
        self.texts: dict[str, ClassText | None] = {}
        self.left = iter(range(_MOST_NODES))
        self.followed: set[str] = set()  # modules by the text of whose forward data went
        self.characters = 0
        self.overwritten: dict[int, Data] = {}  # by identity: tensors that something else was written into
        self.set: dict[tuple[str, str], object] = {}  # attributes that a forward sets

    def outputs(self, path: str) -> list[Data] | None:
        """The tensors that the module's forward returns for its first argument; None where its text shows none.

        Raises UnfollowedError.
        """
        text = self._text(path)
        entry = self._entry(path, text) if text else None
        if text is None or entry is None:
            return None
        before = {*self.followed}
        self.followed.add(path)
        try:
            value = self._call(_Method(path, text, entry), [Data()], {}, 0)
            return [item for item in _items([value]) if isinstance(item, Data) and id(item) not in self.overwritten]
        except UnfollowedError:
            self.followed = before
            raise
        except (RecursionError, _TooMuchError):
            self.followed = before
            raise UnfollowedError(path, f"def {entry.name}") from None

    def forward_line(self, path: str) -> str | None:
        """The line in which the text of a layer's class begins a forward of its own."""
        text = self._text(path)
        if text is None:
            return None
        own = (*_FORWARDS, "_conv_forward", *_AROUND_FORWARD)
        found = [f"def {name}" for name in own if name in text.methods]
        return next(iter([*found, *self._inherited(path, text)]), None)

    def _inherited(self, path: str, text: ClassText) -> list[str]:
        """The first line of a class whose bases are not known by their names: their text is not in the file."""
        known = {*_BASES, self.layers[path].kind.rpartition(".")[2]}
        return [] if known.issuperset(text.bases) else [text.first]

    def _text(self, path: str) -> ClassText | None:
        """Of a class of torch's own the text does not matter: its name says what it is."""
        layer = self.layers.get(path)
        if layer is None or layer.source is None or layer.kind.startswith("torch.nn."):
            return None
        if layer.kind not in self.texts:
            self.characters += len(layer.source)
            self.texts[layer.kind] = parsed(layer.source) if self.characters <= _MOST_TEXT else None
        return self.texts[layer.kind]

    def _entry(self, path: str, text: ClassText) -> ast.FunctionDef | None:
        if text.odd is not None:
            raise UnfollowedError(path, text.odd)
        for name in (*_AROUND_FORWARD, *(name for name in _FORWARDS if name in text.values)):
            if name in text.methods or name in text.values:
                raise UnfollowedError(path, f"def {name}" if name in text.methods else f"{name} = ...")
        if "forward" not in text.methods:
            for line in self._inherited(path, text):
                raise UnfollowedError(path, line)
        return next((text.methods[name] for name in _FORWARDS if name in text.methods), None)

    def _call(self, method: _Method, values: list[object], named: dict[str, object], depth: int) -> object:
        """What a method returns."""
        function, arguments = method.function, method.function.args
        frame = _Frame(method.path, method.text, {}, depth + 1)
        if depth > _DEEPEST or function.name not in method.text.plain:
            frame.refuse(function)
        names = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args)]
        self._take(len(names), function, frame)
        given = [_Child(method.path), *values]
        if len(given) > len(names) or not names:
            frame.refuse(function)
        for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
            frame.variables[argument.arg] = _UNKNOWN if default is None else _constant(default)
        defaults = [*itertools.repeat(_UNKNOWN, len(names) - len(arguments.defaults))]
        frame.variables.update(zip(names, [*defaults, *map(_constant, arguments.defaults)], strict=True))
        frame.variables.update(zip(names, given, strict=False))
        rest = [part.arg for part in (arguments.vararg, arguments.kwarg) if part]
        frame.variables.update(dict.fromkeys(rest, _UNKNOWN))
        if not named.keys() <= frame.variables.keys():
            frame.refuse(function)
        frame.variables.update(named)
        value = self._run(function.body, frame)
        return None if value is _GOES_ON else value

    def _take(self, count: int, node: ast.AST, frame: _Frame) -> None:
        """So many nodes of those that are followed."""
        if sum(1 for _ in itertools.islice(self.left, count)) < count:
            frame.refuse(node)

    def _run(self, statements: Sequence[ast.stmt], frame: _Frame) -> object:
        for statement in statements:
            if (value := self._statement(statement, frame)) is not _GOES_ON:
                return value
        return _GOES_ON

    def _statement(self, node: ast.stmt, frame: _Frame) -> object:
        """The value of a `return` in it."""
        self._take(1, node, frame)
        match node:
            case ast.Return(value):
                return self._value(value, frame) if value else None
            case ast.Assign(targets, value):
                made = self._value(value, frame)
                for target in targets:
                    self._assign(target, made, frame)
            case ast.AnnAssign(target, _, value) if value:
                self._assign(target, self._value(value, frame), frame)
            case ast.AugAssign(target, ast.Add(), value):
                old, other = self._value(target, frame), self._value(value, frame)
                made = self._sum(old, other, node, frame)
                if isinstance(old, Data):
                    self._overwrite(old, node, frame)
                if isinstance(old, list) or _has_module([old]):
                    frame.refuse(node)  # others may have it too
                self._assign(target, made, frame)
            case ast.Expr(ast.Constant()) | ast.Pass():
                pass
            case ast.Assert() | ast.Expr(ast.Call(ast.Name("print"))) if _is_harmless(node):
                pass
            case ast.Expr(value):
                if isinstance(self._value(value, frame), Data):
                    frame.refuse(node)  # what it does in place is not followed
            case ast.If(test, body, orelse):
                truth = self._truth(self._value(test, frame))
                if truth is None:
                    frame.refuse(node)
                return self._run(body if truth else orelse, frame)
            case ast.For(target, iterated, body, []):
                for item in self._iterated(self._value(iterated, frame), node, frame):
                    self._take(1, node, frame)
                    self._assign(target, item, frame)
                    if (made := self._run(body, frame)) is not _GOES_ON:
                        return made
            case ast.With(items, body) if all(_is_context(item) for item in items):
                return self._run(body, frame)
            case _:
                frame.refuse(node)
        return _GOES_ON

    def _assign(self, target: ast.expr, value: object, frame: _Frame) -> None:
        match target:
            case ast.Name(name):
                frame.variables[name] = value
            case ast.Tuple(parts) | ast.List(parts):
                items = [*self._iterated(value, target, frame)]
                if len(items) != len(parts):
                    frame.refuse(target)
                for part, item in zip(parts, items, strict=True):
                    self._assign(part, item, frame)
            case ast.Attribute(owner, name) if self._value(owner, frame) == _Child(frame.path):
                if self._child(frame.path, name) in self.layers or name in (*frame.text.methods, "training"):
                    frame.refuse(target)
                self.set[frame.path, name] = value
            case ast.Subscript(owner, ast.Constant(str() | int() as key)):
                held = self._value(owner, frame)
                if not isinstance(held, dict):
                    frame.refuse(target)
                held[key] = value
            case _:
                frame.refuse(target)

    def _iterated(self, value: object, node: ast.AST, frame: _Frame) -> list[object]:
        made: list[object] = []
        if isinstance(value, (tuple, list)):
            made = [*value]
        elif isinstance(value, Size):
            made = [Size(value.data, (axis,)) for axis in value.axes]
        elif isinstance(value, _Child) and self._holds_in_order(value.path):
            made = [_Child(path) for path in self.children.get(value.path, [])]
        else:
            frame.refuse(node)
        self._take(len(made), node, frame)
        return made

    def _holds_in_order(self, path: str) -> bool:
        return self.layers[path].kind in _IN_ORDER

    def _value(self, node: ast.expr, frame: _Frame) -> object:
        self._take(1, node, frame)
        match node:
            case ast.Constant(constant):
                return constant
            case ast.Name(name):
                found = frame.variables.get(name, _Named(name))
                if isinstance(found, Data) and id(found) in self.overwritten:
                    frame.refuse(node)
                return found
            case ast.Attribute(owner, name):
                return self._attribute(self._value(owner, frame), name, node, frame)
            case ast.Call():
                return self._called(node, frame)
            case ast.BinOp(left, operator, right):
                one, other = self._value(left, frame), self._value(right, frame)
                if isinstance(operator, ast.Add):
                    return self._sum(one, other, node, frame)
                if _has_data([one, other]):
                    frame.refuse(node)
                return _arithmetic(one, operator, other)
            case ast.UnaryOp(ast.Not(), operand):
                truth = self._truth(self._value(operand, frame))
                return _UNKNOWN if truth is None else not truth
            case ast.UnaryOp(ast.USub(), operand) if type(number := self._value(operand, frame)) in (int, float):
                return -number  # type: ignore[operator]
            case ast.BoolOp(operator, values):
                return self._either(isinstance(operator, ast.Or), values, frame)
            case ast.Compare(left, [operator], [right]):
                return self._compared(self._value(left, frame), operator, self._value(right, frame), node, frame)
            case ast.IfExp(test, body, orelse):
                truth = self._truth(self._value(test, frame))
                return frame.refuse(node) if truth is None else self._value(body if truth else orelse, frame)
            case ast.Tuple(parts):
                return tuple(self._value(part, frame) for part in parts)
            case ast.List(parts):
                return [self._value(part, frame) for part in parts]
            case ast.Dict(keys, values) if all(isinstance(key, ast.Constant) for key in keys):
                return {key.value: self._value(value, frame) for key, value in zip(keys, values, strict=True)}  # type: ignore[union-attr]
            case ast.Subscript(owner, index):
                return self._part(self._value(owner, frame), index, node, frame)
            case ast.JoinedStr() if _is_harmless(node):
                return _UNKNOWN
            case _:
                return frame.refuse(node)

    def _either(self, is_or: bool, values: Sequence[ast.expr], frame: _Frame) -> object:
        value: object = _UNKNOWN
        for part in values:
            value = self._value(part, frame)
            truth = self._truth(value)
            if truth is None:
                return frame.refuse(part) if _has_data([value]) else _UNKNOWN
            if truth is is_or:
                return value
        return value

    def _truth(self, value: object) -> bool | None:
        """Whether it is true as Python has it; None where that is not known."""
        if isinstance(value, _Child):
            is_container = self.layers[value.path].kind.startswith("torch.nn.modules.container.")
            return (
                bool(self.children.get(value.path))
                if self._holds_in_order(value.path)
                else None
                if is_container
                else True
            )
        return bool(value) if value is None or isinstance(value, (bool, int, float, str, tuple, list, dict)) else None

    def _compared(self, one: object, operator: ast.cmpop, other: object, node: ast.AST, frame: _Frame) -> object:
        if isinstance(operator, (ast.Is, ast.IsNot)) and other is None:
            is_none: bool | None = None if isinstance(one, _Unknown | _Named | _Bound) else one is None
            return _UNKNOWN if is_none is None else is_none is isinstance(operator, ast.Is)
        if type(one) in _PLAIN and type(other) in _PLAIN:
            compare = _COMPARISONS.get(type(operator))
            try:
                return compare(one, other) if compare else _UNKNOWN
            except TypeError:
                return _UNKNOWN
        return _UNKNOWN

    def _attribute(self, owner: object, name: str, node: ast.AST, frame: _Frame) -> object:
        if isinstance(owner, _Child):
            return self._of_module(owner.path, name, node, frame)
        if isinstance(owner, _Named):
            return _Named(f"{owner.name}.{name}")
        if isinstance(owner, Data):
            return {"shape": Size(owner, (0, 1, 2, 3)), "data": owner}.get(name, _Bound(owner, name))
        return _UNKNOWN if isinstance(owner, _Unknown) else _Bound(owner, name)

    def _of_module(self, path: str, name: str, node: ast.AST, frame: _Frame) -> object:
        """An attribute of a module, where Python would find it: of the object, then its class, then the children."""
        if (path, name) in self.set:
            return self.set[path, name]
        if name == "training":
            return False
        layer, text = self.layers[path], self._text(path)
        if layer.attributes.get(name) is not None:
            return layer.attributes[name]
        if text and (name in text.values or name in text.methods.keys() - text.plain):
            return _UNKNOWN  # the object may have another, and a property gives anything
        if text and name in text.methods:
            return _Method(path, text, text.methods[name])
        child = self._child(path, name)
        if "." not in name and child in self.layers:
            return _Child(child)
        if name in layer.attributes:
            return None
        return _Bound(_Child(path), name)

    def _child(self, path: str, name: str) -> str:
        return f"{path}.{name}" if path else name

    def _called(self, node: ast.Call, frame: _Frame) -> object:
        called = self._value(node.func, frame)
        if any(isinstance(value, ast.Starred) for value in node.args) or any(not word.arg for word in node.keywords):
            frame.refuse(node)
        values = [self._value(value, frame) for value in node.args]
        named = {word.arg or "": self._value(word.value, frame) for word in node.keywords}
        self._check_as_it_was([*values, *named.values()], node, frame)
        if isinstance(called, _Child):
            return self._layer(called.path, values, named, node, frame)
        if isinstance(called, _Method):
            return self._call(called, values, named, frame.depth)
        if isinstance(called, _Bound):
            return self._of_value(called, values, named, node, frame)
        if isinstance(called, _Named):
            return self._function(called.name, values, named, node, frame)
        return frame.refuse(node)

    def _check_as_it_was(self, values: Sequence[object], node: ast.AST, frame: _Frame) -> None:
        """Refuses tensors that are not what their name says any more."""
        if any(id(item) in self.overwritten for item in _items(values) if isinstance(item, Data)):
            frame.refuse(node)

    def _layer(self, path: str, values: list[object], named: dict[str, object], node: ast.AST, frame: _Frame) -> object:
        """What a module makes of data."""
        self._take(1, node, frame)
        what = self.stops.get(path) or self.known(path)
        is_known = what in (IDENTITY, RELU, FLATTEN, MEAN) and self.layers[path].kind.startswith(LIBRARIES)
        text = None if path in self.stops or is_known else self._text(path)
        if text and (entry := self._entry(path, text)):
            self.followed.add(path)
            return self._call(_Method(path, text, entry), values, named, frame.depth)
        if len(values) != 1 or named or not isinstance(data := values[0], Data):
            frame.refuse(node)
        if what == SEQUENCE:
            for child in self.children.get(path, []):
                made = self._layer(child, [data], {}, node, frame)
                if not isinstance(made, Data):
                    frame.refuse(node)
                data = made
            return data
        layer, made = self.layers[path], _after(data, what, node, frame)
        may_write = layer.attributes.get("inplace") not in (None, False) or not layer.kind.startswith(LIBRARIES)
        if made is not data and path not in self.stops and may_write:
            self._overwrite(data, node, frame)
        return made

    def _overwrite(self, data: Data, node: ast.AST, frame: _Frame) -> None:
        """Takes down that something else was written into a tensor; refuses one that may be a view of another."""
        if data.names[-1:] and (data.names[-1] == FLATTEN or data.names[-1].endswith("()")):
            frame.refuse(node)
        self.overwritten[id(data)] = data

    def _of_value(
        self, method: _Bound, values: list[object], named: dict[str, object], node: ast.AST, frame: _Frame
    ) -> object:
        """A method of a tensor, or of something that holds some."""
        value, name = method.value, method.name
        if isinstance(value, Data):
            return self._of_tensor(value, name, values, named, node, frame)
        if isinstance(value, list) and name == "append" and len(values) == 1:
            value.append(values[0])
            return None
        if isinstance(value, dict) and name in ("values", "keys"):
            return [*getattr(value, name)()]
        if isinstance(value, _Child):
            if name in ("add", "add_relu") and self.layers[value.path].kind.rpartition(".")[2] == "FloatFunctional":
                if len(values) != 2 or named:
                    frame.refuse(node)
                made = self._sum(values[0], values[1], node, frame)
                return _after(made, RELU, node, frame) if name == "add_relu" and isinstance(made, Data) else made
            if name in ("children", "values") and self._holds_in_order(value.path):
                return self._iterated(value, node, frame)
        is_plain = type(value) in _PLAIN or isinstance(value, Size)
        return _UNKNOWN if is_plain and not _has_data([*values, *named.values()]) else frame.refuse(node)

    def _function(
        self, name: str, values: list[object], named: dict[str, object], node: ast.AST, frame: _Frame
    ) -> object:
        """A function of torch, or of Python."""
        if name in _NEVER:
            return False
        prefix = next((prefix for prefix in _FUNCTIONAL if name.startswith(prefix)), None)
        if prefix and values and isinstance(data := values[0], Data):
            own = name.removeprefix(prefix)
            if own == "add" and len(values) == 2 and not named:
                return self._sum(values[0], values[1], node, frame)
            return self._of_tensor(data, own, values[1:], named, node, frame)
        match name, values:
            case "getattr", [_Child(path), str(attribute), *_]:
                return self._of_module(path, attribute, node, frame)
            case "hasattr", [_Child(path), str(attribute)]:
                found = self._of_module(path, attribute, node, frame)
                return _UNKNOWN if isinstance(found, _Bound | _Unknown) else True
            case "len", [_Child(path)] if self._holds_in_order(path):
                return len(self.children.get(path, []))
            case "len", [tuple() | list() | dict() as held]:
                return len(held)
            case "range", [int(end)] if 0 <= end <= _MOST_TURNS:
                return [*range(end)]
            case "enumerate", [held]:
                return [*enumerate(self._iterated(held, node, frame))]
            case (("list" | "tuple"), [held]) if not isinstance(held, Data | _Unknown):
                return self._iterated(held, node, frame)
            case (("dict" | "OrderedDict" | "collections.OrderedDict"), []):
                return {}
        given = [*values, *named.values()]
        is_changing = _has_module(given) and name not in _LOOKING
        return frame.refuse(node) if _has_data(given) or is_changing else _UNKNOWN

    def _of_tensor(
        self, data: Data, name: str, values: list[object], named: dict[str, object], node: ast.AST, frame: _Frame
    ) -> object:
        """What a function of torch makes of a tensor, or a method of it."""
        self._check_as_it_was([data], node, frame)
        match name:
            case "size" if not values and not named:
                return Size(data, (0, 1, 2, 3))
            case "size" if len(values) == 1 and type(axis := values[0]) is int and -4 <= axis < 4:
                return Size(data, (axis % 4,))
            case "dim" | "numel":
                return _UNKNOWN
        options = options_of(name, values, named)
        what = None if options is None else operation(data, name, options)
        given = [*values, *named.values()]
        if what is None and (name.endswith("_") or "inplace" in named or any(value is True for value in values)):
            frame.refuse(node)
        if what is None and (_has_data(given) or _has_module(given)):
            frame.refuse(node)
        made = _after(data, what or f"{name}()", node, frame)
        is_in_place = name == "relu_" or (options or {}).get("inplace", False) is not False
        if is_in_place and what == RELU and made is not data:
            self._overwrite(data, node, frame)
        return made

    def _part(self, value: object, index: ast.expr, node: ast.AST, frame: _Frame) -> object:
        """An item, or a slice, of a value."""
        if isinstance(value, Data):
            is_pixel = isinstance(index, ast.Tuple) and [*map(_is_all, index.elts)] == [True, True, False, False]
            if value.is_pooled and is_pixel and [*map(_constant, index.elts[2:])] == [0, 0]:  # type: ignore[attr-defined]
                return value
            return frame.refuse(node)
        if isinstance(index, ast.Slice):
            bounds: list[Any] = [
                None if part is None else _constant(part) for part in (index.lower, index.upper, index.step)
            ]
            if not all(part is None or type(part) is int for part in bounds) or bounds[2] is not None:
                return frame.refuse(node)
            begin, end, _ = bounds
            if isinstance(value, Size):
                return Size(value.data, value.axes[begin:end])
            return value[begin:end] if isinstance(value, (tuple, list)) else frame.refuse(node)
        key = self._value(index, frame)
        if isinstance(value, _Child) and type(key) is int:
            items: list[object] = self._iterated(value, node, frame)
            return items[key] if -len(items) <= key < len(items) else frame.refuse(node)
        if isinstance(value, (tuple, list)) and type(key) is int and -len(value) <= key < len(value):
            return value[key]
        if isinstance(value, dict) and type(key) in _PLAIN and key in value:
            return value[key]
        if isinstance(value, Size) and type(key) is int and -len(value.axes) <= key < len(value.axes):
            return Size(value.data, (value.axes[key],))
        return frame.refuse(node) if _has_data([value]) or _has_module([value]) else _UNKNOWN

    def _sum(self, one: object, other: object, node: ast.AST, frame: _Frame) -> object:
        """The sum of two tensors is the longer way, plus the shorter one."""
        if isinstance(one, Data) and isinstance(other, Data):
            self._check_as_it_was([one, other], node, frame)
            long, short = sorted((one, other), key=lambda data: -len(data.steps))
            if len(short.steps) > _MOST_STEPS_ASIDE or any(name.startswith("add") for name in short.names):
                frame.refuse(node)
            return _after(long, " + ".join(["add", *short.names]), node, frame)
        if isinstance(one, list) and isinstance(other, list):
            return self._iterated(one, node, frame) + self._iterated(other, node, frame)
        return frame.refuse(node) if _has_data([one, other]) else _arithmetic(one, ast.Add(), other)


_MOST_TURNS = 1000  # of a loop over numbers
_IN_ORDER = {"torch.nn.modules.container.Sequential", "torch.nn.modules.container.ModuleList"}
_PLAIN = {int, float, bool, str, type(None)}
# Functions and methods by which nothing changes.
_LOOKING = {"isinstance", "type", "callable", "print"}
_HARMLESS = {*_LOOKING, "len", "str", "int", "float", "tuple", "list", "size", "dim", "numel", "format", "is_tensor"}
_COMPARISONS: dict[type[ast.cmpop], Callable[[object, object], bool]] = {
    ast.Eq: lambda one, other: one == other,
    ast.NotEq: lambda one, other: one != other,
    ast.Lt: lambda one, other: one < other,  # type: ignore[operator]
    ast.LtE: lambda one, other: one <= other,  # type: ignore[operator]
    ast.Gt: lambda one, other: one > other,  # type: ignore[operator]
    ast.GtE: lambda one, other: one >= other,  # type: ignore[operator]
}


def _constant(node: ast.expr) -> object:
    """The value of a number, text or tuple of these, or an unknown one."""
    match node:
        case ast.Constant(value):
            return value
        case ast.UnaryOp(ast.USub(), ast.Constant(int() | float() as number)):
            return -number
        case ast.Tuple(parts):
            return tuple(map(_constant, parts))
        case _:
            return _UNKNOWN


def _is_context(item: ast.withitem) -> bool:
    """Whether it is a context that changes no number that matters."""
    match item:
        case ast.withitem(ast.Call(ast.Name(name) | ast.Attribute(_, name), values, words), None):
            return name in _CONTEXTS and all(map(_is_harmless, [*values, *words]))
    return False


def _is_harmless(node: ast.AST) -> bool:
    """Whether what need not be followed changes nothing."""
    calls = (part.func for part in ast.walk(node) if isinstance(part, ast.Call))
    names = (getattr(called, "id", getattr(called, "attr", "")) for called in calls)
    return not any(isinstance(part, ast.NamedExpr) for part in ast.walk(node)) and _HARMLESS.issuperset(names)


def _is_all(node: ast.expr) -> bool:
    return isinstance(node, ast.Slice) and node.lower is node.upper is node.step is None


def _items(values: Sequence[object]) -> Iterator[object]:
    """The values, and for a tuple, list or dict those in it, one in the other; each object once."""
    waiting, seen = [*values], set[int]()
    for count in itertools.count():
        if not waiting:
            return
        if count == _MOST_ITEMS:
            raise _TooMuchError
        value = waiting.pop()
        if not isinstance(value, (tuple, list, dict)):
            yield value
        elif id(value) not in seen:
            seen.add(id(value))
            waiting += value.values() if isinstance(value, dict) else value


def _has_data(values: Sequence[object]) -> bool:
    return any(isinstance(item, Data) for item in _items(values))


def _has_module(values: Sequence[object]) -> bool:
    """Whether a module is among the values, or something of one or of a tensor."""
    return any(isinstance(item, _Child | _Bound | _Method) for item in _items(values))


def _arithmetic(one: object, operator: ast.operator, other: object) -> object:
    if type(one) is not int or type(other) is not int or max(abs(one), abs(other)) > _LARGEST:
        return _UNKNOWN
    match operator:
        case ast.Add():
            return one + other
        case ast.Sub():
            return one - other
        case ast.Mult():
            return one * other
    return _UNKNOWN


_LARGEST = 1 << 31  # number that is reckoned with


def _after(data: Data, what: str, node: ast.AST, frame: _Frame) -> Data:
    if len(data.steps) == _MOST_STEPS:
        frame.refuse(node)
    return after(data, Step(what, frame.line(node)))
