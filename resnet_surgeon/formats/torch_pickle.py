"""Writes the pickle of a state_dict as torch.save does: names, and tensors that are views of numbered storages.

The opcodes are our own, so that the bytes are the same whatever Python writes them. Knows no archive.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping

from resnet_surgeon.errors import CheckpointError, printable
from resnet_surgeon.formats.tensors import LazyTensor

# torch's storages by the dtypes of safetensors; those of other dtypes have none of their own.
STORAGES = {
    "F64": "DoubleStorage", "F32": "FloatStorage", "F16": "HalfStorage", "BF16": "BFloat16Storage",
    "I64": "LongStorage", "I32": "IntStorage", "I16": "ShortStorage", "I8": "CharStorage", "U8": "ByteStorage",
    "BOOL": "BoolStorage", "C64": "ComplexFloatStorage",
}  # fmt: skip

_NO_HOOKS = b"ccollections\nOrderedDict\n)R"


def state_dict(tensors: Mapping[str, LazyTensor]) -> bytes:
    """The pickle of an OrderedDict of contiguous tensors, each the whole of the storage of its number in their order.

    Raises CheckpointError for a dtype for which torch has no storage.
    """
    items = (_text(name) + _tensor(name, tensor, number) for number, (name, tensor) in enumerate(tensors.items()))
    return b"\x80\x02" + _NO_HOOKS + b"(" + b"".join(items) + b"u."


def _tensor(name: str, tensor: LazyTensor, number: int) -> bytes:
    """A call of `_rebuild_tensor_v2`: storage, offset, size, stride, requires_grad, hooks."""
    if tensor.dtype not in STORAGES:
        raise CheckpointError(
            f"torch.save has no storage for tensor {printable(name)} of dtype {tensor.dtype}",
            hint="end the output's name in .safetensors",
        )
    *strides, count = _strides(tensor.shape)
    storage = b"(" + _text("storage") + f"ctorch\n{STORAGES[tensor.dtype]}\n".encode() + _text(f"{number}")
    storage += _text("cpu") + _integer(count) + b"tQ"
    arguments = b"(" + storage + _integer(0) + _integers(tensor.shape) + _integers(strides[::-1]) + b"\x89" + _NO_HOOKS
    return b"ctorch._utils\n_rebuild_tensor_v2\n" + arguments + b"tR"


def _strides(shape: tuple[int, ...]) -> Iterator[int]:
    """The strides of a contiguous tensor from its last axis to its first, as torch counts them; then its elements."""
    stride = 1
    for size in reversed(shape):
        yield stride
        stride *= max(size, 1)
    yield 0 if 0 in shape else stride


def _integers(numbers: tuple[int, ...] | list[int]) -> bytes:
    return b"(" + b"".join(map(_integer, numbers)) + b"t"


def _integer(number: int) -> bytes:
    if number < 1 << 8:
        return b"K" + struct.pack("<B", number)
    if number < 1 << 31:
        return b"J" + struct.pack("<i", number)
    return b"\x8a\x08" + struct.pack("<q", number)


def _text(text: str) -> bytes:
    data = text.encode()
    return b"X" + struct.pack("<I", len(data)) + data
