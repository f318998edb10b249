"""Facts that tensors do not show: how they are written, and that they are true of the network once applied."""

from __future__ import annotations

import pytest
import torch

from resnet_surgeon.architecture.facts import (
    KINDS,
    TORCHVISION,
    Claim,
    ContradictionError,
    Facts,
    applied,
    assumed,
    defaults,
    facts_of,
    in_words,
    merged,
    stated,
)
from resnet_surgeon.architecture.outputs import outputs
from resnet_surgeon.architecture.variants import VARIANTS, resnet
from resnet_surgeon.errors import ArchitectureError, UsageError
from resnet_surgeon.module import ResNet

RESNET50 = VARIANTS["resnet50"]


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("caffe", KINDS["caffe"]),
        ("strides=1-2-2-1, dilated=layer3-layer4", Facts(strides=(1, 2, 2, 1), dilated=("layer3", "layer4"))),
        ("dilated=none,eps=0", Facts(dilated=(), eps=0.0)),
        ("eps=1e-3,stem_stride=1,maxpool=none", Facts(eps=1e-3, stem_stride=1, maxpool="none")),
        ("reid,strides=1-2-2-1", KINDS["reid"]),
        ("dilated=1-1-1-2", Facts(dilated=("1", "1", "1", "2"))),
    ],
)
def test_facts_are_written_as_people_write_them(text: str, facts: Facts) -> None:
    assert stated(text) == facts
    assert stated(facts.items()) == facts


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("mxnet", "no kind of network is called `mxnet`"),
        ("stride=2", "there is no fact `stride`"),
        ("strides=1-2-0", "strides cannot be `1-2-0`"),
        ("eps=-1", "eps cannot be `-1`"),
        ("maxpool=identity", "maxpool cannot be `identity`"),
        ("caffe,bottleneck_stride=conv2", "bottleneck_stride cannot be both conv1 and conv2"),
        ("", "no kind of network is called ``"),
    ],
)
def test_what_is_no_fact_is_refused(text: str, reason: str) -> None:
    with pytest.raises(UsageError) as caught:
        stated(text)
    assert reason in caught.value.reason
    assert caught.value.hint


@pytest.mark.parametrize("kind", [*KINDS])
def test_what_is_said_of_a_network_is_true_of_it(kind: str) -> None:
    network = applied(KINDS[kind], RESNET50)
    assert facts_of(network).items() == {**facts_of(RESNET50).items(), **KINDS[kind].items()}


@pytest.mark.parametrize("name", [*VARIANTS])
def test_torchvisions_networks_are_the_default(name: str) -> None:
    assert applied(TORCHVISION, VARIANTS[name]) == VARIANTS[name]
    assert defaults(VARIANTS[name]) == facts_of(VARIANTS[name])


@pytest.mark.parametrize(
    ("text", "architecture", "reason"),
    [
        ("caffe", VARIANTS["resnet18"], "is about bottlenecks"),
        ("strides=1-2", RESNET50, "has 2 numbers for 4 stages"),
        ("dilated=1-1-1", RESNET50, "has 3 numbers for 4 stages"),
        ("reid,dilated=layer4", RESNET50, "layer4 has no stride to replace"),
        ("dilated=layer4", resnet("bottleneck", (1, 1, 1)), "the network has no layer4"),
    ],
    ids=["basic", "strides", "dilations", "no stride", "no stage"],
)
def test_what_cannot_be_true_of_a_network_is_refused(text: str, architecture: object, reason: str) -> None:
    with pytest.raises(ArchitectureError, match=reason):
        applied(stated(text), architecture)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [*KINDS])
@pytest.mark.parametrize("size", [(64, 64), (97, 65)])
def test_sizes_follow_the_facts(kind: str, size: tuple[int, int]) -> None:
    small = resnet("bottleneck", (1, 2, 1, 2), classes=1)
    network = applied(KINDS[kind], small)
    cut = type(network)(**{**vars(network), "heads": (), "avgpool": False})
    with torch.no_grad():
        given = ResNet(cut).eval()(torch.zeros(1, 3, *size))
    assert isinstance(given, torch.Tensor)
    assert outputs(cut, *size)[0].shape == tuple(given.shape[1:])


def test_each_fact_goes_back_to_who_said_it() -> None:
    claims = (Claim(Facts(bottleneck_stride="conv1"), "file", "its config"), Claim(Facts(eps=0.0), "user"))
    found = assumed(applied(stated("detectron2,eps=0"), RESNET50), claims)
    assert [*in_words(found)] == [
        "bottleneck_stride=conv1 (its config)",
        "strides=1-2-2-2, stem_stride=2, maxpool=torchvision, dilated=none (default)",
        "eps=0 (user)",
    ]
    assert [fact.name for fact in found if not fact.is_plain] == ["bottleneck_stride", "eps"]


def test_two_that_contradict_each_other_are_not_merged() -> None:
    with pytest.raises(ContradictionError, match="strides cannot be both 1-2-2-1 and 1-2-2-2"):
        merged(KINDS["reid"], Facts(strides=(1, 2, 2, 2)))
