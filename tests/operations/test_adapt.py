"""adapt computes conv1 as torch and timm do, to the bit, and leaves everything else alone."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from timm.models._manipulate import adapt_input_conv
from torch.nn import functional
from torchvision.models import ResNet

import resnet_surgeon as rs
from resnet_surgeon.architecture.preprocessing import Preprocessing
from resnet_surgeon.architecture.variants import VARIANTS
from resnet_surgeon.errors import OperationError, UsageError
from resnet_surgeon.formats.files import OpenFile
from resnet_surgeon.formats.tensors import Stored, chunks, content
from resnet_surgeon.operations.adapt import Adapt, Init
from resnet_surgeon.operations.checkpoint import Checkpoint
from tests.fixtures import Run, images

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def weight_of(channels: int) -> torch.Tensor:
    return torch.randn(64, channels, 7, 7, generator=torch.Generator().manual_seed(channels))


def adapted(weight: torch.Tensor, dtype: str, operation: Adapt) -> torch.Tensor:
    """conv1.weight [64, C, 7, 7] after the operation."""
    data = weight.contiguous().view(torch.uint8).numpy().tobytes()
    stored = Stored(dtype, tuple(weight.shape), OpenFile.spooled(data, "test"), 0)
    after = operation.apply(Checkpoint(VARIANTS["resnet18"], {"conv1.weight": stored})).tensors["conv1.weight"]
    return torch.frombuffer(bytearray(content(after)), dtype=weight.dtype).reshape(after.shape)


def mean(weight: torch.Tensor, in_channels: int) -> torch.Tensor:
    return weight.mean(1, keepdim=True).expand(-1, in_channels, -1, -1)


def scaled(weight: torch.Tensor, in_channels: int) -> torch.Tensor:
    return (weight.sum(1, keepdim=True) / in_channels).expand(-1, in_channels, -1, -1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("in_channels", [1, 2, 3, 4, 13])
@pytest.mark.parametrize(("init", "witness"), [("mean", mean), ("scaled", scaled)])
def test_mean_and_scaled_are_torchs(
    init: str, witness: Callable[[torch.Tensor, int], torch.Tensor], in_channels: int, dtype: str
) -> None:
    for channels in (1, 2, 3, 4):
        weight = weight_of(channels).to(DTYPES[dtype])
        wide = weight if dtype == "F64" else weight.float()
        expected = witness(wide, in_channels).to(weight.dtype)
        assert torch.equal(adapted(weight, dtype, Adapt(in_channels, init)), expected)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("in_channels", [1, 2, 3, 4, 5, 7, 13])
def test_repeat_is_timms(in_channels: int, dtype: str) -> None:
    for channels in (1, 2, 3, 4):
        weight = weight_of(channels).to(DTYPES[dtype])
        expected = adapt_input_conv(in_channels, weight.clone(), base_chans=channels)
        assert torch.equal(adapted(weight, dtype, Adapt(in_channels, "repeat")), expected)


@pytest.mark.parametrize("channels", [5, 8, 13])
def test_sums_of_many_channels_agree_within_rounding(channels: int) -> None:
    """torch adds more than four channels in an order that depends on the processor: last bits may differ."""
    weight = weight_of(channels)
    torch.testing.assert_close(adapted(weight, "F32", Adapt(1, "repeat")), adapt_input_conv(1, weight, channels))


def test_random_is_drawn_by_torchs_law_and_comes_again_from_its_seed() -> None:
    first, again, other = (adapted(weight_of(3), "F32", Adapt(5, "random", seed=seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    bound = (5 * 49) ** -0.5
    assert 0.99 * bound < float(first.abs().max()) <= bound
    assert abs(float(first.std()) * 3**0.5 / bound - 1) < 0.02


def test_scaled_on_one_channel_is_the_original_on_gray(checkpoints: Path, basic: ResNet, tmp_path: Path) -> None:
    rs.open(checkpoints / "basic.pth").adapt(1, init="scaled").save(tmp_path / "gray.safetensors")
    gray = images(channels=1)
    with torch.no_grad():
        ours = rs.load(tmp_path / "gray.safetensors").eval()(gray)
        expected = basic(gray.expand(-1, 3, -1, -1))
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("init", ["mean", "scaled", "repeat"])
def test_an_adapted_network_can_be_adapted_again(init: Init, checkpoints: Path) -> None:
    network = rs.open(checkpoints / "basic.pth").adapt(4, init=init).adapt(2, init=init)
    assert network.tensors["conv1.weight"].shape == (64, 2, 7, 7)
    assert network.architecture.in_channels == 2


def test_repeat_to_the_same_channels_keeps_the_tensor(checkpoints: Path) -> None:
    network = rs.open(checkpoints / "basic.pth")
    assert network.adapt(3, init="repeat").tensors["conv1.weight"] is network.tensors["conv1.weight"]


def test_mean_to_the_same_channels_still_averages(checkpoints: Path) -> None:
    steps = {step.name: step for step in rs.open(checkpoints / "basic.pth").adapt(3).plan()}
    assert steps["conv1.weight"].action == "computed"
    assert steps["conv1.weight"].note == "mean over the 3 input channels, for each of 3"


RGB = Preprocessing((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 256, 224, "bilinear")


@pytest.mark.parametrize(
    ("operation", "mean", "std"),
    [
        (Adapt(1), (0.449,), (0.226,)),
        (Adapt(2, "scaled"), (0.449, 0.449), (0.226, 0.226)),
        (Adapt(4, "repeat"), (0.485, 0.456, 0.406, 0.485), (0.229, 0.224, 0.225, 0.229)),
    ],
)
def test_the_preprocessing_follows_the_channels(
    operation: Adapt, mean: tuple[float, ...], std: tuple[float, ...]
) -> None:
    stored = Stored("F32", (64, 3, 7, 7), OpenFile.spooled(bytes(64 * 3 * 49 * 4), "test"), 0)
    after = operation.apply(Checkpoint(VARIANTS["resnet18"], {"conv1.weight": stored}, RGB)).preprocessing
    assert after
    assert (after.mean, after.std) == (mean, std)


def test_nan_spreads_to_what_is_computed_from_it_and_no_further() -> None:
    weight = weight_of(3)
    weight[5, 1, 2, 3] = float("nan")
    assert torch.equal(adapted(weight, "F32", Adapt(1)).isnan(), weight.isnan().any(1, keepdim=True))


def test_gray_is_the_sum_over_the_channels_of_the_convolution() -> None:
    weight, gray = weight_of(3), images(channels=1)
    one = functional.conv2d(gray, adapted(weight, "F32", Adapt(1, "scaled")))
    torch.testing.assert_close(one, functional.conv2d(gray.expand(-1, 3, -1, -1), weight), rtol=1e-4, atol=1e-3)


LARGEST = {"F16": 60_000.0, "BF16": 3e38, "F32": 3e38, "F64": 1.5e308}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("init", ["scaled", "repeat"])
@pytest.mark.parametrize("place", [0, -1])
def test_numbers_that_would_become_infinite_are_refused(dtype: str, init: str, place: int) -> None:
    """The sum of two numbers may be beyond the largest of their dtype, wherever in the weight they are."""
    weight = torch.zeros(64, 3, 7, 7, dtype=DTYPES[dtype])
    weight[place, :2, place, place] = LARGEST[dtype]
    with pytest.raises(OperationError, match=f"the new filters would hold .* too large for {dtype}") as caught:
        adapted(weight, dtype, Adapt(1, init))  # type: ignore[arg-type]
    assert caught.value.hint == "use `--init mean`"


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_the_mean_of_large_numbers_is_one_of_them(dtype: str) -> None:
    weight = torch.full((64, 3, 7, 7), LARGEST[dtype] / 4, dtype=DTYPES[dtype])
    assert torch.equal(adapted(weight, dtype, Adapt(2)), weight[:, :2])


@pytest.mark.parametrize("dtype", ["F32", "F64"])
def test_a_mean_whose_sum_overflows_is_refused(dtype: str) -> None:
    weight = torch.full((64, 3, 7, 7), LARGEST[dtype], dtype=DTYPES[dtype])
    with pytest.raises(OperationError, match="too large"):
        adapted(weight, dtype, Adapt(1))


@pytest.mark.parametrize("init", ["mean", "scaled", "repeat"])
@pytest.mark.parametrize("odd", [torch.inf, -torch.inf, torch.nan])
def test_what_was_not_finite_before_may_stay_so(init: str, odd: float) -> None:
    weight = weight_of(3)
    weight[5, 1, 2, 3] = odd
    assert not adapted(weight, "F32", Adapt(1, init)).isfinite().all()  # type: ignore[arg-type]


def test_an_overflow_leaves_no_file_and_ends_a_stream_with_an_error(basic: ResNet, tmp_path: Path, run: Run) -> None:
    state = {
        name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in basic.state_dict().items()
    }
    state["conv1.weight"] = torch.full_like(state["conv1.weight"], 60_000.0)
    torch.save(state, tmp_path / "large.pth")
    options = ("adapt", "large.pth", "--in-ch", "1", "--init", "repeat", "-q", "-o")
    for target in ("out.safetensors", "-"):
        done = run(*options, target)
        assert (done.returncode, done.stderr.decode().splitlines()) == (
            1,
            [
                "error: mixing the input channels: the new filters would hold numbers that are too large for F16, and "
                "would be infinite",
                "hint: use `--init mean`",
            ],
        )
    assert {path.name for path in tmp_path.iterdir()} <= {"large.pth", "torch"}


@pytest.mark.parametrize(("channels", "in_channels"), [(512, 2), (3, 512)])
def test_a_huge_stem_is_adapted_filter_by_filter(channels: int, in_channels: int, tmp_path: Path) -> None:
    """Of 6.1 MiB, less than two thirds are in memory at any moment."""
    path = tmp_path / "stem"
    path.touch()
    os.truncate(path, 64 * channels * 49 * 4)
    stored = Stored("F32", (64, channels, 7, 7), OpenFile.at(path), 0)
    after = Adapt(in_channels).apply(Checkpoint(VARIANTS["resnet18"], {"conv1.weight": stored})).tensors["conv1.weight"]
    tracemalloc.start()
    try:
        size = sum(len(chunk) for chunk in chunks(after))
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()
    assert size == 64 * in_channels * 49 * 4


@pytest.mark.parametrize(
    "options",
    [
        {"in_channels": 0},
        {"in_channels": 1.0},
        {"in_channels": True},
        {"in_channels": 65_537},
        {"in_channels": 10**5000},
        {"in_channels": 1, "init": "sum"},
    ],
    ids=range(6),
)
def test_wrong_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        Adapt(**options)  # type: ignore[arg-type]
