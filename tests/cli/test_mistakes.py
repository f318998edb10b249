"""Whoever types what there is not gets the command that was probably meant."""

from __future__ import annotations

import shlex
from typing import Any

import pytest
from typer.main import get_command

from resnet_surgeon.cli.app import app
from resnet_surgeon.cli.mistakes import meant
from resnet_surgeon.operations import OPERATIONS
from tests.fixtures import Run

MEANT = {
    "heads --classes 3 5": "heads --classes 3,5",
    "heads x.pth --classes 3 5 7 -q": "heads x.pth --classes 3,5,7 -q",
    "x.pth --in-ch 1": "adapt x.pth --in-ch 1",
    "x.pth --classes 3 5": "heads x.pth --classes 3,5",
    "x.pth": "inspect x.pth",
    "adapt x.pth --heads 3,5": "heads x.pth --classes 3,5",
    "adapt x.pth --in-ch 1 --heads 3,5": "adapt x.pth --in-ch 1 -o - | resnet-surgeon heads - --classes 3,5",
    "adapt x.pth --classes=3,5 --in-ch=1": "adapt x.pth --in-ch=1 -o - | resnet-surgeon heads - --classes 3,5",
    "heads 'my file.pth' --classes 3 --in-ch 1": "heads 'my file.pth' --classes 3 -o - | resnet-surgeon adapt - "
    "--in-ch 1",
}
NOTHING = ["", "--wrong", "adpt x.pth", "verify x.pth --in-ch 3", "adapt x.pth --wrong 3", "wrong", "adapt x.pth"]


def commands() -> Any:
    group: Any = get_command(app)
    return group.commands


@pytest.mark.parametrize("typed", MEANT)
def test_what_was_probably_meant_is_a_command_to_type(typed: str) -> None:
    found = meant("resnet-surgeon", shlex.split(typed), commands(), OPERATIONS)
    assert found == f"resnet-surgeon {MEANT[typed]}"


@pytest.mark.parametrize("typed", NOTHING)
def test_where_nothing_suggests_itself_nothing_is_said(typed: str) -> None:
    assert meant("resnet-surgeon", shlex.split(typed), commands(), OPERATIONS) is None


@pytest.mark.parametrize("typed", ["heads --classes 3 5", "heads x.pth --classes 3 5"])
def test_the_command_is_a_hint_of_the_error(typed: str, run: Run) -> None:
    done = run(*shlex.split(typed))
    assert done.returncode != 0
    assert f"hint: resnet-surgeon {MEANT.get(typed, 'heads x.pth --classes 3,5')}\n" in done.stderr.decode()
