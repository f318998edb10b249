"""The modules that torch notes beside a state_dict: those without tensors are in nobody's way, or named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torchvision.models.resnet import Bottleneck

import resnet_surgeon as rs
from resnet_surgeon.errors import ArchitectureError
from tests.fixtures import small_network
from tests.formats.test_torch_zip import saved


def changed(path: str, layer: nn.Module | None) -> nn.Module:
    """A small network with another layer at the path, or with none."""
    model: nn.Module = small_network(Bottleneck)
    owner, _, name = path.rpartition(".")
    setattr(model.get_submodule(owner), name, layer)
    return model


def around(model: nn.Module, **others: nn.Module) -> nn.Module:
    whole = nn.Module()
    for name, module in {**others, "backbone": model}.items():
        setattr(whole, name, module)
    return whole


def normed(model: Any) -> nn.Module:
    nn.utils.parametrizations.weight_norm(model.layer1[0].conv2)
    return model  # type: ignore[no-any-return]


def fused() -> rs.Network:
    return rs.open(saved(small_network(Bottleneck).state_dict())).fuse()


def renamed(model: nn.Module) -> Any:
    """A state_dict whose names were changed without what is noted beside it."""
    state: Any = model.state_dict()
    noted = state._metadata
    for name in [*state]:
        state[f"backbone.{name}"] = state.pop(name)
    state._metadata = noted
    return state


SILENT: dict[str, Callable[[], Any]] = {
    "plain": lambda: small_network(Bottleneck).state_dict(),
    "behind a prefix": lambda: around(small_network(Bottleneck)).state_dict(),
    "a maxpool by another name": lambda: changed("pool", nn.MaxPool2d(3, 2, 1)).state_dict(),
    "an identity in its place": lambda: changed("maxpool", nn.Identity()).state_dict(),
    "a dropout in a block": lambda: changed("layer2.0.drop1", nn.Dropout(0.1)).state_dict(),
    "a classifier behind a dropout": lambda: changed(
        "fc", nn.Sequential(nn.Dropout(), nn.Linear(2048, 3))
    ).state_dict(),
    "norms that were folded away": lambda: rs.load(fused()).state_dict(),
    "one layer in a Sequential": lambda: changed("maxpool", nn.Sequential(nn.MaxPool2d(3, 2, 1))).state_dict(),
    "weight norm": lambda: normed(small_network(Bottleneck)).state_dict(),
    "names that were changed since": lambda: renamed(without_maxpool()),
}


def without_maxpool() -> nn.Module:
    model: nn.Module = small_network(Bottleneck)
    del model.maxpool
    return model


@pytest.mark.parametrize("state", SILENT.values(), ids=SILENT.keys())
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_plain_files_are_not_asked_about(state: Callable[[], Any], legacy: bool, tmp_path: Path) -> None:
    torch.save({"state_dict": state()}, tmp_path / "a.pth", _use_new_zipfile_serialization=not legacy)
    assert not rs.open(tmp_path / "a.pth").architecture.maxpool_is_identity


@pytest.mark.parametrize("whole", [lambda model: model, around], ids=["alone", "behind a prefix"])
def test_a_network_without_a_maxpool_is_asked_about(whole: Callable[[nn.Module], nn.Module], tmp_path: Path) -> None:
    torch.save(whole(without_maxpool()).state_dict(), tmp_path / "a.pth")
    with pytest.raises(ArchitectureError, match="none is a maxpool") as caught:
        rs.open(tmp_path / "a.pth")
    assert [answer.value for answer in caught.value.answers] == ["maxpool=none", "maxpool=torchvision"]
    assert rs.open(tmp_path / "a.pth", assume="maxpool=none").architecture.maxpool_is_identity


@pytest.mark.parametrize("path", ["layer1.0.gelu", "layer2.0.simam", "attention", "gem"])
def test_a_layer_without_tensors_in_the_datas_way_is_named(path: str, tmp_path: Path) -> None:
    torch.save(changed(path, nn.GELU()).state_dict(), tmp_path / "a.pth")
    with pytest.raises(ArchitectureError, match=f"passes through `{path}`, a layer without tensors"):
        rs.open(tmp_path / "a.pth")
    assert rs.open(tmp_path / "a.pth", assume="torchvision").architecture


ROWS: dict[str, nn.Module] = {
    "layer1.1": nn.Tanh(),
    "layer2.0.downsample.2": nn.ReLU(),
    "maxpool": nn.Sequential(nn.MaxPool2d(3, 1, 1), nn.AvgPool2d(2)),
    "layer1.0.relu": nn.Sequential(nn.ReLU(), nn.Tanh()),
}


@pytest.mark.parametrize("path", ROWS)
def test_a_layer_more_in_a_sequential_is_named(path: str, tmp_path: Path) -> None:
    torch.save(changed(path, ROWS[path]).state_dict(), tmp_path / "a.pth")
    with pytest.raises(ArchitectureError, match=f"passes through `{path}(\\.0)?`, a layer without tensors"):
        rs.open(tmp_path / "a.pth")
    assert rs.open(tmp_path / "a.pth", assume="torchvision").architecture


def row(count: int, *ends: nn.Module) -> nn.Module:
    return nn.Sequential(*[*small_network(Bottleneck).children()][:count], *ends)


def without(*names: str) -> nn.Module:
    model: nn.Module = small_network(Bottleneck)
    for name in names:
        delattr(model, name)
    return model


OUTPUTS: dict[str, tuple[Callable[[], nn.Module], str, int]] = {
    "stages in a row": (lambda: row(8), "feature_map", 0),
    "in DataParallel": (lambda: nn.DataParallel(row(8)), "feature_map", 0),
    "a row in a row": (lambda: nn.Sequential(row(8), nn.AdaptiveAvgPool2d(1)), "embedding", 0),
    "pooled in a row": (lambda: row(9), "embedding", 0),
    "without a pooling": (lambda: without("fc", "avgpool"), "feature_map", 1),
    "with a pooling": (lambda: without("fc"), "embedding", 0),
    "a classifier that was emptied": (lambda: changed("fc", nn.Identity()), "embedding", 0),
    "in a class that may pool": (lambda: around(row(8)), "embedding", 0),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_the_paths_tell_that_nothing_pools(name: str, tmp_path: Path) -> None:
    make, output, warnings = OUTPUTS[name]
    torch.save(make().state_dict(), tmp_path / "a.pth")
    network = rs.open(tmp_path / "a.pth")
    assert (network.architecture.output_kind, len(network.manifest().source.warnings)) == (output, warnings)
    assert rs.open(tmp_path / "a.pth", assume="torchvision").architecture.output_kind == "embedding"


IN_THE_WAY: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "before": (lambda: nn.Sequential(nn.InstanceNorm2d(3), small_network(Bottleneck)), "0"),
    "behind": (lambda: nn.Sequential(small_network(Bottleneck), nn.Softmax(1)), "1"),
    "in a class": (lambda: around(small_network(Bottleneck), normalize=nn.InstanceNorm2d(3)), "normalize"),
}


@pytest.mark.parametrize("name", IN_THE_WAY)
def test_what_stands_around_the_network_is_named(name: str, tmp_path: Path) -> None:
    make, path = IN_THE_WAY[name]
    torch.save(make().state_dict(), tmp_path / "a.pth")
    with pytest.raises(ArchitectureError, match=f"passes through `{path}`, a layer without tensors"):
        rs.open(tmp_path / "a.pth")
    assert rs.open(tmp_path / "a.pth", assume="torchvision").architecture
