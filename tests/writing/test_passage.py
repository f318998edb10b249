"""Whatever arrives in whatever order, what goes out is what was asked for, and nothing is held in vain."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from resnet_surgeon.writing.passage import Outgoing, Span, Step, passage

SIZE = 24
spans = st.tuples(st.integers(0, SIZE), st.integers(0, SIZE)).map(lambda edges: Span(*sorted(edges)))
copies = spans.map(lambda span: Outgoing((span,), is_made=False))
made = st.lists(spans, max_size=3).map(lambda several: Outgoing(tuple(several), is_made=True))


class Stream:
    """Numbered bytes that arrive, and what became of them."""

    def __init__(self, arrived: int) -> None:
        self.arrived = arrived
        self.held = set(range(arrived))
        self.out: list[int] = []

    def do(self, step: Step, takes: list[int]) -> None:
        numbers = list(range(step.begin, step.end))
        if step.kind in ("pass", "pass and hold", "hold", "skip"):
            assert step.begin == self.arrived, "bytes come in order, each once"
            self.arrived = step.end
        if step.kind in ("pass and hold", "hold"):
            self.held.update(numbers)
        if step.kind in ("release", "forget"):
            assert self.held.issuperset(numbers)
        if step.kind in ("pass", "pass and hold", "release"):
            self.out += numbers
        if step.kind == "forget":
            self.held.difference_update(numbers)
        if step.kind == "make":
            assert self.held.issuperset(takes)
            self.out += takes


@given(outgoing=st.lists(copies | made, max_size=6), arrived=st.integers(0, SIZE))
def test_all_goes_out_in_its_turn_and_only_what_is_wanted_later_is_held(outgoing: list[Outgoing], arrived: int) -> None:
    taken = [[number for span in one.takes for number in range(*span)] for one in outgoing]
    stream = Stream(arrived)
    for turn, steps in enumerate(passage(outgoing, arrived)):
        for step in steps:
            stream.do(step, taken[turn])
        later = {number for numbers in taken[turn + 1 :] for number in numbers}
        assert {number for number in stream.held if number >= arrived} <= later
    assert stream.out == [number for numbers in taken for number in numbers]


def test_what_is_in_order_is_passed_on_in_one_step() -> None:
    outgoing = [Outgoing((Span(3, 10),), is_made=False), Outgoing((Span(10, 20),), is_made=False)]
    assert [*passage(outgoing, 0)] == [(Step("skip", 0, 3), Step("pass", 3, 10)), (Step("pass", 10, 20),)]
