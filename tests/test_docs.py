"""README and docs are true: every command and every Python block on them is run, and prints what the page shows."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

import resnet_surgeon as rs
from resnet_surgeon.manifest import published_schema
from resnet_surgeon.operations import OPERATIONS
from resnet_surgeon.recipes.reading import options, parsed
from resnet_surgeon.recipes.schema import published as published_recipe_schema
from resnet_surgeon.sources import catalog
from tests.served import script
from tests.test_house import PACKAGE, ROOMS

TOP = PACKAGE.parent
PAGES = [*sorted(TOP.glob("*.md")), *sorted((TOP / "docs").glob("*.md"))]
GENERATED = {"cli.md"}


@dataclass(frozen=True)
class Block:
    language: str
    text: str


def blocks(page: Path) -> Iterator[Block]:
    for match in re.finditer(r"^```(console|python)\n(.*?)^```$", page.read_text("utf-8"), re.DOTALL | re.MULTILINE):
        yield Block(match[1], match[2])


def named_files(page: Path) -> Iterator[tuple[str, str]]:
    """The blocks of a page that are files: their first line says what they are called."""
    blocks = r"^```(?:yaml|make)\n# (\S+)\n(.*?)^```$"
    for match in re.finditer(blocks, page.read_text("utf-8"), re.DOTALL | re.MULTILINE):
        yield match[1], match[2]


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """An environment that has resnet50's published file in the cache: one of ours, with its digest in the catalogue;
    and the command, without what starting it costs.
    """
    folder = tmp_path_factory.mktemp("published")
    entry = catalog.entry("resnet50", "DEFAULT")
    path = folder / "hub" / "checkpoints" / entry.file_name
    path.parent.mkdir(parents=True)
    import torchvision

    torch.save(torchvision.models.resnet50().state_dict(), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    (folder / "sitecustomize.py").write_text(
        "import dataclasses\n"
        "from resnet_surgeon.sources import catalog\n"
        f"digests = {{ {entry.digest!r}: {digest!r} }}\n"
        "entries = [dataclasses.replace(e, digest=digests.get(e.digest, e.digest)) for e in catalog.entries()]\n"
        "catalog.entries = lambda: tuple(entries)\n"
    )
    env = {
        **os.environ,
        "TORCH_HOME": str(folder),
        "PYTHONPATH": f"{folder}:{TOP}",
        "PATH": f"{folder}:{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    with script(folder, env):
        yield env


def run_console(block: str, folder: Path, env: dict[str, str]) -> None:
    """Runs each `$ command` and compares what it prints on both streams with the lines that follow, where `...` stands
    for anything within a line: what differs from machine to machine.
    """
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, _, expected = part.partition("\n")
        done = subprocess.run(
            ["bash", "-c", f"{{ {command}; }} 2>&1"], cwd=folder, env=env, capture_output=True, text=True
        )
        pattern = re.escape(expected).replace(re.escape("..."), ".*")
        assert re.fullmatch(pattern, done.stdout), f"{command}\n{done.stdout}"


def run_python(code: str, folder: Path, env: dict[str, str]) -> None:
    """Runs the blocks of a page as one script, and the tests that it defines; `# ...` after a print shows what it
    prints. In a fork of a process that has torch.
    """
    code += "\nfor name in [name for name in globals() if name.startswith('test_')]: globals()[name]()\n"
    expected = re.findall(r"^\s*print\(.*\)\n\s*# (.*)$", code, re.MULTILINE)
    done = subprocess.run(["resnet-surgeon", "-c", code], cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == expected


@pytest.mark.parametrize("page", [page for page in PAGES if page.name not in GENERATED], ids=lambda page: page.name)
def test_what_a_page_shows_is_what_happens(page: Path, tmp_path: Path, published: dict[str, str]) -> None:
    for name, text in named_files(page):
        (tmp_path / name).write_text(text, "utf-8")
    for block in blocks(page):
        if block.language == "console":
            run_console(block.text, tmp_path, published)
    if code := "".join(block.text for block in blocks(page) if block.language == "python"):
        run_python(code, tmp_path, published)


def test_dvc_is_told_what_the_recipe_makes() -> None:
    from ruamel.yaml import YAML

    files = dict(named_files(TOP / "docs" / "recipes.md"))
    stage = YAML(typ="safe", pure=True).load(files["dvc.yaml"])["stages"]["surgery"]
    outputs = [str(target.output) for target in parsed(files["recipe.yaml"], "recipe.yaml", {})]
    assert stage["cmd"] == "resnet-surgeon apply recipe.yaml"
    assert stage["outs"] == [name for output in outputs for name in (output, str(Path(output).with_suffix(".json")))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text("utf-8")):
        assert (page.parent / target).exists(), target


def targets() -> set[str]:
    """What `make` offers by name."""
    (phony,) = re.findall(r"^\.PHONY: (.*)$", (TOP / "Makefile").read_text("utf-8"), re.MULTILINE)
    return set(phony.split()) - {"anew"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_make_makes_what_a_page_says_it_makes(page: Path) -> None:
    """In code, where a line or a span is a command."""
    code = re.findall(r"^```\w*\n(.*?)^```$|`([^`\n]+)`", page.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    named = re.findall(r"(?:^|[\n ])make ([a-z]+)", "\n".join("".join(texts) for texts in code))
    assert set(named) <= targets()


def test_contributors_are_told_of_every_target() -> None:
    page = (TOP / "CONTRIBUTING.md").read_text("utf-8")
    told = re.findall(r"^\| `make (\w+)` \|", page, re.MULTILINE)
    assert sorted(told) == sorted(targets())


@pytest.fixture(scope="module")
def generated() -> dict[str, Any]:
    """What `make docs` writes."""
    made = (
        "{'page': generate.cli_page(), 'man': generate.man.page(), "
        "'manifest': generate.manifest_schema(), 'recipe': generate.recipe_schema()}"
    )
    code = f"import sys; sys.path.insert(0, 'docs'); import generate, json; print(json.dumps({made}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=TOP, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout))


def test_the_command_line_s_page_is_generated(generated: dict[str, Any]) -> None:
    assert (TOP / "docs" / "cli.md").read_text("utf-8") == generated["page"]


def test_the_manual_page_is_generated(generated: dict[str, Any]) -> None:
    assert (TOP / "docs" / "resnet-surgeon.1").read_text("utf-8") == generated["man"]


def test_the_schemas_are_generated(generated: dict[str, Any]) -> None:
    assert (published_schema(), published_recipe_schema()) == (generated["manifest"], generated["recipe"])


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_operation_has_its_place_on_the_pages(operation: str) -> None:
    assert f"## `resnet-surgeon {operation}`" in (TOP / "docs" / "cli.md").read_text("utf-8")
    pages = [(TOP / "docs" / page).read_text("utf-8") for page in ("getting-started.md", "surgery.md")]
    assert any(f"## {operation}:" in page for page in pages)


def test_python_s_page_has_every_public_name() -> None:
    page = (TOP / "docs" / "python.md").read_text("utf-8")
    told = set(re.findall(r"\b(?:rs|network)\.(\w+)", page)) | set(re.findall(r"`(\w+Error)`", page))
    public = {name for name in dir(rs.Network) if not name.startswith("_")} | {*rs.__all__} - {"__version__"}
    assert public - told == set()


ROW = re.compile(r"^\| `((?:rs|network)\.[\w.]+)\((.*?)(?:, )?(?:\.\.\.)?\)` \|", re.MULTILINE)
CALLS = ROW.findall((TOP / "docs" / "python.md").read_text("utf-8"))
APART = {"self", "progress", "opening"}  # which the page tells of once for all
ASKED = {field.name for kind in OPERATIONS.values() for field in options(kind)}


@pytest.mark.parametrize(("name", "stated"), CALLS, ids=[name for name, _ in CALLS])
def test_python_s_page_has_every_option(name: str, stated: str) -> None:
    owner: Any = rs.Network if name.startswith("network.") else rs
    for part in name.split(".")[1:]:
        owner = getattr(owner, part)
    parameters = [p for p in inspect.signature(owner).parameters.values() if p.name not in APART]
    asked = [p for p in parameters if name.split(".")[1] not in OPERATIONS or p.name in ASKED]
    known = [p.name if p.default is p.empty else f"{p.name}={p.default!r}" for p in asked]
    assert stated.replace('"', "'") == ", ".join(known)


def test_the_house_on_the_page_is_the_house_in_the_tests() -> None:
    rooms = re.findall(r"^\| `(\w+)` \|", (TOP / "docs" / "house.md").read_text("utf-8"), re.MULTILINE)
    assert rooms == ROOMS


def test_the_version_is_the_changelogs_newest() -> None:
    import resnet_surgeon

    newest = re.search(r"^## (\d\S+)", (TOP / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert newest
    assert newest[1] == resnet_surgeon.__version__
