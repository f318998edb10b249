"""What an architecture says of its output, held against torchvision's forward pass."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch
import torchvision

from resnet_surgeon.architecture.outputs import outputs
from resnet_surgeon.architecture.parameters import parameters
from resnet_surgeon.architecture.spec import STEM, Architecture, Head, Stage
from resnet_surgeon.architecture.variants import VARIANTS
from resnet_surgeon.module import ResNet

RESNET18 = VARIANTS["resnet18"]


@cache
def torchvisions() -> torch.nn.Module:
    model: torch.nn.Module = torchvision.models.resnet18()
    return model.eval()


@pytest.mark.parametrize("size", [(224, 224), (65, 33), (1, 1), (97, 130)])
@pytest.mark.parametrize("cut", range(1, 10))
def test_output_shape_is_what_torchvision_gives(size: tuple[int, int], cut: int) -> None:
    children = list(torchvisions().children())[:-cut]
    names = RESNET18.children[:-cut]
    architecture = replace(
        RESNET18,
        stem=tuple(name for name in STEM if name in names),
        stages=tuple(stage for stage in RESNET18.stages if stage.name in names),
        avgpool="avgpool" in names,
        heads=(),
    )
    with torch.no_grad():
        expected = torch.nn.Sequential(*children).eval()(torch.zeros(1, 3, *size)).squeeze(0)
    expected = expected.flatten() if architecture.avgpool else expected
    assert [output.shape for output in outputs(architecture, *size)] == [tuple(expected.shape)]


def test_children_are_torchvisions() -> None:
    assert RESNET18.children == tuple(name for name, _ in torchvisions().named_children())


@pytest.mark.parametrize(
    "change",
    [
        {"in_channels": 0},
        {"in_channels": 65_537},
        {"heads": tuple(Head(f"h{number}", 1) for number in range(4097))},
        {"stem": ("bn1",)},
        {"stem": ("conv1",)},
        {"stages": RESNET18.stages[1:]},
        {"avgpool": False},
        {"groups": 3},
        {"heads": (Head("a", 1), Head("a", 2))},
    ],
    ids=lambda change: str(change)[:40],
)
def test_an_architecture_that_cannot_be_built_cannot_be_described(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="."):
        replace(RESNET18, **change)  # type: ignore[arg-type]


@pytest.mark.parametrize("classes", [0, 2**24 + 1])
def test_no_head_is_endless_or_empty(classes: int) -> None:
    with pytest.raises(ValueError, match="at least one class and at most 16777216"):
        Head("a", classes)


def test_no_stage_is_endless() -> None:
    with pytest.raises(ValueError, match="between"):
        Stage("layer1", 10**9, 64, 64, 64, 1)


def test_the_depth_of_heads_with_their_own_stages_is_that_of_the_network() -> None:
    owned = Architecture(
        block="basic",
        in_channels=3,
        stages=RESNET18.stages[:3],
        avgpool=False,
        heads=(Head("a", 2, RESNET18.stages[3:]), Head("b", 3, RESNET18.stages[3:])),
    )
    assert owned.depth == RESNET18.stages
    assert owned.features(owned.heads[0]) == 512


def test_a_head_that_is_left_alone_keeps_its_name() -> None:
    two = replace(RESNET18, heads=(Head("a", 2, keeps_name=True), Head("b", 3, keeps_name=True)))
    names = {parameter.name for parameter in parameters(two)}
    one = replace(two, heads=two.heads[1:])
    assert {parameter.name for parameter in parameters(one)} < names
    assert (one.classifier, one.children[-1]) == (None, "heads")
    assert [key for key in ResNet(one).state_dict() if key.startswith("heads")] == [
        "heads.b.fc.weight",
        "heads.b.fc.bias",
    ]
