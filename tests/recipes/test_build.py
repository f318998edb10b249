"""Building touches nothing that is there already, replaces only what it made, and hashes a source once."""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import resnet_surgeon as rs
from resnet_surgeon.errors import AccessError, CheckpointError, OperationError, UsageError
from resnet_surgeon.formats.container import Container
from resnet_surgeon.platform.signals import Signalled
from resnet_surgeon.recipes.repeat import recipe_text
from resnet_surgeon.recipes.schema import published
from tests import PATIENCE
from tests.fixtures import Run
from tests.recipes.test_reading import MISTAKES, WHOLE

TWO = """
source: in.pth
matrix:
  channels: [1, 4]
operations:
  - adapt: {in-ch: "${channels}"}
output: out-${channels}.safetensors
"""


@pytest.fixture
def folder(tmp_path: Path, checkpoints: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.pth").write_bytes((checkpoints / "basic.pth").read_bytes())
    (tmp_path / "recipe.yaml").write_text(TWO)
    return tmp_path


def states(folder: Path) -> dict[str, tuple[int, int]]:
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.iterdir()}


def test_outputs_are_those_of_the_commands(folder: Path) -> None:
    built = rs.Recipe.read("recipe.yaml").build()
    assert [(str(item.output), item.outcome) for item in built] == [
        ("out-1.safetensors", "made"),
        ("out-4.safetensors", "made"),
    ]
    for item, channels in zip(built, (1, 4), strict=True):
        rs.open("in.pth").adapt(channels).save("alone.safetensors", force=True)
        data = item.output.read_bytes()
        assert data == Path("alone.safetensors").read_bytes()
        assert (item.size, item.sha256) == (len(data), hashlib.sha256(data).hexdigest())


def test_what_is_there_already_is_not_touched(folder: Path) -> None:
    rs.Recipe.read("recipe.yaml").build()
    before = states(folder)
    assert {item.outcome for item in rs.Recipe.read("recipe.yaml").build()} == {"up to date"}
    assert states(folder) == before


def test_a_source_is_read_for_its_digest_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count: list[Container] = []
    sha256 = Container.sha256

    def counted(container: Container, advance: Callable[[int], None]) -> str:
        count.append(container)
        return sha256(container, advance)

    monkeypatch.setattr(Container, "sha256", counted)
    rs.Recipe.read("recipe.yaml").build()
    assert len(count) == 1


def change_the_source(folder: Path) -> None:
    rs.open("in.pth").heads([2]).save("other.pth")
    os.replace("other.pth", "in.pth")


def change_an_option(folder: Path) -> None:
    Path("recipe.yaml").write_text(TWO.replace('"${channels}"}', '"${channels}", init: scaled}'))


def lose_the_manifest(folder: Path) -> None:
    Path("out-1.json").unlink()
    Path("out-4.json").unlink()


def lose_the_files(folder: Path) -> None:
    """As where the manifests are kept by git, and large files by something else."""
    Path("out-1.safetensors").unlink()
    Path("out-4.safetensors").unlink()


@pytest.mark.parametrize("change", [change_the_source, change_an_option, lose_the_manifest, lose_the_files])
def test_what_is_no_longer_what_would_be_made_is_made_again(change: Callable[[Path], None], folder: Path) -> None:
    rs.Recipe.read("recipe.yaml").build()
    change(folder)
    assert {item.outcome for item in rs.Recipe.read("recipe.yaml").build()} == {"made"}
    assert {item.outcome for item in rs.Recipe.read("recipe.yaml").build()} == {"up to date"}


@pytest.mark.parametrize("position", [-1, 10_000, 9])
def test_an_output_that_somebody_changed_is_replaced_with_force_alone(position: int, folder: Path) -> None:
    rs.Recipe.read("recipe.yaml").build()
    data = bytearray(Path("out-4.safetensors").read_bytes())
    data[position] ^= 1
    Path("out-4.safetensors").write_bytes(data)
    with pytest.raises(AccessError, match=r"out-4\.safetensors: it exists already, and is not what this recipe made"):
        rs.Recipe.read("recipe.yaml").build()
    assert Path("out-4.safetensors").read_bytes() == data
    assert [item.outcome for item in rs.Recipe.read("recipe.yaml").build(force=True)] == ["up to date", "made"]


@pytest.mark.parametrize("content", [b"precious", None], ids=["text", "a checkpoint"])
def test_no_lock_lets_a_recipe_replace_what_this_tool_did_not_make(content: bytes | None, folder: Path) -> None:
    data = Path("in.pth").read_bytes() if content is None else content
    Path("out-1.safetensors").write_bytes(data)
    entry = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    Path("recipe.lock.json").write_text(json.dumps({"outputs": {"out-1.safetensors": entry}}))
    with pytest.raises(AccessError, match="not what this recipe made"):
        rs.Recipe.read("recipe.yaml").build()
    assert Path("out-1.safetensors").read_bytes() == data


@pytest.mark.parametrize("failing", ["out-1.safetensors", "out-4.safetensors"])
@pytest.mark.parametrize("error", [AccessError("no room"), Signalled(15)], ids=["error", "signal"])
def test_what_was_made_before_a_failure_is_in_the_lock(
    failing: str, error: BaseException, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = rs.Network.save

    def fails(network: rs.Network, output: Path, **options: Any) -> Path:
        if output.name == failing:
            other_is_made.wait(PATIENCE)
            raise error
        path = save(network, output, **options)
        other_is_made.set()
        return path

    other_is_made = threading.Event()
    monkeypatch.setattr(rs.Network, "save", fails)
    with pytest.raises(type(error)):
        rs.Recipe.read("recipe.yaml").build()
    (made,) = {"out-1.safetensors", "out-4.safetensors"} - {failing}
    assert json.loads(Path("recipe.lock.json").read_text())["outputs"].keys() == {made}


def test_nothing_is_written_if_anything_does_not_fit(folder: Path) -> None:
    Path("recipe.yaml").write_text(f"{TWO}---\nsource: in.pth\noperations: [remove: {{last: 30}}]\n")
    before = states(folder)
    with pytest.raises(OperationError, match=r"^recipe\.yaml:9: remove: removing the last 30"):
        rs.Recipe.read("recipe.yaml").build()
    assert states(folder) == before


def lose_the_lock() -> None:
    Path("out-1.safetensors").unlink()
    Path("recipe.lock.json").unlink()


def make_another_file_of_it() -> None:
    Path("out-1.safetensors").rename("out-1.pth")


@pytest.mark.parametrize("change", [lose_the_lock, make_another_file_of_it])
def test_a_manifest_is_not_replaced_that_may_be_another_s(change: Callable[[], None], folder: Path) -> None:
    rs.Recipe.read("recipe.yaml").build()
    change()
    with pytest.raises(AccessError, match=r"out-1\.json: it exists already, and is not what this recipe made"):
        rs.Recipe.read("recipe.yaml").build()


def test_a_plan_says_what_is_there_already(folder: Path) -> None:
    made = rs.Recipe.read("recipe.yaml").build()
    made[0].output.unlink()
    plan = rs.Recipe.read("recipe.yaml").plan()
    assert [(item.outcome, item.sha256) for item in plan] == [("planned", None), ("up to date", made[1].sha256)]


def test_two_outputs_of_one_name_are_refused(folder: Path) -> None:
    Path("recipe.yaml").write_text(TWO.replace("out-${channels}", "out"))
    with pytest.raises(UsageError, match="two of its outputs are out.safetensors"):
        rs.Recipe.read("recipe.yaml").build()


def test_an_output_made_of_another_is_refused(folder: Path) -> None:
    rs.Recipe.read("recipe.yaml").build()
    made_of_another = "---\nsource: out-1.safetensors\noperations:\n  - fuse: {}\noutput: fused.safetensors\n"
    Path("recipe.yaml").write_text(TWO + made_of_another)
    with pytest.raises(UsageError, match=r"recipe.yaml:9: fused.safetensors: it is made of out-1.safetensors, another"):
        rs.Recipe.read("recipe.yaml").build()
    Path("alone.yaml").write_text(made_of_another)
    assert rs.Recipe.read("alone.yaml").build()


MADE_OF = "source: {}\noperations: []\noutput: x.safetensors\n"


@pytest.mark.parametrize(
    ("text", "reason", "hint"),
    [
        (MADE_OF.format("out-4.safetensors") + "---" + TWO, "1: out.*: it is not .* output of line 5", "list all"),
        (
            TWO + "---\n" + MADE_OF.format("out-1.safetensors"),
            "9: out.*: it is not .* output of line 2",
            "list all",
        ),
        (MADE_OF.format("gone.pth"), "1: gone.pth: no such file", "make it first"),
        (
            TWO.replace("- adapt:", "- average: {others: [gone.pth]}\n  - adapt:"),
            "2: gone.pth: no such file",
            "make it first",
        ),
    ],
    ids=["wrong order", "right order", "missing", "missing other"],
)
def test_a_source_that_is_not_there_says_who_asks_for_it(text: str, reason: str, hint: str, folder: Path) -> None:
    (folder / "recipe.yaml").write_text(text)
    with pytest.raises(AccessError, match=rf"recipe.yaml:{reason}") as caught:
        rs.Recipe.read("recipe.yaml").build()
    assert hint in str(caught.value.hint)


def test_without_a_name_outputs_are_called_after_source_and_operations(folder: Path) -> None:
    Path("recipe.yaml").write_text(TWO.replace("output: out-${channels}.safetensors", ""))
    assert [str(item.output) for item in rs.Recipe.read("recipe.yaml").plan()] == [
        "in-in1.safetensors",
        "in-in4.safetensors",
    ]


def test_another_source_can_be_given(folder: Path, checkpoints: Path) -> None:
    (built, _) = rs.Recipe.read("recipe.yaml").build(str(checkpoints / "bottleneck.pth"))
    assert built.network.architecture.block == "bottleneck"


def test_a_file_that_is_no_lock_is_not_replaced(folder: Path) -> None:
    Path("recipe.lock.json").write_text("{}")
    with pytest.raises(AccessError, match="not a lock that this tool wrote"):
        rs.Recipe.read("recipe.yaml").build()
    assert Path("recipe.lock.json").read_text() == "{}"


def other(path: Path) -> str:
    """Another network of the same shape beside it."""
    rs.open(path).heads([10], seed=1).save(path.with_name("other.pth"), force=True)
    return "other.pth"


MADE: dict[str, Callable[[Path], rs.Network]] = {
    "adapted": lambda path: rs.open(path).adapt(1, "scaled"),
    "cut, with heads": lambda path: rs.open(path).remove(layers=["layer4", "avgpool", "fc"]).heads([3, 5], own="none"),
    "random": lambda path: rs.open("resnet18", weights="random", seed=3).remove(last=2),
    "grafted": lambda path: rs.open(path).graft(other(path), layers=["fc"]),
    "averaged": lambda path: rs.open(path).average([other(path)], weights=[3, 1]),
    "as it was": rs.open,
    "with a fact": lambda path: rs.open(path, assume="strides=1-2-2-1"),
}


@pytest.mark.parametrize(("made", "names"), [*((made, "torchvision") for made in MADE), ("adapted", "timm")])
def test_the_recipe_of_a_file_makes_it_again(made: str, names: str, folder: Path) -> None:
    network = MADE[made](folder / "in.pth")
    network.save("model $x.safetensors", names=names)  # type: ignore[arg-type]
    data = Path("model $x.safetensors").read_bytes()
    Path("again.yaml").write_text(recipe_text("model $x.safetensors"))
    os.rename("model $x.safetensors", "first")
    os.unlink("model $x.json")
    rs.Recipe.read("again.yaml").build()
    assert Path("model $x.safetensors").read_bytes() == data


def two_networks() -> None:
    """Writes both.pth."""
    import torch

    state = torch.load("in.pth", weights_only=True)
    other = {name: tensor + 1 for name, tensor in state.items()}
    torch.save({"model": state, "ema": other}, "both.pth")


def test_of_several_networks_the_recipe_names_the_right_one(folder: Path) -> None:
    two_networks()
    rs.open("both.pth", key="ema").adapt(1).save("made.safetensors")
    text = recipe_text("made.safetensors")
    assert "\nkey: ema\n" in text


@pytest.mark.parametrize(
    ("opening", "place"),
    [
        ({"key": "ema"}, "{source: both.pth, key: ema}"),
        ({"key": "model", "assume": "eps=1e-05"}, "{source: both.pth, assume: eps=1e-05, key: model}"),
        ({"key": "ema", "fc": "none"}, "{source: both.pth, fc: none, key: ema}"),
    ],
    ids=["key", "assume", "fc"],
)
def test_the_recipe_says_how_another_source_is_opened(opening: dict[str, str], place: str, folder: Path) -> None:
    two_networks()
    rs.open("in.pth").graft(rs.open("both.pth", **opening), layers=["layer4"]).save("made.safetensors")  # type: ignore[arg-type]
    text = recipe_text("made.safetensors")
    assert f"graft: {{from: {place}, layers: [layer4]}}" in text
    data = Path("made.safetensors").read_bytes()
    Path("again.yaml").write_text(text)
    rs.Recipe.read("again.yaml").build(force=True)
    assert Path("made.safetensors").read_bytes() == data


def test_each_of_several_sources_is_opened_in_its_own_way(folder: Path) -> None:
    two_networks()
    Path("recipe.yaml").write_text(
        "source: in.pth\n"
        "operations:\n"
        "  - average: {others: [{source: both.pth, key: ema}, {source: both.pth, key: model}, in.pth]}\n"
        "output: mean.safetensors\n"
    )
    rs.Recipe.read("recipe.yaml").build()
    others: list[rs.Network | str] = [rs.open("both.pth", key="ema"), rs.open("both.pth", key="model"), "in.pth"]
    rs.open("in.pth").average(others).save("alone.safetensors")
    assert Path("mean.safetensors").read_bytes() == Path("alone.safetensors").read_bytes()


def test_a_recipe_whose_source_has_gone_says_so(folder: Path) -> None:
    rs.open("in.pth").adapt(1).save("made.safetensors")
    os.unlink("in.pth")
    assert recipe_text("made.safetensors").startswith("# Not tried: its source is not here.\nsource: in.pth\n")


def test_a_source_that_has_changed_gives_no_recipe(folder: Path) -> None:
    rs.open("in.pth").adapt(1).save("made.safetensors")
    change_the_source(folder)
    with pytest.raises(CheckpointError, match="does not make it"):
        recipe_text("made.safetensors")


def test_a_stranger_s_file_has_no_recipe(folder: Path) -> None:
    with pytest.raises(CheckpointError, match="no manifest"):
        recipe_text("in.pth")


def test_the_schema_takes_what_the_tool_takes() -> None:
    from ruamel.yaml import YAML

    for text in (WHOLE, TWO):
        jsonschema.validate(YAML(typ="safe", pure=True).load(text), published())


@pytest.mark.parametrize(
    "text",
    [text for text in MISTAKES if re.search("in-chn|in-ch: no|in-ch: 0|scald|adpt|sorce|: adapt$|tim$|graft", text)],
)
def test_the_schema_refuses_what_the_tool_refuses(text: str) -> None:
    from ruamel.yaml import YAML

    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(YAML(typ="safe", pure=True).load(text), published())


def test_the_command_says_what_it_made_and_what_was_there(folder: Path, run: Run) -> None:
    done = run("apply", "recipe.yaml", "--set", "channels=2", "--json")
    assert [item["outcome"] for item in json.loads(done.stdout)] == ["made"]
    done = run("apply", "recipe.yaml", "--set", "channels=2")
    assert done.stdout == b"out-2.safetensors\n"
    assert done.stderr.startswith(b"up to date out-2.safetensors: ")
    done = run("apply", "recipe.yaml", "--dry-run")
    assert (done.returncode, done.stdout) == (0, b"")
    assert not Path("out-1.safetensors").exists()
    done = run("apply", "-")
    assert (done.returncode, b"hint: resnet-surgeon recipe FILE > recipe.yaml" in done.stderr) == (2, True)


def test_mistakes_are_lines_that_editors_understand(folder: Path, run: Run) -> None:
    Path("bad.yaml").write_text("operations:\n  - adpt\n  - adapt: {in-ch: 0}\n")
    done = run("apply", "bad.yaml")
    assert done.returncode == 2
    assert done.stderr.decode().splitlines() == [
        "error: bad.yaml:2:5: there is no operation `adpt` (did you mean `adapt`?)",
        "error: bad.yaml:3:20: in-ch must be a whole number of at least 1, not 0",
    ]


def test_if_changed_touches_nothing_that_is_right(folder: Path, run: Run) -> None:
    command = ["adapt", "in.pth", "--in-ch", "1", "-o", "a.safetensors", "--if-changed"]
    first = run(*command, "--json")
    before = states(folder)
    assert json.loads(first.stdout)["sha256"] == hashlib.sha256(Path("a.safetensors").read_bytes()).hexdigest()
    done = run(*command)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"a.safetensors\n", b"a.safetensors: up to date\n")
    assert json.loads(run(*command, "--json").stdout)["written"] is False
    assert states(folder) == before
    change_the_source(folder)
    assert run(*command).returncode == 1
    assert run(*command, "--force", "--json").stdout.count(b'"written": true') == 1
