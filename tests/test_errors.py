"""Whatever a message tells of a stranger's file, it is one line that moves nothing and comes to an end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resnet_surgeon.errors import escaped, listed, message, printable


@given(st.text(st.characters()), st.integers(1, 3000))
def test_any_text_becomes_a_line_of_bounded_length(text: str, times: int) -> None:
    for shown in (message(text * times), printable(text * times)):
        assert shown.isprintable()
        assert len(shown) <= 2003
        shown.encode()


@pytest.mark.parametrize(
    "mark", ["\u202e", "\u202a", "\u2066", "\u200f", "\u061c", "\u200b", "\ufeff", "\x1b", "\x9b", "\n", "\ud800"]
)
def test_marks_that_are_not_seen_or_turn_the_text_are_escaped(mark: str) -> None:
    assert escaped(f"a{mark}b") == f"a{mark.encode('unicode_escape', 'surrogatepass').decode()}b"


@pytest.mark.parametrize("text", ["conv1.weight", "müller.pth", "权重", "a\\nb", "🙂"])
def test_text_that_reads_as_it_is_written_is_left_alone(text: str) -> None:
    assert escaped(text) == text


def test_long_lists_are_counted() -> None:
    assert listed(["a", "b"]) == "a, b"
    assert listed([f"head{number}" for number in range(5000)], most=2) == "head0, head1 and 4998 more"
