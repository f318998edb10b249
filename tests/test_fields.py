"""What a field may hold is checked by its type and its rule, for documents and for options alike."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest

from resnet_surgeon.errors import UsageError
from resnet_surgeon.fields import (
    Count,
    Line,
    Name,
    Range,
    Seed,
    Text,
    checked,
    decoded,
    hints_of,
    plain,
    prepare,
    unsaid,
    unsaid_names,
)

Number = Annotated[int, Range(1, 9)]


@dataclass(frozen=True)
class Leaf:
    number: Number
    share: float = 0.5
    how: Literal["leaf"] = "leaf"


@dataclass(frozen=True)
class Branch:
    name: Annotated[str, Text("a short name", "[a-z]+", 5)]
    parts: tuple[Leaf | Branch, ...] = ()
    notes: Annotated[Mapping[Name, Line], Count(0, 2)] | None = None
    how: Literal["branch"] = "branch"


TREE = Branch("a", (Leaf(1), Branch("b", (), {"\x1b": "seen"})))


def test_what_is_made_plain_is_decoded_again() -> None:
    assert decoded(Branch, plain(TREE)) == TREE


def test_a_field_that_is_missing_takes_its_default() -> None:
    assert decoded(Branch, {"name": "a", "how": "branch", "parts": [{"number": 1, "how": "leaf"}]}) == Branch(
        "a", (Leaf(1),)
    )


def changed(**fields: Any) -> dict[str, Any]:
    return {**plain(TREE), **fields}


WRONG: dict[str, tuple[Any, str]] = {
    "another kind": ([], "it is not an object"),
    "a field too many": (changed(more=1), "it has an unknown field `more`"),
    "a field that is no line": (changed(**{"\n" * 200: 1}), r"it has an unknown field `(\\n){80}\.\.\.`$"),
    "a field too few": ({"how": "branch"}, "it lacks the field name"),
    "a tag too few": ({"name": "a"}, "it lacks the field how"),
    "a tag of nothing": (changed(parts=[{"how": "root"}]), r"parts\[0\] is of an unknown kind"),
    "no tag among others": (changed(parts=[{"number": 1}]), r"parts\[0\] is of an unknown kind"),
    "text of another alphabet": (changed(name="A"), "name is not a short name"),
    "text with a line behind it": (changed(name="a\n"), "name is not a short name"),
    "text that is too long": (changed(name="abcdef"), "name is not text of at most 5 characters"),
    "a number for text": (changed(name=1), "name is not text"),
    "a list that is none": (changed(parts={}), "parts is not a list"),
    "a number too small": (changed(parts=[plain(Leaf(0))]), r"parts\[0\].number is not a whole number of at least 1"),
    "a number too large": (changed(parts=[plain(Leaf(10))]), r"parts\[0\].number is not a whole number of at most 9"),
    "true for a number": (changed(parts=[plain(Leaf(True))]), r"parts\[0\].number is not a whole number"),
    "an infinite number": (changed(parts=[plain(Leaf(1, 1e999))]), r"parts\[0\].share is not a finite number"),
    "no number": (changed(parts=[plain(Leaf(1, float("nan")))]), r"parts\[0\].share is not a finite number"),
    "an unknown word": (changed(how="root"), "how is unknown"),
    "a map that is none": (changed(notes=[]), "notes is not an object"),
    "too many in a map": (changed(notes=dict.fromkeys("abc", "")), "notes is not a list of at most 2"),
    "half of a character": (changed(notes={"\ud800": ""}), r"notes.`\\ud800` is not Unicode text"),
    "a line that turns": (changed(notes={"a": "\u202etxt"}), "notes.`a` is not one line of visible text"),
    "two lines": (changed(notes={"a": "b\u2028c"}), "notes.`a` is not one line of visible text"),
}


@pytest.mark.parametrize(("value", "reason"), WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_is_said_with_its_place(value: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=f"^{reason}"):
        decoded(Branch, value)


@pytest.mark.parametrize("given", [[1, 2], (1, 2), range(1, 3), iter([1, 2])])
def test_an_option_that_is_a_list_may_be_any_iterable(given: Any) -> None:
    assert checked(tuple[Number, ...], given, "classes") == (1, 2)


def test_an_item_may_stand_for_a_list_of_itself() -> None:
    assert checked(tuple[str, ...] | None, "fc", "layers") == ("fc",)
    assert checked(tuple[str, ...] | None, None, "layers") is None


OPTIONS: dict[str, tuple[Any, Any, str]] = {
    "text": (Number, "3", "it must be a whole number, not `3`"),
    "nothing": (Number, None, "it must be a whole number, not None"),
    "true": (Number, True, "it must be a whole number, not True"),
    "a fraction": (Seed, 1.5, "it must be a whole number, not 1.5"),
    "an endless number": (
        Seed,
        10**9999,
        r"it must be a whole number from -2\^127 to 2\^128 - 1, not a number of many",
    ),
    "an object": (Number, object(), "it must be a whole number, not a value of type object"),
    "a list": (Number, [1], "it must be a whole number, not a list of 1"),
    "a text in a list": (tuple[Number, ...], (1, "3"), r"it\[1\] must be a whole number, not `3`"),
    "a map for a list": (tuple[Number, ...], {1: 2}, r"it\[0\] must be a whole number, not a value of type dict"),
    "no item": (Annotated[tuple[int, ...], Count(1, 9)], [], "it must be a list of at least 1, not a list of 0"),
    "endless items": (tuple[int, ...], itertools.count(), "it must be a list of at most"),
    "no choice": (Literal["a", "b"] | None, [], "it must be one of a, b, not a list of 0"),
    "a choice too long": (Literal["a", "b"], "a" * 10**6, r"it must be one of a, b, not `a{80}\.\.\.`$"),
}


@pytest.mark.parametrize(("hint", "value", "reason"), OPTIONS.values(), ids=OPTIONS.keys())
def test_an_option_of_another_type_is_wrong_usage(hint: Any, value: Any, reason: str) -> None:
    with pytest.raises(UsageError, match=f"^{reason}"):
        checked(hint, value, "it")


@dataclass(frozen=True)
class Grown:
    old: int
    new: int = unsaid(7)


def test_a_field_that_came_later_is_left_out_of_documents_while_it_has_its_default() -> None:
    assert plain(Grown(1)) == {"old": 1}
    assert plain(Grown(1, 8)) == {"old": 1, "new": 8}
    assert decoded(Grown, {"old": 1}) == Grown(1, 7)


@dataclass(frozen=True)
class Shelf:
    parts: tuple[Grown, ...]


def test_what_documents_may_leave_out_is_known_of_all_that_they_hold() -> None:
    assert unsaid_names(Shelf) == {Shelf: frozenset(), Grown: {"new"}}


def test_what_was_prepared_looks_at_no_type_when_it_is_decoded() -> None:
    prepare(Shelf)
    known = hints_of.cache_info().misses
    assert decoded(Shelf, {"parts": [{"old": 1}]}) == Shelf((Grown(1),))
    assert hints_of.cache_info().misses == known
