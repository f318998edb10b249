"""JSON from strangers is read exactly, and what it takes in memory is bounded by its length."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest

from resnet_surgeon.errors import CheckpointError
from resnet_surgeon.formats.json_text import parsed

REFUSED = {
    "nothing": ("", "it is not JSON"),
    "a key twice": ('{"a": {"b": 1, "b": 1}}', "it holds the key `b` twice"),
    "a key twice, once escaped": ('{"a": 1, "\\u0061": 2}', "it holds the key `a` twice"),
    "a key that moves the cursor, twice": ('{"\\u001b": 1, "\\u001b": 2}', r"it holds the key `\\x1b` twice"),
    "not a number": ("[NaN]", "it holds NaN, which is not JSON"),
    "infinity": ("[-Infinity]", "it holds -Infinity, which is not JSON"),
    "a number of many digits": ("1" * 5000, "it is not JSON"),
    "half of a character": ('["\\ud800"]', "it holds text that is not Unicode"),
    "half of a character for a key": ('{"a": [{"\\uDFFFx": 1}]}', "it holds text that is not Unicode"),
    "halves in the wrong order": ('["\\udc00\\ud800"]', "it holds text that is not Unicode"),
    "deep nesting": ("[" * 100_000, "it is nested too deeply"),
    "lists of nothing": ("[" + "[]," * 1_000_000 + "[]]", "it describes more than any checkpoint holds"),
    "texts of nothing": ("[" + '"",' * 1_000_000 + "0]", "it describes more than any checkpoint holds"),
    "space": (" " * 3_000_000 + "[]", "it describes more than any checkpoint holds"),
    "text that does not end": ('["' + "[]," * 1_000_000, "it describes more than any checkpoint holds"),
}


@pytest.mark.parametrize(("text", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_it_is_refused(text: str, reason: str) -> None:
    with pytest.raises(CheckpointError, match=f"^{reason}"):
        parsed(text, "it")


VALUES: dict[str, Any] = {
    "all kinds": {"a": [1, -2.5, "x", None, True], "": {}},
    "a character beyond the first plane": "🙂",
    "an escape that is text": "\\ud800",
    "long text": {"a": '[],{}\\"' * 1_000_000},
    "nothing but long text": "x" * 3_000_000,
}


@pytest.mark.parametrize("ensure_ascii", [True, False])
@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES.keys())
def test_it_is_read_as_json_reads_it(value: Any, ensure_ascii: bool) -> None:
    assert parsed(json.dumps(value, ensure_ascii=ensure_ascii), "it") == value


def test_structure_takes_little_memory_however_much_of_it_there_is() -> None:
    text = "[" + '[],"",{},' * 1_000_000 + "0]"
    tracemalloc.start()
    with pytest.raises(CheckpointError):
        parsed(text, "it")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20
