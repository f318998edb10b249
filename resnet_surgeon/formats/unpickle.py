"""The inert unpickler: reads the pickle of a torch checkpoint into plain data and descriptions of tensors.

It imports nothing, calls nothing that a file names, and knows a closed list of names, each of which stands for a small
constructor of descriptions below. Everything else is refused by name. Knows nothing of where the tensors' bytes are.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

from resnet_surgeon.errors import CheckpointError, printable
from resnet_surgeon.formats.files import OpenFile
from resnet_surgeon.formats.tensors import MOST_DIMENSIONS


@dataclass(frozen=True)
class Storage:
    """A run of elements in a checkpoint, under the key that the container files it by.

    It is `count` elements long, or the `part` (first element, number of elements) of so many.
    """

    dtype: str
    key: str
    count: int
    part: tuple[int, int] | None = None


@dataclass(frozen=True)
class View:
    """A tensor: sizes and strides, in elements, over a storage. Its numbers are as the file says, unchecked."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass
class Parameter:
    """A `torch.nn.Parameter` of 2016, made empty and filled later."""

    data: object = None


class Opaque:
    """Plain data that no network needs, such as the arguments of a training script. Nothing of it is kept."""


@dataclass(frozen=True)
class Global:
    """A name that the pickle refers to; what it stands for is decided here, never looked up."""

    module: str
    name: str

    def __str__(self) -> str:
        return printable(f"{self.module}.{self.name}")


class _Mark:
    """The pickle machine's mark object."""


_MARK = _Mark()

_STORAGES = {
    "DoubleStorage": "F64", "FloatStorage": "F32", "HalfStorage": "F16", "BFloat16Storage": "BF16",
    "LongStorage": "I64", "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8", "ByteStorage": "U8",
    "BoolStorage": "BOOL", "ComplexFloatStorage": "C64",
}  # fmt: skip

# `torch.FloatTensor` and the like: the type that a tensor of 2016 had, which its storage tells as well.
_TENSORS = {name.replace("Storage", "Tensor"): dtype for name, dtype in _STORAGES.items()}

# Tensors that are not plain arrays, by the function of torch that rebuilds them.
_KINDS = {
    "_rebuild_qtensor": "a quantised tensor",
    "_rebuild_sparse_tensor": "a sparse tensor",
    "_rebuild_meta_tensor_no_storage": "a meta tensor, which has no data",
    "_rebuild_wrapper_subclass": "a tensor of a subclass",
    "_rebuild_from_type_v2": "a tensor of a subclass or with Python attributes",
}


Resolve = Callable[[object], object]  # from a persistent id to what it stands for


def storage_reference(identity: object) -> Storage:
    """('storage', storage type, key, location, count) and, until 1.5, what part of it: as `torch.save` writes it.

    The location (a device) does not matter here.
    """
    if type(identity) is not tuple or len(identity) not in (5, 6) or identity[0] != "storage":
        raise CheckpointError("its pickle refers to an object outside of itself that is no storage")
    _, kind, key, _, count, *rest = identity
    part = rest[0][1:] if rest and rest[0] is not None else None
    if type(key) is not str or type(count) is not int or not (part is None or _are_integers(part, 2)):
        raise TypeError
    return Storage(storage_dtype(kind), key, count, part)


def storage_dtype(kind: object) -> str:
    """The dtype that a global such as `torch.FloatStorage` stands for. Raises TypeError for another."""
    if not isinstance(kind, Global) or kind.name not in _STORAGES:
        raise TypeError
    return _STORAGES[kind.name]


def _are_integers(value: object, count: int) -> bool:
    return type(value) is tuple and len(value) == count and all(type(number) is int for number in value)


def instructions() -> Iterator[int]:
    """A number for each instruction that the pickles of a file may have."""
    return iter(range(_MOST_INSTRUCTIONS))


def is_key(number: int) -> bool:
    """Whether it has at most 64 bits. Longer ones may all have one hash, and a dict of them would take for ever."""
    return -(1 << 63) <= number < 1 << 64


def unpickle(data: bytes, resolve: Resolve = storage_reference) -> object:
    """The object that the pickle describes: dicts, lists, tuples, text, bytes, numbers, None, `Storage` and `View`.

    Raises CheckpointError for a name that is not on the list, an opcode that checkpoints have no use for, and damage
    of any kind.
    """
    machine = _Machine(data, resolve, lambda size: data, instructions())
    result = machine.run()
    if machine.position != len(data):
        machine.refuse("goes on after its end")
    return result


class Pickles:
    """Pickles one after the other in a part of a file, with other bytes in between; `position` is the next byte.

    Together they use up `instructions`.
    """

    def __init__(self, file: OpenFile, start: int, end: int, instructions: Iterator[int]) -> None:
        self.file = file
        self.position = start
        self.end = end
        self.instructions = instructions

    def next(self, resolve: Resolve = storage_reference) -> object:
        """The object that the next pickle describes. Raises CheckpointError, as `unpickle` does."""
        start = self.position
        available = min(self.end - start, _LIMIT)

        def extended(size: int) -> bytes:
            return self.file.read(start, min(available, max(2 * size, _FIRST_PIECE)))

        machine = _Machine(b"", resolve, extended, self.instructions)
        result = machine.run()
        self.position += machine.position
        return result

    def take(self, size: int) -> bytes:
        """The next `size` bytes, which are no pickle."""
        if size < 0 or size > self.end - self.position:
            raise CheckpointError("it is truncated")
        self.position += size
        return self.file.read(self.position - size, size)

    def skip(self, size: int) -> None:
        """Passes over `size` bytes."""
        if size < 0 or size > self.end - self.position:
            raise CheckpointError(f"it is truncated: {size} bytes are expected, {self.end - self.position} are left")
        self.position += size


_LIMIT = 100_000_000  # bytes of one pickle
_MOST_INSTRUCTIONS = 1_500_000  # of a file: ResNet-152 with a twin and Adam has 106,000; a log, one for each number
_TALLEST = 100_000  # values on the stack: Python's pickler hands lists and dicts on by the thousand
_FIRST_PIECE = 1 << 10
_LONGEST_LINE = 1000
_AHEAD = 9  # bytes of the longest instruction whose length is fixed

_KEYS = {str, int, bytes, bool, float, type(None)}  # the types that a key may have


class _Machine:
    """A pickle interpreter for the opcodes of protocols 2 to 5 that describe data.

    `extended(size)` gives the same data with at least `size` bytes, or with all that there are; `instructions` has a
    number for each that may be executed.
    """

    def __init__(
        self, data: bytes, resolve: Resolve, extended: Callable[[int], bytes], instructions: Iterator[int]
    ) -> None:
        self.data = data
        self.resolve = resolve
        self.extended = extended
        self.instructions = instructions
        self.position = 0
        self.end = 0  # where an instruction may begin, so that it is here whole
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> object:
        try:
            self.execute()
        except struct.error:
            self.refuse("is cut short")
        except (IndexError, KeyError, TypeError, ValueError):
            self.refuse("is damaged")
        if len(self.stack) != 1 or self.stack[0] is _MARK:
            self.refuse("is damaged")
        return self.stack[0]

    def execute(self) -> None:
        """Every instruction until the last, STOP."""
        for number in self.instructions:
            if not number % 4096 and len(self.stack) > _TALLEST:
                self.refuse(f"piles up more than {_TALLEST:,} values, which no checkpoint needs")
            if self.position >= self.end:
                self.extend()
            opcode = self.data[self.position]
            self.position += 1
            action = _BY_OPCODE[opcode]
            if action is not None:
                action(self)
            elif opcode == _STOP:
                return
            else:
                self.refuse(f"uses the opcode {bytes([opcode])!r}, which no checkpoint needs")
        self.refuse(f"has more than {_MOST_INSTRUCTIONS:,} instructions, which no checkpoint needs")

    def refuse(self, reason: str) -> NoReturn:
        raise CheckpointError(f"its pickle {reason} (byte {self.position})")

    def extend(self) -> None:
        """More of the data, so that the next instruction is there."""
        wanted = self.position + _AHEAD
        self.data = self.extended(wanted)
        self.end = len(self.data) - _AHEAD + 1 if len(self.data) > wanted else len(self.data)
        if self.position >= len(self.data):
            self.refuse("is cut short")

    def take(self, count: int) -> bytes:
        end = self.position + count
        if end > len(self.data):
            self.data = self.extended(end)
            if end > len(self.data):
                self.refuse("is cut short")
        piece = self.data[self.position : end]
        self.position = end
        return piece

    def unsigned(self, size: int) -> int:
        (number,) = _UNSIGNED[size].unpack_from(self.data, self.position)
        self.position += size
        return number  # type: ignore[no-any-return]

    def line(self) -> str:
        if len(self.data) < self.position + _LONGEST_LINE:
            self.data = self.extended(self.position + _LONGEST_LINE)
        end = self.data.find(b"\n", self.position, self.position + _LONGEST_LINE)
        if end < 0:
            self.refuse("is cut short")
        text = self.data[self.position : end].decode()
        self.position = end + 1
        return text

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        if self.stack[-1] is _MARK:
            self.refuse("is damaged")
        return self.stack.pop()

    def pop_to_mark(self) -> list[Any]:
        start = len(self.stack) - 1
        while self.stack[start] is not _MARK:
            start -= 1
            if start < 0:
                self.refuse("is damaged")
        items = self.stack[start + 1 :]
        del self.stack[start:]
        return items

    def memoize(self, key: int) -> None:
        self.memo[key] = self.stack[-1]

    def fill_dict(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not dict or len(items) % 2:
            self.refuse("is damaged")
        keys = items[::2]
        kinds = {*map(type, keys)}
        if not kinds <= _KEYS:
            self.refuse("has a key that is no text or number")
        if int in kinds and not all(is_key(key) for key in keys if type(key) is int):
            self.refuse("has a number of more than 64 bits for a key")
        target.update(zip(keys, items[1::2], strict=True))

    def fill_list(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is not list:
            self.refuse("is damaged")
        self.stack[-1].extend(items)

    def build(self) -> None:
        """Instance state: the modules' versions in an OrderedDict (`_metadata`), a parameter's tensor, or opaque."""
        state, target = self.pop(), self.stack[-1]
        if type(target) is Parameter and type(state) is tuple and len(state) == 5:
            target.data = state[0]  # (data, gradient, hooks, requires_grad, volatile)
        elif type(target) is not Opaque and not (
            type(target) is dict and type(state) is dict and all(key == "_metadata" for key in state)
        ):
            self.refuse("sets attributes of an object that has none")

    def reduce(self) -> None:
        arguments, function = self.pop(), self.pop()
        if not isinstance(function, Global) or type(arguments) is not tuple:
            self.refuse("calls something that is no function")
        self.push(_CONSTRUCTORS[function.module, function.name](*arguments))

    def persistent(self, identity: object) -> None:
        self.push(self.resolve(identity))

    def push_global(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            self.refuse("is damaged")
        found = Global(module, name)
        if (module, name) not in _CONSTRUCTORS and not (module == "torch" and name in _STORAGES | _TENSORS):
            if module in ("torch._utils", "torch._tensor") and name in _KINDS:
                raise CheckpointError(f"its pickle holds {_KINDS[name]}, which this tool does not take")
            raise CheckpointError(
                f"refused to load the Python object {found}: only tensors and plain data are read",
                hint="save the network's state_dict: torch.save(model.state_dict(), path)",
            )
        self.push(found)


def _view(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> View:
    """`torch._utils._rebuild_tensor_v2`; what follows (requires_grad, hooks, metadata) does not matter here."""
    if type(storage) is not Storage or type(shape) is not tuple or type(strides) is not tuple:
        raise TypeError
    if len(shape) > MOST_DIMENSIONS or len(strides) > MOST_DIMENSIONS:
        raise CheckpointError(
            f"its pickle holds a tensor of more than the {MOST_DIMENSIONS} dimensions that torch knows"
        )
    if any(type(number) is not int for number in (offset, *shape, *strides)):
        raise TypeError
    return View(storage, offset, shape, strides)


def _view_itself(view: Any, *_: Any) -> View:
    """`torch._utils._rebuild_parameter`: a parameter is its tensor."""
    if type(view) is not View:
        raise TypeError
    return view


def _dict(*pairs: Any) -> dict[Any, Any]:
    if pairs and not (len(pairs) == 1 and pairs[0] == []):
        raise TypeError
    return {}


def _latin1(text: Any, encoding: Any) -> bytes:
    """How protocol 2 writes bytes; no other encoding is known."""
    if type(text) is not str or encoding != "latin1":
        raise TypeError
    return text.encode("latin1")


def _size(sizes: Any) -> tuple[Any, ...]:
    if type(sizes) is not tuple:
        raise TypeError
    return sizes


_CONSTRUCTORS: dict[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): _dict,
    ("torch", "Size"): _size,
    ("torch._utils", "_rebuild_tensor"): _view,
    ("torch._utils", "_rebuild_tensor_v2"): _view,
    ("torch._utils", "_rebuild_parameter"): _view_itself,
    ("torch.nn.parameter", "Parameter"): lambda *_: Parameter(),
    ("_codecs", "encode"): _latin1,
}

# Plain data beside the tensors of a training checkpoint, whose content does not matter here.
_OPAQUE = (
    ("argparse", "Namespace"),
    ("fastcore.foundation", "L"),
    ("numpy", "dtype"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy.core.multiarray", "scalar"),
    ("torch", "device"),
)
_CONSTRUCTORS |= dict.fromkeys(_OPAQUE, lambda *_: Opaque())


_UNSIGNED = {size: struct.Struct(f"<{letter}") for size, letter in ((1, "B"), (2, "H"), (4, "I"), (8, "Q"))}


def _constant(value: object) -> Callable[[_Machine], None]:
    return lambda machine: machine.stack.append(value)


def _number(layout: struct.Struct) -> Callable[[_Machine], None]:
    def action(machine: _Machine) -> None:
        machine.stack += layout.unpack_from(machine.data, machine.position)
        machine.position += layout.size

    return action


def _sized(size: int, made: Callable[[bytes], Any]) -> Callable[[_Machine], None]:
    """An instruction with so many bytes as a number of `size` bytes says."""
    unpack = _UNSIGNED[size].unpack_from

    def action(machine: _Machine) -> None:
        (count,) = unpack(machine.data, machine.position)
        machine.position += size
        machine.stack.append(made(machine.take(count)))

    return action


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")


def _long(data: bytes) -> int:
    return int.from_bytes(data, "little", signed=True)


def _tuple(count: int) -> Callable[[_Machine], None]:
    def action(machine: _Machine) -> None:
        items = tuple(machine.stack[-count:])
        if len(items) < count or _MARK in items:
            machine.refuse("is damaged")
        machine.stack[-count:] = [items]

    return action


def _recalled(size: int) -> Callable[[_Machine], None]:
    return lambda machine: machine.stack.append(machine.memo[machine.unsigned(size)])


def _protocol(machine: _Machine) -> None:
    if machine.unsigned(1) > 5:
        machine.refuse("is of a newer protocol than 5")


def _stack_global(machine: _Machine) -> None:
    name, module = machine.pop(), machine.pop()
    machine.push_global(module, name)


_STOP = ord(".")
_ACTIONS: dict[bytes, Callable[[_Machine], None]] = {
    b"\x80": _protocol,
    b"\x95": lambda machine: machine.refuse("is cut short") if machine.unsigned(8) > _LIMIT else None,  # FRAME
    b"(": _constant(_MARK),
    b"N": _constant(None),
    b"\x88": _constant(True),
    b"\x89": _constant(False),
    b"}": lambda machine: machine.stack.append({}),
    b"]": lambda machine: machine.stack.append([]),
    b")": _constant(()),
    b"t": lambda machine: machine.stack.append(tuple(machine.pop_to_mark())),
    b"\x85": _tuple(1),
    b"\x86": _tuple(2),
    b"\x87": _tuple(3),
    b"K": _number(_UNSIGNED[1]),
    b"M": _number(_UNSIGNED[2]),
    b"J": _number(struct.Struct("<i")),
    b"G": _number(struct.Struct(">d")),
    b"\x8a": _sized(1, _long),
    b"X": _sized(4, _text),
    b"\x8c": _sized(1, _text),
    b"\x8d": _sized(8, _text),
    b"U": _sized(1, _text),  # text of Python 2
    b"T": _sized(4, _text),
    b"C": _sized(1, bytes),
    b"B": _sized(4, bytes),
    b"q": lambda machine: machine.memoize(machine.unsigned(1)),
    b"r": lambda machine: machine.memoize(machine.unsigned(4)),
    b"\x94": lambda machine: machine.memoize(len(machine.memo)),
    b"h": _recalled(1),
    b"j": _recalled(4),
    b"s": lambda machine: machine.fill_dict([machine.pop(), machine.pop()][::-1]),
    b"u": lambda machine: machine.fill_dict(machine.pop_to_mark()),
    b"a": lambda machine: machine.fill_list([machine.pop()]),
    b"e": lambda machine: machine.fill_list(machine.pop_to_mark()),
    b"b": _Machine.build,
    b"R": _Machine.reduce,
    b"\x81": _Machine.reduce,  # NEWOBJ: what is made is decided by the name alone, as for a call
    b"Q": lambda machine: machine.persistent(machine.pop()),
    b"P": lambda machine: machine.persistent(machine.line()),
    b"c": lambda machine: machine.push_global(machine.line(), machine.line()),
    b"\x93": _stack_global,
}
_BY_OPCODE = [_ACTIONS.get(bytes([opcode])) for opcode in range(256)]
