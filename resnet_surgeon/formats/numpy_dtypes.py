"""numpy's dtypes, and the arrays of joblib whose bytes stand between a pickle's instructions. Reads no bytes."""

from __future__ import annotations

import math

from resnet_surgeon.formats.pickled import Global, Opaque
from resnet_surgeon.formats.tensors import BITS, MOST_DIMENSIONS

DTYPES = {
    "f8": "F64", "f4": "F32", "f2": "F16", "i8": "I64", "i4": "I32", "i2": "I16", "i1": "I8", "u8": "U64", "u4": "U32",
    "u2": "U16", "u1": "U8", "b1": "BOOL", "c8": "C64",
}  # fmt: skip
# What joblib has in the place of an array, and behind whose attributes the array's bytes stand.
WRAPPER = Global("joblib.numpy_pickle", "NumpyArrayWrapper")


def dtype(value: object) -> tuple[str, bool] | None:
    """The name of a numpy dtype, and whether it is big-endian; None for any but one of numbers."""
    if not isinstance(value, Opaque) or value.kind.qualified != "numpy.dtype" or not value.arguments:
        return None
    kind = value.arguments[0]
    order = value.state[1] if isinstance(value.state, tuple) and len(value.state) > 1 else "<"
    if type(kind) is not str or kind not in DTYPES or type(order) is not str or order not in ("<", ">", "|", "="):
        return None
    return DTYPES[kind], order == ">"


def is_shape(value: object) -> bool:
    """Whether it can be an array's sizes."""
    return (
        type(value) is tuple
        and len(value) <= MOST_DIMENSIONS
        and all(type(size) is int and 0 <= size < 1 << 63 for size in value)
    )


def wrapped_size(state: object) -> int | None:
    """How many bytes an array of joblib's with these attributes has; None for one of other things than numbers."""
    if not isinstance(state, dict):
        return None
    found, shape = dtype(state.get("dtype")), state.get("shape")
    if found is None or not isinstance(shape, tuple) or not is_shape(shape):
        return None
    return math.prod(shape) * BITS[found[0]] // 8
