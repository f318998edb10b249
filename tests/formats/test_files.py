"""A file that is open for reading: its bytes, and its digest."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from resnet_surgeon.errors import CheckpointError
from resnet_surgeon.formats.files import OpenFile

DATA = bytes(range(256)) * (1 << 15)  # 8 MiB: more than is read at once


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    path.write_bytes(DATA)
    return path


@pytest.mark.parametrize("is_ahead", [False, True], ids=["when it is wanted", "ahead"])
def test_the_digest_is_that_of_all_bytes_which_are_counted_as_they_are_read(path: Path, is_ahead: bool) -> None:
    file = OpenFile.at(path)
    counts: list[int] = []
    if is_ahead:
        file.read_ahead()
    assert file.sha256(counts.append) == hashlib.sha256(DATA).hexdigest()
    assert sum(counts) == len(DATA)


def test_a_file_that_became_shorter_while_it_was_read_ahead_has_no_digest(path: Path) -> None:
    file = OpenFile.at(path)
    path.write_bytes(DATA[:-1])
    file.read_ahead()
    with pytest.raises(CheckpointError, match="became shorter"):
        file.sha256(lambda count: None)
