"""The formulas as verify works them out: equal to what writes them, to timm and to torch, whatever the input."""

from __future__ import annotations

import pytest
import torch
from timm.models._manipulate import adapt_input_conv
from torch import Tensor, nn

from resnet_surgeon.arithmetic.formulas import (
    AreaResampled,
    Average,
    Cast,
    Combination,
    Crop,
    FoldedBias,
    FoldedInputMean,
    FoldedInputWeight,
    FoldedWeight,
    Formula,
    Mean,
    Mix,
    Mixing,
    NormalisedWeight,
    Product,
    Repeat,
    RowMeans,
    Scaled,
)
from resnet_surgeon.formats.files import OpenFile
from resnet_surgeon.formats.tensors import Computed, LazyTensor, Stored, content
from resnet_surgeon.verification import formulas

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
MIXES: dict[str, Mixing] = {
    **{f"{kind.__name__} {new}": kind(3, new) for kind in (Mean, Scaled, Repeat) for new in (1, 2, 3, 7)},
    "matrix": Mix(((1.0, 0.0, 0.0), (0.25, 0.5, -0.3), (0.0, 0.0, 0.0), (0.0, 0.0, 1.7))),
}


def weight(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("mix", MIXES)
def test_the_mixing_of_channels_is_the_formula(mix: str) -> None:
    """The new convolution of an image is the old convolution of the mixed image."""
    formula, old = MIXES[mix], weight(8, 3, 7, 7).double()
    image = weight(2, formula.new, 32, 32, seed=1).double()
    new = formulas.apply(formula, [old], torch.float64)
    ours = torch.nn.functional.conv2d(image, new)
    torch.testing.assert_close(ours, torch.nn.functional.conv2d(formulas.mixed_image(formula, image), old))
    assert float(new.abs().max()) <= formulas.gain(formula) * float(old.abs().max()) * (1 + 1e-9)


@pytest.mark.parametrize("new", [1, 2, 4, 7])
def test_repeat_is_timms(new: int) -> None:
    old = weight(8, 3, 7, 7)
    assert torch.equal(formulas.apply(Repeat(3, new), [old], torch.float32), adapt_input_conv(new, old))


@pytest.mark.parametrize("new", [1, 4])
def test_mean_is_torchs(new: int) -> None:
    old = weight(8, 3, 7, 7)
    expected = old.mean(1, keepdim=True).repeat(1, new, 1, 1)
    assert torch.equal(formulas.apply(Mean(3, new), [old], torch.float32), expected)


def stored(tensor: Tensor) -> LazyTensor:
    data = tensor.contiguous().view(torch.uint8).numpy().tobytes()
    dtype = next(name for name, kind in DTYPES.items() if kind == tensor.dtype)
    return Stored(dtype, tuple(tensor.shape), OpenFile.spooled(data, "test"), 0)


def written(formula: Formula, inputs: list[Tensor], dtype: str, shape: tuple[int, ...]) -> Tensor:
    """What the room that writes files makes of the formula."""
    computed = Computed(dtype, shape, tuple(map(stored, inputs)), formula)
    return torch.frombuffer(bytearray(content(computed)), dtype=DTYPES[dtype]).reshape(shape)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mix", MIXES)
def test_a_mix_is_written_as_it_is_proven(mix: str, dtype: str) -> None:
    formula, old = MIXES[mix], weight(8, 3, 7, 7).to(DTYPES[dtype])
    new = formulas.apply(formula, [old], old.dtype)
    assert torch.equal(written(formula, [old], dtype, (8, formula.new, 7, 7)), new)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("new", [1, 3, 5, 9])
@pytest.mark.parametrize("kind", [Crop, AreaResampled])
def test_kernels_are_resized_as_it_is_proven(kind: type[Crop | AreaResampled], new: int, dtype: str) -> None:
    formula, old = kind(7, new), weight(64, 20, 7, 7).to(DTYPES[dtype])  # more than one piece
    expected = formulas.apply(formula, [old], old.dtype)
    assert torch.equal(written(formula, [old], dtype, (64, 20, new, new)), expected)


def test_resampling_by_area_is_torchs_where_windows_do_not_overlap() -> None:
    old = weight(8, 3, 9, 9).double()
    expected = nn.functional.adaptive_avg_pool2d(old, 3) * 9
    torch.testing.assert_close(formulas.apply(AreaResampled(9, 3), [old], torch.float64), expected)


LARGE = (300, 128, 3, 3)  # more than one piece
VECTOR = LARGE[:1]
OTHERS: dict[str, tuple[Formula, list[Tensor], tuple[int, ...]]] = {
    "scaled": (Combination((0.1,)), [weight(*LARGE)], LARGE),
    "a difference": (Combination((1.0, -1.0)), [weight(*LARGE), weight(*LARGE, seed=1)], LARGE),
    "an average": (Combination((0.5, 0.5)), [weight(*LARGE), weight(*LARGE, seed=1)], LARGE),
    "a weighted mean": (Average((1.0, 3.0, 0.5)), [weight(*LARGE, seed=i) for i in range(3)], LARGE),
    "means of rows": (RowMeans(4, ((0,), (), (1, 3))), [weight(4, 6), weight(3, 6, seed=1)], (3, 6)),
    "means of numbers": (RowMeans(4, ((2,), (0, 1, 3))), [weight(4)], (2,)),
    "of two dtypes": (Combination((0.5, 0.5)), [weight(*LARGE), weight(*LARGE, seed=1).double()], LARGE),
    "product": (Product(), [weight(*LARGE), weight(*LARGE, seed=1)], LARGE),
    "cast": (Cast("F64"), [weight(*LARGE).double()], LARGE),
    "folded weight": (FoldedWeight(1e-5), [weight(*LARGE), weight(*VECTOR), weight(*VECTOR).square()], LARGE),
    "folded std": (FoldedInputWeight((0.3, 0.1, 2.0)), [weight(300, 3, 7, 7)], (300, 3, 7, 7)),
    "folded mean": (FoldedInputMean((0.3, 0.0, 0.5), (7, 7), "F32"), [weight(300), weight(300, 3, 7, 7)], (300,)),
    "mixed parts": (
        Mix(((1.0, 0.0, 0.5, 0.0), (0.0, 0.0, 0.0, 1.0), (0.0,) * 4), parts=(3, 1)),
        [weight(8, 3, 7, 7), weight(8, 1, 7, 7, seed=1)],
        (8, 3, 7, 7),
    ),
    "folded bias": (FoldedBias(1e-5), [*(weight(*VECTOR, seed=i) for i in range(3)), weight(*VECTOR).abs()], VECTOR),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", OTHERS)
def test_a_formula_is_written_as_it_is_proven(name: str, dtype: str) -> None:
    formula, inputs, shape = OTHERS[name]
    assert formulas.is_exact(formula)
    assert tuple(tuple(tensor.shape) for tensor in inputs) == formula.input_shapes(shape)
    assert torch.equal(written(formula, inputs, dtype, shape), formulas.apply(formula, inputs, DTYPES[dtype]))


def test_a_normalised_weight_is_torchs() -> None:
    layer = nn.utils.parametrizations.weight_norm(nn.Conv2d(5, 8, 3))
    parametrized = layer.parametrizations.weight
    inputs = [parametrized.original0.detach() * 3, parametrized.original1.detach()]
    expected = torch._weight_norm(inputs[1], inputs[0], 0)
    for made in (
        written(NormalisedWeight(), inputs, "F32", (8, 5, 3, 3)),
        formulas.apply(NormalisedWeight(), inputs, torch.float32),
    ):
        torch.testing.assert_close(made, expected)
    assert not formulas.is_exact(NormalisedWeight())


def test_a_folded_convolution_computes_what_both_layers_did() -> None:
    convolution, norm = nn.Conv2d(3, 8, 3, bias=False).double().eval(), nn.BatchNorm2d(8).double().eval()
    for tensor, seed in ((norm.weight, 1), (norm.bias, 2), (norm.running_mean, 3)):
        assert tensor is not None
        tensor.data.copy_(weight(8, seed=seed))
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_var.copy_(weight(8, seed=4).square() + 0.1)
    folded = nn.Conv2d(3, 8, 3).double()
    gamma, variance = norm.weight.data, norm.running_var
    new = formulas.apply(FoldedWeight(norm.eps), [convolution.weight.data, gamma, variance], torch.float64)
    bias = formulas.apply(FoldedBias(norm.eps), [gamma, norm.bias.data, norm.running_mean, variance], torch.float64)
    folded.load_state_dict({"weight": new, "bias": bias})
    image = weight(2, 3, 16, 16, seed=5).double()
    torch.testing.assert_close(folded(image), norm(convolution(image)))
