"""conv1 of named channels, or with mean and std folded in, is proven beside the source; a changed number is found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torchvision.models.resnet import BasicBlock

import resnet_surgeon as rs
from resnet_surgeon.network import Network
from tests.fixtures import small_network

DTYPES = {"F32": torch.float32, "F16": torch.float16}
CHAINS: dict[str, Callable[[Network], Network]] = {
    "channels": lambda network: network.adapt(channels="R,N=R,T=mean,D=zero,X=random,Y=0.5*R-2*G"),
    "twice": lambda network: network.adapt(channels="R,X=random").adapt(channels="A=X,Q=R+0.5*X,Z=random"),
    "after a drawn one": lambda network: network.adapt(4, init="random").adapt(channels="0,Z=random"),
    "folded": lambda network: network.adapt(
        channels="R,G,X=random", mean=[0.4, 0.5, 0.3], std=[0.2, 0.25, 3], fold_normalization=True
    ),
    "another stem": lambda network: network.adapt(channels="R,X=random").stem(stride=1),
}


@pytest.fixture(scope="module", params=DTYPES)
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    state = small_network(BasicBlock, (1, 1, 1, 1), classes=2).state_dict()
    path = tmp_path_factory.mktemp("source") / "source.pth"
    torch.save({n: t.to(DTYPES[request.param]) if t.is_floating_point() else t for n, t in state.items()}, path)
    return path


def made(chain: str, source: Path, folder: Path) -> Path:
    return CHAINS[chain](rs.open(source).remove(last=5)).save(folder / "model.safetensors")


@pytest.mark.parametrize("chain", CHAINS)
def test_what_is_made_of_channels_is_proven(chain: str, source: Path, tmp_path: Path) -> None:
    proof = rs.verify(made(chain, source, tmp_path), against=source)
    assert {check.outcome for check in proof.checks} == {"proven"}, str(proof)
    found = {check.name: check.finding for check in proof.checks}
    assert "stem" in found
    assert ("normalization" in found) == (chain == "folded")
    if chain == "folded":
        assert "at the border, where zeros are padded, they differ by up to" in found["normalization"]


@pytest.mark.parametrize("tensor", ["conv1.weight", "bn1.running_mean"])
def test_a_folded_number_that_was_changed_fails(tensor: str, source: Path, tmp_path: Path) -> None:
    path = made("folded", source, tmp_path)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    state = load_file(path)
    state[tensor].view(-1)[5] += 0.25
    save_file(state, path, metadata=metadata)
    assert {"computed", "normalization"} <= {check.name for check in rs.verify(path, against=source).failed}


@pytest.mark.parametrize(("chain", "check"), [("channels", "stem"), ("folded", "stem"), ("folded", "normalization")])
def test_filters_that_are_a_little_too_large_fail(chain: str, check: str, source: Path, tmp_path: Path) -> None:
    """By more than they were rounded, but by less than one sees."""
    path = made(chain, source, tmp_path)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    state = load_file(path)
    state["conv1.weight"] *= 1 + 128 * torch.finfo(state["conv1.weight"].dtype).eps
    save_file(state, path, metadata=metadata)
    assert check in {check.name for check in rs.verify(path, against=source).failed}
