"""Long work shows itself: by a bar on a terminal, by a line in a log; a download at once."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import resnet_surgeon as rs
from resnet_surgeon.cli import progress as shown
from resnet_surgeon.cli.options import progress
from resnet_surgeon.cli.progress import bars, downloads, lines
from resnet_surgeon.sources.progress import DOWNLOADING, silent


class Clock:
    """Time that passes when the test says so."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


class Drawn:
    """A display as rich's, that notes what is drawn."""

    def __init__(self) -> None:
        self.tasks: list[str] = []
        self.notes: list[str] = []

    def __call__(self) -> Drawn:
        self.notes.append("start")
        return self

    def add_task(self, what: str, total: int | None) -> str:
        self.tasks.append(what)
        return what

    def update(self, task: str, completed: int) -> None:
        self.notes.append(f"{task} {completed}")

    def remove_task(self, task: str) -> None:
        self.tasks.remove(task)

    def stop(self) -> None:
        self.notes.append("stop")


@pytest.mark.parametrize(("total", "size"), [(102_540_000, ", 97.8 MiB"), (None, "")])
def test_in_a_log_a_download_is_a_line_when_it_begins(
    total: int | None, size: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with progress()(f"{DOWNLOADING}resnet50.pth", total) as advance:
        assert capsys.readouterr().err == f"downloading resnet50.pth{size}\n"
        advance(1000)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("seconds", "told"), [(4.9, ""), (5.1, "hashing resnet50.pth, 97.8 MiB\n")], ids=["short", "long"]
)
def test_in_a_log_other_work_is_a_line_once_it_is_long(
    seconds: float, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = Clock()
    with lines(clock)("hashing resnet50.pth", 102_540_000) as advance:
        advance(1000)
        clock.seconds = seconds
        advance(1000)
        advance(1000)
    assert capsys.readouterr().err == told


def test_a_bar_is_drawn_once_work_is_long() -> None:
    clock, drawn = Clock(), Drawn()
    with bars(clock, drawn)("writing a", 3) as advance:
        advance(1)
        assert drawn.notes == []
        clock.seconds = 0.8
        advance(1)
    assert drawn.notes == ["start", "writing a 2", "stop"]


def test_work_that_goes_on_at_the_same_time_has_a_display_in_common() -> None:
    clock, drawn = Clock(), Drawn()
    at_work = bars(clock, drawn)
    with at_work("writing a", 3) as write, at_work("hashing b", 3) as read:
        clock.seconds = 0.8
        write(1)
        read(2)
        assert drawn.tasks == ["writing a", "hashing b"]
    assert drawn.notes == ["start", "writing a 1", "hashing b 2", "stop"]


def test_what_fails_takes_all_bars_away() -> None:
    clock, drawn = Clock(), Drawn()
    at_work = bars(clock, drawn)

    def interrupted() -> None:
        with at_work("writing a", 3):
            clock.seconds = 0.8
            read(1)
            raise KeyboardInterrupt

    with at_work("hashing b", 3) as read:
        with pytest.raises(KeyboardInterrupt):
            interrupted()
        assert drawn.notes[-1] == "stop"
        read(1)
    assert drawn.notes == ["start", "hashing b 1", "stop"]


def test_rich_draws_such_a_display(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = io.StringIO()
    monkeypatch.setattr(sys, "stderr", seen)
    monkeypatch.setenv("FORCE_COLOR", "1")
    clock = Clock()
    with bars(clock)("writing [b]a", 2048) as advance:
        clock.seconds = 1.0
        advance(1024)
    assert "writing [b]a" in seen.getvalue()


def test_a_quiet_log_is_quiet() -> None:
    assert progress(quiet=True) is silent


def test_a_quiet_terminal_shows_downloads(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = Drawn()
    clock = Clock()
    monkeypatch.setattr(shown, "bars", lambda: bars(clock, drawn))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    for quiet in (True, False):
        for what in (f"{DOWNLOADING}a", "writing b"):
            clock.seconds = 0.0
            with progress(quiet)(what, 1) as advance:
                clock.seconds = 1.0
                advance(1)
    download = f"{DOWNLOADING}a 1"
    assert [note for note in drawn.notes if note.endswith("1")] == [download, download, "writing b 1"]


def written(network: rs.Network, report: Any) -> None:
    network.save("out.safetensors", progress=report)


def compared(network: rs.Network, report: Any) -> None:
    network.save("out.safetensors")
    rs.open("in.pth", progress=report).adapt(1).is_written("out.safetensors", progress=report)


@pytest.mark.parametrize(
    ("work", "whats"),
    [
        (written, {"hashing in.pth", "writing out.safetensors"}),
        (compared, {"hashing in.pth", "comparing out.safetensors"}),
    ],
)
def test_all_that_takes_long_is_told(
    work: Callable[[rs.Network, Any], None],
    whats: set[str],
    tmp_path: Path,
    checkpoints: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("in.pth").write_bytes((checkpoints / "basic.pth").read_bytes())
    clock, drawn = Clock(), Drawn()

    def always() -> float:
        clock.seconds += 1
        return clock.seconds

    report = bars(always, drawn)
    work(rs.open("in.pth", progress=report).adapt(1), report)
    assert {note.rpartition(" ")[0] for note in drawn.notes} - {""} == whats
    assert drawn.tasks == []


def test_downloads_alone_leave_other_work_silent(capsys: pytest.CaptureFixture[str]) -> None:
    with downloads(lines())("writing out.safetensors", 1000) as advance:
        advance(1000)
    assert capsys.readouterr().err == ""
