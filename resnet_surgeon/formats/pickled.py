"""What a pickle yields when nothing in it is executed: names, storages, tensors over them, and objects that stay
closed. Knows neither the machine that reads pickles nor where the tensors' bytes are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from resnet_surgeon.errors import printable
from resnet_surgeon.formats.tensors import BITS


@dataclass(frozen=True, slots=True)
class Global:
    """A name that the pickle refers to; what it stands for is decided here, never looked up."""

    module: str
    name: str

    @property
    def qualified(self) -> str:
        """Module and name as one, as the file spells them: never to be printed as it is."""
        return f"{self.module}.{self.name}"

    def __str__(self) -> str:
        return printable(self.qualified)


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes of the pickle that were left where they are in the file."""

    offset: int
    size: int

    def __len__(self) -> int:
        return self.size


# Bytes of an element, for dtypes that torch has and the safetensors format has not, by torch's name.
_OTHER_SIZES = {"complex128": 16, "qint8": 1, "quint8": 1, "qint32": 4, "quint4x2": 1, "quint2x4": 1}


@dataclass(frozen=True, slots=True)
class Storage:
    """A run of elements in a checkpoint, under the key that the container files it by.

    `dtype` is a safetensors name, or torch's for what that format has not. It is `count` elements long, or the `part`
    (first element, number of elements) of so many. One whose bytes are in the pickle itself has its `content` in place
    of a key, big-endian if `swapped`.
    """

    dtype: str
    key: str
    count: int
    part: tuple[int, int] | None = None
    content: bytes | Span | None = None
    swapped: bool = False

    @property
    def itemsize(self) -> int:
        """Bytes of an element."""
        return _OTHER_SIZES[self.dtype] if self.dtype in _OTHER_SIZES else BITS[self.dtype] // 8


@dataclass(frozen=True, slots=True)
class View:
    """A tensor: sizes and strides, in elements, over a storage (or what was given in its place). Its numbers are as the
    file says, unchecked.
    """

    storage: Storage | Opaque
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class Parameter:
    """A `torch.nn.Parameter` of 2016 or 2017, made of a tensor, or made empty and filled later."""

    __slots__ = ("data",)

    def __init__(self, data: object = None) -> None:
        self.data = data


class Opaque:
    """An object of which nothing is made: what was called, what with, the state set on it, and what was put into it.

    `held` is a dict or a list, if items were put into it as into a dict or a list. Equal to itself alone.
    """

    __slots__ = ("arguments", "held", "kind", "state")

    def __init__(self, kind: Global, arguments: tuple[object, ...] = ()) -> None:
        self.kind = kind
        self.arguments = arguments
        self.state: object = None
        self.held: dict[object, object] | list[object] | None = None


class Noted(NamedTuple):
    """A state_dict, and what torch noted of its modules by their paths (`_metadata`), those without tensors too."""

    state_dict: dict[Any, object]
    modules: dict[Any, object]


class OddKey:
    """A dict's key that can name no tensor: a tuple, a class, a tensor. By its identity, since hashing `value` could
    take for ever.
    """

    __slots__ = ("value",)

    def __init__(self, value: object) -> None:
        self.value = value


_KEYS = {str, int, bytes, bool, float, type(None)}  # types whose hash takes no longer than they are


def put(target: dict[object, object], keys: list[object], values: list[object]) -> None:
    """Enters the values under their keys, in order."""
    kinds = {*map(type, keys)}
    if not kinds <= _KEYS or int in kinds:
        keys = [key if type(key) in _KEYS and (type(key) is not int or is_key(key)) else OddKey(key) for key in keys]
    target.update(zip(keys, values, strict=True))


def is_key(number: int) -> bool:
    """Whether it has at most 64 bits. Longer ones may all have one hash, and a dict of them would take for ever."""
    return -(1 << 63) <= number < 1 << 64
