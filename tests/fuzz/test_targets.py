"""The fuzz targets on their seeds, and on seeds that hypothesis damages: a short round of `make fuzz`."""

from __future__ import annotations

import functools
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS, seeds

SEEDS = functools.cache(seeds)


@pytest.mark.parametrize("target", TARGETS)
def test_seeds_are_no_bugs(target: str) -> None:
    for seed in SEEDS()[target]:
        TARGETS[target](seed)


WORDS = st.sampled_from(
    ["", "import os", "a\nb", "\u202etxt", "\x1b[2J", "\ud800", "../x", "<script>", "x" * 5000, "'", "https://a@b/?c"]
)
WRONG: st.SearchStrategy[Any] = (
    WORDS | st.none() | st.booleans() | st.integers() | st.floats() | st.just([]) | st.just({}) | st.lists(WORDS)
)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_manifest_with_any_of_its_fields_replaced_is_refused_or_harmless(data: st.DataObject) -> None:
    """One or two values anywhere in a valid manifest: other words, other types, other numbers."""
    document = json.loads(data.draw(st.sampled_from(SEEDS()["manifest"])))
    for _ in range(data.draw(st.integers(1, 2))):
        node: Any = document
        while True:
            places = [*node] if isinstance(node, dict) else [*range(len(node))]
            if not places:
                break
            place = data.draw(st.sampled_from(places))
            if not isinstance(node[place], (dict, list)) or data.draw(st.integers(0, 9)) == 0:
                node[place] = data.draw(WRONG)
                break
            node = node[place]
    TARGETS["manifest"](json.dumps(document).encode())


@pytest.mark.parametrize("target", TARGETS)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_damaged_seeds_are_refused_or_read_as_the_libraries_read_them(target: str, data: st.DataObject) -> None:
    """Bytes changed, cut out, put in, or moved from one seed to another."""
    damaged = bytearray(data.draw(st.sampled_from(SEEDS()[target])))
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, max(0, len(damaged) - 1)))
        size = data.draw(st.integers(0, 8))
        other = data.draw(st.sampled_from(SEEDS()[target]))
        origin = data.draw(st.integers(0, max(0, len(other) - 1)))
        damaged[start : start + size] = data.draw(st.binary(max_size=8) | st.just(other[origin : origin + size]))
    TARGETS[target](bytes(damaged))
