"""Functions as commands: what is declared once is on every command that takes it; values have their fields' types."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, fields
from typing import Annotated, Any

import pytest
import typer

import resnet_surgeon as rs
from resnet_surgeon.cli import options
from resnet_surgeon.cli.app import app
from resnet_surgeon.cli.declaration import Typed, declare
from resnet_surgeon.errors import UsageError
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


def called(*arguments: str) -> dict[str, Any]:
    """What a function gets whose parameters are two dataclasses, an argument and an option."""
    got: dict[str, Any] = {}

    def function(size: Size, place: Place, word: Annotated[str, typer.Argument()] = "none", loud: bool = False) -> None:
        """Help."""
        got.update(locals())

    # Annotations of a function within a function: its names are not the module's.
    function.__annotations__ = {"size": Size, "place": Place, "word": Annotated[str, typer.Argument()], "loud": bool}
    made = typer.Typer(cls=Typed)
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
