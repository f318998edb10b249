"""Tensors of any strides are gathered as torch copies them, in little memory and with few reads."""

from __future__ import annotations

import json
import math
import os
import tracemalloc
from pathlib import Path

import pytest
import safetensors
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from resnet_surgeon.formats import tensors
from resnet_surgeon.formats.files import OpenFile
from resnet_surgeon.formats.tensors import BITS, Strided, byte_size, chunks, content
from tests.formats.test_torch_zip import raw
from tests.work import Reads

DTYPES = {"U8": torch.uint8, "F16": torch.float16, "F32": torch.float32, "I64": torch.int64}


@pytest.mark.parametrize("dtype", BITS)
def test_an_element_has_the_bits_that_the_safetensors_library_gives_it(dtype: str) -> None:
    table = json.dumps({"a": {"dtype": dtype, "shape": [8], "data_offsets": [0, BITS[dtype]]}}).encode()
    file = len(table).to_bytes(8, "little") + table + bytes(BITS[dtype])
    ((name, _),) = safetensors.deserialize(file)  # type: ignore[no-untyped-call]
    assert name == "a"


def strided(view: torch.Tensor, dtype: str, swapped: bool = False) -> Strided:
    """The view, in a file with the whole of its storage."""
    whole = view.as_strided((view.untyped_storage().size() // view.element_size(),), (1,), 0)
    numbers = whole.numpy().byteswap() if swapped else whole.numpy()
    offset = int(view.storage_offset()) * view.element_size()
    file = OpenFile.spooled(numbers.tobytes(), "test")
    return Strided(dtype, tuple(view.shape), file, offset, view.stride(), swapped)


@pytest.fixture
def _small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that small tensors come in several parts, through several windows, and with gaps that are skipped."""
    for name, value in (("_PART", 64), ("_MOST_PARTS", 10**6), ("_GAP", 16), ("_WINDOW", 48)):
        monkeypatch.setattr(tensors, name, value)


@pytest.mark.usefixtures("_small_limits")
@settings(deadline=None)
@given(dtype=st.sampled_from([*DTYPES]), swapped=st.booleans(), data=st.data())
def test_any_strides_give_torchs_values(dtype: str, swapped: bool, data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.integers(1, 7), min_size=0, max_size=4))
    base = torch.arange(math.prod(sizes)).reshape(sizes).to(DTYPES[dtype])
    view = base.permute(data.draw(st.permutations(range(len(sizes)))))
    steps = [slice(data.draw(st.integers(0, size - 1)), None, data.draw(st.integers(1, 3))) for size in view.shape]
    view = view[tuple(steps)]
    assert content(strided(view, dtype, swapped)) == raw(view.clone(memory_format=torch.contiguous_format))


def zeros(shape: tuple[int, ...], strides: tuple[int, ...], path: Path) -> Strided:
    """A tensor with these strides, in a file that is one hole."""
    span = 1 + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    path.touch()
    os.truncate(path, 4 * span)
    return Strided("F32", shape, OpenFile.at(path), 0, strides, False)


LARGE = {
    "a transposed fc": ((20_000, 2048), (1, 20_000)),
    "a stem of thousands of channels in channels_last": ((64, 8192, 7, 7), (49 * 8192, 1, 7 * 8192, 8192)),
    "a stem that is turned round": ((64, 4096, 7, 7), (1, 64, 64 * 4096, 64 * 4096 * 7)),
    "rows that are longer than a part": ((4, 5_000_000), (1, 4)),
    "few numbers far apart": ((300, 100), (100_000, 1000)),
    "each number in a page of its own": ((10_000,), (4096,)),
}


@pytest.mark.parametrize(("shape", "strides"), LARGE.values(), ids=LARGE.keys())
def test_memory_and_reads_are_bounded_whatever_the_strides(
    shape: tuple[int, ...], strides: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensor = zeros(shape, strides, tmp_path / "zeros")
    reads = Reads.watched(monkeypatch)
    parts = -(-byte_size(tensor) // tensors._PART)
    tracemalloc.start()
    try:
        size = sum(len(chunk) for chunk in chunks(tensor))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert size == byte_size(tensor)
    assert peak < 32 << 20
    assert len(reads.sizes) <= 2 * parts * tensor.file.size // tensors._GAP
    assert sum(reads.sizes) <= 2 * parts * tensor.file.size
