"""Long work shows itself: by a bar on a terminal, and a download by a line in a log."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from resnet_surgeon.cli import progress as shown
from resnet_surgeon.cli.options import progress
from resnet_surgeon.sources.progress import DOWNLOADING, Advance, silent


@pytest.mark.parametrize(("total", "size"), [(102_540_000, ", 97.8 MiB"), (None, "")])
def test_in_a_log_a_download_is_a_line_when_it_begins(
    total: int | None, size: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with progress()(f"{DOWNLOADING}resnet50.pth", total) as advance:
        assert capsys.readouterr().err == f"downloading resnet50.pth{size}\n"
        advance(1000)
    assert capsys.readouterr().err == ""


def test_in_a_log_nothing_else_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with progress()("writing out.safetensors", 1000) as advance:
        advance(1000)
    assert capsys.readouterr().err == ""


def test_a_quiet_log_is_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    assert progress(quiet=True) is silent


def test_a_quiet_terminal_shows_downloads(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []

    @contextmanager
    def bar(what: str, total: int | None) -> Iterator[Advance]:
        drawn.append(what)
        yield lambda count: None

    monkeypatch.setattr(shown, "bar", bar)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    for quiet in (True, False):
        for what in (f"{DOWNLOADING}a.pth", "writing b"):
            with progress(quiet)(what, 1):
                pass
    assert drawn == [f"{DOWNLOADING}a.pth", f"{DOWNLOADING}a.pth", "writing b"]
