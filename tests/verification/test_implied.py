"""What source and operations imply for a manifest is what the operations write into it; each other word is named."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision.models.resnet import Bottleneck

import resnet_surgeon as rs
from resnet_surgeon.architecture.facts import KINDS
from resnet_surgeon.manifest import from_json
from resnet_surgeon.network import Network
from resnet_surgeon.verification.implied import contradictions
from tests.fixtures import small_network
from tests.verification.draws import lies, published_as


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sources")


@pytest.fixture(scope="module")
def sources(folder: Path) -> Iterator[dict[str, Network]]:
    """resnet50's published file, as far as the catalogue can tell, and another one."""
    for name, classes in (("resnet50-11ad3fa6.pth", 1000), ("another.pth", 5)):
        torch.save(small_network(Bottleneck, classes=classes).state_dict(), folder / name)
    with published_as(folder / "resnet50-11ad3fa6.pth"):
        made = {path.stem.partition("-")[0]: rs.open(path) for path in folder.iterdir()}
        two = made["another"].heads(head=TWO).save(folder / "two.safetensors")
        labelled = made["another"].heads(head=LABELLED).save(folder / "labelled.safetensors")
        yield {**made, "two": rs.open(two), "labelled": rs.open(labelled)}


def known(network: Network) -> Network:
    """With statistics for its channels, whatever they were."""
    return network.adapt(channels="R,G,B", mean=[0.1, 0.2, 0.3], std=[0.4, 0.5, 0.6])


TWO: list[dict[str, Any]] = [
    {"name": "a", "classes": 2, "hidden": [3], "dropout": 0.5, "pool": "max"},
    {"name": "b", "labels": ["x", "y"]},
]
LABELLED: list[dict[str, Any]] = [{"name": "fc", "labels": ["x", "y"]}]
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
    "a channel turned round": lambda network: known(network).adapt(channels="R,X=-1*R"),
    "no last layers": lambda network: network.remove(last=3),
    "a pooling that is left": lambda network: network.heads(
        head=[{"name": "fc", "classes": 2, "pool": "max"}]
    ).remove(layers=["fc"]),
    "no maxpool": lambda network: network.remove(layers=["maxpool"]),
    "no classifier": lambda network: network.remove(layers=["fc"]),
    "heads": lambda network: network.heads([2, 3]),
    "heads with layers": lambda network: network.heads(head=TWO),
    "a single head with a pooling": lambda network: network.heads(head=[{"name": "a", "classes": 2, "pool": "max"}]),
    "a head beside another": lambda network: network.heads(head=TWO[:1]).heads(head=TWO[1:], add=True),
    "a head of two that is gone": lambda network: network.heads(head=TWO).remove(layers=["heads.a"]),
    "a layer less before heads": lambda network: network.heads(head=TWO).remove(layers=["maxpool"]),
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
    agrees_and_names_every_lie(CHAINS[chain](sources[source]))


def agrees_and_names_every_lie(network: Network) -> None:
    text = network.manifest().to_json()
    assert [*contradictions(from_json(text))] == []
    for lie in lies(json.loads(text)):
        document = json.loads(text)
        lie.tell(document)
        assert lie.word in [*contradictions(from_json(json.dumps(document)))], lie


@pytest.mark.usefixtures("sources")
@pytest.mark.parametrize("kind", KINDS)
def test_what_was_assumed_of_the_source_is_implied_too(kind: str, folder: Path) -> None:
    agrees_and_names_every_lie(rs.open(folder / "another.pth", assume=kind))


def test_the_activation_of_a_classifier_is_the_one_that_was_stated() -> None:
    buffer = io.BytesIO()
    model = small_network(Bottleneck)
    model.fc = torch.nn.Sequential(torch.nn.Linear(2048, 8), torch.nn.GELU(), torch.nn.Linear(8, 3))
    torch.save(model.state_dict(), buffer)
    agrees_and_names_every_lie(rs.open(buffer.getvalue(), assume="activation=gelu"))


def test_of_fewer_stages_there_are_fewer_strides() -> None:
    buffer = io.BytesIO()
    state = small_network(Bottleneck).state_dict()
    torch.save({n: tensor for n, tensor in state.items() if n.split(".")[0] not in ("layer4", "fc")}, buffer)
    agrees_and_names_every_lie(rs.open(buffer.getvalue()))


OTHER_FACTS = {
    "bottleneck_stride": "conv1", "strides": "1-2-2-1", "stem_stride": "1", "maxpool": "none", "dilated": "layer4",
    "eps": "0.001",
}  # fmt: skip


@pytest.mark.parametrize("fact", OTHER_FACTS)
@pytest.mark.parametrize(
    ("source", "said_by"), [("another", "default"), ("resnet50", "user")], ids=["said by nobody", "of a published file"]
)
def test_a_fact_that_nobody_stated_or_can_state_is_named(
    source: str, said_by: str, fact: str, sources: dict[str, Network]
) -> None:
    document = json.loads(sources[source].manifest().to_json())
    (index,) = [index for index, stated in enumerate(document["facts"]) if stated["name"] == fact]
    document["facts"][index] |= {"value": OTHER_FACTS[fact], "said_by": said_by}
    assert f"facts[{index}]" in [*contradictions(from_json(json.dumps(document)))]


def test_a_fact_that_is_stated_twice_is_named(sources: dict[str, Network]) -> None:
    document = json.loads(sources["another"].manifest().to_json())
    document["facts"].append(document["facts"][0])
    assert "facts[0]" in [*contradictions(from_json(json.dumps(document)))]


GRAFTS: dict[str, Callable[[Mapping[str, Network]], Network]] = {
    "a classifier": lambda of: of["resnet50"].graft(of["another"], ["fc"]),
    "a classifier after maps": lambda of: of["resnet50"].features(["layer4"], ["x"]).graft(of["another"], ["fc"]),
    "a classifier as a head": lambda of: of["resnet50"].graft(of["another"], ["layer4", "fc"], head="b", own_as="a"),
    "a head beside others": lambda of: of["two"].graft(of["another"], ["layer4", "fc"], head="c"),
    "a head in the place of another": lambda of: of["two"].graft(of["another"], ["layer4", "fc"], head="a"),
    "a head of several": lambda of: of["another"].remove(layers=["fc"]).graft(of["two"], ["heads.a"]),
    "a head where there was none": lambda of: of["another"].remove(layers=["fc"]).graft(
        of["labelled"], ["fc"], head="a"
    ),
    "a stage that was gone": lambda of: of["another"].remove(layers=["layer4", "avgpool", "fc"]).graft(
        of["resnet50"], ["layer4"]
    ),
    "a classifier that becomes a head": lambda of: of["another"].graft(of["labelled"], ["fc"]).graft(
        of["resnet50"], ["layer4", "fc"], head="b", own_as="a"
    ),
}  # fmt: skip


@pytest.mark.parametrize("chain", GRAFTS)
def test_what_is_another_networks_is_its_own_word(chain: str, sources: dict[str, Network]) -> None:
    assert [*contradictions(GRAFTS[chain](sources).manifest())] == []


def test_of_what_0_1_0_wrote_the_packing_says_that_stages_are_dilated(sources: dict[str, Network]) -> None:
    document = json.loads(sources["another"].dilate(8).manifest().to_json())
    document |= {"operations": [], "facts": []}
    wrong = [*contradictions(from_json(json.dumps(document)))]
    assert "architecture.stages[2].stride" in wrong
    kind = "torchvision segmentation"
    document["source"]["wrapping"] = {"kind": kind, "key": None, "prefix": "", "left_out": [], "filled": []}
    assert [*contradictions(from_json(json.dumps(document)))] == []
