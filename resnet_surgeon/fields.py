"""What a field may hold, be it of a document or an option: its type, and the rule that stands beside it.

A rule is written where the field is, `Annotated[str, Text(...)]`; `decoder` checks a value by both, exactly. Knows no
document, no operation and no file.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from resnet_surgeon.dataclass import dataclass
from resnet_surgeon.errors import UsageError, printable


@dataclass(frozen=True)
class Text:
    """Text that the pattern matches as a whole, of at most so many characters."""

    what: str
    pattern: str
    most: int = 1 << 12

    def check(self, value: Any) -> None:
        if len(value) > self.most:
            raise MisfitError(f"text of at most {self.most} characters", value)
        if not _compiled(self.pattern).fullmatch(value):
            raise MisfitError(self.what, value)

    def __get_pydantic_json_schema__(self, core_schema: Any, handler: Callable[[Any], dict[str, Any]]) -> Any:
        return {**handler(core_schema), "pattern": f"^(?:{self.pattern})$", "maxLength": self.most}


@dataclass(frozen=True)
class Range:
    """A number from `least` to `most`."""

    least: int
    most: int
    what: str = ""

    def check(self, value: Any) -> None:
        if value < self.least:
            raise MisfitError(self.what or f"a whole number of at least {self.least}", value)
        if value > self.most:
            raise MisfitError(self.what or f"a whole number of at most {self.most}", value)

    def __get_pydantic_json_schema__(self, core_schema: Any, handler: Callable[[Any], dict[str, Any]]) -> Any:
        return {**handler(core_schema), "minimum": self.least, "maximum": self.most}


@dataclass(frozen=True)
class Count:
    """A list, or an object, of so many items."""

    least: int
    most: int

    def check(self, value: Any) -> None:
        if len(value) < self.least:
            raise MisfitError(f"a list of at least {self.least}", value)
        if len(value) > self.most:
            raise MisfitError(f"a list of at most {self.most}", value)

    def __get_pydantic_json_schema__(self, core_schema: Any, handler: Callable[[Any], dict[str, Any]]) -> Any:
        schema = handler(core_schema)
        kind = "Items" if schema.get("type") == "array" else "Properties"
        return {**schema, f"min{kind}": self.least, f"max{kind}": self.most}


# No encoding has half of a surrogate pair.
ANY = r"[^\ud800-\udfff]*"
# One line that reads as it is written: without control characters, and without the marks that are not seen, end a line
# or turn the direction of reading.
LINE = (
    r"[^\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e0fff]*"  # as characters: Python and JSON Schema write their escapes differently
)

Line = Annotated[str, Text("one line of visible text", LINE)]
# A name that a stranger gave: it may be anything, and is escaped wherever it is shown.
Name = Annotated[str, Text("Unicode text", ANY)]
Digest = Annotated[str, Text("a SHA-256 of 64 hexadecimal digits", r"[0-9a-f]{64}", 64)]
# All that a machine tells apart in 128 bits, with or without a sign; 0.1.0 took any whole number.
Seed = Annotated[int, Range(-(2**127), 2**128 - 1, "a whole number from -2^127 to 2^128 - 1")]
Size = Annotated[int, Range(1, 2**31 - 1)]

_MOST_ITEMS = 1 << 20  # of a list that has no rule of its own


class MisfitError(ValueError):
    """A value that is not what its field holds. `wanted` says what that would be, `path` leads to it."""

    def __init__(self, wanted: str, value: object = ..., problem: str = "") -> None:
        super().__init__(wanted)
        self.wanted = wanted
        self.value = value
        self.problem = problem or f"is not {wanted}"
        self.path = ""

    def within(self, part: str) -> MisfitError:
        if len(self.path) < 200:  # deeper ones are of no use to anybody
            self.path = part + self.path
        return self

    def __str__(self) -> str:
        return f"{self.path.lstrip('.') or 'it'} {self.problem}"


_UNSAID = "unsaid"  # in a field's metadata


def unsaid(default: Any, **metadata: Any) -> Any:
    """A dataclass field that documents leave out while it has its default: so what came before it keeps its bytes."""
    return dataclasses.field(default=default, metadata={**metadata, _UNSAID: True})


Decoder = Callable[[Any], Any]


def decoded(hint: Any, value: Any) -> Any:
    """`value`, as JSON gives it, as the dataclass or other type `hint`: exactly, with no field that it has not. A field
    that is missing takes its default, so that what was written before there was such a field stays readable.

    By hand, since the libraries that do this take longer to import than a ResNet-50 takes to copy. Raises ValueError.
    """
    return decoder(hint)(value)


def plain(value: Any) -> Any:
    """The dataclass as JSON has it, which `decoded` makes a dataclass again."""
    kind: Any = type(value)
    entries = _entries(kind)
    if entries is not None:
        items = ((name, getattr(value, name), default) for name, default in entries)
        return {name: plain(item) for name, item, default in items if default is _SAID or item != default}
    if isinstance(value, (tuple, list)):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value


_SAID = object()


@functools.cache
def _entries(kind: Any) -> tuple[tuple[str, Any], ...] | None:
    """A dataclass's fields, each with the default that documents leave out, or `_SAID`. None for any other type."""
    if not dataclasses.is_dataclass(kind):
        return None
    fields = dataclasses.fields(kind)
    return tuple((field.name, field.default if field.metadata.get(_UNSAID) else _SAID) for field in fields)


def checked(hint: Any, value: Any, name: str, subject: str | None = None) -> Any:
    """`value` as the option `name` holds it. A list may be any iterable, and an item may stand for a list of itself.

    Raises UsageError for what is of another type, or breaks a rule.
    """
    is_list = value is not None and _is_list(hint) and not (isinstance(value, Mapping) and _is_mapping(hint))
    try:
        return decoder(hint)(_as_list(value) if is_list else value)
    except MisfitError as misfit:
        reason = f"{name}{misfit.path} must be {misfit.wanted}, not {described(misfit.value)}"
        raise UsageError(reason, subject=subject) from None


def described(value: object) -> str:
    """A value that somebody gave, in a message: itself if it is short, else its kind."""
    if isinstance(value, str):
        return printable(value)
    if value is None or type(value) in (bool, float) or (type(value) is int and value.bit_length() <= 256):
        return str(value)
    if isinstance(value, (tuple, list)):
        return f"a list of {len(value)}"
    return "a number of many digits" if type(value) is int else f"a value of type {type(value).__name__}"


@functools.cache
def decoder(hint: Any) -> Decoder:
    """A function from what JSON gives to what the type `hint` holds; it raises MisfitError."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _ruled(decoder(arguments[0]), arguments[1].check)
    if dataclasses.is_dataclass(hint):
        return _dataclass(hint)
    if origin in (Union, UnionType):
        return _union(arguments)
    if origin is Literal:
        return _choice(arguments)
    if origin in (tuple, Sequence):
        return _list(decoder(arguments[0]))
    if origin is Mapping:
        return _mapping(decoder(arguments[0]), decoder(arguments[1]))
    return _leaf(hint)


def _ruled(decode: Decoder, check: Callable[[Any], None]) -> Decoder:
    def decode_ruled(value: Any) -> Any:
        made = decode(value)
        check(made)
        return made

    return decode_ruled


def _dataclass(kind: Any) -> Decoder:
    def decode(value: Any) -> Any:
        if type(value) is kind:  # an option, in Python
            return value
        _require_type(value, dict, "an object")
        fields, required, made = _decoders(kind), _required(kind), {}
        if not value.keys() <= fields.keys():
            raise MisfitError("", problem=f"has an unknown field {printable(min(value.keys() - fields.keys()))}")
        if not required <= value.keys():
            raise MisfitError("", problem=f"lacks the field {min(required - value.keys())}")
        for name in value:
            try:
                made[name] = fields[name](value[name])
            except MisfitError as misfit:
                raise misfit.within(f".{name}") from None
        return kind(**made)

    return decode


@functools.cache
def _decoders(kind: Any) -> dict[str, Decoder]:
    """Of its fields, when they are first needed: a type may hold itself."""
    return {name: decoder(hint) for name, hint in hints_of(kind).items()}


def prepare(kind: type) -> None:
    """Makes ahead what `decoded` would make when it is first asked for a dataclass of this kind."""
    for part in _parts(kind):
        if isinstance(part, Text):
            _compiled(part.pattern)
        elif _is_kind(part):
            _decoders(part)


def _union(hints: tuple[Any, ...]) -> Decoder:
    """The one type that fits: dataclasses differ in their tags, others as JSON's own types do."""
    decoders = [decoder(hint) for hint in hints if hint is not type(None)]
    kinds: list[Any] = [hint for hint in hints if dataclasses.is_dataclass(hint)]
    by_tag = {tag: decoder(kind) for kind in kinds for tag in _tags(kind).items()}
    names = {name for name, _ in by_tag}
    has_none = type(None) in hints

    def decode(value: Any) -> Any:
        if value is None and has_none:
            return None
        if type(value) is dict and names:
            for name in names & value.keys():
                if type(value[name]) is str and (name, value[name]) in by_tag:
                    return by_tag[name, value[name]](value)
            raise MisfitError(f"one of {', '.join(sorted(tag for _, tag in by_tag))}", problem="is of an unknown kind")
        problems: list[ValueError] = []
        for decode_one in decoders:
            try:
                return decode_one(value)
            except ValueError as error:
                problems.append(error)
        raise max(problems, key=lambda problem: len(getattr(problem, "path", "")))  # of the type that fits furthest

    return decode


def _choice(choices: tuple[Any, ...]) -> Decoder:
    def decode(value: Any) -> Any:
        if not any(type(value) is type(choice) and value == choice for choice in choices):
            raise MisfitError(f"one of {', '.join(map(str, choices))}", value, "is unknown")
        return value

    return decode


def _list(decode_item: Decoder) -> Decoder:
    def decode(value: Any) -> Any:
        if type(value) is not tuple:
            _require_type(value, list, "a list")
        if len(value) > _MOST_ITEMS:
            raise MisfitError(f"a list of at most {_MOST_ITEMS}", value)
        made: list[Any] = []
        try:
            for item in value:
                made.append(decode_item(item))
        except MisfitError as misfit:
            raise misfit.within(f"[{len(made)}]") from None
        return tuple(made)

    return decode


def _mapping(decode_key: Decoder, decode_item: Decoder) -> Decoder:
    def decode(value: Any) -> Any:
        _require_type(value, dict, "an object")
        made: dict[Any, Any] = {}
        for key, item in value.items():
            try:
                made[decode_key(key)] = decode_item(item)
            except MisfitError as misfit:
                raise misfit.within(f".{printable(key)}") from None
        return made

    return decode


_KINDS = {str: "text", int: "a whole number", float: "a finite number", bool: "true or false"}


def _leaf(kind: Any) -> Decoder:
    if kind is Any:
        return lambda value: value
    wanted = _KINDS.get(kind, f"a {getattr(kind, '__name__', kind)}")

    def decode(value: Any) -> Any:
        if kind is float and type(value) is int and abs(value) < 2**1000:
            return float(value)  # 1.0 and 1 are one number in JSON
        if type(value) is not kind or (kind is float and not math.isfinite(value)):
            raise MisfitError(wanted, value)
        return value

    return decode


def _require_type(value: Any, kind: type, wanted: str) -> None:
    if type(value) is not kind:
        raise MisfitError(wanted, value)


def _is_list(hint: Any) -> bool:
    return get_origin(hint) in (tuple, Sequence) or any(_is_list(part) for part in get_args(hint) if get_origin(part))


def _is_mapping(hint: Any) -> bool:
    return get_origin(hint) is Mapping or any(get_origin(part) is Mapping for part in get_args(hint))


def _as_list(value: Any) -> list[Any]:
    is_many = isinstance(value, Iterable) and not isinstance(value, (str, bytes, Mapping))
    items = [*islice(value, _MOST_ITEMS + 1)] if is_many else [value]
    return [[*item] if isinstance(item, tuple) else item for item in items]


@functools.cache
def hints_of(kind: Any) -> dict[str, Any]:
    """The types of a dataclass's fields, with their rules."""
    hints = get_type_hints(kind, include_extras=True)
    return {name: hints[name] for name in _names(kind)}


def unsaid_names(kind: type) -> dict[type, frozenset[str]]:
    """Of a dataclass and all that it may hold, the fields that documents may leave out."""
    return {
        part: frozenset(field.name for field in dataclasses.fields(part) if field.metadata.get(_UNSAID))
        for part in _parts(kind)
        if _is_kind(part)
    }


def _is_kind(part: Any) -> bool:
    """Whether it is a dataclass, and not an object of one, as rules are."""
    return isinstance(part, type) and dataclasses.is_dataclass(part)


def _parts(kind: type) -> Iterator[Any]:
    """A dataclass, and all types and rules of what it may hold: dataclasses each once."""
    seen: set[type] = set()
    behind: list[Any] = [kind]
    while behind:
        part = behind.pop()
        if _is_kind(part):
            if part in seen:
                continue
            seen.add(part)
            behind += hints_of(part).values()
        behind += get_args(part)
        yield part


@functools.cache
def _tags(kind: Any) -> dict[str, str]:
    """The fields that can hold one word alone: by it a dataclass is known among others."""
    return {
        name: get_args(hint)[0]
        for name, hint in hints_of(kind).items()
        if get_origin(hint) is Literal and len(get_args(hint)) == 1
    }


@functools.cache
def _required(kind: Any) -> frozenset[str]:
    """The fields that every document has: those without a default, and the tags."""
    absent = dataclasses.MISSING
    without = {
        field.name for field in dataclasses.fields(kind) if field.default is absent and field.default_factory is absent
    }
    return frozenset(without | _tags(kind).keys())


@functools.cache
def _names(kind: Any) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(kind))


@functools.cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)
