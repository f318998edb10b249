"""What people install: the package, its data and its licence, and nothing that only its developers need."""

from __future__ import annotations

import re
import tarfile
import zipfile
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path

import pytest

from tests.test_house import PACKAGE

TOP = PACKAGE.parent
sdist = pytest.importorskip("hatchling.builders.sdist", reason="needs hatchling: pip install '.[dev]'")
wheel = pytest.importorskip("hatchling.builders.wheel", reason="needs hatchling: pip install '.[dev]'")


@pytest.fixture(scope="module")
def in_wheel(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The wheel's files and their contents."""
    (path,) = wheel.WheelBuilder(str(TOP)).build(directory=str(tmp_path_factory.mktemp("wheel")), versions=["standard"])
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="module")
def metadata(in_wheel: dict[str, bytes]) -> Message:
    (found,) = (content for name, content in in_wheel.items() if name.endswith(".dist-info/METADATA"))
    return HeaderParser().parsestr(found.decode())


def test_a_wheel_holds_the_package_the_manual_page_and_nothing_else(in_wheel: dict[str, bytes]) -> None:
    expected = {
        str(path.relative_to(TOP)) for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts
    }
    names = {re.sub(r"^.*\.data/data/", "", name) for name in in_wheel if ".dist-info/" not in name}
    assert names == expected | {"share/man/man1/resnet-surgeon.1"}


def test_what_only_developers_run_is_no_part_of_the_package() -> None:
    assert [path.name for path in PACKAGE.rglob("*generate*")] == []


def test_a_wheel_carries_the_licence(in_wheel: dict[str, bytes], metadata: Message) -> None:
    assert (metadata["License-Expression"], metadata["License-File"]) == ("BSD-3-Clause", "LICENSE")
    (licence,) = (content for name, content in in_wheel.items() if name.endswith("/licenses/LICENSE"))
    assert licence == (TOP / "LICENSE").read_bytes()
    assert "BSD-3-Clause" in (TOP / "README.md").read_text("utf-8")


def test_the_oldest_versions_that_ci_tries_are_those_that_are_allowed(metadata: Message) -> None:
    required = (entry for entry in metadata.get_all("Requires-Dist", []) if "extra ==" not in entry)
    bounds = {re.sub(r".*?([\w-]+).*>=([\d.]+).*", r"\1==\2", entry) for entry in required}
    assert bounds == set((TOP / ".ci" / "lowest.txt").read_text("utf-8").split())


def test_an_sdist_can_be_built_and_tested(tmp_path: Path) -> None:
    (path,) = sdist.SdistBuilder(str(TOP)).build(directory=str(tmp_path), versions=["standard"])
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert names >= {"LICENSE", "README.md", "CONTRIBUTING.md", "Makefile", ".ci/run", "pyproject.toml"}
    assert names >= {str(path.relative_to(TOP)) for path in (TOP / "tests").rglob("*.py")}
