"""The fuzz targets on their seeds, and on seeds that hypothesis damages: a short round of `make fuzz`."""

from __future__ import annotations

import functools

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS, seeds

SEEDS = functools.cache(seeds)


@pytest.mark.parametrize("target", TARGETS)
def test_seeds_are_no_bugs(target: str) -> None:
    for seed in SEEDS()[target]:
        TARGETS[target](seed)


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
