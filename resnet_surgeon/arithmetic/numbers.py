"""The numbers of small floating point tensors, without numpy: importing it takes longer than copying a ResNet-50.

Every `array` operation rounds once, to float32 for typecode "f", to float64 for "d". Between float64 arithmetic and
float32 results that second rounding is harmless for + - * / (Figueroa 1995), so the results are those of float32
arithmetic to the bit.
"""

from __future__ import annotations

import struct
import sys
from array import array
from typing import TypeVar

from resnet_surgeon.errors import CheckpointError

T = TypeVar("T", int, float)
SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}  # bytes of a number, of the dtypes that arithmetic is done on

_FLOAT16_OVERFLOW = 65520.0  # from here on float16 rounds to infinity


def decode(data: bytes, dtype: str) -> array[float]:
    """The numbers in float32 (typecode "f"), or float64 ("d") for F64. `data` is little-endian.

    Raises CheckpointError for a dtype that has no arithmetic here (integers, 8-bit floats).
    """
    if dtype == "F16":
        return array("f", struct.unpack(f"<{len(data) // 2}e", data))
    if dtype == "BF16":  # the upper half of a float32
        wide = bytearray(2 * len(data))
        wide[2::4], wide[3::4] = data[0::2], data[1::2]
        data, dtype = bytes(wide), "F32"
    if dtype not in ("F32", "F64"):
        raise CheckpointError(f"no arithmetic is done on dtype {dtype}")
    return _little_endian(array("f" if dtype == "F32" else "d", data))


def encode(numbers: array[float], dtype: str) -> bytes:
    """The numbers as `dtype`, little-endian, rounded to nearest even; beyond the largest they are infinite."""
    if dtype == "F16":
        finite = (
            number if abs(number) < _FLOAT16_OVERFLOW or number != number else number * float("inf")
            for number in numbers
        )
        return struct.pack(f"<{len(numbers)}e", *finite)
    if dtype == "BF16":
        bits = array("I", array("f", numbers).tobytes())
        return _little_endian(array("H", (_upper_half(word) for word in bits))).tobytes()
    return _little_endian(array("f" if dtype == "F32" else "d", numbers)).tobytes()


def _upper_half(bits: int) -> int:
    """A float32's bits rounded to bfloat16's, to nearest even; not-a-number stays so."""
    if bits & 0x7FFFFFFF > 0x7F800000:
        return bits >> 16 | 0x40
    return bits + 0x7FFF + (bits >> 16 & 1) >> 16


def _little_endian(numbers: array[T]) -> array[T]:
    """The array with its bytes swapped where this machine is big-endian: its own inverse."""
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers
