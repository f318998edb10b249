"""In which order tensors stand in a file, and from where on, so that a file system can share their blocks with the
files that they are stored in. Pure, on the tensors' places alone: the same on every file system.

Blocks are shared where bytes have the same place within a block in both files. Nothing may stand between two tensors,
so small ones bring the next large one to its place.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence

from resnet_surgeon.dataclass import dataclass
from resnet_surgeon.formats.files import OpenFile
from resnet_surgeon.formats.safetensors import in_file_order
from resnet_surgeon.formats.tensors import BITS, LazyTensor, Stored, byte_size

BLOCK = 4096  # bytes: the block of XFS and btrfs on almost every machine
# What is tried, since a stranger's file may have any number: the longest stretches, how many of their first tensors are
# left out, how many small tensors stand between them, and of how many sizes.
_STRETCHES, _LEFT_OUT, _SMALL, _SIZES = 256, 4, 4096, 32


@dataclass(frozen=True)
class Arrangement:
    """The tensors in the order of their data, which begin at a place that leaves the second number of `start` when it
    is divided by the first.
    """

    tensors: Mapping[str, LazyTensor]
    start: tuple[int, int] = (8, 0)


@dataclass(frozen=True)
class _Stretch:
    """Tensors of a file from `offset` on, between which nothing is left out, or whole blocks are."""

    names: tuple[str, ...]
    offset: int
    size: int

    @property
    def end(self) -> int:
        return self.offset + self.size


def whole_blocks(offset: int, size: int) -> tuple[int, int]:
    """Where the whole blocks among these bytes begin, and how many bytes they are."""
    begin = -(-offset // BLOCK) * BLOCK
    return begin, max(0, (offset + size) // BLOCK * BLOCK - begin)


def starts(tensors: Mapping[str, LazyTensor]) -> dict[str, tuple[int, int]]:
    """Where tensors that have blocks to share can begin, each by itself: see `Arrangement.start`."""
    return {
        name: (BLOCK, tensor.offset % BLOCK)
        for name, tensor in tensors.items()
        if isinstance(tensor, Stored) and whole_blocks(tensor.offset, byte_size(tensor))[1]
    }


def arranged(tensors: Mapping[str, LazyTensor]) -> Arrangement:
    """The longest stretch of a source where it can be shared; after it the other stretches, as long as a few small
    tensors fill the gap to the place of one exactly; then the rest. Every tensor is aligned to its elements.
    """
    in_order = in_file_order(tensors)
    longest = sorted(_stretches(tensors), key=lambda one: -whole_blocks(one.offset, one.size)[1])
    waiting = [one for one in longest[:_STRETCHES] if _can_share(one, tensors)]
    first = next((one for one in waiting if one.offset % 8 == 0), None)
    if first is None:
        return Arrangement(in_order)
    waiting.remove(first)
    placed, end = _chained(first, waiting, in_order)
    left = in_order.keys() - {*placed}
    rest = [name for name in in_order if name in left]
    # What is not aligned behind these, such as counters of 8 bytes, stands before them.
    before = [name for name in rest if end % _itemsize(tensors[name])]
    start = first.offset - sum(byte_size(tensors[name]) for name in before)
    if start % 8:
        return Arrangement(in_order)
    behind = [name for name in rest if not end % _itemsize(tensors[name])]
    return Arrangement({name: tensors[name] for name in (*before, *placed, *behind)}, (BLOCK, start % BLOCK))


def _chained(
    first: _Stretch, waiting: list[_Stretch], tensors: Mapping[str, LazyTensor]
) -> tuple[tuple[str, ...], int]:
    """The names from the first stretch to the last that comes to its place, with those that fill the gaps, wide
    elements first; and where they end.
    """
    sizes = {name: byte_size(tensor) for name, tensor in tensors.items()}
    small = [name for name in tensors if 0 < sizes[name] < BLOCK][:_SMALL]
    bound = {*first.names, *(name for one in waiting for name in one.names)}
    placed, end = [*first.names], first.end
    while waiting:
        free = [name for name in small if name not in bound and end % _itemsize(tensors[name]) == 0]
        found = _next(waiting, end, Counter(sizes[name] for name in free), sizes)
        if found is None:
            break
        whole, tail, counts = found
        filling: list[str] = []
        for name in free:
            if counts.get(sizes[name]):
                counts[sizes[name]] -= 1
                filling.append(name)
        placed += [*filling, *tail.names]
        bound = (bound - {*whole.names}) | {*filling, *tail.names}
        waiting.remove(whole)
        end = tail.end
    return tuple(placed), end


def _stretches(tensors: Mapping[str, LazyTensor]) -> Iterator[_Stretch]:
    """The stored tensors in the order of their files; those that stand in several places of the new file, once for
    each.
    """
    numbers: dict[OpenFile, int] = {}
    copies: defaultdict[tuple[int, int], int] = defaultdict(int)
    places: list[tuple[tuple[int, int], int, str]] = []
    for name, tensor in tensors.items():
        if isinstance(tensor, Stored):
            file = numbers.setdefault(tensor.file, len(numbers))
            places.append(((copies[file, tensor.offset], file), tensor.offset, name))
            copies[file, tensor.offset] += 1
    names: list[str] = []
    within, begin, end, size = (0, 0), 0, 0, 0
    for copy, offset, name in sorted(places):
        if copy != within or (offset - end) % BLOCK:
            yield _Stretch(tuple(names), begin, size)
            names, within, begin, size = [], copy, offset, 0
        names.append(name)
        size += byte_size(tensors[name])
        end = offset + byte_size(tensors[name])
    yield _Stretch(tuple(names), begin, size)


def _can_share(stretch: _Stretch, tensors: Mapping[str, LazyTensor]) -> bool:
    """Whether it has whole blocks, and its tensors are aligned where it is."""
    offset = stretch.offset
    for name in stretch.names:
        if offset % _itemsize(tensors[name]):
            return False
        offset += byte_size(tensors[name])
    return whole_blocks(stretch.offset, stretch.size)[1] > 0


def _itemsize(tensor: LazyTensor) -> int:
    return max(1, BITS[tensor.dtype] // 8)


def _next(
    waiting: Sequence[_Stretch], end: int, free: Counter[int], sizes: Mapping[str, int]
) -> tuple[_Stretch, _Stretch, dict[int, int]] | None:
    """The stretch that can come next, the tail of it that does, and how many tensors of which size fill the gap before,
    of the `free` ones: where the fewest tensors are moved for it.
    """
    best: tuple[_Stretch, _Stretch, dict[int, int]] | None = None
    fewest = len(sizes)
    descending = sorted(free.most_common(_SIZES), reverse=True)
    for whole in waiting:
        for left_out, tail in enumerate(_tails(whole, sizes)):
            counts = _filling((tail.offset - end) % BLOCK, descending)
            if counts is not None and left_out + sum(counts.values()) < fewest:
                fewest, best = left_out + sum(counts.values()), (whole, tail, counts)
    return best


def _filling(gap: int, descending: Sequence[tuple[int, int]]) -> dict[int, int] | None:
    """How many of these sizes, of which there are so many, fill the gap, if they do. The largest that fit are taken
    first: the sizes of a ResNet's vectors divide each other.
    """
    counts: dict[int, int] = {}
    for size, count in descending:
        if size <= gap:
            counts[size] = min(gap // size, count)
            gap -= counts[size] * size
    return None if gap else counts


def _tails(stretch: _Stretch, sizes: Mapping[str, int]) -> Iterator[_Stretch]:
    """The stretch, and what is left of it without its first small tensors, which may stand elsewhere."""
    offset = stretch.offset
    for number, name in enumerate(stretch.names[: 1 + _LEFT_OUT]):
        if offset - stretch.offset >= BLOCK:
            break
        yield _Stretch(stretch.names[number:], offset, stretch.end - offset)
        offset += sizes[name]
