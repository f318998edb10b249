"""verify proves what is true of a file, and catches by name whatever was done to it afterwards."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torchvision.models.resnet import Bottleneck

import resnet_surgeon as rs
from resnet_surgeon.network import Network
from tests.fixtures import small_network

State = dict[str, torch.Tensor]
KEY = "resnet_surgeon.manifest"
Edit = Callable[[State, dict[str, Any]], None]


@dataclass(frozen=True)
class Made:
    """A file, with the source that it was made from."""

    path: Path
    source: Path

    def verify(self) -> rs.Proof:
        return rs.verify(self.path, against=self.source)

    def edited(self, edit: Edit, *, both: bool = True) -> Made:
        """The file after an edit of its tensors and manifest, made with the safetensors library."""
        state = load_file(self.path)
        with safe_open(self.path, "pt") as file:
            manifest = json.loads(file.metadata()[KEY])
        edit(state, manifest)
        text = json.dumps(manifest, sort_keys=True, indent=1, ensure_ascii=False) + "\n"
        save_file(state, self.path, metadata={"format": "pt", KEY: text})
        if both:
            self.path.with_suffix(".json").write_text(text, "utf-8")
        return self


@pytest.fixture(scope="module")
def original(checkpoints: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """basic.pth with one input channel, and two heads that have a layer4 each."""
    path = tmp_path_factory.mktemp("original") / "model.safetensors"
    return rs.open(checkpoints / "basic.pth").adapt(1, init="scaled").heads([3, 3]).save(path)


@pytest.fixture
def made(original: Path, checkpoints: Path, tmp_path: Path) -> Made:
    """A copy of the file, to be edited."""
    for path in (original, original.with_suffix(".json")):
        shutil.copy(path, tmp_path)
    return Made(tmp_path / original.name, checkpoints / "basic.pth")


def outcomes(proof: rs.Proof) -> dict[str, str]:
    return {check.name: check.outcome for check in proof.checks}


CHAINS: dict[str, Callable[[Network], Network]] = {
    "identity": lambda network: network,
    "adapt": lambda network: network.adapt(1),
    "scaled": lambda network: network.adapt(1, init="scaled"),
    "repeat": lambda network: network.adapt(5, init="repeat"),
    "random": lambda network: network.adapt(4, init="random", seed=3),
    "twice": lambda network: network.adapt(5, init="repeat").adapt(2, init="mean"),
    "random, then mean": lambda network: network.adapt(4, init="random").adapt(2),
    "feature map": lambda network: network.remove(last=3),
    "stem": lambda network: network.remove(last=8),
    "embedding": lambda network: network.remove(last=1),
    "block": lambda network: network.remove(layers=["layer3.1", "maxpool"]),
    "head": lambda network: network.heads([7]),
    "heads": lambda network: network.heads([3, 5]),
    "shared": lambda network: network.heads([3, 5], own="none"),
    "deep": lambda network: network.heads([3, 5, 2], own="layer2", names=["a", "b", "c"]),
    "all": lambda network: network.adapt(2).remove(last=3).heads([3, 5]),
}


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("name", ["basic.pth", "narrow.safetensors"])
def test_every_check_holds_of_what_was_just_made(name: str, chain: str, checkpoints: Path, tmp_path: Path) -> None:
    source = rs.open(checkpoints / name)
    path = CHAINS[chain](source).save(tmp_path / "model.safetensors")
    proof = rs.verify(path, against=checkpoints / name)
    assert {check.outcome for check in proof.checks} == {"proven"}, str(proof)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_it_holds_in_every_dtype(dtype: torch.dtype, tmp_path: Path) -> None:
    state = small_network().to(dtype).state_dict()
    torch.save(state, tmp_path / "source.pth")
    path = rs.open(tmp_path / "source.pth").adapt(1, init="scaled").heads([3, 5]).save(tmp_path / "model.safetensors")
    proof = rs.verify(path, against=tmp_path / "source.pth")
    assert {check.outcome for check in proof.checks} == {"proven"}, str(proof)


def test_it_holds_of_grouped_convolutions(tmp_path: Path) -> None:
    model = small_network(Bottleneck, (1, 1, 1, 1), groups=4, width_per_group=16, in_channels=6)
    torch.save(model.state_dict(), tmp_path / "source.pth")
    path = rs.open(tmp_path / "source.pth").adapt(3).save(tmp_path / "model.safetensors")
    proof = rs.verify(path, against=tmp_path / "source.pth")
    assert proof.holds
    assert not proof.unproven


@pytest.mark.parametrize("name", ["middle", "model"])
def test_a_file_on_the_way_or_the_file_itself_proves_no_more_than_what_was_compared(
    name: str, made: Made, tmp_path: Path
) -> None:
    rs.open(made.source).adapt(1, init="scaled").save(tmp_path / "middle.safetensors")
    proof = rs.verify(made.path, against=tmp_path / f"{name}.safetensors")
    assert (proof.holds, [check.name for check in proof.unproven]) == (True, ["source"]), str(proof)
    findings = {check.name: check.finding for check in proof.checks}
    assert "whose own word is, like this file's, that it was made from basic.pth" in findings["source"]
    assert all(
        f"{name}.safetensors" in findings[check] for check in ("source", "history", "kept", "computed", "layers")
    )


def test_a_file_on_the_way_that_says_it_is_of_another_source_is_not_on_the_way(made: Made, tmp_path: Path) -> None:
    middle = Made(rs.open(made.source).adapt(1, init="scaled").save(tmp_path / "middle.safetensors"), made.source)
    middle.edited(put("0" * 64, "source", "sha256"))
    (failed,) = rs.verify(made.path, against=middle.path).failed
    assert (failed.name, "`source.sha256`" in failed.finding) == ("source", True)


def test_what_needs_the_source_is_unproven_without_it(made: Made) -> None:
    proof = rs.verify(made.path)
    assert proof.holds
    assert [check.name for check in proof.unproven] == ["source", "history", "kept", "computed", "layers"]
    assert all("--against" in check.finding for check in proof.unproven)


def test_random_weights_are_their_own_source(tmp_path: Path) -> None:
    path = rs.open("resnet18", weights="random", seed=5).adapt(1).remove(last=4).save(tmp_path / "model.safetensors")
    proof = rs.verify(path)
    assert (proof.holds, proof.unproven) == (True, ()), str(proof)


def test_a_stream_has_nothing_beside_it(made: Made) -> None:
    checks = outcomes(rs.verify(made.path.read_bytes(), against=made.source))
    assert [name for name, outcome in checks.items() if outcome != "proven"] == ["pair"]
    assert checks["pair"] == "unproven"


def test_on_gray_images_scaled_computes_the_original(made: Made) -> None:
    (stem,) = (check for check in made.verify().checks if check.name == "stem")
    assert stem.finding.startswith("on gray images, R=G=B for the source, conv1 gives the same within")


def flip_a_bit(name: str) -> Edit:
    def edit(state: State, manifest: dict[str, Any]) -> None:
        state[name].view(torch.uint8).view(-1)[5] ^= 1

    return edit


def swap(one: str, other: str) -> Edit:
    def edit(state: State, manifest: dict[str, Any]) -> None:
        state[one], state[other] = state[other], state[one]

    return edit


@pytest.mark.parametrize(
    ("edit", "check", "tensor"),
    [
        (flip_a_bit("layer2.0.conv1.weight"), "kept", "layer2.0.conv1.weight"),
        (flip_a_bit("heads.head2.layer4.0.bn1.running_mean"), "kept", "heads.head2.layer4.0.bn1.running_mean"),
        (flip_a_bit("conv1.weight"), "computed", "conv1.weight"),
        (flip_a_bit("heads.head1.fc.bias"), "initialised", "heads.head1.fc.bias"),
        (swap("layer1.0.conv1.weight", "layer1.0.conv2.weight"), "kept", "layer1.0.conv1.weight"),
        (swap("layer1.0.conv1.weight", "layer1.0.conv2.weight"), "layers", "layer1.0"),
        (swap("bn1.weight", "bn1.bias"), "layers", "bn1"),
        (swap("heads.head1.fc.weight", "heads.head2.fc.weight"), "initialised", "heads.head2.fc.weight"),
    ],
)
def test_a_tensor_that_was_tampered_with_is_named(edit: Edit, check: str, tensor: str, made: Made) -> None:
    (failed,) = (found for found in made.edited(edit).verify().failed if found.name == check)
    assert tensor in failed.tensors
    assert f"`{tensor}`" in failed.finding


def put(value: Any, *path: str | int) -> Edit:
    """Sets a field of the manifest."""

    def edit(state: State, manifest: dict[str, Any]) -> None:
        place: Any = manifest
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = value

    return edit


def exchange_heads(state: State, manifest: dict[str, Any]) -> None:
    """The second head answers first."""
    manifest["architecture"]["heads"].reverse()
    manifest["outputs"].reverse()


def exchange_head_tensors(state: State, manifest: dict[str, Any]) -> None:
    for name in [name for name in state if name.startswith("heads.head1.fc.")]:
        swap(name, name.replace("head1", "head2"))(state, manifest)


PRODUCT = {"kind": "product"}
KEPT = {"how": "kept", "tensor": "bn1.bias"}


@pytest.mark.parametrize(
    ("edit", "check", "word"),
    [
        (put(3, "format_version"), "manifest", "format_version"),
        (put("no", "architecture"), "manifest", "architecture"),
        (put(7, "architecture", "heads", 0, "classes"), "fit", "heads.head1.fc.weight"),
        (put("F16", "tensors", "bn1.bias", "dtype"), "fit", "bn1.bias"),
        (put(3, "inputs", "channels"), "promises", "inputs.channels"),
        (put([4], "outputs", 1, "shape"), "promises", "outputs[1]"),
        (put("0" * 64, "source", "sha256"), "source", "0000000000000000"),
        (put("IMAGENET1K_V1", "source", "weights"), "source", "not that of the published"),
        (put(5, "operations", 1, "heads", "seed"), "history", "tensors.heads.head1.fc.bias.provenance.seed"),
        (put("mean", "operations", 0, "adapt", "init"), "history", "tensors.conv1.weight.provenance.formula.kind"),
        (put([], "dropped"), "history", "dropped"),
        (put(KEPT, "tensors", "bn1.weight", "provenance"), "kept", "bn1.weight"),
        (put({"how": "kept", "tensor": "no"}, "tensors", "bn1.weight", "provenance"), "kept", "not in the source"),
        (put(PRODUCT, "tensors", "conv1.weight", "provenance", "formula"), "computed", "product of the two"),
        (put(0.5, "tensors", "heads.head1.fc.bias", "provenance", "law", "bound"), "initialised", "not the law"),
        (put(9, "tensors", "heads.head1.fc.bias", "provenance", "seed"), "initialised", "differs from its seed's"),
        (put(2, "architecture", "stages", 1, "dilation"), "history", "architecture.stages[1].dilation"),
        (put(2, "architecture", "stages", 2, "first_dilation"), "layers", "layer3.0"),
        (exchange_heads, "history", "architecture.heads[0].name"),
        (exchange_head_tensors, "initialised", "heads.head1.fc.weight"),
    ],
)
def test_a_manifest_that_was_edited_is_caught(edit: Edit, check: str, word: str, made: Made) -> None:
    (failed,) = (found for found in made.edited(edit).verify().failed if found.name == check)
    assert word in failed.finding


def test_a_manifest_that_was_edited_in_one_place_differs_from_its_twin(made: Made) -> None:
    checks = rs.verify(made.edited(put(["x"], "dropped"), both=False).path).failed
    assert [(check.name, "`dropped" in check.finding) for check in checks] == [("pair", True)]


def test_a_manifest_of_another_file_is_caught(made: Made, tmp_path: Path) -> None:
    rs.open(made.source).adapt(1, init="mean").heads([3, 3]).save(tmp_path / "other.safetensors")
    (tmp_path / "other.json").replace(tmp_path / "model.json")
    (pair,) = rs.verify(made.path).failed
    assert "`operations[0].adapt.init`" in pair.finding


def test_a_file_that_lost_its_metadata_is_read_by_the_manifest_beside_it(made: Made) -> None:
    save_file(load_file(made.path), made.path)
    proof = made.verify()
    assert not proof.failed
    pair, trained = proof.unproven
    assert (pair.name, trained.name) == ("pair", "trained")
    total = len(load_file(made.path))
    assert trained.finding.startswith(f"{total} of {total} tensors were trained since")
    assert f"{total} of them are to the bit what they were before" in trained.finding


def test_with_another_source_nothing_fits(made: Made, checkpoints: Path) -> None:
    failed = {check.name for check in rs.verify(made.path, against=checkpoints / "narrow.pth").failed}
    assert {"source", "history", "kept"} <= failed


def test_after_an_invalid_manifest_the_rest_is_unproven(made: Made) -> None:
    proof = made.edited(put(99, "format_version")).verify()
    assert [check.name for check in proof.unproven] == ["tensors", "function"]


def test_a_file_without_a_manifest_is_an_error(checkpoints: Path) -> None:
    with pytest.raises(rs.CheckpointError, match="no manifest"):
        rs.verify(checkpoints / "basic.pth")
