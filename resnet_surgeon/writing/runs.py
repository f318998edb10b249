"""The contents of tensors as runs of bytes, of which the kernel copies those that are in a file already.

Knows tensors and descriptors; neither names nor manifests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Protocol

from resnet_surgeon.dataclass import dataclass
from resnet_surgeon.errors import CheckpointError
from resnet_surgeon.formats.files import OpenFile
from resnet_surgeon.formats.tensors import LazyTensor, Stored, byte_size, chunks, prepare
from resnet_surgeon.platform import disk, transfer
from resnet_surgeon.platform.background import Background
from resnet_surgeon.platform.signals import check_signals
from resnet_surgeon.sources.progress import Advance
from resnet_surgeon.writing.placement import BLOCK, whole_blocks

_SLICE = 1 << 24  # bytes that are copied between two looks at signals and progress


class Run(Protocol):
    """Something that writes its part of a file."""

    def write(self, descriptor: int, advance: Advance) -> None: ...


@dataclass(frozen=True)
class Copy:
    """Neighbouring stored tensors: one run of bytes, to stand at `position` of the new file."""

    position: int
    file: OpenFile
    offset: int
    size: int

    def around(self, begin: int, size: int) -> tuple[Copy, ...]:
        """What is left of it without the `size` bytes from `begin` of its file."""
        head, end = begin - self.offset, begin + size
        tail = self.offset + self.size - end
        parts = (replace(self, size=head), Copy(self.position + end - self.offset, self.file, end, tail))
        return tuple(part for part in parts if part.size)

    def ends_at(self, position: int, tensor: Stored) -> bool:
        """Whether the tensor's bytes follow, both where they are and where they go."""
        file, offset, place = self.file, self.offset + self.size, self.position + self.size
        return (file, offset, place) == (tensor.file, tensor.offset, position)

    def write(self, descriptor: int, advance: Advance) -> None:
        """Into a file."""

        def copy(done: int, count: int) -> int:
            position = self.position + done
            count = transfer.copy(self.file.descriptor, self.offset + done, descriptor, position, count)
            disk.begin_to_sync(descriptor, position, count)
            return count

        self._in_slices(copy, advance)

    def send(self, descriptor: int, advance: Advance) -> None:
        """Into a pipe."""

        def send(done: int, count: int) -> int:
            return transfer.send(self.file.descriptor, self.offset + done, descriptor, count)

        self._in_slices(send, advance)

    def send_but_for_the_end(self, descriptor: int, advance: Advance) -> bytes:
        """Sends the run but for its last byte, and returns that."""
        replace(self, size=self.size - 1).send(descriptor, advance)
        return self.file.read(self.offset + self.size - 1, 1)

    def _in_slices(self, copy: Callable[[int, int], int], advance: Advance) -> None:
        """Calls `copy` with what is done and how much to do next, until all is; it says how much it did."""
        done = 0
        while done < self.size:
            check_signals()
            count = copy(done, min(self.size - done, _SLICE))
            if count == 0:
                raise CheckpointError("the file became shorter while it was read", subject=self.file.name)
            done += count
            advance(count)


@dataclass(frozen=True)
class Make:
    """A tensor whose bytes are made here, to stand at `position` of the new file."""

    position: int
    tensor: LazyTensor

    def write(self, descriptor: int, advance: Advance) -> None:
        """Into a file."""
        position = self.position
        for chunk in chunks(self.tensor):
            check_signals()
            position = transfer.write_at(descriptor, chunk, position)
            advance(len(chunk))

    def send(self, descriptor: int, advance: Advance) -> None:
        """Into a pipe."""
        for chunk in chunks(self.tensor):
            check_signals()
            transfer.write_all(descriptor, chunk)
            advance(len(chunk))

    def send_but_for_the_end(self, descriptor: int, advance: Advance) -> bytes:
        """Sends the tensor but for its last piece, and returns that."""
        end = b""
        for chunk in chunks(self.tensor):
            check_signals()
            transfer.write_all(descriptor, end)
            advance(len(end))
            end = bytes(chunk)
        return end


def runs(placed: Iterable[tuple[int, LazyTensor]]) -> Iterator[Copy | Make]:
    """The contents of tensors with their positions, in as few runs as they come in."""
    copy: Copy | None = None
    for position, tensor in placed:
        size = byte_size(tensor)
        if isinstance(tensor, Stored) and copy and copy.ends_at(position, tensor):
            copy = replace(copy, size=copy.size + size)
        else:
            if copy:
                yield copy
            copy = Copy(position, tensor.file, tensor.offset, size) if isinstance(tensor, Stored) else None
            if copy is None:
                yield Make(position, tensor)
    if copy:
        yield copy


def share_blocks(descriptor: int, runs: Iterable[Run], advance: Advance) -> list[Run]:
    """Lets the new file have whole blocks of others, as far as they stand alike in both and the file system can; what
    it could not do for one file it is not asked again. Returns the runs that are left to write.
    """
    left: list[Run] = []
    unable: set[OpenFile] = set()
    for run in runs:
        left.append(run)
        if not isinstance(run, Copy) or run.file in unable or (run.position - run.offset) % BLOCK:
            continue
        begin, size = whole_blocks(run.offset, run.size)
        if not size:
            continue
        check_signals()
        if transfer.share(run.file.descriptor, begin, descriptor, run.position + begin - run.offset, size):
            left[-1:] = run.around(begin, size)
            advance(size)
        else:
            unable.add(run.file)
    return left


def write_runs(
    descriptor: int, runs: Iterable[Run], advance: Advance, meanwhile: Callable[[], None] = lambda: None
) -> None:
    """Writes all runs: first what the kernel copies, which it then syncs in a second thread while this one makes what
    has to be made, and does what else there is to do `meanwhile`.
    """
    made: list[Make] = []
    for run in runs:
        if isinstance(run, Make):
            made.append(run)
        else:
            run.write(descriptor, advance)
    syncing = Background(lambda: disk.sync(descriptor))
    prepare(run.tensor for run in made)
    for run in made:
        run.write(descriptor, advance)
    meanwhile()
    syncing.result()
