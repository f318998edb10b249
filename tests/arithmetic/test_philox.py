"""Few numbers are drawn without numpy, and are the same."""

from __future__ import annotations

import numpy as np
import pytest

from resnet_surgeon.arithmetic.laws import Uniform
from resnet_surgeon.arithmetic.philox import FEW, few, is_few, key
from resnet_surgeon.arithmetic.sampling import sample

LAW = Uniform(1 / 3)


@pytest.mark.parametrize("dtype", ["F64", "F32", "F16", "BF16"])
@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 5 * 2048 + 3])
def test_they_are_those_that_sampling_draws(count: int, dtype: str) -> None:
    assert few(LAW, count, dtype, 5, "fc.weight") == b"".join(sample(LAW, count, dtype, 5, "fc.weight"))


@pytest.mark.parametrize("seed", [0, -1, 2**128 - 1])
@pytest.mark.parametrize("stream", ["fc.weight", "heads 2/heads.head1.fc.weight"])
def test_they_are_numpy_s_own_generator_s_whatever_the_key(seed: int, stream: str) -> None:
    raw = np.random.Philox(key=key(seed, stream)).random_raw(50).astype("<u8").view("<u4")
    expected = ((raw >> 8) * 2.0**-23 - 1.0) * LAW.bound
    assert few(LAW, 100, "F64", seed, stream) == expected.tobytes()


@pytest.mark.parametrize(("count", "dtype", "answer"), [(FEW, "F32", True), (FEW + 1, "F32", False), (1, "I64", False)])
def test_many_numbers_and_other_kinds_are_left_to_numpy(count: int, dtype: str, answer: bool) -> None:
    assert is_few(LAW, count, dtype) is answer
