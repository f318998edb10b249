"""What strangers call a file becomes one safe component of a path."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resnet_surgeon.sources.names import MOST_CHARACTERS, file_name

TEXT = st.text(st.characters(), max_size=300)  # lone surrogates too


@given(text=TEXT)
def test_a_name_is_one_short_component_of_plain_characters(text: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", file_name(text))
    assert len(file_name(text)) <= MOST_CHARACTERS


@given(text=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,100}", fullmatch=True))
def test_a_plain_name_stays_as_it_is(text: str) -> None:
    assert file_name(text) == text


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("../../x", "x"),
        ("/etc/passwd", "etc_passwd"),
        ("..", "resnet"),
        ("", "resnet"),
        ("--force", "force"),
        ("a\x1b[2Jb", "a_2Jb"),
        ("ré sumé.pth", "r_sum_.pth"),
    ],
)
def test_what_has_no_place_in_a_name_is_replaced(text: str, name: str) -> None:
    assert file_name(text) == name


def test_long_texts_that_begin_alike_keep_two_names() -> None:
    assert file_name("x" * 500) != file_name("x" * 501)
