"""verify --quick proves without torch all that takes none, and finds what was changed since."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torchvision.models._utils import IntermediateLayerGetter

import resnet_surgeon as rs
from resnet_surgeon.verification.proof import Proof
from tests.fixtures import Run, small_network

MADE = ("kept", "computed", "initialised")


@pytest.fixture
def made(checkpoints: Path, tmp_path: Path) -> Path:
    network = rs.open(checkpoints / "basic.pth").adapt(1).heads([3, 5])
    return network.save(tmp_path / "made.safetensors")


def outcomes(proof: Proof) -> dict[str, str]:
    return {check.name: check.outcome for check in proof.checks}


def test_a_sound_file_is_proven(made: Path, checkpoints: Path) -> None:
    proof = rs.verify_quickly(made, against=checkpoints / "basic.pth")
    assert {*outcomes(proof).values()} == {"proven"}
    assert {"manifest", "pair", "fit", "source", "history", *MADE} <= outcomes(proof).keys()


def test_maps_of_a_whole_module_are_its_own(tmp_path: Path) -> None:
    torch.save(IntermediateLayerGetter(small_network(), {"layer1": "a", "layer2": "b"}), tmp_path / "maps.pth")
    made = rs.open(tmp_path / "maps.pth").adapt(1).save(tmp_path / "made.safetensors")
    assert {*outcomes(rs.verify_quickly(made, against=tmp_path / "maps.pth")).values()} == {"proven"}
    assert not rs.verify_quickly(made).failed


def test_without_the_source_only_what_was_drawn_is_proven(made: Path) -> None:
    found = outcomes(rs.verify_quickly(made))
    assert [found[name] for name in MADE] == ["unproven", "unproven", "proven"]


@pytest.mark.parametrize("prove", [rs.verify_quickly, rs.verify], ids=["quick", "whole"])
def test_without_the_source_copies_are_compared_with_each_other(prove: Callable[..., Proof], made: Path) -> None:
    assert outcomes(prove(made))["copies"] == "proven"
    tensor = "heads.head2.layer4.0.bn1.weight"
    flip(made, tensor)
    assert [(failed.name, failed.tensors) for failed in prove(made).failed] == [("copies", (tensor,))]


def flip(made: Path, tensor: str) -> None:
    """Changes a bit of the tensor."""
    stored = rs.open(made).tensors[tensor]
    data = bytearray(made.read_bytes())
    data[stored.offset] ^= 1  # type: ignore[union-attr]
    made.write_bytes(data)


@pytest.mark.parametrize(
    ("tensor", "check"),
    [("layer1.0.conv1.weight", "kept"), ("conv1.weight", "computed"), ("heads.head2.fc.bias", "initialised")],
)
def test_a_flipped_bit_is_found(tensor: str, check: str, made: Path, checkpoints: Path) -> None:
    flip(made, tensor)
    proof = rs.verify_quickly(made, against=checkpoints / "basic.pth")
    assert [(failed.name, failed.tensors) for failed in proof.failed] == [(check, (tensor,))]


def test_another_source_is_found(made: Path, checkpoints: Path, tmp_path: Path) -> None:
    state = torch.load(checkpoints / "basic.pth", weights_only=True)
    state["layer2.0.conv1.weight"][0] += 1
    torch.save(state, tmp_path / "basic.pth")
    failed = [check.name for check in rs.verify_quickly(made, against=tmp_path / "basic.pth").failed]
    assert failed == ["source", "history", "kept"] or failed == ["source", "kept"]


def test_what_was_trained_is_unproven(made: Path, checkpoints: Path, tmp_path: Path) -> None:
    module = rs.load(made)
    with torch.no_grad():
        module.get_parameter("conv1.weight").add_(1)
    path = rs.save(module, tmp_path / "trained.safetensors")
    found = outcomes(rs.verify_quickly(path, against=checkpoints / "basic.pth"))
    assert (found["trained"], found["kept"]) == ("unproven", "proven")


def test_no_torch_is_imported(made: Path, checkpoints: Path) -> None:
    code = f"""
import sys
sys.modules["torch"] = None
sys.argv = ["resnet-surgeon", "verify", {str(made)!r}, "--quick", "--against", {str(checkpoints / "basic.pth")!r}]
from resnet_surgeon.cli.main import main
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(" proven, 0 failed, 0 unproven\n")


def test_the_exit_code_tells(made: Path, run: Run) -> None:
    assert run("verify", made, "--quick").returncode == 0
    data = bytearray(made.read_bytes())
    data[-1] ^= 1
    made.write_bytes(data)
    assert run("verify", made, "--quick").returncode == 1
