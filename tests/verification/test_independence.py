"""Heads are independent only if neither storage nor gradient leads from one to another: each is looked at by itself."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

import resnet_surgeon as rs
from resnet_surgeon.verification import independence
from resnet_surgeon.verification.proof import Check


@pytest.fixture
def module() -> rs.ResNet:
    architecture = rs.open("resnet18", weights="random").heads([2, 3], names=["a", "b"]).architecture
    return rs.ResNet(architecture).eval()


def check(module: rs.ResNet) -> Check:
    (found,) = independence.checks(module, module.architecture.branches, torch.float32)
    return found


def head(module: rs.ResNet, name: str) -> nn.Module:
    return module.get_submodule(f"heads.{name}")


def share_a_buffer(module: rs.ResNet) -> None:
    """Through which no gradient flows."""
    ours, theirs = (head(module, name).get_submodule("layer4.0.bn1") for name in "ab")
    ours.register_buffer("running_mean", theirs.get_buffer("running_mean"))


def lean_on_the_other(module: rs.ResNet) -> None:
    """With storage of its own."""
    weight = head(module, "b").get_parameter("fc.weight")
    head(module, "a").register_forward_hook(lambda _, __, output: output + weight.sum())


def train_nothing(module: rs.ResNet) -> None:
    head(module, "a").register_forward_hook(lambda _, __, output: output.detach().requires_grad_())


def test_sound_heads_are_independent(module: rs.ResNet) -> None:
    assert check(module).outcome == "proven"


@pytest.mark.parametrize(
    ("fault", "finding", "heads"),
    [
        (share_a_buffer, "1 of 154 tensors share another's storage", ()),
        (lean_on_the_other, "no storage is shared, gradients cross from `a`", ("a",)),
        (train_nothing, "no storage is shared, gradients cross from `a`", ("a",)),
    ],
    ids=["a buffer", "a gradient", "no gradient"],
)
def test_what_leads_from_one_to_another_is_found(
    fault: Callable[[rs.ResNet], None], finding: str, heads: tuple[str, ...], module: rs.ResNet
) -> None:
    fault(module)
    assert check(module) == Check("independence", "failed", finding, heads)
