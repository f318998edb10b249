"""Whatever a file is called and says, every command ends in lines that a terminal can take, never as a bug of ours."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import resnet_surgeon as rs
from resnet_surgeon.cli import main
from resnet_surgeon.cli.text import summary
from tests.hazards.test_reading import named

SMALL = Path(__file__).parents[1] / "data" / "0.1.0" / "small.safetensors"
EVIL = "\x1b[2J\u202etxt\n\x07"


def packed(folder: Path) -> Path:
    """Under a key, behind a prefix, beside another tensor: all of names that a person should not see as they are."""
    state = {f"{EVIL}.{name}": tensor for name, tensor in load_file(SMALL).items()}
    torch.save({EVIL: {**state, EVIL: torch.zeros(2), "x" * 4000: torch.zeros(2)}}, folder / "evil.pth")
    return folder / "evil.pth"


def written(folder: Path) -> Path:
    return rs.open(packed(folder)).adapt(1).heads([3, 5]).save(folder / "written.safetensors")


def retold(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = written(folder)
        with safe_open(path, "pt") as file:
            metadata = file.metadata()
        document = json.loads(metadata["resnet_surgeon.manifest"])
        change(document)
        save_file(load_file(path), path, metadata={**metadata, "resnet_surgeon.manifest": json.dumps(document)})
        return path

    return make


def half(folder: Path) -> Path:
    (folder / "half.pth").write_bytes(named("\ud800"))
    return folder / "half.pth"


def closed(folder: Path) -> Path:
    """Beside a network, an object of a class of an evil name, and hundreds of others."""
    names = [("a", EVIL.replace("\n", "")), *((f"module{number}", "x" * 400) for number in range(300))]
    kinds = [type(name, (), {"__module__": module, "__qualname__": name}) for module, name in names]
    for kind in kinds:
        module = sys.modules.setdefault(kind.__module__, ModuleType(kind.__module__))
        setattr(module, kind.__name__, kind)
    torch.save({"state_dict": load_file(SMALL), "beside": kinds}, folder / "closed.pth", pickle_protocol=4)
    for kind in kinds:
        sys.modules.pop(kind.__module__, None)
    return folder / "closed.pth"


def many(folder: Path) -> Path:
    """So many heads that their names are far longer than any message."""
    network = rs.open(SMALL)
    return network.heads([2] * 60, names=[f"h{number:060}" for number in range(60)], own="none").save(
        folder / "many.safetensors"
    )


FILES: dict[str, Callable[[Path], Path]] = {
    "a packing": packed,
    "a file of this tool": written,
    "many heads": many,
    "objects of many classes": closed,
    "half of a character": half,
    "code for an output": retold(lambda d: d["outputs"][0].update(name="import os; os.system('id')")),
    "words for a file": retold(lambda d: d["source"].update(file=EVIL)),
    "words for what was dropped": retold(lambda d: d.update(dropped=[EVIL, "x" * 4000])),
    "half of a character in a manifest": retold(lambda d: d.update(dropped=["\ud800"])),
    "a field of a million letters": retold(lambda d: d.update({"x" * 10**6: 1})),
}
COMMANDS = [
    ["adapt", "FILE", "--in-ch", "2", "-o", "out.safetensors"],
    ["adapt", "FILE", "--in-ch", "2", "-o", "out.safetensors", "--json"],
    ["adapt", "FILE", "--in-ch", "2", "--dry-run"],
    ["remove", "FILE", "--layers", "heads", "-o", "out.safetensors"],
    ["heads", "FILE", "--classes", "2", "-o", "out.safetensors"],
    ["inspect", "FILE", "--tensors"],
    ["inspect", "FILE", "--json"],
    ["diff", str(SMALL), "FILE"],
    ["diff", "FILE", str(SMALL), "--json"],
    ["verify", "FILE"],
    ["verify", "FILE", "--json"],
    ["report", "FILE", "-o", "page.html"],
]


@pytest.fixture(scope="module", params=[*FILES.values()], ids=[*FILES])
def hostile(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = request.param(tmp_path_factory.mktemp("hostile"))
    return path


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_it_ends_in_lines_that_a_terminal_can_take(
    command: list[str],
    hostile: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        sys, "argv", ["resnet-surgeon", *(str(hostile) if word == "FILE" else word for word in command)]
    )
    code = main._run()
    printed = capfd.readouterr()
    assert code in (0, 1), printed.err
    if "--json" in command and code == 0:
        json.loads(printed.out)
    for line in (printed.out + printed.err).split("\n"):
        assert line.isprintable()
        assert "--json" in command or len(line) < 2100
    for page in tmp_path.glob("page.html"):
        assert all(line.isprintable() for line in page.read_text("utf-8").replace("\t", "").split("\n"))


def test_what_was_not_loaded_is_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    torch.save({"state_dict": load_file(SMALL), "args": argparse.Namespace(lr=1), "s": {1}}, tmp_path / "a.pth")
    network = rs.open(tmp_path / "a.pth").adapt(1)
    assert network.manifest().source.not_loaded == ("argparse.Namespace",)
    assert rs.open(network.save(tmp_path / "b.safetensors")).manifest().source.not_loaded == ("argparse.Namespace",)
    assert "not loaded: argparse.Namespace" in summary(network, "b.safetensors")


def test_a_traceback_is_safe_on_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / EVIL).write_bytes(b"no checkpoint")
    monkeypatch.setattr(sys, "argv", ["resnet-surgeon", "inspect", str(tmp_path / EVIL), "--debug"])
    assert main._run() == 1
    printed = capfd.readouterr().err
    assert "Traceback" in printed
    assert all(line.isprintable() for line in printed.split("\n"))
