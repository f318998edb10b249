"""What settles an error is a command that can be pasted: everything that was typed, and the option."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from resnet_surgeon.cli.answers import command
from resnet_surgeon.errors import Answer
from tests.fixtures import Run

EMA = Answer("key", "ema student", "the averaged weights")


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (["inspect", "a.pth"], ["inspect", "a.pth", "--key", "ema student"]),
        (["inspect", "it's a.pth", "--tensors"], ["inspect", "it's a.pth", "--tensors", "--key", "ema student"]),
        (["inspect", "--key", "model", "a.pth"], ["inspect", "a.pth", "--key", "ema student"]),
        (["inspect", "--key=model", "a.pth"], ["inspect", "a.pth", "--key", "ema student"]),
        (["inspect", "--", "-a.pth"], ["inspect", "--key", "ema student", "--", "-a.pth"]),
        (["inspect", "--", "--key"], ["inspect", "--key", "ema student", "--", "--key"]),
    ],
    ids=lambda words: " ".join(words),
)
def test_a_shell_reads_what_was_typed_and_the_answer(typed: list[str], words: list[str]) -> None:
    shown = command("resnet-surgeon", typed, EMA)
    assert shlex.split(shown, comments=True) == ["resnet-surgeon", *words]
    assert shown.endswith("  # the averaged weights")


def test_an_option_is_spelled_as_the_command_line_spells_it() -> None:
    assert command("x", [], Answer("dry_run", "1", "why")) == "x --dry-run 1  # why"


def test_every_answer_is_a_line_of_its_own(run: Run, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import resnet_surgeon.operations.adapt as a\n"
        "from resnet_surgeon.errors import Answer, OperationError\n"
        "def fail(*_):\n"
        "    answers = [Answer('init', mode, f'{mode} it') for mode in ('scaled', 'repeat')]\n"
        "    raise OperationError('which', hint='choose', answers=answers)\n"
        "a.Adapt.apply = fail\n"
    )
    env = {"PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[2]}"}
    done = run("adapt", "resnet18", "--weights", "random", "--in-ch", "1", env=env)
    assert done.returncode == 1
    typed = "hint: resnet-surgeon adapt resnet18 --weights random --in-ch 1"
    assert done.stderr.decode().splitlines() == [
        "error: adapt: which",
        "hint: choose",
        f"{typed} --init scaled  # scaled it",
        f"{typed} --init repeat  # repeat it",
    ]
