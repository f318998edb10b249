"""Trials: a command run on a hostile file by the victim process, and what must be true of its end."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

TOP = Path(__file__).parents[2]


@dataclass(frozen=True)
class Outcome:
    """How a command ended: exit code (negative: a signal, such as SIGXCPU for too much work), what it printed, and what
    it did that it should not.
    """

    code: int
    stdout: str
    stderr: str
    events: list[str]


class Victim:
    """The process of `victim.py`, warmed up on harmless commands."""

    def __init__(self, harmless: list[list[str]]) -> None:
        command = [sys.executable, "-m", "tests.hazards.victim", json.dumps(harmless)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=TOP, text=True)

    def run(self, *argv: str, folder: Path, pipe: Path | None = None) -> Outcome:
        assert self._process.stdin
        assert self._process.stdout
        request = {"argv": argv, "folder": str(folder), "pipe": str(pipe) if pipe else None}
        print(json.dumps(request), file=self._process.stdin, flush=True)
        return Outcome(**json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        self._process.communicate()


def assert_refused(outcome: Outcome) -> None:
    """One line that says why, perhaps one that says what to do, nothing else; and nothing done but reading."""
    lines = outcome.stderr.splitlines()
    assert outcome.code == 1, (outcome.code, outcome.stderr)
    assert outcome.stdout == ""
    assert lines[0].startswith("error: ")
    assert [line.partition(":")[0] for line in lines[1:]] in ([], ["hint"])
    assert all(line.isprintable() for line in lines)
    assert outcome.events == []
