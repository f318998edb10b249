"""What becomes of a stream's bytes that arrive in one order and go out in another: pure, on numbers alone.

What goes out in its turn is passed on; what is wanted later, or again, is held until then; the rest is skipped.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from resnet_surgeon.dataclass import dataclass

# On what arrives: pass it on, do so and hold it, hold it, skip it. On what is held: release it (write it), forget it.
# `make`: what goes out is made now, since all that it takes is held.
Kind = Literal["pass", "pass and hold", "hold", "skip", "release", "make", "forget"]


class Span(NamedTuple):
    """Bytes of the stream."""

    begin: int
    end: int


@dataclass(frozen=True)
class Outgoing:
    """What goes out at once, and what it takes of the stream: these bytes as they are, or others made from them."""

    takes: tuple[Span, ...]
    is_made: bool


@dataclass(frozen=True)
class Step:
    """What is done with bytes of the stream."""

    kind: Kind
    begin: int = 0
    end: int = 0


def passage(outgoing: Sequence[Outgoing], arrived: int) -> Iterator[tuple[Step, ...]]:
    """For each that goes out, in this order, the steps until it is out; of the stream, the first `arrived` bytes came
    before, and are held.

    >>> copies = [Outgoing((Span(0, 4),), False), Outgoing((Span(0, 2),), False)]
    >>> [[(step.kind, step.begin, step.end) for step in steps] for steps in passage(copies, 0)]
    [[('pass and hold', 0, 2), ('pass', 2, 4)], [('release', 0, 2), ('forget', 0, 2)]]
    """
    edges = {edge for one in outgoing for span in one.takes for edge in span}
    cuts = sorted({arrived, *edges})
    parts = [Span(*pair) for pair in itertools.pairwise(cuts)]
    number = {cut: index for index, cut in enumerate(cuts)}
    taken = [[index for span in one.takes for index in range(number[span.begin], number[span.end])] for one in outgoing]
    last = {index: turn for turn, indices in enumerate(taken) for index in indices}  # the turn that takes it last
    done: defaultdict[int, list[int]] = defaultdict(list)
    for index, turn in last.items():
        done[turn].append(index)
    coming = number[arrived]
    held = set(range(coming))
    for turn, (one, indices) in enumerate(zip(outgoing, taken, strict=True)):
        steps: list[Step] = []
        for index in indices:
            is_new = index >= coming
            for passed in range(coming, index):
                kind: Kind = "hold" if last.get(passed, -1) >= turn else "skip"
                steps.append(Step(kind, *parts[passed]))
                if kind == "hold":
                    held.add(passed)
            if one.is_made and is_new:
                steps.append(Step("hold", *parts[index]))
                held.add(index)
            elif is_new:
                is_wanted = last[index] > turn
                steps.append(Step("pass and hold" if is_wanted else "pass", *parts[index]))
                if is_wanted:
                    held.add(index)
            elif not one.is_made:
                steps.append(Step("release", *parts[index]))
            coming = max(coming, index + 1)
        if one.is_made:
            steps.append(Step("make"))
        steps += [Step("forget", *parts[index]) for index in sorted(held.intersection(done[turn]))]
        yield tuple(_joined(steps))


def _joined(steps: Sequence[Step]) -> Iterator[Step]:
    """The steps, with one for neighbouring bytes of which the same becomes."""
    before: Step | None = None
    for step in steps:
        if before and (before.kind, before.end) == (step.kind, step.begin) and step.kind != "make":
            before = Step(step.kind, before.begin, step.end)
            continue
        if before:
            yield before
        before = step
    if before:
        yield before
