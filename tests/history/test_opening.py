"""A file that something else saved is opened by the manifest beside it, or by the one that is named; and never by one
that does not fit.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import resnet_surgeon as rs
from resnet_surgeon.errors import AccessError, CheckpointError, UsageError
from resnet_surgeon.manifest import Trained
from tests.fixtures import Run, small_network

State = dict[str, Tensor]


@pytest.fixture
def made(checkpoints: Path, tmp_path: Path) -> Path:
    return rs.open(checkpoints / "basic.pth").adapt(1).heads([3, 5]).save(tmp_path / "model.safetensors")


def prefixed(prefix: str) -> Callable[[State], dict[str, Any]]:
    return lambda state: {prefix + name: tensor for name, tensor in state.items()}


PACKINGS: dict[str, Callable[[State], Any]] = {
    "plain": dict,
    "parallel": prefixed("module."),
    "compiled": prefixed("_orig_mod."),
    "compiled, parallel": prefixed("module._orig_mod."),
    "averaged": lambda state: {**prefixed("module.")(state), "n_averaged": torch.tensor(3)},
    "Lightning": lambda state: {
        "state_dict": {**prefixed("model.")(state), "loss.weight": torch.ones(3)},
        "pytorch-lightning_version": "2.5.0",
        "epoch": 3,
    },
    "with an optimizer": lambda state: {"model": state, "optimizer": {"state": {0: torch.zeros(3)}}, "epoch": 1},
}


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("ending", [".pth", ".ckpt", ".pth.tar"])
def test_a_state_dict_is_opened_by_the_manifest_beside_it(
    packing: str, ending: str, made: Path, tmp_path: Path
) -> None:
    state = load_file(made)
    torch.save(PACKINGS[packing](state), tmp_path / f"model{ending}")
    network = rs.open(tmp_path / f"model{ending}")
    assert network.architecture == rs.open(made).architecture
    found = rs.load(network).state_dict()
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], state[name]) for name in state)
    manifest = network.manifest()
    assert manifest.operations[-1] == {"trained": {"tensors": sorted(state)}}
    assert all(isinstance(record.provenance, Trained) for record in manifest.tensors.values())
    assert manifest.source == rs.open(made).manifest().source


def test_it_is_opened_by_the_manifest_that_is_named(made: Path, tmp_path: Path, run: Run, checkpoints: Path) -> None:
    torch.save(load_file(made), tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="several heads but no manifest") as caught:
        rs.open(tmp_path / "other.pth")
    assert [answer.option for answer in caught.value.answers] == ["manifest"]
    manifest = tmp_path / "model.json"
    assert rs.load(tmp_path / "other.pth", manifest=manifest).architecture == rs.open(made).architecture
    assert rs.inspect(tmp_path / "other.pth", manifest=manifest).problem is None
    assert rs.verify(tmp_path / "other.pth", against=checkpoints / "basic.pth", manifest=manifest).failed == ()
    assert rs.diff(made, tmp_path / "other.pth", manifest=manifest).tensors == ()
    done = run("adapt", "other.pth", "--in-ch", "3", "--manifest", "model.json", "-o", "out.safetensors")
    assert done.returncode == 0, done.stderr
    assert rs.open(tmp_path / "out.safetensors").architecture.in_channels == 3


def test_safetensors_without_metadata_are_opened_likewise(made: Path) -> None:
    save_file(load_file(made), made)
    assert rs.open(made).manifest().operations[-1].keys() == {"trained"}


def test_what_was_made_of_it_proves_against_it(made: Path, tmp_path: Path) -> None:
    torch.save(load_file(made), tmp_path / "model.pth")
    out = rs.open(tmp_path / "model.pth").adapt(2).save(tmp_path / "out.safetensors")
    assert rs.verify(out, against=tmp_path / "model.pth").failed == ()


def test_a_network_without_stages_is_found_by_its_manifest(checkpoints: Path, tmp_path: Path) -> None:
    stem = rs.open(checkpoints / "basic.pth").remove(last=9).save(tmp_path / "stem.safetensors")
    torch.save({"net": prefixed("encoder.")(load_file(stem))}, tmp_path / "stem.pth")
    assert rs.open(tmp_path / "stem.pth").architecture == rs.open(stem).architecture


def test_a_file_that_was_trained_and_saved_over_its_source_has_the_manifest_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    torch.save(small_network(classes=3).state_dict(), path)
    rs.open(path).heads(classes=[3]).save(tmp_path / "model.safetensors")
    source = rs.open(path)
    assert source.manifest().operations == ()
    state = rs.load(source).state_dict()
    state["fc.bias"] += 1
    torch.save(state, path)
    assert [*rs.open(path).manifest().operations[-1]] == ["trained"]


MISFITS: dict[str, Callable[[State], Any]] = {
    "a tensor is missing": lambda state: {name: t for name, t in state.items() if name != "heads.head1.fc.bias"},
    "another shape": lambda state: {**state, "bn1.bias": torch.zeros(65)},
    "a tensor too many": lambda state: {**state, "heads.head3.fc.bias": torch.zeros(2)},
    "another network": lambda state: small_network().state_dict(),
}


@pytest.mark.parametrize("misfit", MISFITS)
def test_a_manifest_that_does_not_fit_is_an_error(misfit: str, made: Path, tmp_path: Path) -> None:
    torch.save(MISFITS[misfit](load_file(made)), tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match="`model.json` lies beside it, but does not fit it: ") as caught:
        rs.open(tmp_path / "model.pth")
    assert "--manifest" in str(caught.value.hint)
    with pytest.raises(CheckpointError, match="was named as its manifest, but does not fit it: "):
        rs.open(tmp_path / "model.pth", manifest=made.with_suffix(".json"))


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"model": "a"}', '{"format_version": 2}', "\xff"])
def test_what_is_not_ours_is_passed_over(text: str, checkpoints: Path, tmp_path: Path) -> None:
    torch.save(small_network().state_dict(), tmp_path / "model.pth")
    (tmp_path / "model.json").write_text(text, "latin-1")
    assert rs.open(tmp_path / "model.pth").history is None
    with pytest.raises(CheckpointError, match="was named as its manifest"):
        rs.open(tmp_path / "model.pth", manifest=tmp_path / "model.json")


def test_a_manifest_of_ours_that_is_damaged_is_an_error(made: Path, tmp_path: Path) -> None:
    torch.save(load_file(made), tmp_path / "model.pth")
    manifest = json.loads((tmp_path / "model.json").read_text("utf-8"))
    manifest["inputs"] = 3
    (tmp_path / "model.json").write_text(json.dumps(manifest), "utf-8")
    with pytest.raises(CheckpointError, match="`model.json` lies beside it.*its manifest is not valid: inputs"):
        rs.open(tmp_path / "model.pth")


def test_the_source_is_not_what_was_made_of_it(checkpoints: Path, tmp_path: Path) -> None:
    """`adapt model.pth -o model.safetensors` puts model.json beside both."""
    torch.save(small_network().state_dict(), tmp_path / "model.pth")
    rs.open(tmp_path / "model.pth").adapt(3).save(tmp_path / "model.safetensors")
    assert rs.open(tmp_path / "model.pth").history is None
    assert rs.open(tmp_path / "model.safetensors").history is not None


def test_a_file_with_a_manifest_takes_no_other(made: Path, tmp_path: Path) -> None:
    assert rs.open(made, manifest=made.with_suffix(".json")).history == rs.open(made).history
    other = rs.open(made).remove(layers=["heads"]).save(tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="it holds a manifest, which is not `.*other.json`"):
        rs.open(made, manifest=other.with_suffix(".json"))


def test_a_manifest_is_a_file_and_belongs_to_one(made: Path, tmp_path: Path) -> None:
    with pytest.raises(AccessError, match="no such file"):
        rs.open(made, manifest=tmp_path / "none.json")
    with pytest.raises(UsageError, match="a model name has no manifest"):
        rs.open("resnet18", weights="random", manifest=made.with_suffix(".json"))


def test_a_manifest_fills_nothing_in(made: Path, tmp_path: Path) -> None:
    """A record that says how a tensor is drawn does not draw it."""
    state = load_file(made)
    del state["heads.head2.fc.weight"]
    torch.save(state, tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match=r"`heads.head2.fc.weight` \[5, \d+\] is missing"):
        rs.open(tmp_path / "model.pth")


def test_a_hostile_manifest_is_refused_at_once(made: Path, tmp_path: Path) -> None:
    torch.save(load_file(made), tmp_path / "model.pth")
    manifest = json.loads((tmp_path / "model.json").read_text("utf-8"))
    for stage in manifest["architecture"]["stages"]:
        stage["blocks"] = 65536
    (tmp_path / "model.json").write_text(json.dumps(manifest), "utf-8")
    with pytest.raises(CheckpointError, match="does not fit it"):
        rs.open(tmp_path / "model.pth")
    with (tmp_path / "model.json").open("r+b") as file:
        file.truncate(1 << 40)
    with pytest.raises(CheckpointError, match="several heads but no manifest"):
        rs.open(tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match="it is longer than"):
        rs.open(tmp_path / "model.pth", manifest=tmp_path / "model.json")
