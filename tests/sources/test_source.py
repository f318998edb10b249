"""A network is opened from a name, a path, bytes or a stream, and told by content alone."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save

import resnet_surgeon as rs
from resnet_surgeon.architecture.variants import VARIANTS
from resnet_surgeon.errors import AccessError, CheckpointError, SurgeonError, UsageError
from resnet_surgeon.formats.container import ContainerKind
from resnet_surgeon.formats.tensors import Initialised, byte_size, content
from resnet_surgeon.sources import catalog
from resnet_surgeon.sources.origin import Origin
from resnet_surgeon.sources.source import open_source
from tests.fixtures import Publish, small_network


def test_random_weights_are_drawn_by_torchvisions_laws() -> None:
    source = open_source("resnet18", weights="random", seed=3)
    assert source.origin == Origin(architecture="resnet18", weights="random", seed=3)
    assert all(isinstance(tensor, Initialised) and tensor.seed == 3 for tensor in source.tensors.values())
    assert sum(byte_size(tensor) for tensor in source.tensors.values()) > 4 * 11_689_512


@pytest.mark.parametrize("name", ["basic.safetensors", "basic.pth"])
def test_a_file_is_known_by_its_name_container_and_digest(name: str, checkpoints: Path) -> None:
    source = open_source(checkpoints / name)
    digest = hashlib.sha256((checkpoints / name).read_bytes()).hexdigest()
    container: ContainerKind = "safetensors" if name.endswith("safetensors") else "torch_zip"
    assert source.label == "basic"
    assert source.identified() == Origin(file=name, container=container, sha256=digest)


def test_a_file_that_was_read_ahead_is_not_read_again(checkpoints: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[object] = []

    def sha256(container: object, _: object) -> str:
        read.append(container)
        return "0" * 64

    monkeypatch.setattr("resnet_surgeon.sources.source.sha256", sha256)
    source = open_source(checkpoints / "basic.safetensors")
    source.read_ahead()
    source.read_ahead()
    assert [source.identified().sha256, source.with_digest().origin.sha256] == ["0" * 64] * 2
    assert read == [source.container]


def test_what_is_wrong_with_a_file_that_is_read_ahead_is_said_when_its_digest_is_wanted(
    checkpoints: Path, tmp_path: Path
) -> None:
    path = tmp_path / "model.pth"
    data = bytearray((checkpoints / "basic.pth").read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    source = open_source(path)
    source.read_ahead()
    for _ in range(2):
        with pytest.raises(CheckpointError, match="it is damaged"):
            source.identified()


def test_before_its_digest_was_wanted_a_file_that_is_read_ahead_has_none(checkpoints: Path) -> None:
    """So what is said of it does not depend on how far the other thread has come."""
    source = open_source(checkpoints / "basic.safetensors")
    source.read_ahead()
    assert source.known.sha256 is None
    assert source.identified() == source.known


@pytest.mark.parametrize("name", ["basic.safetensors", "basic.pth"])
def test_the_extension_does_not_matter(name: str, checkpoints: Path, tmp_path: Path) -> None:
    lying = tmp_path / "weights.bin"
    lying.symlink_to(checkpoints / name)
    assert open_source(lying).tensors.keys() == open_source(checkpoints / name).tensors.keys()


@pytest.mark.parametrize("name", ["basic.safetensors", "basic.pth"])
def test_bytes_and_streams_are_read_as_files_are(name: str, checkpoints: Path) -> None:
    data = (checkpoints / name).read_bytes()
    witness = content(open_source(checkpoints / name).tensors["conv1.weight"])
    assert content(open_source(data).tensors["conv1.weight"]) == witness
    assert content(open_source(io.BytesIO(data)).tensors["conv1.weight"]) == witness


def test_a_file_with_a_published_name_must_be_the_published_file(checkpoints: Path, tmp_path: Path) -> None:
    path = tmp_path / catalog.entry("resnet50", "IMAGENET1K_V1").file_name
    path.write_bytes((checkpoints / "basic.pth").read_bytes())
    with pytest.raises(CheckpointError, match="not the published file"):
        open_source(path)


def test_the_published_file_is_known_by_its_name_and_digest(
    checkpoints: Path, tmp_path: Path, publish: Publish
) -> None:
    path = tmp_path / catalog.entry("resnet50", "DEFAULT").file_name
    path.write_bytes((checkpoints / "basic.pth").read_bytes())
    origin = open_source(publish(path, "resnet50")).origin
    assert (origin.architecture, origin.weights) == ("resnet50", "IMAGENET1K_V2")
    assert origin.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_an_index_without_a_folder_finds_no_shards(
    checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("model-00001-of-00001.safetensors").write_bytes((checkpoints / "basic.safetensors").read_bytes())
    names = [*load_file("model-00001-of-00001.safetensors")]
    index = json.dumps({"weight_map": dict.fromkeys(names, "model-00001-of-00001.safetensors")})
    Path("model.safetensors.index.json").write_text(index)
    assert open_source("model.safetensors.index.json").tensors.keys() == set(names)
    for alone in (index.encode(), io.BytesIO(index.encode())):
        with pytest.raises(CheckpointError, match="index of 1 shards, which are looked for beside it"):
            open_source(alone)


@pytest.mark.parametrize(
    "shard", ["/etc/passwd", "../x.safetensors", "..", ".", "", "a\\b", "sub/x.safetensors", "a\0b"]
)
def test_a_shard_elsewhere_is_never_opened(shard: str, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"conv1.weight": shard}}))
    with pytest.raises(CheckpointError, match="is not a file beside it"):
        open_source(tmp_path / "model.safetensors.index.json")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty"),
        (b"hello", "not a checkpoint"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 3\n", "Git LFS pointer"),
        (b"<!DOCTYPE html><html></html>", "web page"),
        (b"\n\n<html>", "web page"),
        (b"\x1f\x8b\x08\x00" + bytes(20), "its compressed data is damaged"),
        (b"GGUF" + bytes(20), "GGUF"),
        (b"\x89HDF\r\n\x1a\n" + bytes(20), "HDF5"),
        (b"\x93NUMPY\x01\x00" + bytes(20), "numpy"),
        (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "pickle"),
        (b"sys_info" + bytes(249) + b"ustar" + bytes(250), "tar archive"),
    ],
)
def test_what_is_no_checkpoint_is_named(content: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=reason) as caught:
        open_source(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_places_that_are_no_files_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    for place, reason in [
        ("missing.pth", "no such file"),
        ("fifo", "not a regular file"),
        ("loop", "symbolic links"),
    ]:
        with pytest.raises(AccessError, match=reason):
            open_source(tmp_path / place)
    with pytest.raises(CheckpointError, match="a folder without a checkpoint"):
        open_source(tmp_path)


@pytest.mark.parametrize("name", ["/dev/zero", "/dev/null", "a\0b"])
def test_devices_and_impossible_names_are_refused(name: str) -> None:
    with pytest.raises(AccessError):
        open_source(name)


def test_a_misspelt_model_is_pointed_out() -> None:
    with pytest.raises(AccessError) as caught:
        open_source("resnet5O")
    assert caught.value.hint == "did you mean the model `resnet50`?"


def shared(state: dict[str, torch.Tensor]) -> bytes:
    """Two layers with one storage, as tied weights are saved."""
    state["layer1.0.conv2.weight"] = state["layer1.0.conv1.weight"]
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def with_nan(state: dict[str, torch.Tensor]) -> bytes:
    state["conv1.weight"][0, 0, 0, 0] = torch.nan
    return save(state)


def with_field(state: dict[str, torch.Tensor]) -> bytes:
    data = save(state)
    return rewritten(data, lambda header: header["bn1.bias"].update(foo=1))


def with_null(state: dict[str, torch.Tensor]) -> bytes:
    return rewritten(save(state), lambda header: header.update(__metadata__=None))


def rewritten(data: bytes, change: Callable[[dict[str, Any]], Any]) -> bytes:
    """The safetensors file with its header changed."""
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    change(header)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + size :]


@pytest.mark.parametrize(
    ("make", "warning"),
    [
        (
            shared,
            "tensors `layer1.0.conv1.weight` and `layer1.0.conv2.weight` share storage: each is written apart",
        ),
        (with_nan, "`conv1.weight` holds numbers that are not finite"),
        (with_field, "tensor `bn1.bias` has fields that the format does not know, which were left out"),
        (with_null, "its `__metadata__` is null, and was left out"),
    ],
)
def test_what_is_odd_is_taken_with_a_warning_that_the_manifest_keeps(
    make: Callable[[dict[str, torch.Tensor]], bytes], warning: str, tmp_path: Path
) -> None:
    (tmp_path / "odd.bin").write_bytes(make(small_network().state_dict()))
    made = rs.open(tmp_path / "odd.bin").adapt(1).save(tmp_path / "out.safetensors")
    document = json.loads(made.with_suffix(".json").read_text("utf-8"))
    assert document["source"]["warnings"] == [warning]


@pytest.mark.parametrize("source", [3, None, ["resnet50"]])
def test_other_objects_are_no_sources(source: object) -> None:
    with pytest.raises(UsageError, match="a source is"):
        open_source(source)  # type: ignore[arg-type]


def test_weights_belong_to_a_model_name(checkpoints: Path) -> None:
    with pytest.raises(UsageError, match="for a model name"):
        open_source(checkpoints / "basic.pth", weights="DEFAULT")


def test_a_model_name_is_never_taken_for_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("resnet18").write_bytes(b"hello")
    assert open_source("resnet18", weights="random").label == "resnet18"
    with pytest.raises(SurgeonError, match="not a checkpoint"):
        open_source("./resnet18")


def test_every_variant_has_random_weights() -> None:
    for name in VARIANTS:
        assert open_source(name, weights="random").tensors
