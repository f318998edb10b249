"""What source and operations imply for a manifest is what the operations write into it; each other word is named."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torchvision.models.resnet import Bottleneck

import resnet_surgeon as rs
from resnet_surgeon.manifest import from_json
from resnet_surgeon.network import Network
from resnet_surgeon.verification.implied import contradictions
from tests.conftest import small_network
from tests.verification.draws import lies, published_as


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Network]]:
    """resnet50's published file, as far as the catalogue can tell, and another one."""
    folder = tmp_path_factory.mktemp("sources")
    for name, classes in (("resnet50-11ad3fa6.pth", 1000), ("another.pth", 5)):
        torch.save(small_network(Bottleneck, classes=classes).state_dict(), folder / name)
    with published_as(folder / "resnet50-11ad3fa6.pth"):
        yield {path.stem.partition("-")[0]: rs.open(path) for path in folder.iterdir()}


def known(network: Network) -> Network:
    """With statistics for its channels, whatever they were."""
    return network.adapt(channels="R,G,B", mean=[0.1, 0.2, 0.3], std=[0.4, 0.5, 0.6])


TWO: list[dict[str, Any]] = [
    {"name": "a", "classes": 2, "hidden": [3], "dropout": 0.5, "pool": "max"},
    {"name": "b", "labels": ["x", "y"]},
]
CHAINS: dict[str, Callable[[Network], Network]] = {
    "nothing": lambda network: network,
    "the mean of all channels": lambda network: network.adapt(2),
    "channels in turn": lambda network: network.adapt(5, init="repeat"),
    "channels and their statistics": lambda network: network.adapt(1, mean=[0.5], std=[0.25]),
    "channels by name": lambda network: known(network).adapt(
        channels="B,N=G,W=0.25*R+0.75*B,M=mean,S=R+G+B", mean={"N": 0.3}, std={"2": 0.2}
    ),
    "channels from nothing": lambda network: network.adapt(channels="R,D=zero,X=random"),
    "channels from nothing, with statistics": lambda network: known(network).adapt(
        channels="R,D=zero,X=-1*R", mean={"D": 0.1, "X": 0.2}, std={"D": 0.3, "X": 0.4}
    ),
    "channels of named ones": lambda network: known(network).adapt(channels="R,N=B").adapt(channels="N,R=0.5*N+0.5*R"),
    "channels by number": lambda network: known(network).adapt(2).adapt(channels="1,K=0"),
    "statistics in conv1": lambda network: known(network).adapt(channels="R,G", fold_normalization=True),
    "no maxpool": lambda network: network.remove(layers=["maxpool"]),
    "no classifier": lambda network: network.remove(layers=["fc"]),
    "heads": lambda network: network.heads([2, 3]),
    "heads with layers": lambda network: network.heads(head=TWO),
    "a single head with a pooling": lambda network: network.heads(head=[{"name": "a", "classes": 2, "pool": "max"}]),
    "a head beside another": lambda network: network.heads(head=TWO[:1]).heads(head=TWO[1:], add=True),
    "a head of two that is gone": lambda network: network.heads(head=TWO).remove(layers=["heads.a"]),
    "heads in the place of others": lambda network: network.heads(head=TWO).remove(layers=["heads"]).heads([4]),
    "another stem": lambda network: network.stem(3, 1, "none"),
    "caffe's maxpool": lambda network: network.stem(5, maxpool="caffe"),
    "dilation to 16": lambda network: network.dilate(16),
    "dilation to 8": lambda network: network.dilate(8),
    "dilation to 4": lambda network: network.dilate(4),
    "dilation taken back": lambda network: network.dilate(8).dilate(32),
    "dilation behind another stem": lambda network: network.stem(3, 1).dilate(8),
    "dilation without maxpool": lambda network: network.remove(layers=["maxpool"]).dilate(8),
    "maps": lambda network: network.features(["layer1", "layer3"], ["low", "high"]),
    "heads after maps": lambda network: network.features(["layer1"], ["low"]).heads([2]),
}  # fmt: skip


# What a published file has, and others have not: statistics of its channels, and categories.
OF_PUBLISHED = ["nothing", "the mean of all channels", "channels in turn", "heads", "maps"]


@pytest.mark.parametrize(
    ("source", "chain"), [*(("another", chain) for chain in CHAINS), *(("resnet50", chain) for chain in OF_PUBLISHED)]
)
def test_what_operations_write_is_what_they_imply_and_every_lie_is_named(
    source: str, chain: str, sources: dict[str, Network]
) -> None:
    text = CHAINS[chain](sources[source]).manifest().to_json()
    assert [*contradictions(from_json(text))] == []
    for lie in lies(json.loads(text)):
        document = json.loads(text)
        lie.tell(document)
        assert lie.word in [*contradictions(from_json(json.dumps(document)))], lie
