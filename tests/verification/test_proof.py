"""A proof holds unless a check failed, and says in a table what each found."""

from __future__ import annotations

import pytest

from resnet_surgeon.verification.proof import Check, Proof, not_carried_out, some

CHECKS = (
    Check("kept", "proven", "2 of 2 tensors"),
    Check("source", "unproven", "give it\x1b[2J"),
    Check("computed", "failed", "0 of 1", ("conv1.weight",)),
)


@pytest.mark.parametrize(("checks", "holds"), [((), True), (CHECKS[:2], True), (CHECKS, False), (CHECKS[2:], False)])
def test_it_holds_unless_a_check_failed(checks: tuple[Check, ...], holds: bool) -> None:
    assert Proof("a.safetensors", None, checks).holds is holds


def test_its_text_is_a_table_with_a_summary_and_no_escapes() -> None:
    assert str(Proof("a.safetensors", None, CHECKS)).splitlines() == [
        " 1  proven    kept      2 of 2 tensors",
        " 2  unproven  source    give it\\x1b[2J",
        " 3  failed    computed  0 of 1",
        "a.safetensors: 1 proven, 1 failed, 1 unproven",
    ]


@pytest.mark.parametrize(
    ("names", "text"),
    [("a", "`a`"), ("abc", "`a`, `b`, `c`"), ("abcd", "`a`, `b`, `c` and 1 more"), ("", "")],
    ids=["one", "three", "four", "none"],
)
def test_of_many_names_the_first_three_are_shown(names: str, text: str) -> None:
    assert some([*names]) == text


@pytest.mark.parametrize(
    ("error", "outcome", "finding"),
    [
        (MemoryError(), "unproven", "there was not enough memory for it"),
        (RuntimeError("not enough memory: you tried to allocate"), "unproven", "there was not enough memory for it"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "unproven", "there was not enough memory for it"),
        (RuntimeError("mat1 and mat2\ncannot be"), "failed", "mat1 and mat2"),
        (RuntimeError(), "failed", "RuntimeError"),
    ],
    ids=["python's memory", "windows", "linux", "another error", "one without words"],
)
def test_what_cannot_be_carried_out_fails_unless_it_is_for_lack_of_memory(
    error: Exception, outcome: str, finding: str
) -> None:
    check = not_carried_out("stem", error)
    assert (check.name, check.outcome, check.finding) == ("stem", outcome, finding)
