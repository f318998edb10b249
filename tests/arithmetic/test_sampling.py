"""Random numbers follow their law, and come out the same for ever."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from resnet_surgeon.arithmetic.laws import Constant, Law, Normal, Uniform
from resnet_surgeon.arithmetic.sampling import sample


def draw(law: Law, count: int, dtype: str = "F32", seed: int = 0, stream: str = "conv1.weight") -> bytes:
    return b"".join(sample(law, count, dtype, seed, stream))


def numbers(law: Law, count: int, seed: int = 0, stream: str = "conv1.weight") -> NDArray[np.float64]:
    return np.frombuffer(draw(law, count, "F64", seed, stream), "<f8")


@pytest.mark.parametrize(
    ("law", "digest"),
    [
        (Normal(0.5), "e7674286044d494a"),
        (Uniform(0.5), "f63ecab677ff2a82"),
    ],
)
def test_the_numbers_of_a_seed_never_change(law: Law, digest: str) -> None:
    assert hashlib.sha256(draw(law, 100_003)).hexdigest()[:16] == digest


def test_normal_numbers_are_normal() -> None:
    drawn = np.sort(numbers(Normal(2.0), 400_000)) / 2
    # Kolmogorov-Smirnov against torch's normal distribution function, at the 0.1 % level.
    theory = torch.special.ndtr(torch.from_numpy(drawn.copy())).numpy()
    steps = np.arange(1, len(drawn) + 1) / len(drawn)
    assert np.abs(theory - steps).max() < 1.95 / len(drawn) ** 0.5
    assert abs(drawn[-1]) > 4


def test_the_quantiles_are_torchs() -> None:
    from resnet_surgeon.arithmetic.sampling import _normal_quantile

    p = np.concatenate([np.linspace(1e-6, 1 - 1e-6, 100_001), [2.0**-33, 1 - 2.0**-33]])
    assert np.allclose(_normal_quantile(p), torch.special.ndtri(torch.from_numpy(p)).numpy(), rtol=1e-12, atol=1e-12)


def test_uniform_numbers_are_uniform_and_in_bounds() -> None:
    drawn = np.sort(numbers(Uniform(0.25), 400_000))
    assert -0.25 <= drawn[0] < -0.2499
    assert 0.2499 < drawn[-1] < 0.25
    steps = np.arange(1, len(drawn) + 1) / len(drawn)
    assert np.abs((drawn + 0.25) * 2 - steps).max() < 1.95 / len(drawn) ** 0.5


def test_seeds_and_streams_are_independent() -> None:
    draws = [numbers(Normal(1.0), 50_000, seed, stream) for seed, stream in [(0, "a"), (1, "a"), (0, "b"), (10, "a")]]
    correlation = np.abs(np.corrcoef(draws) - np.eye(len(draws)))
    assert correlation.max() < 0.02


def test_a_longer_draw_begins_with_the_shorter_one() -> None:
    assert np.array_equal(numbers(Normal(1.0), 100_000)[:1001], numbers(Normal(1.0), 1001))


@pytest.mark.parametrize(
    ("dtype", "torch_dtype"), [("F32", torch.float32), ("F16", torch.float16), ("BF16", torch.bfloat16)]
)
@pytest.mark.parametrize("law", [Normal(1.0), Uniform(0.1)], ids=str)
def test_numbers_are_rounded_to_the_dtype_as_torch_rounds(law: Law, dtype: str, torch_dtype: torch.dtype) -> None:
    wide = torch.frombuffer(bytearray(draw(law, 10_001, "F64")), dtype=torch.float64)
    narrow = torch.frombuffer(bytearray(draw(law, 10_001, dtype)), dtype=torch_dtype)
    expected = (
        wide.float().to(torch_dtype)
        if dtype == "BF16"
        else torch.from_numpy(wide.numpy().astype("f2" if dtype == "F16" else "f4"))
    )
    assert torch.equal(narrow, expected)


def test_constants() -> None:
    assert draw(Constant(1.0), 3) == np.ones(3, "<f4").tobytes()
    assert draw(Constant(0.0), 1, "I64") == bytes(8)
