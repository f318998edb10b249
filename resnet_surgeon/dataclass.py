"""Frozen dataclasses that are quick to define. Knows nothing of what they hold.

The standard library compiles six methods for each class, and for all classes of this package that takes longer than
copying a ResNet-50. Here `__init__` alone is compiled; each of the others is one function for all classes.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass

T = TypeVar("T")


def _dataclass(*, frozen: bool, eq: bool = True) -> Callable[[type[T]], type[T]]:
    """As `dataclasses.dataclass(frozen=True, eq=eq)`."""
    if not frozen:
        raise TypeError("for what changes there is dataclasses.dataclass")
    shared: dict[str, Any] = {"__repr__": _repr, "__delattr__": _delete}
    if eq:
        shared |= {"__eq__": _equal, "__hash__": _hash}

    def defined(kind: type[T]) -> type[T]:
        own = {*vars(kind)}
        made: Any = dataclasses.dataclass(repr=False, eq=False)(kind)
        set_once = _setting_once(frozenset(field.name for field in dataclasses.fields(made)))
        for name, method in {**shared, "__setattr__": set_once}.items():
            if name not in own:
                setattr(made, name, method)
        return kind

    return defined


if not TYPE_CHECKING:  # type checkers know the standard one, which is the same to them
    dataclass = _dataclass


def _setting_once(names: frozenset[str]) -> Callable[[Any, str, object], None]:
    """Sets each of the fields once, which `__init__` does."""

    def set_once(self: Any, name: str, value: object) -> None:
        values = self.__dict__
        if name in values or name not in names:
            raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")
        values[name] = value

    return set_once


def _delete(self: Any, name: str) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")


def _repr(self: Any) -> str:
    fields = (f"{field.name}={getattr(self, field.name)!r}" for field in dataclasses.fields(self) if field.repr)
    return f"{type(self).__qualname__}({', '.join(fields)})"


def _equal(self: Any, other: Any) -> bool:
    kind: Any = type(self)
    values = _values(kind)
    return values(self) == values(other) if type(other) is kind else NotImplemented


def _hash(self: Any) -> int:
    kind: Any = type(self)
    return hash(_values(kind)(self))


@functools.cache
def _values(kind: Any) -> Callable[[Any], Any]:
    """What two of this kind are compared by."""
    names = [field.name for field in dataclasses.fields(kind) if field.compare]
    return attrgetter(*names) if names else lambda _: ()
