"""Floating point numbers decode, compute and encode as torch's do, to the bit."""

from __future__ import annotations

import operator
import struct
from array import array

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from resnet_surgeon.arithmetic.numbers import decode, encode
from resnet_surgeon.errors import CheckpointError

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def raw(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().view(torch.uint8).numpy().tobytes()


def same(left: torch.Tensor, right: torch.Tensor) -> bool:
    """Equal to the bit, or both not a number."""
    return bool(((left == right) & (left.signbit() == right.signbit()) | (left.isnan() & right.isnan())).all())


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_every_half_precision_number_survives(dtype: str) -> None:
    every = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(DTYPES[dtype])
    back = torch.frombuffer(bytearray(encode(decode(raw(every), dtype), dtype)), dtype=DTYPES[dtype])
    assert same(back, every)


@pytest.mark.parametrize("dtype", DTYPES)
@given(numbers=st.lists(st.floats(width=32), min_size=1, max_size=20))
def test_encoding_rounds_as_torch_does(dtype: str, numbers: list[float]) -> None:
    expected = torch.tensor(numbers, dtype=torch.float32).to(DTYPES[dtype])
    ours = torch.frombuffer(bytearray(encode(array("f", numbers), dtype)), dtype=DTYPES[dtype])
    assert same(ours, expected)


@pytest.mark.parametrize("bits", [0x7F800001, 0xFF800001, 0x7F80FFFF, 0x7FC00000])
def test_what_is_not_a_number_stays_so_wherever_its_payload_is(bits: int) -> None:
    """bfloat16 keeps the upper half of a float32: without care a payload in the lower half would leave infinity."""
    number = array("f", struct.pack("=I", bits))
    assert decode(encode(number, "BF16"), "BF16")[0] != decode(encode(number, "BF16"), "BF16")[0]


@pytest.mark.parametrize("operation", [operator.add, operator.mul, operator.truediv])
@given(st.floats(width=32), st.floats(width=32))
def test_arithmetic_on_arrays_is_float32_arithmetic(operation: operator.Callable, left: float, right: float) -> None:  # type: ignore[name-defined]
    if operation is operator.truediv and right == 0:
        return
    expected = operation(torch.tensor([left]), torch.tensor([right]))
    assert same(torch.tensor(array("f", [operation(left, right)])), expected)


@pytest.mark.parametrize("dtype", ["I64", "U8", "F8_E4M3", "C64"])
def test_other_dtypes_have_no_arithmetic(dtype: str) -> None:
    with pytest.raises(CheckpointError, match=dtype):
        decode(bytes(8), dtype)
