"""A container notices that a checksum does not hold, and that any of its files is written to meanwhile."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from resnet_surgeon.errors import CheckpointError
from resnet_surgeon.formats import sniff
from resnet_surgeon.formats.container import Container
from resnet_surgeon.formats.files import OpenFile
from tests.formats.test_torch_zip import BASE, SAVED, open_archive, raw

NAMES = ("model.safetensors.index.json", "1.safetensors", "2.safetensors")


@pytest.fixture
def sharded(tmp_path: Path) -> Container:
    for name in NAMES[1:]:
        save_file({name: torch.ones(3)}, tmp_path / name)
    (tmp_path / NAMES[0]).write_text(json.dumps({"weight_map": {name: name for name in NAMES[1:]}}))
    return sniff.read(OpenFile.at(tmp_path / NAMES[0]))


CHECKS: list[Callable[[Container], Any]] = [Container.check, Container.check_unchanged, Container.sha256]


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", NAMES)
def test_a_shard_or_index_that_changes_is_noticed(
    name: str, check: Callable[[Container], Any], sharded: Container, tmp_path: Path
) -> None:
    check(sharded)
    os.utime(tmp_path / name, ns=(1, 1))
    with pytest.raises(CheckpointError, match="was changed while it was read") as caught:
        check(sharded)
    assert caught.value.subject == str(tmp_path / name)


@pytest.mark.parametrize("check", [Container.check, Container.sha256])
def test_a_checksum_that_does_not_hold_is_noticed(check: Callable[[Container], Any]) -> None:
    check(open_archive(SAVED))
    damaged = bytearray(SAVED)
    damaged[SAVED.index(raw(BASE)) + 7] ^= 1
    with pytest.raises(CheckpointError, match="the checksum of `data/0` does not hold"):
        check(open_archive(bytes(damaged)))
