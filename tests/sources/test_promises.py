"""A digest that was promised is checked, whatever the command: a file's word on itself never stands for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import resnet_surgeon as rs
from resnet_surgeon.cli.app import app
from resnet_surgeon.errors import CheckpointError
from resnet_surgeon.formats.container import Container
from resnet_surgeon.sources import catalog, url
from resnet_surgeon.sources.cache import cache_folder
from tests.fixtures import Publish, small_network

ENTRY = catalog.entry("resnet18", "DEFAULT")
PROMISED = "http://127.0.0.1:9/model.safetensors#sha256=" + "0" * 64

# Every function and every command that opens a source, with its place marked.
FUNCTIONS: dict[str, Callable[[str, str], Any]] = {
    "open": lambda source, other: rs.open(source),
    "inspect": lambda source, other: rs.inspect(source),
    "load": lambda source, other: rs.load(source),
    "diff, first": lambda source, other: rs.diff(source, other),
    "diff, second": lambda source, other: rs.diff(other, source),
    "verify": lambda source, other: rs.verify(source),
    "verify, against": lambda source, other: rs.verify(other, against=source),
    "verify_quickly": lambda source, other: rs.verify_quickly(source),
    "verify_quickly, against": lambda source, other: rs.verify_quickly(other, against=source),
    "report": lambda source, other: rs.report(source),
    "report, against": lambda source, other: rs.report(other, against=source),
}
COMMANDS = {
    "adapt": "adapt SOURCE --in-ch 1",
    "adapt, dry run": "adapt SOURCE --in-ch 1 --dry-run",
    "adapt, stream": "adapt SOURCE --in-ch 1 -o -",
    "adapt, json": "adapt SOURCE --in-ch 1 --json",
    "convert": "convert SOURCE -o out.pth",
    "remove": "remove SOURCE --last 1",
    "heads": "heads SOURCE --classes 3,5",
    "stem": "stem SOURCE --kernel 3",
    "depth": "depth SOURCE --blocks 1,1,1,1",
    "dilate": "dilate SOURCE --output-stride 8",
    "features": "features SOURCE --layers layer1",
    "cast": "cast SOURCE --dtype float16",
    "fuse": "fuse SOURCE",
    "graft": "graft SOURCE --from OTHER --layers fc",
    "graft, from": "graft OTHER --from SOURCE --layers fc",
    "average": "average SOURCE OTHER",
    "average, second": "average OTHER SOURCE",
    "apply": "apply recipe.yaml SOURCE",
    "recipe": "recipe SOURCE",
    "verify": "verify SOURCE",
    "verify, against": "verify OTHER --against SOURCE",
    "report": "report SOURCE -o -",
    "report, against": "report OTHER --against SOURCE -o -",
    "diff": "diff SOURCE OTHER",
    "diff, second": "diff OTHER SOURCE",
    "inspect": "inspect SOURCE",
    "inspect, json": "inspect SOURCE --json",
}


@pytest.fixture(scope="module")
def other(checkpoints: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(rs.open(checkpoints / "basic.pth").adapt(1).save(tmp_path_factory.mktemp("other") / "other.safetensors"))


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("planted")
    save_file(small_network(depths=(2, 2, 2, 2), classes=1000).state_dict(), folder / "network.safetensors")
    return rs.open(folder / "network.safetensors").adapt(1).save(folder / "planted.safetensors")


@pytest.fixture(params=["published name", "published file", "address"])
def source(request: pytest.FixtureRequest, planted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A source whose digest is promised, and in whose place lies another network, with a manifest of its own."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    if request.param == "published name":
        place, source = cache_folder() / ENTRY.file_name, "resnet18"
    elif request.param == "published file":
        place = tmp_path / ENTRY.file_name
        source = str(place)
    else:
        place, source = cache_folder() / "resnet-surgeon" / url.parse(PROMISED).cache_name, PROMISED
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(planted)
    return source


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_no_function_takes_another_file(function: Callable[[str, str], Any], source: str, other: str) -> None:
    with pytest.raises(CheckpointError, match="its SHA-256 begins"):
        function(source, other)


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_no_command_takes_another_file_or_shows_anything_of_it(
    command: str, source: str, other: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.yaml").write_text("operations: []")
    before = {*tmp_path.rglob("*")}
    arguments = [{"SOURCE": source, "OTHER": other}.get(word, word) for word in command.split()]
    with pytest.raises(CheckpointError, match="its SHA-256 begins"):
        app(arguments, standalone_mode=False)
    assert capfd.readouterr() == ("", "")
    assert {*tmp_path.rglob("*")} == before


def test_every_command_and_function_that_opens_a_source_is_tried() -> None:
    tried = {words.split()[0] for words in COMMANDS.values()}
    assert {command.name for command in app.registered_commands} == tried | {"list"}
    functions = {name for name in rs.__all__ if name.islower()} - {"__version__", "save"}
    assert functions == {name.partition(",")[0] for name in FUNCTIONS}


def test_a_promise_that_is_kept_costs_one_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, publish: Publish
) -> None:
    path = tmp_path / ENTRY.file_name
    torch.save(small_network(depths=(2, 2, 2, 2), classes=1000).state_dict(), path)
    publish(path, "resnet18")
    passes: list[str] = []
    sha256 = Container.sha256

    def counted(self: Container, advance: Callable[[int], None]) -> str:
        passes.append(self.file.name)
        return sha256(self, advance)

    monkeypatch.setattr(Container, "sha256", counted)
    rs.open(path).adapt(1).save(tmp_path / "out.safetensors")
    assert passes == [str(path)]
