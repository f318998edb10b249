"""Files that are made from several sources: each is proven by its own, in whatever order they are given."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import resnet_surgeon as rs
from resnet_surgeon.errors import UsageError
from tests.fixtures import small_network
from tests.verification.draws import rewrite


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """a.pth, b.pth and c.pth, of one shape; graft.safetensors and mean.safetensors, made of them."""
    folder = tmp_path_factory.mktemp("several")
    for seed, name in enumerate("abc"):
        torch.save(small_network(classes=4, seed=seed).state_dict(), folder / f"{name}.pth")
    graft = rs.open(folder / "a.pth").graft(folder / "b.pth", ["layer4", "fc"], head="b", own_as="a")
    graft.save(folder / "graft.safetensors")
    rs.open(folder / "a.pth").average([folder / "b.pth", folder / "c.pth"]).save(folder / "mean.safetensors")
    return folder


def outcomes(proof: rs.Proof) -> dict[str, str]:
    return {check.name: check.outcome for check in proof.checks}


def given(folder: Path, names: str) -> list[Path]:
    return [folder / f"{name}.pth" for name in names]


@pytest.mark.parametrize(
    ("name", "names"), [("graft", "ab"), ("graft", "ba"), ("mean", "abc"), ("mean", "cab"), ("mean", "bca")]
)
def test_all_sources_in_any_order_prove_everything(name: str, names: str, folder: Path) -> None:
    proof = rs.verify(folder / f"{name}.safetensors", against=given(folder, names))
    assert {*outcomes(proof).values()} == {"proven"}, str(proof)
    assert "source 1" in outcomes(proof)


@pytest.mark.parametrize(
    ("name", "names", "unproven"),
    [
        ("graft", "a", {"source 1", "history", "kept"}),
        ("graft", "b", {"source", "history", "kept", "layers"}),
        ("graft", "", {"source", "source 1", "history", "kept", "layers"}),
        ("mean", "ac", {"source 1", "history", "computed"}),
    ],
)
def test_what_needs_a_missing_source_is_unproven(name: str, names: str, unproven: set[str], folder: Path) -> None:
    proof = rs.verify(folder / f"{name}.safetensors", against=given(folder, names))
    assert proof.holds, str(proof)
    assert {check.name for check in proof.unproven} == unproven


@pytest.mark.parametrize(("names", "count"), [("a", 74), ("b", 20), ("", 0)])
def test_quickly_what_is_of_a_given_source_is_compared(names: str, count: int, folder: Path) -> None:
    proof = rs.verify_quickly(folder / "graft.safetensors", against=given(folder, names))
    (kept,) = [check for check in proof.checks if check.name == "kept"]
    assert kept.outcome == "unproven"
    assert kept.finding.startswith(f"{count} of 94 tensors are their source's to the bit; ")
    assert len(kept.tensors) == 94 - count
    if names == "a":
        assert "`heads.b.fc.bias`" in kept.finding
        assert kept.finding.endswith(" were not compared; that takes b.pth: give it with `--against`")


def test_quickly_a_flipped_bit_is_found_though_a_source_is_missing(folder: Path, tmp_path: Path) -> None:
    network = rs.open(folder / "graft.safetensors")
    stored: Any = network.tensors["heads.a.fc.bias"]
    data = bytearray((folder / "graft.safetensors").read_bytes())
    data[stored.offset] ^= 1
    (tmp_path / "out.safetensors").write_bytes(data)
    proof = rs.verify_quickly(tmp_path / "out.safetensors", against=folder / "a.pth")
    assert [failed.tensors for failed in proof.failed if failed.name == "kept"] == [("heads.a.fc.bias",)]


def test_the_graft_gives_the_activations_of_its_own_source(folder: Path) -> None:
    proof = rs.verify(folder / "graft.safetensors", against=given(folder, "ab"))
    (grafted,) = [check for check in proof.checks if check.name == "grafted"]
    assert grafted.finding == "2 of 2 layers give the activations of those of b.pth to the bit"


def test_a_wrong_source_fails(folder: Path) -> None:
    proof = rs.verify(folder / "graft.safetensors", against=given(folder, "ac"))
    assert outcomes(proof)["source 1"] == "failed"
    with pytest.raises(UsageError, match="3 sources for a file that is made from 2"):
        rs.verify(folder / "graft.safetensors", against=given(folder, "abc"))


@pytest.mark.parametrize(
    ("name", "tensor", "check"),
    [("graft", "heads.b.fc.bias", "kept"), ("graft", "heads.a.fc.bias", "kept"), ("mean", "fc.bias", "computed")],
)
def test_a_flipped_bit_is_found(name: str, tensor: str, check: str, folder: Path, tmp_path: Path) -> None:
    data = bytearray((folder / f"{name}.safetensors").read_bytes())
    network = rs.open(folder / f"{name}.safetensors")
    stored: Any = network.tensors[tensor]
    data[stored.offset] ^= 1
    (tmp_path / "out.safetensors").write_bytes(data)
    names = "ab" if name == "graft" else "abc"
    proof = rs.verify(tmp_path / "out.safetensors", against=given(folder, names))
    (failed,) = [failed for failed in proof.failed if failed.name == check]
    assert failed.tensors == (tensor,)


def _other_source(manifest: dict[str, Any]) -> None:
    manifest["tensors"]["heads.b.fc.bias"]["provenance"].pop("source")


def _other_digest(manifest: dict[str, Any]) -> None:
    manifest["other_sources"][0]["origin"]["sha256"] = "0" * 64


def _other_facts(manifest: dict[str, Any]) -> None:
    manifest["other_sources"][0]["facts"][0] = {"name": "eps", "value": "0.001", "said_by": "user", "place": ""}


def _other_part(manifest: dict[str, Any]) -> None:
    manifest["operations"][0]["graft"]["layers"] = ["fc"]


LIES: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "the tensor is of the first": (_other_source, "kept"),
    "the second is another file": (_other_digest, "source 1"),
    "the second had other facts": (_other_facts, "history"),
    "another part was taken": (_other_part, "history"),
}


@pytest.mark.parametrize("lie", LIES)
def test_lies_are_found(lie: str, folder: Path, tmp_path: Path) -> None:
    tell, check = LIES[lie]
    path = tmp_path / "out.safetensors"
    path.write_bytes((folder / "graft.safetensors").read_bytes())
    path.with_suffix(".json").write_bytes((folder / "graft.json").read_bytes())
    rewrite(path, tell)
    proof = rs.verify(path, against=given(folder, "ab"))
    assert outcomes(proof)[check] == "failed", str(proof)


@pytest.mark.parametrize(
    "tell",
    [
        lambda manifest: manifest["operations"][0]["graft"].update(other=2),
        lambda manifest: manifest["operations"][0]["graft"].update(other="/etc/passwd"),
        lambda manifest: manifest["tensors"]["bn1.bias"]["provenance"].update(source=2),
        lambda manifest: manifest.update(other_sources=[]),
        lambda manifest: manifest["other_sources"].append(manifest["other_sources"][0]),
    ],
    ids=["a number too large", "a path", "a tensor of no source", "no other source", "one source too many"],
)
def test_a_manifest_that_contradicts_itself_is_not_valid(
    tell: Callable[[dict[str, Any]], None], folder: Path, tmp_path: Path
) -> None:
    path = tmp_path / "out.safetensors"
    path.write_bytes((folder / "graft.safetensors").read_bytes())
    rewrite(path, tell)
    assert outcomes(rs.verify(path))["manifest"] == "failed"


def test_a_file_on_the_way_proves_what_came_after(folder: Path, tmp_path: Path) -> None:
    path = rs.open(folder / "mean.safetensors").graft(folder / "c.pth", ["fc"]).save(tmp_path / "out.safetensors")
    proof = rs.verify(path, against=[folder / "c.pth", folder / "mean.safetensors"])
    assert proof.holds, str(proof)
    assert outcomes(proof)["history"] == outcomes(proof)["kept"] == "proven"
    whole = rs.verify(path, against=given(folder, "abc"))
    assert {*outcomes(whole).values()} == {"proven"}, str(whole)


def test_one_file_may_be_several_sources(folder: Path, tmp_path: Path) -> None:
    path = rs.open(folder / "a.pth").average([folder / "b.pth"] * 2).save(tmp_path / "out.safetensors")
    assert {*outcomes(rs.verify(path, against=given(folder, "ab"))).values()} == {"proven"}


def test_random_networks_need_not_be_given(tmp_path: Path) -> None:
    one, two = (rs.open("resnet18", weights="random", seed=seed) for seed in (0, 1))
    path = (
        one.graft(two, ["layer1"])
        .remove(layers=["layer2", "layer3", "layer4", "avgpool", "fc"])
        .save(tmp_path / "out.safetensors")
    )
    assert {*outcomes(rs.verify(path)).values()} == {"proven"}


def test_streams_can_be_given(folder: Path) -> None:
    for names in itertools.permutations("ab"):
        streams = [(folder / f"{name}.pth").open("rb") for name in names]
        assert {*outcomes(rs.verify(folder / "graft.safetensors", against=streams)).values()} == {"proven"}
        for stream in streams:
            stream.close()
