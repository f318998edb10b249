"""The picture of a plan: boxes whose borders tell the fate, colours for those who want them, ASCII for the rest."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from tests.fixtures import Run

PLAN = ("heads", "resnet18", "--weights", "random", "--classes", "3,5", "--dry-run")
BOXES = """\
  ┌─ stem ───┐ ┌─ layer1 ┐ ┌─ layer2 ─┐ ┌─ layer3 ─┐ ┌╌ fc ╌╌╌╌╌┐
  │ kept     │ │ kept    │ │ kept     │ │ kept     │ ╎ gone     ╎
  │ 9.54 K   ├─┤ 148 K   ├─┤ 526 K    ├─┤ 2.10 M   ├╌┤ 513 K    ╎
  │ 37.8 KiB │ │ 580 KiB │ │ 2.01 MiB │ │ 8.02 MiB │ ╎ 1.96 MiB ╎
  └──────────┘ └─────────┘ └──────────┘ └──────────┘ └╌╌╌╌╌╌╌╌╌╌┘
  ├─ head1 ─ layer4 copied 8.39 M 32.0 MiB ─ fc new 1.54 K 6.01 KiB ─ 3 classes
  └─ head2 ─ layer4 copied 8.39 M 32.0 MiB ─ fc new 2.56 K 10.0 KiB ─ 5 classes
"""


def at_a_terminal(columns: int, tmp_path: Path, env: dict[str, str]) -> str:
    """What the plan looks like on a terminal of that width."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    command = [sys.executable, "-m", "resnet_surgeon", *PLAN]
    terminal = {**os.environ, "TERM": "xterm", "PYTHONUTF8": "1", **env}
    terminal.pop("COLUMNS", None)
    process = subprocess.Popen(command, stderr=follower, stdout=subprocess.DEVNULL, cwd=tmp_path, env=terminal)
    os.close(follower)
    shown = b""
    try:
        while piece := os.read(leader, 1 << 16):
            shown += piece
    except OSError:  # the terminal is closed
        pass
    os.close(leader)
    assert process.wait() == 0
    return shown.decode().replace("\r\n", "\n")


def uncoloured(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def test_without_a_terminal_it_is_plain_text(run: Run) -> None:
    shown = run(*PLAN, env={"PYTHONUTF8": "1"}).stderr.decode()
    assert BOXES in shown
    assert "\x1b" not in shown


def test_where_characters_are_ascii_so_are_the_boxes(run: Run) -> None:
    shown = run(*PLAN, env={"PYTHONIOENCODING": "ascii"}).stderr
    assert b"  +- stem ---+ +- layer1 + +- layer2 -+ +- layer3 -+ +. fc .....+\n" in shown
    assert shown.isascii()


@pytest.mark.parametrize(("env", "is_coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)])
def test_a_terminal_gets_colours_unless_it_says_no(env: dict[str, str], is_coloured: bool, tmp_path: Path) -> None:
    shown = at_a_terminal(100, tmp_path, env)
    assert ("\x1b[31m" in shown) == is_coloured
    assert BOXES in uncoloured(shown)


def test_a_narrow_terminal_gets_a_list(tmp_path: Path) -> None:
    shown = uncoloured(at_a_terminal(60, tmp_path, {}))
    assert "  layer3   kept      2.10 M  8.02 MiB\n  fc       gone       513 K  1.96 MiB\n  head1\n" in shown
    assert "┌" not in shown
