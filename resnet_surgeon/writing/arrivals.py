"""What goes from a file that is arriving into a new file or another stream, without being stored in between.

A stream is written in its own order, whatever arrives when; a file in the order of arrival, each part at its place.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from resnet_surgeon.dataclass import dataclass
from resnet_surgeon.formats.arriving import ArrivingFile
from resnet_surgeon.formats.tensors import LazyTensor, Stored, byte_size, files, origins
from resnet_surgeon.platform import disk, transfer
from resnet_surgeon.platform.signals import check_signals
from resnet_surgeon.sources.progress import Advance
from resnet_surgeon.writing.passage import Outgoing, Span, Step, passage
from resnet_surgeon.writing.runs import Copy, Make, Run, runs

Placed = Sequence[tuple[int, LazyTensor]]


@dataclass(frozen=True)
class Passing:
    """A run that takes bytes of an arriving file: what becomes of these, and of those before them, until it is out."""

    run: Copy | Make
    file: ArrivingFile
    steps: tuple[Step, ...]

    def write(self, descriptor: int, advance: Advance) -> None:
        """Into a file."""
        for step in self.steps:
            if step.kind == "make":
                self.run.write(descriptor, advance)
            else:
                self._do(step, descriptor, True, advance)

    def send(self, descriptor: int, advance: Advance) -> None:
        """Into a pipe."""
        for step in self.steps:
            if step.kind == "make":
                self.run.send(descriptor, advance)
            else:
                self._do(step, descriptor, False, advance)

    def send_but_for_the_end(self, descriptor: int, advance: Advance) -> bytes:
        """Sends what is made but for its end, and returns that."""
        end = b""
        for step in self.steps:
            if step.kind == "make":
                end = self.run.send_but_for_the_end(descriptor, advance)
            else:
                self._do(step, descriptor, False, advance)
        return end

    def _do(self, step: Step, descriptor: int, is_file: bool, advance: Advance) -> None:
        file = self.file
        if step.kind == "hold":
            file.hold(step.end)
        elif step.kind == "skip":
            file.skip(step.end)
        elif step.kind == "forget":
            file.forget(step.begin, step.end)
        else:
            assert isinstance(self.run, Copy), "what goes out as it came is a copy"
            begin = step.begin
            while begin < step.end:
                check_signals()
                position = self.run.position + begin - self.run.offset if is_file else None
                if step.kind == "pass":
                    count = file.pass_on(step.end, descriptor, position)
                elif step.kind == "pass and hold":
                    count = file.pass_on_and_hold(step.end, descriptor, position)
                else:
                    count = file.release(begin, step.end, descriptor, position)
                if position is not None:
                    disk.begin_to_sync(descriptor, position, count)
                begin += count
                advance(count)


@dataclass(frozen=True)
class Repeat:
    """Bytes that stand at `first` of the new file by then, to stand at `position` too."""

    position: int
    first: int
    size: int

    def write(self, descriptor: int, advance: Advance) -> None:
        done = 0
        while done < self.size:
            check_signals()
            position = self.position + done
            count = transfer.copy(descriptor, self.first + done, descriptor, position, self.size - done)
            disk.begin_to_sync(descriptor, position, count)
            done += count
            advance(count)


@dataclass(frozen=True)
class Rest:
    """What is left of an arriving file, of which nothing is written: that it is there shows that the file is whole."""

    file: ArrivingFile

    def write(self, descriptor: int, advance: Advance) -> None:
        self.file.check_unchanged()


def into_file(placed: Placed) -> list[Run]:
    """The runs that write these tensors into a file."""
    file = _arriving(placed)
    if file is None:
        return list(runs(placed))
    firsts, repeats = _without_repeats(placed, file)
    made = sorted(runs(firsts), key=lambda run: max((span.end for span in _takes(run, file)), default=0))
    return [*_passing(made, file, [isinstance(run, Make) for run in made]), *repeats, Rest(file)]


def into_stream(placed: Placed) -> list[Copy | Make | Passing]:
    """The runs that send these tensors to a stream, of which the last can hold back its end."""
    file = _arriving(placed)
    if file is None:
        return list(runs(placed))
    *first, last = runs(placed)
    if isinstance(last, Copy) and last.file is file and last.size > 1:
        body = last.size - 1
        first.append(replace(last, size=body))
        last = Copy(last.position + body, file, last.offset + body, 1)
    return list(_passing([*first, last], file, [*(isinstance(run, Make) for run in first), True]))


def _arriving(placed: Placed) -> ArrivingFile | None:
    """The file that is arriving: a process has one standard input."""
    return next((file for file in files(tensor for _, tensor in placed) if isinstance(file, ArrivingFile)), None)


def _passing(made: Sequence[Copy | Make], file: ArrivingFile, held: Sequence[bool]) -> Iterator[Copy | Make | Passing]:
    """The runs with the steps that bring them out; `held` says which need all that they take before that."""
    outgoing = [Outgoing(_takes(run, file), is_held) for run, is_held in zip(made, held, strict=True)]
    for run, steps in zip(made, passage(outgoing, file.arrived), strict=True):
        yield Passing(run, file, steps) if _takes(run, file) else run


def _takes(run: Copy | Make, file: ArrivingFile) -> tuple[Span, ...]:
    """The bytes of the file that the run is made from."""
    if isinstance(run, Copy):
        return (Span(run.offset, run.offset + run.size),) if run.file is file else ()
    stored = (origin for origin in origins(run.tensor) if origin.file is file)
    return tuple(Span(origin.offset, origin.offset + byte_size(origin)) for origin in stored)


def _without_repeats(placed: Placed, file: ArrivingFile) -> tuple[Placed, list[Repeat]]:
    """The tensors, each of the file's once, and where they stand again."""
    firsts: list[tuple[int, LazyTensor]] = []
    repeats: list[Repeat] = []
    positions: dict[tuple[int, int], int] = {}
    for position, tensor in placed:
        if isinstance(tensor, Stored) and tensor.file is file:
            size = byte_size(tensor)
            first = positions.setdefault((tensor.offset, size), position)
            if first != position:
                repeats.append(Repeat(position, first, size))
                continue
        firsts.append((position, tensor))
    return firsts, repeats
