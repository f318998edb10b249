"""Functions as commands: what is declared once is on every command that takes it; values have their fields' types."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer

import resnet_surgeon as rs
from resnet_surgeon.cli import options
from resnet_surgeon.cli.app import app
from resnet_surgeon.cli.declaration import declare
from resnet_surgeon.cli.typed import TypedGroup
from resnet_surgeon.errors import AccessError, UsageError
from resnet_surgeon.fields import Line
from resnet_surgeon.operations.checkpoint import option


@dataclass(frozen=True)
class Size:
    width: int = option("Width.", spelling="-w")
    names: tuple[str, ...] = option("Names.", default=())
    seed: int = option("Seed.", default=0)


@dataclass(frozen=True)
class Place:
    numbers: tuple[int, ...] | None = option("Numbers.", default=None)
    seed: int = option("Seed.", default=0)


@dataclass(frozen=True)
class Room:
    name: str
    beds: tuple[int, ...] = ()
    height: float = 2.0
    is_warm: bool = True


@dataclass(frozen=True)
class House:
    rooms: tuple[Room, ...] = option("Rooms.", default=())
    floors: Sequence[int] | Mapping[str, int] | None = option("Floors.", default=None)
    lines: tuple[Line, ...] = option("Lines.", default=())


def built(*arguments: str) -> House:
    got: dict[str, House] = {}

    def function(house: House) -> None:
        """Help."""
        got["house"] = house

    function.__annotations__ = {"house": House}
    made = typer.Typer(cls=TypedGroup)
    declare(made, "one", function, "x one")
    made.callback()(lambda: None)
    made(["one", *arguments], standalone_mode=False)
    return got["house"]


def test_an_option_whose_items_have_fields_is_typed_once_for_each() -> None:
    rooms = built("--rooms", "name=a,beds=1+2,is_warm=false", "--rooms", "name=b, height=3").rooms
    assert rooms == ({"name": "a", "beds": (1, 2), "is_warm": False}, {"name": "b", "height": 3.0})  # type: ignore[comparison-overlap]


@pytest.mark.parametrize("typed", ["name", "name=a,name=b", "door=1", "", "name=a,,"])
def test_a_field_that_there_is_not_is_refused(typed: str) -> None:
    with pytest.raises(UsageError, match="--rooms"):
        built("--rooms", typed)


def test_numbers_can_have_names_where_the_field_takes_them() -> None:
    assert (built("--floors", "a=1, b=2").floors, built("--floors", "1,2").floors) == ({"a": 1, "b": 2}, (1, 2))
    with pytest.raises(UsageError, match="not a list of whole numbers"):
        built("--floors", "a=1,2")


def test_lines_are_typed_or_stand_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text("\ufefftabby\r\ntiger cat\n\n", "utf-8")
    assert built("--lines", str(tmp_path / "lines.txt")).lines == ("tabby", "tiger cat")
    assert built("--lines", "a, b c").lines == ("a", "b c")
    with pytest.raises(AccessError, match="cannot be read"):
        built("--lines", "nowhere.txt")


def called(*arguments: str) -> dict[str, Any]:
    """What a function gets whose parameters are two dataclasses, an argument and an option."""
    got: dict[str, Any] = {}

    def function(size: Size, place: Place, word: Annotated[str, typer.Argument()] = "none", loud: bool = False) -> None:
        """Help."""
        got.update(locals())

    # Annotations of a function within a function: its names are not the module's.
    function.__annotations__ = {"size": Size, "place": Place, "word": Annotated[str, typer.Argument()], "loud": bool}
    made = typer.Typer(cls=TypedGroup)
    declare(made, "one", function, "x one")
    made.callback()(lambda: None)
    made(["one", *arguments], standalone_mode=False)
    got.pop("got")
    return got


def test_a_dataclass_stands_for_its_fields() -> None:
    assert called("-w", "3") == {"size": Size(3), "place": Place(), "word": "none", "loud": False}


@pytest.mark.parametrize(
    ("typed", "size"),
    [
        (["--width=3"], Size(3)),
        (["-w", "-3"], Size(-3)),
        (["-w", "3", "--names", "a, b"], Size(3, ("a", "b"))),
        (["-w", "3", "--names", "a"], Size(3, ("a",))),
    ],
    ids=lambda item: " ".join(item) if isinstance(item, list) else "",
)
def test_values_come_as_the_types_of_their_fields(typed: list[str], size: Size) -> None:
    assert called(*typed)["size"] == size


def test_an_option_that_two_dataclasses_have_is_one() -> None:
    got = called("-w", "3", "--seed", "7", "--numbers", "1,2")
    assert (got["size"].seed, got["place"]) == (7, Place((1, 2), 7))


def test_a_list_of_numbers_holds_numbers() -> None:
    with pytest.raises(UsageError, match="--numbers: '1,x' is not a list of whole numbers"):
        called("-w", "3", "--numbers", "1,x")


def test_what_is_required_is_asked_for() -> None:
    with pytest.raises(typer.TyperException, match="Missing"):
        called()


def options_of(command: str) -> set[str]:
    (info,) = (info for info in app.registered_commands if info.name == command)
    assert info.callback
    return set(inspect.signature(info.callback).parameters)


@pytest.mark.parametrize("command", ["adapt", "remove", "heads", "verify", "report", "diff", "inspect"])
def test_every_command_that_opens_a_source_takes_all_that_says_how(command: str) -> None:
    assert {field.name for field in fields(options.Opening)} <= options_of(command)


@pytest.mark.parametrize("field", [field.name for field in fields(options.Opening)])
def test_how_a_source_is_opened_is_said_in_keywords_of_open(field: str) -> None:
    assert field in inspect.signature(rs.open).parameters


def test_only_what_was_stated_is_passed_on() -> None:
    assert options.Opening().keywords == {}
    assert options.Opening(seed=3, key="ema").keywords == {"seed": 3, "key": "ema"}
