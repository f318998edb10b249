"""Nothing is overwritten that was not named: a manifest replaces only a manifest, a page a page; no source is lost."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

import resnet_surgeon as rs
from resnet_surgeon.errors import AccessError, SurgeonError, UsageError
from resnet_surgeon.writing.targets import cannot_write, checked_companion, checked_page, checked_pair
from tests.fixtures import Run


@pytest.fixture
def source(checkpoints: Path, tmp_path: Path) -> Path:
    """A file of ours with its manifest."""
    return rs.open(checkpoints / "basic.pth").adapt(1).save(tmp_path / "source.safetensors")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


WAYS: dict[str, Callable[[Path], object]] = {
    "a link to the output": lambda folder: (folder / "m.json").symlink_to("m.safetensors"),
    "the output under another name": lambda folder: os.link(folder / "m.safetensors", folder / "m.json"),
    "a link to the source": lambda folder: (folder / "m.json").symlink_to("source.safetensors"),
    "the source under another name": lambda folder: os.link(folder / "source.safetensors", folder / "m.json"),
    "a link to another folder": lambda folder: (folder / "m.json").symlink_to(folder.parent / "elsewhere.json"),
    "somebody's settings": lambda folder: (folder / "m.json").write_text('{"hidden_size": 3}'),
    "an index": lambda folder: (folder / "m.json").write_text('{"weight_map": {}}'),
    "text": lambda folder: (folder / "m.json").write_text("not JSON"),
    "nothing": lambda folder: (folder / "m.json").touch(),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_manifest_replaces_nothing_but_a_manifest(
    way: Callable[[Path], object], source: Path, tmp_path: Path
) -> None:
    rs.open(source).heads([2]).save(tmp_path / "m.safetensors")
    (tmp_path / "m.json").unlink()
    way(tmp_path)
    before = contents(tmp_path) if (tmp_path / "m.json").exists() else None
    with pytest.raises(AccessError) as caught:
        rs.open(source).heads([3]).save(tmp_path / "m.safetensors", force=True)
    assert caught.value.hint
    assert not (tmp_path.parent / "elsewhere.json").exists()
    if before:
        assert contents(tmp_path) == before


@pytest.mark.parametrize("link", [False, True])
def test_a_manifest_of_ours_is_replaced_with_its_file(link: bool, source: Path, tmp_path: Path) -> None:
    rs.open(source).heads([2]).save(tmp_path / "m.safetensors")
    path = tmp_path / "latest.safetensors" if link else tmp_path / "m.safetensors"
    if link:
        path.symlink_to("m.safetensors")
        (tmp_path / "latest.json").symlink_to("m.json")
    rs.open(source).heads([3]).save(path, force=True)
    assert json.loads((tmp_path / "m.json").read_text("utf-8"))["outputs"][0]["classes"] == 3
    assert rs.verify(tmp_path / "m.safetensors", against=source).holds


def test_the_manifest_of_a_newer_version_is_one_of_ours(source: Path, tmp_path: Path) -> None:
    document = json.loads(source.with_suffix(".json").read_text("utf-8"))
    (tmp_path / "m.json").write_text(json.dumps({**document, "format_version": 99, "more": 1}))
    assert rs.open(source).heads([3]).save(tmp_path / "m.safetensors", force=True)


def test_the_source_itself_may_be_replaced(source: Path) -> None:
    assert rs.open(source).heads([3]).save(source, force=True)
    assert rs.open(source).architecture.heads[0].classes == 3


@pytest.mark.parametrize("name", ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"])
def test_a_shard_of_the_source_is_never_replaced(name: str, checkpoints: Path, tmp_path: Path) -> None:
    tensors = load_file(checkpoints / "basic.safetensors")
    weight_map: dict[str, str] = {}
    for number in (1, 2):
        shard = f"model-0000{number}-of-00002.safetensors"
        part = {name: tensors[name] for name in [*tensors][number - 1 :: 2]}
        save_file(part, tmp_path / shard)
        weight_map |= dict.fromkeys(part, shard)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    before = contents(tmp_path)
    network = rs.open(tmp_path / "model.safetensors.index.json").adapt(1)
    with pytest.raises(AccessError, match="a part of the source"):
        network.save(tmp_path / name, force=True)
    with pytest.raises(SurgeonError):
        network.save(tmp_path / "model.safetensors.index.safetensors", force=True)
    assert contents(tmp_path) == before


def test_an_output_that_links_to_a_manifest_is_refused(source: Path, tmp_path: Path) -> None:
    (tmp_path / "m.safetensors").symlink_to("source.json")
    with pytest.raises(UsageError, match="gets the .json name"):
        rs.open(source).heads([3]).save(tmp_path / "m.safetensors", force=True)


@pytest.mark.parametrize("content", [b"<!DOCTYPE html>\n<html>", b"\xef\xbb\xbf\n<html lang=en>", b""])
def test_a_page_is_replaced(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "report.html").write_bytes(content)
    assert checked_page(tmp_path / "report.html", force=True) == tmp_path / "report.html"


@pytest.mark.parametrize("name", ["source.safetensors", "source.json", "new.safetensors", "new.pth", "link.html"])
def test_a_report_never_takes_a_checkpoint_s_place(name: str, source: Path, run: Run, tmp_path: Path) -> None:
    (tmp_path / "link.html").symlink_to("source.safetensors")
    before = contents(tmp_path)
    done = run("report", source, "-o", name, "--force")
    assert done.returncode in (1, 2)
    assert done.stdout == b""
    assert contents(tmp_path) == before


def test_a_report_never_takes_the_place_of_what_is_not_a_page(source: Path, run: Run, tmp_path: Path) -> None:
    (tmp_path / "notes.html").write_text("my notes")
    done = run("report", source, "-o", "notes.html", "--force")
    assert (done.returncode, (tmp_path / "notes.html").read_text()) == (1, "my notes")
    assert b"never replaces anything else" in done.stderr


def test_a_folder_that_is_not_there_is_to_be_made_first(tmp_path: Path) -> None:
    with pytest.raises(AccessError, match="does not exist") as caught:
        checked_pair(tmp_path / "new folder" / "out.safetensors", False, [])
    assert caught.value.hint == f"make it first: `mkdir -p '{tmp_path}/new folder'`"


@pytest.mark.parametrize(
    ("text", "is_taken"),
    [
        ('{"model_type": "resnet"}', True),
        ('{"model_type": "vit"}', False),
        ("notes", False),
        ("[]", False),
        ('{"model_type": "resnet", "more": "%s"}' % ("x" * (1 << 22)), False),
    ],
    ids=["a ResNet's", "another network's", "text", "a list", "too long"],
)
def test_a_configuration_takes_only_the_place_of_a_resnets(text: str, is_taken: bool, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    if is_taken:
        assert checked_companion(path, force=True) == path.resolve()
    else:
        with pytest.raises(AccessError, match="not a ResNet's configuration"):
            checked_companion(path, force=True)


@pytest.mark.parametrize("check", [checked_companion, checked_page])
def test_what_stands_beside_an_output_is_replaced_by_force_alone(
    check: Callable[[Path, bool], Path], tmp_path: Path
) -> None:
    path = tmp_path / "beside"
    assert check(path, False) == path.resolve()
    path.write_text('{"model_type": "resnet"}' if check is checked_companion else "<html>")
    assert check(path, True) == path.resolve()
    with pytest.raises(AccessError, match="it exists already"):
        check(path, False)


def test_a_link_to_a_file_without_an_ending_is_followed(tmp_path: Path) -> None:
    (tmp_path / "m.safetensors").symlink_to("blob")
    assert checked_pair(tmp_path / "m.safetensors", False, []).output == (tmp_path / "blob").resolve()


def test_a_file_is_no_folder_to_write_into(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(AccessError, match="file is not a folder") as caught:
        checked_pair(tmp_path / "file" / "m.safetensors", False, [])
    assert caught.value.hint is None


def test_an_error_that_is_not_the_systems_is_told_in_its_own_words() -> None:
    assert cannot_write(Path("a"), ValueError("Embedded null byte")).reason == "writing failed: embedded null byte"
