"""Whatever is drawn at random, by whichever operation, shares no numbers with anything else of one seed."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

import resnet_surgeon as rs
from resnet_surgeon.formats.tensors import Initialised, content


def drawn(network: rs.Network) -> dict[str, str]:
    """The stream of each tensor that is drawn."""
    return {name: tensor.stream for name, tensor in network.tensors.items() if isinstance(tensor, Initialised)}


def numbers(network: rs.Network, name: str) -> torch.Tensor:
    return torch.frombuffer(bytearray(content(network.tensors[name])), dtype=torch.float32)


def correlation(left: torch.Tensor, right: torch.Tensor) -> float:
    """Of the numbers that both have in the order in which they are drawn, from their first on."""
    size = min(len(left), len(right))
    return float(torch.corrcoef(torch.stack([left[:size], right[:size]]))[0, 1])


@pytest.mark.parametrize("seed", [0, 1, 2**64])
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_random_filters_are_unlike_those_of_random_weights(channels: int, seed: int) -> None:
    start = rs.open("resnet18", weights="random", seed=seed)
    once = start.adapt(4, init="random", seed=seed)
    twice = once.adapt(channels, init="random", seed=seed)
    weights = [numbers(network, "conv1.weight") for network in (start, once, twice)]
    assert all(abs(correlation(*pair)) < 0.06 for pair in itertools.combinations(weights, 2))


def test_classifiers_of_one_name_and_seed_share_no_rows() -> None:
    start = rs.open("resnet18", weights="random", seed=1)
    once = start.heads([40], seed=1)
    several = once.adapt(1).adapt(3).heads([40, 40], names=["lesion", "organ"], seed=1)
    again = several.remove(layers=["heads"]).heads([40, 40], names=["lesion", "organ"], seed=1)
    singles = [start, once, once.heads([40], seed=1), once.adapt(1).heads([40], seed=1)]
    layers = [numbers(network, "fc.weight") for network in singles]
    layers += [
        numbers(network, f"heads.{head}.fc.weight") for network in (several, again) for head in ("lesion", "organ")
    ]
    rows = [row for layer in layers for row in layer.view(-1, 512)]
    assert len({tuple(row.tolist()) for row in rows}) == len(rows)
    assert all(abs(correlation(*pair)) < 0.03 for pair in itertools.combinations(layers, 2))


def test_a_stream_is_named_after_operation_place_and_tensor(tmp_path: Path) -> None:
    def heads(network: rs.Network) -> Mapping[str, str]:
        names = ["lesion", "organ"]
        return {name: stream for name, stream in drawn(network.heads([3, 5], names=names)).items() if "fc" in name}

    start = rs.open("resnet18", weights="random")
    chain = start.adapt(1)
    by_file = rs.open(chain.save(tmp_path / "step.safetensors"))
    expected = {
        f"heads.{head}.fc.{kind}": f"heads 2/heads.{head}.fc.{kind}"
        for head in ("lesion", "organ")
        for kind in ("weight", "bias")
    }
    assert heads(chain) == heads(by_file) == expected
    assert drawn(chain.adapt(2, init="random"))["conv1.weight"] == "adapt 2/conv1.weight"
    assert drawn(start)["conv1.weight"] == "conv1.weight"
