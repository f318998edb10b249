"""A view is checked against its storage to the last number, and lies where the storage's part and its offset say."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from resnet_surgeon.errors import CheckpointError
from resnet_surgeon.formats.files import OpenFile
from resnet_surgeon.formats.pickled import Storage, View
from resnet_surgeon.formats.tensors import LazyTensor, Stored, Strided, content
from resnet_surgeon.formats.unread import Unread
from resnet_surgeon.formats.views import tensor
from tests.formats.test_torch_zip import raw

BEGIN = 12  # where the storages below begin in their file
NUMBERS = torch.arange(24, dtype=torch.float32)
FILE = OpenFile.spooled(bytes(BEGIN) + raw(NUMBERS), "test")


def made(
    shape: tuple[int, ...], strides: tuple[int, ...], offset: int = 0, part: tuple[int, int] | None = None
) -> LazyTensor | Unread:
    """A view of 24 numbers."""
    storage = Storage("F32", "0", 24, part)
    return tensor(View(storage, offset, shape, strides), "x", lambda _: Stored("F32", (24,), FILE, BEGIN), False)


def stored(
    shape: tuple[int, ...], strides: tuple[int, ...], offset: int = 0, part: tuple[int, int] | None = None
) -> LazyTensor:
    found = made(shape, strides, offset, part)
    assert not isinstance(found, Unread)
    return found


def expected(shape: tuple[int, ...], strides: tuple[int, ...], offset: int) -> bytes:
    return raw(NUMBERS.as_strided(shape, strides, offset))


@pytest.mark.parametrize(
    ("view", "kind"),
    [
        ({"shape": (24,), "strides": (1,)}, Stored),
        ({"shape": (2, 3), "strides": (3, 1), "offset": 18}, Stored),
        ({"shape": (2, 3), "strides": (20, 1), "offset": 1}, Strided),
        ({"shape": (3, 2), "strides": (1, 3), "offset": 4}, Strided),
        ({"shape": (2, 1, 3), "strides": (3, 99, 1)}, Stored),
        ({"shape": (), "strides": (), "offset": 23}, Stored),
    ],
    ids=str,
)
def test_a_view_has_the_numbers_that_torch_finds_there(view: dict[str, Any], kind: type) -> None:
    found = stored(**view)
    assert isinstance(found, kind)
    assert content(found) == expected(view["shape"], view["strides"], view.get("offset", 0))


@pytest.mark.parametrize("offset", [0, 1, 2])
@pytest.mark.parametrize(("shape", "strides"), [((2, 2), (2, 1)), ((2, 2), (1, 2))])
def test_the_offset_counts_from_the_part_of_the_storage(
    offset: int, shape: tuple[int, ...], strides: tuple[int, ...]
) -> None:
    """Until 1.4 torch saved storages that were views of others as parts of these."""
    assert content(stored(shape, strides, offset, part=(7, 6))) == expected(shape, strides, 7 + offset)


REFUSED = {
    "one number too many": {"shape": (25,), "strides": (1,)},
    "its last number just outside": {"shape": (2,), "strides": (24,)},
    "its last number just outside, by the offset": {"shape": (2,), "strides": (1,), "offset": 23},
    "its last number just outside of the part": {"shape": (2,), "strides": (4,), "offset": 1, "part": (2, 5)},
    "a part that ends behind the storage": {"shape": (1,), "strides": (1,), "part": (20, 5)},
    "a part that begins before it": {"shape": (1,), "strides": (1,), "part": (-1, 5)},
    "a part of less than nothing": {"shape": (0,), "strides": (1,), "part": (5, -1)},
    "a stride that goes back": {"shape": (2,), "strides": (-1,), "offset": 1},
    "fewer strides than sizes": {"shape": (2, 2), "strides": (1,)},
}


@pytest.mark.parametrize("view", REFUSED.values(), ids=REFUSED.keys())
def test_what_reaches_outside_is_refused(view: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match="outside of its storage of 24"):
        made(**view)


@pytest.mark.parametrize(
    ("shape", "strides"), [((2, 3), (0, 1)), ((2, 2), (1, 1)), ((3, 4), (2, 3)), ((2, 3, 2), (1, 2, 5))], ids=str
)
def test_of_strides_that_weave_or_repeat_no_tensor_is_made(shape: tuple[int, ...], strides: tuple[int, ...]) -> None:
    found = made(shape, strides)
    assert isinstance(found, Unread)
    assert "overlapping strides" in found.what


@given(order=st.permutations(range(3)), data=st.data())
def test_every_slice_of_every_permutation_is_taken(order: list[int], data: st.DataObject) -> None:
    base = NUMBERS.reshape(2, 3, 4).permute(order)
    slices = [slice(data.draw(st.integers(0, size - 1)), None, data.draw(st.integers(1, 2))) for size in base.shape]
    view = base[tuple(slices)]
    assert content(stored(tuple(view.shape), view.stride(), int(view.storage_offset()))) == raw(
        view.clone(memory_format=torch.contiguous_format)
    )
