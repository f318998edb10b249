"""From YAML to values that know where they stand. The only module that imports a YAML library; knows no recipe.

YAML 1.2 as ruamel.yaml parses it, without tags: nothing of a file becomes an object of its choice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import field
from typing import Any

from resnet_surgeon.dataclass import dataclass

_MOST = 20_000  # values in a file, counted wherever an alias repeats them
_DEEPEST = 50


@dataclass(frozen=True)
class Place:
    """Line and column, counted from 1."""

    line: int
    column: int


@dataclass(frozen=True)
class Node:
    """A value of a document: a scalar, a tuple of nodes, or a mapping to nodes whose keys stand at `keys`."""

    value: Any
    place: Place
    keys: Mapping[str, Place] = field(default_factory=dict)

    @property
    def plain(self) -> Any:
        """The value without its places, lists as lists."""
        if isinstance(self.value, tuple):
            return [item.plain for item in self.value]
        if isinstance(self.value, dict):
            return {key: item.plain for key, item in self.value.items()}
        return self.value

    def walk(self) -> Iterator[Node]:
        """The node and all in it."""
        yield self
        inner = self.value.values() if isinstance(self.value, dict) else self.value
        if isinstance(self.value, (dict, tuple)):
            for item in inner:
                yield from item.walk()

    @property
    def size(self) -> int:
        """What it takes to work with it: its values, and the length of their texts."""
        return sum(1 + (len(part.value) >> 6 if isinstance(part.value, str) else 0) for part in self.walk())


class UnreadableError(ValueError):
    """The text is not YAML that recipes are made of: why, and where."""

    def __init__(self, reason: str, place: Place) -> None:
        super().__init__(reason)
        self.reason = reason
        self.place = place


def documents(text: str) -> tuple[Node, ...]:
    """The documents of a YAML text. Raises UnreadableError."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        _check_size(YAML(typ="safe", pure=True).parse(text))
        left = [_MOST]
        return tuple(_node(root, left, 0) for root in YAML(typ="safe", pure=True).compose_all(text) if root is not None)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        reason = " ".join(filter(None, (error.context, error.problem)))
        place = _place(mark) if mark else Place(1, 1)
        line = text.splitlines()[place.line - 1] if place.line <= len(text.splitlines()) else ""
        quotes = '; within braces a variable takes quotes: "${name}"' if "${" in line else ""
        raise UnreadableError(f"this is not YAML: {reason}{quotes}", place) from None
    except (YAMLError, RecursionError) as error:
        raise UnreadableError(f"this is not YAML: {error}".splitlines()[0], Place(1, 1)) from None


def _check_size(events: Iterable[Any]) -> None:
    """Raises UnreadableError for a text of too many values, or too deep, before anything is made of them."""
    depth = 0
    for count, event in enumerate(events):
        kind = type(event).__name__
        depth += kind.endswith("StartEvent") - kind.endswith("EndEvent")
        if count > 2 * _MOST or depth > _DEEPEST + 2:  # a stream and a document are around them
            raise UnreadableError("it holds more than any recipe does", _place(event.start_mark))


def value(text: str) -> Node:
    """What a document that is this text alone holds, as `--set name=text` takes it. Raises UnreadableError."""
    return next(iter(documents(text)), Node(None, Place(1, 1)))


def _place(mark: Any) -> Place:
    return Place(mark.line + 1, mark.column + 1)


def _node(node: Any, left: list[int], depth: int) -> Node:
    place = _place(node.start_mark)
    left[0] -= 1
    if left[0] < 0 or depth > _DEEPEST:
        raise UnreadableError("it holds more than any recipe does", place)
    if str(node.tag).rpartition(":")[2] not in _TAGS:
        raise UnreadableError(f"recipes have no tags, such as `{node.tag}`", place)
    if isinstance(node.value, str):
        return Node(_scalar(node, place), place)
    if node.id == "sequence":
        return Node(tuple(_node(item, left, depth + 1) for item in node.value), place)
    made: dict[str, Node] = {}
    keys: dict[str, Place] = {}
    for key, item in node.value:
        where = _place(key.start_mark)
        if not isinstance(key.value, str):
            raise UnreadableError("a key must be one word", where)
        if key.value in made:
            raise UnreadableError(f"`{key.value}` stands here twice", where)
        made[key.value], keys[key.value] = _node(item, left, depth + 1), where
    return Node(made, place, keys)


_TAGS = ("map", "seq", "str", "int", "float", "bool", "null", "timestamp")
_WORDS: dict[str, Any] = {"true": True, "false": False, "null": None, "~": None, "": None}


def _scalar(node: Any, place: Place) -> Any:
    kind, text = str(node.tag).rpartition(":")[2], node.value
    try:
        if kind in ("bool", "null"):
            return _WORDS[text.lower()]
        if kind == "int":
            return int(text.replace("_", ""), 0)
        if kind == "float":
            return float(text.replace("_", ""))
    except (KeyError, ValueError):
        raise UnreadableError(f"`{text}` cannot be read (within quotes it is text)", place) from None
    return text
