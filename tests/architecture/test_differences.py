"""What sets two networks apart is told whole, however many heads they have, and each of it in a line that ends."""

from __future__ import annotations

from dataclasses import replace

from resnet_surgeon.architecture.differences import differences, output
from resnet_surgeon.architecture.spec import Head
from resnet_surgeon.architecture.variants import VARIANTS

RESNET18 = VARIANTS["resnet18"]
MANY = replace(RESNET18, heads=tuple(Head(f"head{number}", 2) for number in range(2000)))


def test_of_many_heads_the_first_are_named() -> None:
    assert output(MANY).startswith("2000 heads (head0: 2, head1: 2, ")
    assert output(MANY).endswith(", head9: 2 and 1990 more)")


def test_a_head_that_is_not_named_still_makes_a_difference() -> None:
    heads = (*MANY.heads[:1500], Head("other", 3), *MANY.heads[1501:])
    assert differences(MANY, replace(MANY, heads=heads)) == ("head: head1500: 2 -> other: 3",)
    assert differences(MANY, MANY) == ()
