"""Whatever is saved can be opened again: what the writer writes, the reader takes, whatever the source was called and
held.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import resnet_surgeon as rs
from resnet_surgeon.architecture.spec import HEAD_NAME
from resnet_surgeon.errors import CheckpointError
from resnet_surgeon.manifest import published_schema

SMALL = load_file(Path(__file__).parent / "data" / "0.1.0" / "small.safetensors")
WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NAMES = st.from_regex(HEAD_NAME, fullmatch=True)
FILES = st.binary(min_size=1, max_size=60).filter(lambda name: not {*name} & {0, 47} and name not in (b".", b".."))
SEEDS = st.integers(-(2**127), 2**128 - 1)


@st.composite
def operated(draw: st.DrawFn) -> list[tuple[str, dict[str, Any]]]:
    """One to three operations that any network takes."""
    names = draw(st.lists(NAMES, min_size=1, max_size=3, unique=True))
    classes = draw(st.lists(st.integers(1, 3), min_size=len(names), max_size=len(names)))
    init = draw(st.sampled_from(["mean", "scaled", "repeat", "random"]))
    operations: list[tuple[str, dict[str, Any]]] = [
        ("adapt", {"in_channels": draw(st.integers(1, 4)), "init": init, "seed": draw(SEEDS)}),
        ("heads", {"classes": classes, "names": names, "own": "none", "seed": draw(SEEDS)}),
    ]
    return operations[draw(st.integers(0, 1)) :][: draw(st.integers(1, 2))]


@given(
    file=FILES,
    metadata=st.dictionaries(WORDS, WORDS, max_size=3),
    prefix=st.just("") | WORDS.map(lambda word: f"{word}."),
    key=st.none() | st.text(st.characters(), min_size=1, max_size=9),
    others=st.lists(st.text(st.characters(), max_size=20), max_size=3, unique=True),
    operations=operated(),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[*HealthCheck])
def test_whatever_is_saved_can_be_opened(
    file: bytes,
    metadata: dict[str, str],
    prefix: str,
    key: str | None,
    others: list[str],
    operations: list[tuple[str, dict[str, Any]]],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("saved")
    path = folder / os.fsdecode(file)
    state = {f"{prefix}{name}": tensor for name, tensor in SMALL.items()}
    state = {**{name: torch.zeros(2) for name in others}, **state}
    is_unicode = not any(0xD800 <= ord(char) < 0xE000 for char in "".join([*others, key or ""]))
    if key is None and is_unicode:
        state.pop("__metadata__", None)
        metadata.pop("resnet_surgeon.manifest", None)
        save_file(state, folder / "source", metadata=metadata)
    else:
        torch.save({key: state} if key else state, folder / "source")
    os.rename(folder / "source", path)  # torch refuses some names
    refused = ""
    try:
        network = rs.open(path)
        for name, options in operations:
            network = getattr(network, name)(**options)
        saved = network.save(folder / "saved.safetensors", force=True)
    except CheckpointError as error:
        refused = str(error)
    assert ("not Unicode" in refused) == (not is_unicode)
    if refused:
        return
    again = rs.open(saved)
    assert again.manifest() == network.manifest()
    assert again.save(folder / "again.safetensors").read_bytes() == saved.read_bytes()
    jsonschema.Draft202012Validator(published_schema()).validate(json.loads((folder / "saved.json").read_text("utf-8")))
