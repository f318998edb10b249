"""Heads of several layers, and other poolings: the same numbers as timm's and torch's own modules."""

from __future__ import annotations

import warnings
from dataclasses import replace

import pytest
import torch
from timm.layers.adaptive_avgmax_pool import SelectAdaptivePool2d
from torch import nn

from resnet_surgeon.architecture.parameters import parameters
from resnet_surgeon.architecture.spec import (
    Architecture,
    Head,
    HiddenActivation,
    HiddenDropout,
    HiddenLinear,
    HiddenNorm,
    Pool,
)
from resnet_surgeon.architecture.variants import resnet
from resnet_surgeon.module import ResNet
from tests.fixtures import images

PLAIN = resnet("basic", (1, 1, 1, 1), classes=5)
HIDDEN = (HiddenNorm(), HiddenLinear(7, bias=False), HiddenActivation("gelu"), HiddenDropout(0.5))
RICH: dict[str, Architecture] = {
    "fc": replace(PLAIN, heads=(Head("fc", 5, hidden=HIDDEN, bias=False),), pool="gem"),
    "heads": replace(
        PLAIN,
        avgpool=False,
        heads=(Head("a", 2, hidden=HIDDEN, pool="gem"), Head("b", 3, pool="max"), Head("c", 1, pool="avgmax")),
    ),
}


@pytest.mark.parametrize("pool", ["avg", "max", "avgmax"])
def test_pooling_is_timms(pool: Pool) -> None:
    module = ResNet(replace(PLAIN, pool=pool, heads=())).eval()
    features = torch.randn(2, 512, 3, 4)
    assert torch.equal(module.avgpool(features), SelectAdaptivePool2d(pool_type=pool)(features))


def test_a_generalised_mean_of_exponent_one_is_the_mean_and_of_a_large_one_nearly_the_maximum() -> None:
    module = ResNet(replace(PLAIN, pool="gem", heads=())).eval()
    features = torch.rand(2, 512, 3, 4) + 0.5
    pooled = {}
    for exponent in (1.0, 3.0, 60.0):
        nn.init.constant_(module.avgpool.get_parameter("p"), exponent)
        pooled[exponent] = module.avgpool(features)
    torch.testing.assert_close(pooled[1.0], nn.functional.adaptive_avg_pool2d(features, 1))
    torch.testing.assert_close(pooled[3.0], features.pow(3).mean((2, 3), keepdim=True).pow(1 / 3))
    torch.testing.assert_close(pooled[60.0], nn.functional.adaptive_max_pool2d(features, 1), rtol=0.05, atol=0)


@pytest.mark.parametrize("name", [*RICH])
def test_a_state_dict_has_the_described_parameters_in_their_order(name: str) -> None:
    state = ResNet(RICH[name]).state_dict()
    assert [(p.name, p.shape) for p in parameters(RICH[name])] == [(n, tuple(t.shape)) for n, t in state.items()]


def test_a_head_of_several_layers_computes_what_they_compute_one_after_the_other() -> None:
    module = ResNet(RICH["fc"]).eval()
    witness = nn.Sequential(
        nn.BatchNorm1d(512), nn.Linear(512, 7, bias=False), nn.GELU(), nn.Dropout(0.5), nn.Linear(7, 5, bias=False)
    ).eval()
    witness.load_state_dict(module.fc.state_dict(), strict=True)
    features = torch.randn(4, 512)
    assert torch.equal(module.fc(features), witness(features))


@pytest.mark.parametrize("name", [*RICH])
def test_rich_heads_can_be_scripted(name: str) -> None:
    module = ResNet(RICH[name]).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch itself deprecates it
        ours, scripted = module(images()), torch.jit.script(module)(images())
    for one, other in zip(*([ours, scripted] if name == "heads" else [[ours], [scripted]]), strict=True):
        assert torch.equal(one, other)
