"""The formulas agree with the operation that writes them, and with timm."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from timm.models._manipulate import adapt_input_conv

from resnet_surgeon.verification.formulas import parse

Init = Literal["mean", "scaled", "repeat"]
TEXTS: dict[Init, str] = {
    "mean": "mean over the 3 input channels, for each of {new}",
    "scaled": "sum over the 3 input channels / {new}, for each of {new}",
    "repeat": "the 3 input channels in turn, times 3/{new}",
}


def weight() -> torch.Tensor:
    return torch.randn(8, 3, 7, 7, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", TEXTS)
@pytest.mark.parametrize("new", [1, 2, 3, 7])
def test_the_mixing_of_channels_is_the_formula(kind: Init, new: int) -> None:
    """The new convolution of an image is the old convolution of the mixed image."""
    formula = parse(TEXTS[kind].format(new=new))
    assert formula
    image = torch.randn(2, new, 32, 32, generator=torch.Generator().manual_seed(1))
    mixed = formula.mix(image)
    ours = torch.nn.functional.conv2d(image, formula.apply(weight()))
    torch.testing.assert_close(ours, torch.nn.functional.conv2d(mixed, weight()), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("new", [1, 2, 4, 7])
def test_repeat_is_timms(new: int) -> None:
    formula = parse(TEXTS["repeat"].format(new=new))
    assert formula
    assert torch.equal(formula.apply(weight()), adapt_input_conv(new, weight()))


@pytest.mark.parametrize("new", [1, 4])
def test_mean_is_torchs(new: int) -> None:
    formula = parse(TEXTS["mean"].format(new=new))
    assert formula
    assert torch.equal(formula.apply(weight()), weight().mean(1, keepdim=True).repeat(1, new, 1, 1))


@pytest.mark.parametrize(
    "text", ["", "mean over the 0 input channels, for each of 1", "mean over the 03 input channels, for each of 1"]
)
def test_no_other_formula_is_known(text: str) -> None:
    assert parse(text) is None
