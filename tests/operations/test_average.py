"""average against torch: the same bits as the sum in float64, divided and rounded once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import resnet_surgeon as rs
from resnet_surgeon.errors import OperationError, UsageError
from tests.fixtures import small_network

EPOCHS = ("a", "b", "c")


@pytest.fixture(scope="module", params=[torch.float32, torch.float16, torch.bfloat16, torch.float64], ids=str)
def epochs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("epochs")
    for seed, name in enumerate(EPOCHS):
        model = small_network(classes=4, seed=seed).to(request.param)
        model.bn1.num_batches_tracked.fill_(10 + seed)
        torch.save(model.state_dict(), folder / f"{name}.pth")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("soup")
    for seed, name in enumerate(EPOCHS):
        torch.save(small_network(classes=4, seed=seed).state_dict(), folder / f"{name}.pth")
    torch.save(small_network(classes=5).state_dict(), folder / "other.pth")
    torch.save(small_network(classes=4).half().state_dict(), folder / "half.pth")
    return folder


def states(folder: Path) -> list[dict[str, Tensor]]:
    return [torch.load(folder / f"{name}.pth") for name in EPOCHS]


def averaged(folder: Path, **options: Any) -> dict[str, Tensor]:
    others = [folder / f"{name}.pth" for name in EPOCHS[1:]]
    return rs.load(rs.open(folder / "a.pth").average(others, **options)).state_dict()


def test_the_mean_is_that_of_torch_to_the_bit(epochs: Path) -> None:
    a, b, c = states(epochs)
    for name, tensor in averaged(epochs).items():
        if tensor.is_floating_point():
            assert torch.equal(tensor, ((a[name].double() + b[name].double() + c[name].double()) / 3).to(tensor.dtype))
        else:
            assert torch.equal(tensor, a[name])


def test_weights_are_divided_by_their_sum(epochs: Path) -> None:
    one, other = averaged(epochs, weights=[0.5, 0.3, 0.2]), averaged(epochs, weights=[2, 1, 1])
    a, b, c = states(epochs)
    for name, tensor in one.items():
        if tensor.is_floating_point():
            first, second, third = a[name].double(), b[name].double(), c[name].double()
            assert torch.equal(tensor, (first * 0.5 + second * 0.3 + third * 0.2).to(tensor.dtype))
            assert torch.equal(other[name], ((first * 2 + second + third) / 4).to(tensor.dtype))


def test_a_network_with_itself_is_itself(folder: Path) -> None:
    network = rs.open(folder / "a.pth").average([folder / "a.pth"] * 2)
    state = states(folder)[0]
    assert all(torch.equal(tensor, state[name]) for name, tensor in rs.load(network).state_dict().items())


def test_it_is_said_that_the_statistics_are_averaged(folder: Path) -> None:
    network = rs.open(folder / "a.pth").average([folder / "b.pth"])
    assert any("running statistics are means of several networks'" in note for note in network.notes)
    assert network.default_name == "a-mean-of-2.safetensors"
    assert str(network.tensors["fc.weight"].formula) == "mean of 2"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("other", "reason", "hint"),
    [
        ("other", "checkpoint 2 is another network than SOURCE: output: 4 classes -> 5 classes", "one architecture"),
        ("half", "`conv1.weight` is F16 in checkpoint 2, and F32 in SOURCE", "`cast`"),
    ],
)
def test_networks_that_differ_are_refused(other: str, reason: str, hint: str, folder: Path) -> None:
    with pytest.raises(OperationError) as caught:
        rs.open(folder / "a.pth").average([folder / f"{other}.pth"])
    assert str(caught.value).startswith(f"average: {reason}")
    assert hint in str(caught.value.hint)


def test_channels_in_another_order_are_refused(folder: Path, tmp_path: Path) -> None:
    a, b = rs.open(folder / "a.pth"), rs.open(folder / "b.pth")
    a.adapt(channels="B,G,R", mean=[0.5] * 3, std=[0.5] * 3).save(tmp_path / "bgr.pth")
    with pytest.raises(OperationError, match="checkpoint 2 takes the channels R, G, B, SOURCE B, G, R"):
        rs.open(tmp_path / "bgr.pth").average([b])
    with pytest.raises(OperationError, match="checkpoint 2 takes the channels B, G, R, SOURCE R, G, B"):
        b.average([tmp_path / "bgr.pth"])
    a.adapt(channels="B,G,R").save(tmp_path / "other.pth")
    assert rs.open(tmp_path / "bgr.pth").average([tmp_path / "other.pth"])


def test_images_that_one_takes_as_they_are_must_be_stated_of_the_other(folder: Path, tmp_path: Path) -> None:
    stated: dict[str, Any] = {"channels": "R,G,B", "mean": [0.5] * 3, "std": [0.5] * 3}
    plain = rs.open(folder / "b.pth")
    folded = rs.open(folder / "a.pth").adapt(**stated, fold_normalization=True)
    folded.save(tmp_path / "folded.pth")
    with pytest.raises(OperationError, match="checkpoint 2 takes images from 0 to 1 .* those of SOURCE are normalised"):
        plain.average([tmp_path / "folded.pth"])
    with pytest.raises(OperationError, match="SOURCE takes .* of checkpoint 2 are normalised"):
        rs.open(tmp_path / "folded.pth").average([folder / "b.pth"])
    with pytest.raises(OperationError, match="the other network takes images from 0 to 1"):
        plain.graft(tmp_path / "folded.pth", ["conv1", "bn1"])
    for options in ({"mean": [0.0] * 3, "std": [1.0] * 3}, {**stated, "fold_normalization": True}):
        said = plain.adapt(**{"channels": "R,G,B", **options})
        assert said.average([tmp_path / "folded.pth"])


@pytest.mark.parametrize(
    ("weights", "reason"),
    [
        ([1, 2, 3], "3 weights for 2 checkpoints"),
        ([1, 0], "greater than 0"),
        ([1, -1], "greater than 0"),
        ([1e308, 1e308], "finite"),
        ("half", "weights"),
    ],
    ids=str,
)
def test_weights_that_make_no_mean(weights: Any, reason: str, folder: Path) -> None:
    with pytest.raises(UsageError, match=reason):
        rs.open(folder / "a.pth").average([folder / "b.pth"], weights=weights)


def test_numbers_that_overflow_are_refused(tmp_path: Path) -> None:
    state = small_network().double().state_dict()
    state["fc.weight"].fill_(1.5e308)
    torch.save(state, tmp_path / "large.pth")
    with pytest.raises(OperationError, match="not finite"):
        rs.open(tmp_path / "large.pth").average([tmp_path / "large.pth"]).save(tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize("other", [3.5, None, 0], ids=str)
def test_what_is_no_other_network_is_refused(other: Any, checkpoints: Path) -> None:
    with pytest.raises(rs.UsageError, match="a path, a model's name, or an opened network"):
        rs.open(checkpoints / "basic.pth").average([other])
