"""Frozen dataclasses of the house, beside those of the standard library."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
import types
from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from resnet_surgeon.dataclass import dataclass

Make = Callable[[type], Any]


class Point:
    """A point with a name."""

    origin: ClassVar[int] = 0

    x: int
    y: float = 2.0
    names: list[str] = dataclasses.field(default_factory=list)
    seen: int = dataclasses.field(default=0, compare=False, repr=False, metadata={"help": "how often"})

    def __post_init__(self) -> None:
        if self.x < 0:
            raise ValueError("to the left")


class Empty:
    """Has no field."""


class Spoken:
    """Says itself what it is, and when it equals another."""

    name: str

    def __repr__(self) -> str:
        return f"<{self.name}>"

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 1


def again(kind: type) -> Any:
    """The class, made once more."""
    return type(kind.__name__, (), {name: value for name, value in vars(kind).items() if not isinstance(value, SLOT)})


def standard(kind: type) -> Any:
    return dataclasses.dataclass(frozen=True)(again(kind))


def ours(kind: type) -> Any:
    return dataclass(frozen=True)(again(kind))


SLOT = types.GetSetDescriptorType
BOTH = pytest.mark.parametrize("make", [standard, ours])


def outcome(act: Callable[[], Any]) -> Any:
    """What comes of it, or the error and its words."""
    try:
        return act()
    except Exception as error:
        return type(error), str(error)


@pytest.mark.parametrize(
    "look",
    [
        lambda kind: repr(kind(1)),
        lambda kind: repr(kind(1, names=["a"], seen=3)),
        lambda kind: kind(1) == kind(1, 2.0, [], 9),
        lambda kind: kind(1) == kind(2),
        lambda kind: kind(1) == (1, 2.0, [], 0),
        lambda kind: kind(1).__eq__(1),
        lambda kind: hash(kind(1, names=("a",))) == hash(kind(1, names=("a",), seen=2)),
        lambda kind: hash(kind(1)),  # a list has none
        lambda kind: kind(1).names is kind(1).names,
        lambda kind: kind(),
        lambda kind: kind(1, z=2),
        lambda kind: kind(-1),
        lambda kind: dataclasses.replace(kind(1), y=3.0).y,
        lambda kind: dataclasses.asdict(kind(1)),
        lambda kind: [(field.name, dict(field.metadata)) for field in dataclasses.fields(kind)],
        lambda kind: dataclasses.is_dataclass(kind),
        lambda kind: str(inspect.signature(kind)),
        lambda kind: kind.__match_args__,
        lambda kind: kind.__doc__,
        lambda kind: copy.deepcopy(kind(1)) == kind(1),
        lambda kind: setattr(kind(1), "x", 2),
        lambda kind: setattr(kind(1), "z", 2),
        lambda kind: setattr(kind(1), "origin", 2),
        lambda kind: delattr(kind(1), "x"),
        lambda kind: delattr(kind(1), "z"),
    ],
)
def test_it_is_as_the_standard_one(look: Callable[[Any], Any]) -> None:
    assert outcome(lambda: look(ours(Point))) == outcome(lambda: look(standard(Point)))


@BOTH
def test_one_without_fields_equals_its_like(make: Make) -> None:
    kind = make(Empty)
    assert kind() == kind()
    assert hash(kind()) == hash(kind())
    assert repr(kind()) == "Empty()"


@BOTH
def test_what_a_class_defines_itself_stays(make: Make) -> None:
    kind = make(Spoken)
    assert (repr(kind("a")), kind("a") == kind("b"), hash(kind("a"))) == ("<a>", True, 1)


@BOTH
def test_another_class_with_the_same_fields_is_not_equal(make: Make) -> None:
    assert make(Point)(1) != make(Point)(1)


def test_without_eq_only_the_same_object_is_equal() -> None:
    kind: Any = dataclass(frozen=True, eq=False)(type("Kind", (), {"__annotations__": {"x": int}}))
    one = kind(1)
    assert one != kind(1)
    assert len({one, kind(1)}) == 2


def test_one_that_changes_is_refused() -> None:
    with pytest.raises(TypeError, match=r"dataclasses\.dataclass"):
        dataclass(frozen=False)


@dataclass(frozen=True)
class Sent:
    """A class that a pickle finds by its name."""

    x: int


def test_it_can_be_sent_to_another_process() -> None:
    assert pickle.loads(pickle.dumps(Sent(1))) == Sent(1)
