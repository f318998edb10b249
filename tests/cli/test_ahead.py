"""A command begins to read its source before it knows what the source is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import resnet_surgeon as rs
from resnet_surgeon.cli.ahead import begun
from resnet_surgeon.cli.options import Writing
from resnet_surgeon.formats.files import OpenFile

TO_FILE = Writing(output="out.safetensors")


@pytest.fixture
def read_ahead(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are being read."""
    names: list[str] = []
    monkeypatch.setattr(OpenFile, "read_ahead", lambda file: names.append(Path(file.name).name))
    return names


def test_a_safetensors_file_is_being_read_at_once(checkpoints: Path, read_ahead: list[str]) -> None:
    file = begun(f"{checkpoints}/basic.safetensors", TO_FILE)
    assert isinstance(file, OpenFile)
    assert read_ahead == ["basic.safetensors"]


def test_a_file_of_ours_is_not_read_for_a_digest_that_nobody_asks_for(tmp_path: Path, read_ahead: list[str]) -> None:
    made = rs.open("resnet18", weights="random").remove(last=7).save(tmp_path / "made.safetensors")
    assert isinstance(begun(str(made), TO_FILE), OpenFile)
    assert read_ahead == []


@pytest.mark.parametrize("source", ["basic.pth", "none.safetensors", "folder.safetensors", "pipe.safetensors"])
def test_any_other_source_stays_as_it_was_stated(
    source: str, checkpoints: Path, tmp_path: Path, read_ahead: list[str]
) -> None:
    (tmp_path / "folder.safetensors").mkdir()
    (tmp_path / "basic.pth").symlink_to(checkpoints / "basic.pth")
    os.mkfifo(tmp_path / "pipe.safetensors")
    assert begun(f"{tmp_path}/{source}", TO_FILE) == f"{tmp_path}/{source}"
    assert read_ahead == []


def test_nothing_is_read_for_a_dry_run(checkpoints: Path, read_ahead: list[str]) -> None:
    source = f"{checkpoints}/basic.safetensors"
    assert begun(source, Writing(dry_run=True)) == source
    assert read_ahead == []


def test_a_file_that_is_open_already_makes_the_same_network(checkpoints: Path, tmp_path: Path) -> None:
    path = checkpoints / "basic.safetensors"
    one, other = (rs.open(source).adapt(1) for source in (path, begun(str(path), TO_FILE)))
    assert one.default_name == other.default_name
    outputs = [one.save(tmp_path / "one.safetensors"), other.save(tmp_path / "other.safetensors")]
    assert outputs[0].read_bytes() == outputs[1].read_bytes()
