"""The inert unpickler: a machine for every pickle that Python 2 and 3 write (protocols 0 to 5).

It imports nothing and calls nothing that a file names: `constructors` says what the names that tensors are made of
stand for, `harmful` which names are refused; objects of any other class stay closed, and are listed. Knows nothing of
where the tensors' bytes are.
"""

from __future__ import annotations

import codecs
import re
import struct
from collections.abc import Callable, Collection
from typing import Any, NoReturn

from resnet_surgeon.errors import CheckpointError, escaped
from resnet_surgeon.formats.constructors import CONSTRUCTORS, is_known, storage_dtype
from resnet_surgeon.formats.harmful import is_harmful
from resnet_surgeon.formats.numpy_dtypes import WRAPPER, wrapped_size
from resnet_surgeon.formats.pickled import Global, Noted, Opaque, Parameter, Span, Storage, View, put

Resolve = Callable[[object], object]  # from a persistent id to what it stands for


def storage_reference(identity: object) -> object:
    """What a persistent id of torch stands for: a storage, or (in files of before 1.6) a module's class.

    ('storage', storage type, key, location, count) and, until 1.5, what part of it; the location (a device) does not
    matter here. ('module', class, file, source code). What another library refers to stays closed.
    """
    if type(identity) is not tuple or not identity or identity[0] not in ("storage", "module"):
        return Opaque(_OUTSIDE)
    if identity[0] == "module":
        if len(identity) != 4 or type(identity[1]) is not Global:
            raise TypeError
        return identity[1]
    if len(identity) not in (5, 6):
        raise TypeError
    _, kind, key, _, count, *rest = identity
    part = rest[0][1:] if rest and rest[0] is not None else None
    if type(key) is not str or type(count) is not int or not (part is None or _are_integers(part, 2)):
        raise TypeError
    return Storage(storage_dtype(kind), key, count, part)


_OUTSIDE = Global("pickle", "a persistent object")


def _are_integers(value: object, count: int) -> bool:
    return type(value) is tuple and len(value) == count and all(type(number) is int for number in value)


class Ledger:
    """What the pickles of a file together may do, have done, and have named: `instructions` has a number for each that
    may still be executed. `noted` is what torch noted beside state_dicts, by the identity of each, and `sources` the
    text of modules' classes.
    """

    def __init__(self) -> None:
        self.instructions = iter(range(_MOST_INSTRUCTIONS))
        self.names: dict[tuple[str, str], Global] = {}
        self.work = 0  # elements that were copied by calls of the names that are known
        self.noted: dict[int, Noted] = {}
        self.sources: dict[Global, str] = {}

    def take_source(self, kind: Global, text: object) -> Global:
        """A class, whose source text is kept if it is no longer than one that people write."""
        if type(text) is str and 0 < len(text) <= _LONGEST_SOURCE:
            self.sources.setdefault(kind, text)
        return kind

    def not_loaded(self, walked: Collection[Global] = ()) -> tuple[str, ...]:
        """The names of classes and functions that were passed over, in alphabetical order: escaped, and of many the
        first. Of the `walked` ones the objects were read.
        """
        passed_over = (found for key, found in self.names.items() if not is_known(*key) and found not in walked)
        names = sorted(found.qualified for found in passed_over)
        shown = [escaped(name[:_LONGEST_SHOWN]) for name in names[:_MOST_SHOWN]]
        return (*shown, f"and {len(names) - _MOST_SHOWN} more") if len(names) > _MOST_SHOWN else (*shown,)


def unpickle(data: bytes, resolve: Resolve = storage_reference, ledger: Ledger | None = None) -> object:
    """The object that the pickle describes: dicts, lists, tuples, text, bytes, numbers, None, `Storage`, `View`,
    `Parameter`, `Global` and `Opaque`. A set is the list of what it holds.

    Raises CheckpointError for a name that only an attack needs, and for damage of any kind.
    """
    machine = _Machine(resolve, lambda base, size: data, ledger or Ledger())
    result = machine.run()
    if machine.position != len(data):
        machine.refuse("goes on after its end")
    return result


class Pickles:
    """Pickles one after the other in a part of a file, with other bytes in between; `position` is the next byte.

    `read` gives bytes of the file: from an offset so many.
    """

    def __init__(self, read: Callable[[int, int], bytes], start: int, end: int, ledger: Ledger) -> None:
        self.read = read
        self.position = start
        self.end = end
        self.ledger = ledger

    def next(self, resolve: Resolve = storage_reference) -> object:
        """The object that the next pickle describes. Raises CheckpointError, as `unpickle` does."""
        start = self.position

        def extended(base: int, size: int) -> bytes:
            left = max(0, self.end - start - base)
            return self.read(start + base, min(left, _LIMIT, max(2 * size, _FIRST_PIECE)))

        machine = _Machine(resolve, extended, self.ledger, start)
        result = machine.run()
        self.position += machine.base + machine.position
        return result

    def take(self, size: int) -> bytes:
        """The next `size` bytes, which are no pickle."""
        if size < 0 or size > self.end - self.position:
            raise CheckpointError("it is truncated")
        self.position += size
        return self.read(self.position - size, size)

    def skip(self, size: int) -> None:
        """Passes over `size` bytes."""
        if size < 0 or size > self.end - self.position:
            raise CheckpointError(f"it is truncated: {size} bytes are expected, {self.end - self.position} are left")
        self.position += size


_LIMIT = 100_000_000  # bytes of one pickle
_MOST_INSTRUCTIONS = 1_500_000  # of a file: ResNet-152 with a twin and Adam has 106,000; a log, one for each number
_TALLEST = 100_000  # values on the stack: Python's pickler hands lists and dicts on by the thousand
_MOST_SHOWN = 100  # names
_LONGEST_SHOWN = 200  # characters of one
_MOST_WORK = 2_000_000  # elements: a state_dict of Python 2 is a list of pairs first
_LONGEST_BYTES = 1 << 16  # that are taken into memory
_FIRST_PIECE = 1 << 10
_LONGEST_LINE = 1000  # of a number or a name
_LONGEST_NUMBER = 1000  # bytes
_LONGEST_SOURCE = 1 << 16  # characters of the text of a class: torchvision's ResNet has 7,000
_MOST_NAMES = 1000  # of a file; 200 have been seen in one
_AHEAD = 9  # bytes of the longest instruction whose length is fixed


class _Mark:
    """The pickle machine's mark object."""


_MARK = _Mark()


class _Machine:
    """An interpreter for the opcodes of protocols 0 to 5.

    `extended(base, size)` gives the data from `base` on, with at least `size` bytes or all that there are. Where the
    data lie in a file, from `origin` on, long bytes are left there.
    """

    def __init__(
        self, resolve: Resolve, extended: Callable[[int, int], bytes], ledger: Ledger, origin: int | None = None
    ) -> None:
        self.data = b""
        self.base = 0  # where `data` begins
        self.resolve = resolve
        self.extended = extended
        self.origin = origin
        self.ledger = ledger
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
        for number in self.ledger.instructions:
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
        raise CheckpointError(f"its pickle {reason} (byte {self.base + self.position})")

    def extend(self) -> None:
        """More of the data, so that the next instruction is there."""
        wanted = self.position + _AHEAD
        self.data = self.extended(self.base, wanted)
        self.end = len(self.data) - _AHEAD + 1 if len(self.data) > wanted else len(self.data)
        if self.position >= len(self.data):
            self.refuse("is cut short")

    def take(self, count: int) -> bytes:
        end = self.position + count
        if end > len(self.data):
            self.data = self.extended(self.base, end)
            if end > len(self.data):
                self.refuse("is cut short")
        piece = self.data[self.position : end]
        self.position = end
        return piece

    def bytes_or_span(self, size: int) -> Any:
        """So many bytes; in a file, long ones stay where they are."""
        if self.origin is None or size <= _LONGEST_BYTES:
            return self.take(size)
        begin = self.base + self.position
        self.base, self.position, self.end, self.data = begin + size, 0, 0, b""
        if not self.extended(self.base - 1, 1):
            self.refuse("is cut short")
        return Span(self.origin + begin, size)

    def unsigned(self, size: int) -> int:
        (number,) = _UNSIGNED[size].unpack_from(self.data, self.position)
        self.position += size
        return number  # type: ignore[no-any-return]

    def line(self, longest: int = _LONGEST_LINE) -> bytes:
        size = min(longest, _LONGEST_LINE)
        while True:
            wanted = self.position + size
            if len(self.data) < wanted:
                self.data = self.extended(self.base, wanted)
            end = self.data.find(b"\n", self.position, wanted)
            if end >= 0:
                break
            if len(self.data) < wanted or size >= longest:
                self.refuse("is cut short")
            size *= 2
        piece = self.data[self.position : end]
        self.position = end + 1
        return piece

    def number(self) -> int:
        """A whole number of 32 bits, written as text."""
        number = int(self.line())
        if not 0 <= number < 1 << 32:
            self.refuse("is damaged")
        return number

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

    def pop_all_to_mark(self) -> None:
        self.pop_to_mark()

    def memoize(self, key: int) -> None:
        self.memo[key] = self.stack[-1]

    def old_dict(self) -> None:
        items = self.pop_to_mark()
        self.push({})
        self.fill_dict(items)

    def fill_dict(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is Opaque:
            if target.held is None:
                target.held = {}
            target = target.held
        if type(target) is not dict or len(items) % 2:
            self.refuse("is damaged")
        put(target, items[::2], items[1::2])

    def fill_list(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is Opaque:
            if target.held is None:
                target.held = []
            target = target.held
        if type(target) is not list:
            self.refuse("is damaged")
        target.extend(items)

    def build(self) -> None:
        """Instance state: kept for what stays closed, and of a dict what torch notes of a state_dict's modules; any
        other attributes of a tensor or a dict do not matter here.
        """
        state, target = self.pop(), self.stack[-1]
        if type(target) is Opaque:
            target.state = state
            if target.kind == WRAPPER:
                self.take_array(target, state)
        elif type(target) is Parameter and type(state) is tuple and len(state) == 5:
            target.data = state[0]  # (data, gradient, hooks, requires_grad, volatile)
        elif type(target) is dict:
            if type(state) is dict and type(state.get("_metadata")) is dict:
                self.ledger.noted[id(target)] = Noted(target, state["_metadata"])
        elif type(target) not in _WITH_ATTRIBUTES:
            self.refuse("sets attributes of an object that has none")

    def take_array(self, target: Opaque, state: Any) -> None:
        """The bytes of an array of joblib's, which follow, mostly behind some that align them."""
        size = wrapped_size(state)
        if size is None:
            self.refuse("holds an array of joblib's that is not of numbers")
        if state.get("numpy_array_alignment_bytes") is not None:
            self.take(self.take(1)[0])
        target.arguments = (self.bytes_or_span(size),)

    def call(self, called: Any, arguments: Any) -> None:
        """What a function or class comes to, which is decided by its name alone."""
        if type(arguments) is not tuple:
            self.refuse("calls something that is not a function")
        if type(called) is Opaque:
            self.push(Opaque(called.kind, arguments))
        elif type(called) is not Global:
            self.refuse("calls something that is not a function")
        elif (made := CONSTRUCTORS.get((called.module, called.name))) is None:
            self.push(Opaque(called, arguments))
        else:
            self.ledger.work += _work(arguments)
            if self.ledger.work > _MOST_WORK:
                self.refuse("has more work in it than any checkpoint needs")
            self.push(made(*arguments))

    def reduce(self) -> None:
        arguments, called = self.pop(), self.pop()
        self.call(called, arguments)

    def new_with_names(self) -> None:
        """NEWOBJ_EX: the named arguments do not matter to what stays closed."""
        self.pop()
        self.reduce()

    def old_object(self) -> None:
        """OBJ: a class and its arguments, above a mark."""
        items = self.pop_to_mark()
        self.call(items[0], (*items[1:],))

    def old_instance(self) -> None:
        """INST: the arguments above a mark, and the class by name."""
        self.push_global(_name(self.line()), _name(self.line()))
        called = self.pop()
        self.call(called, (*self.pop_to_mark(),))

    def persistent(self, identity: object) -> None:
        self.push(self.resolve(identity))

    def push_global(self, module: Any, name: Any) -> None:
        if type(module) is not str or type(name) is not str or len(module) + len(name) > _LONGEST_LINE:
            self.refuse("is damaged")
        found = self.ledger.names.get((module, name))
        if found is None:
            found = Global(module, name)
            if is_harmful(module, name):
                raise CheckpointError(
                    f"refused: its pickle names {found}, which only an attack needs",
                    hint="do not open it with torch.load, and get the weights from elsewhere",
                )
            if len(self.ledger.names) == _MOST_NAMES:
                self.refuse(f"names more than {_MOST_NAMES:,} classes and functions, which no checkpoint needs")
            self.ledger.names[module, name] = found
        self.push(found)


def _work(arguments: tuple[Any, ...]) -> int:
    """How many elements are copied at most when one of our own constructors is given these."""
    work = len(arguments)
    for item in arguments:
        kind = type(item)
        if kind in _SIZED:
            work += len(item)
        elif kind is str:
            work += len(item) // _TEXT_AT_ONCE
    return work


_SIZED = {dict, list, tuple}
_TEXT_AT_ONCE = 64  # characters that are copied in the time of an element
_WITH_ATTRIBUTES = {list, Global, Parameter, Storage, View}


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


def _blob(size: int, made: Callable[[bytes], Any] = bytes) -> Callable[[_Machine], None]:
    """An instruction with bytes that may be long."""
    unpack = _UNSIGNED[size].unpack_from

    def action(machine: _Machine) -> None:
        (count,) = unpack(machine.data, machine.position)
        machine.position += size
        piece = machine.bytes_or_span(count)
        machine.stack.append(piece if type(piece) is Span else made(piece))

    return action


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")


def _old_text(data: bytes) -> str:
    """Text or bytes of Python 2, which does not tell them apart: latin-1 where it is not UTF-8."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _quoted(line: bytes) -> str:
    """Text of Python 2 as `repr` writes it."""
    if len(line) < 2 or line[0] != line[-1] or line[:1] not in (b"'", b'"'):
        raise ValueError
    return _old_text(re.sub(rb"\\(x[0-9a-fA-F]{2}|[\\'\"nrt])", _unescaped, line[1:-1]))


def _unescaped(match: re.Match[bytes]) -> bytes:
    escape = match[1]
    return bytes([int(escape[1:], 16)]) if len(escape) == 3 else _ESCAPES.get(escape, escape)


_ESCAPES = {b"n": b"\n", b"r": b"\r", b"t": b"\t"}


def _name(line: bytes) -> str:
    return line.decode()


def _whole_or_truth(line: bytes) -> int:
    return line == b"01" if line in (b"00", b"01") else int(line)


def _long(data: bytes) -> int | Opaque:
    return int.from_bytes(data, "little", signed=True) if len(data) <= _LONGEST_NUMBER else Opaque(_NUMBER)


_NUMBER = Global("builtins", "int")


def _tuple(count: int) -> Callable[[_Machine], None]:
    def action(machine: _Machine) -> None:
        items = tuple(machine.stack[-count:])
        if len(items) < count or _MARK in items:
            machine.refuse("is damaged")
        machine.stack[-count:] = [items]

    return action


def _recalled(size: int) -> Callable[[_Machine], None]:
    unpack = _UNSIGNED[size].unpack_from

    def action(machine: _Machine) -> None:
        (key,) = unpack(machine.data, machine.position)
        machine.position += size
        machine.stack.append(machine.memo[key])

    return action


def _memoized(size: int) -> Callable[[_Machine], None]:
    unpack = _UNSIGNED[size].unpack_from

    def action(machine: _Machine) -> None:
        (key,) = unpack(machine.data, machine.position)
        machine.position += size
        machine.memo[key] = machine.stack[-1]

    return action


def _protocol(machine: _Machine) -> None:
    if machine.unsigned(1) > 5:
        machine.refuse("is of a newer protocol than 5")


def _extension(size: int) -> Callable[[_Machine], None]:
    """A class by a number that the writer's programs agreed on."""
    return lambda machine: machine.push_global("copyreg", f"extension {machine.unsigned(size)}")


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
    b"U": _sized(1, _old_text),
    b"T": _blob(4, _old_text),
    b"C": _sized(1, bytes),
    b"B": _blob(4),
    b"\x8e": _blob(8),
    b"\x96": _blob(8),  # BYTEARRAY8
    b"\x8b": _sized(4, _long),
    b"I": lambda machine: machine.stack.append(_whole_or_truth(machine.line())),
    b"L": lambda machine: machine.stack.append(int(machine.line().rstrip(b"L"))),
    b"F": lambda machine: machine.stack.append(float(machine.line())),
    b"S": lambda machine: machine.stack.append(_quoted(machine.line(_LIMIT))),
    b"V": lambda machine: machine.stack.append(codecs.raw_unicode_escape_decode(machine.line(_LIMIT))[0]),
    b"d": _Machine.old_dict,
    b"l": lambda machine: machine.stack.append(machine.pop_to_mark()),
    b"0": lambda machine: machine.stack.pop(),
    b"1": _Machine.pop_all_to_mark,
    b"2": lambda machine: machine.stack.append(machine.stack[-1]),
    b"\x8f": lambda machine: machine.stack.append([]),  # EMPTY_SET: the list of what it holds
    b"\x90": lambda machine: machine.fill_list(machine.pop_to_mark()),
    b"\x91": lambda machine: machine.stack.append(machine.pop_to_mark()),  # FROZENSET
    b"p": lambda machine: machine.memoize(machine.number()),
    b"g": lambda machine: machine.stack.append(machine.memo[machine.number()]),
    b"q": _memoized(1),
    b"r": _memoized(4),
    b"\x94": lambda machine: machine.memoize(len(machine.memo)),
    b"h": _recalled(1),
    b"j": _recalled(4),
    b"s": lambda machine: machine.fill_dict([machine.pop(), machine.pop()][::-1]),
    b"u": lambda machine: machine.fill_dict(machine.pop_to_mark()),
    b"a": lambda machine: machine.fill_list([machine.pop()]),
    b"e": lambda machine: machine.fill_list(machine.pop_to_mark()),
    b"b": _Machine.build,
    b"R": _Machine.reduce,
    b"\x81": _Machine.reduce,  # NEWOBJ
    b"\x92": _Machine.new_with_names,
    b"o": _Machine.old_object,
    b"i": _Machine.old_instance,
    b"\x82": _extension(1),
    b"\x83": _extension(2),
    b"\x84": _extension(4),
    b"Q": lambda machine: machine.persistent(machine.pop()),
    b"P": lambda machine: machine.persistent(machine.line().decode()),
    b"c": lambda machine: machine.push_global(_name(machine.line()), _name(machine.line())),
    b"\x93": _stack_global,
}
_BY_OPCODE = [_ACTIONS.get(bytes([opcode])) for opcode in range(256)]
