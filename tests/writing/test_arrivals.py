"""What arrives through a pipe goes into a file, or another pipe, as if it had been a file itself."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from resnet_surgeon.arithmetic.formulas import Combination, Mean
from resnet_surgeon.errors import CheckpointError
from resnet_surgeon.formats import arriving, safetensors
from resnet_surgeon.formats.arriving import ArrivingFile
from resnet_surgeon.formats.files import OpenFile
from resnet_surgeon.formats.memory import import_numpy
from resnet_surgeon.formats.tensors import Computed, LazyTensor, Stored, byte_size, content
from resnet_surgeon.platform import disk
from resnet_surgeon.platform.transfer import write_all
from resnet_surgeon.writing.arrivals import into_file, into_stream
from resnet_surgeon.writing.runs import write_runs

SHAPE, SIZE, COUNT = (2, 3, 1, 1), 24, 5
DATA = bytes(range(COUNT * SIZE))  # as float32 they are finite
FILE = safetensors.header({str(n): Stored("F32", SHAPE, OpenFile.spooled(b"", ""), 0) for n in range(COUNT)}, {}) + DATA

numbers = st.integers(0, COUNT - 1)
# Tensors by their numbers: one as it is, the mean over its channels, the sum of two.
outputs = st.lists(st.tuples(numbers) | st.tuples(st.just("mean"), numbers) | st.tuples(numbers, numbers), max_size=6)


def placed(file: OpenFile, asked: list[tuple[int | str, ...]]) -> list[tuple[int, LazyTensor]]:
    stored = list(safetensors.tensors_and_metadata(file)[0].values())
    found: list[tuple[int, LazyTensor]] = []
    position = 0
    for one in asked:
        inputs = tuple(stored[number] for number in one if isinstance(number, int))
        tensor: LazyTensor = inputs[0]
        if one[0] == "mean":
            tensor = Computed("F32", (2, 1, 1, 1), inputs, Mean(3, 1))
        elif len(one) == 2:
            tensor = Computed("F32", SHAPE, inputs, Combination((1.0, 1.0)))
        found.append((position, tensor))
        position += byte_size(tensor)
    return found


@contextmanager
def arrives(data: bytes) -> Iterator[ArrivingFile]:
    """The data, from a pipe into which they are written a few at a time."""
    reader, writer = os.pipe()

    def feed() -> None:
        with open(writer, "wb", buffering=0) as stream:
            for start in range(0, len(data), 50):
                stream.write(data[start : start + 50])  # all of which a pipe takes before anybody reads

    thread = threading.Thread(target=feed)
    thread.start()
    yield ArrivingFile(reader, "stream")
    thread.join()


def to_file(file: ArrivingFile, asked: list[tuple[int | str, ...]], path: Path) -> bytes:
    with path.open("w+b", buffering=0) as target:
        write_runs(target.fileno(), into_file(placed(file, asked)), lambda count: None)
    return path.read_bytes()


def to_pipe(file: ArrivingFile, asked: list[tuple[int | str, ...]], path: Path) -> bytes:
    """Of so few bytes a pipe takes all."""
    reader, writer = os.pipe()
    with open(reader, "rb") as stream, open(writer, "wb", buffering=0) as target:
        *first, last = into_stream(placed(file, asked))
        for run in first:
            run.send(target.fileno(), lambda count: None)
        end = last.send_but_for_the_end(target.fileno(), lambda count: None)
        assert end, "the last byte waits until the source was checked"
        file.check_unchanged()
        write_all(target.fileno(), end)
        target.close()
        return stream.read()


@pytest.fixture(params=[0, 40, 1 << 20], ids=["in a temporary file", "in both", "in memory"])
def _held(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where bytes are held."""
    monkeypatch.setattr(arriving, "_IN_MEMORY", request.param)


@pytest.mark.usefixtures("_held")
@pytest.mark.parametrize("deliver", [to_file, to_pipe])
@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(asked=outputs.filter(bool))
def test_any_order_gives_the_bytes_of_a_file(
    deliver: Callable[..., bytes], tmp_path: Path, asked: list[tuple[int | str, ...]]
) -> None:
    import_numpy()
    expected = b"".join(content(tensor) for _, tensor in placed(OpenFile.spooled(FILE, "file"), asked))
    with arrives(FILE) as file:
        assert deliver(file, asked, tmp_path / "out") == expected


@pytest.mark.parametrize("deliver", [to_file, to_pipe])
@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (FILE[:-1], "it is truncated: 1 bytes are missing"),
        (FILE[: -SIZE - 3], "it is truncated: 27 bytes are missing"),
        (FILE + b"!", "more bytes follow its last tensor"),
    ],
    ids=["cut by a byte", "cut in the middle", "too long"],
)
def test_a_stream_that_is_cut_or_too_long_is_refused_though_nothing_of_it_is_missed(
    deliver: Callable[..., bytes], data: bytes, reason: str, tmp_path: Path
) -> None:
    with arrives(data) as file, pytest.raises(CheckpointError, match=reason):
        deliver(file, [(0,), ("mean", 1)], tmp_path / "out")


def test_what_has_gone_by_is_never_read_as_something_else() -> None:
    with arrives(FILE) as file:
        tensors, _ = safetensors.tensors_and_metadata(file)
        file.skip(tensors["1"].offset)
        assert content(tensors["1"]) == DATA[SIZE : 2 * SIZE], "what comes is held"
        with pytest.raises(CheckpointError, match="gone by"):
            content(tensors["0"])


def test_a_repeat_takes_no_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is copied from where it stands in the new file."""
    monkeypatch.setattr(arriving, "_IN_MEMORY", len(FILE) - len(DATA) + 512)
    monkeypatch.setattr("tempfile.TemporaryFile", None)
    with arrives(FILE) as file:
        assert to_file(file, [(4,), (0,), (1,), (4,), (1,)], tmp_path / "out") == b"".join(
            DATA[n * SIZE : (n + 1) * SIZE] for n in (4, 0, 1, 4, 1)
        )


def test_the_disk_begins_with_what_has_arrived(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte of the file once, a repeat's too."""
    begun: list[tuple[int, int]] = []
    monkeypatch.setattr(disk, "_MUCH", 1)
    monkeypatch.setattr(os, "posix_fadvise", lambda _, position, count, __: begun.append((position, position + count)))
    with arrives(FILE) as file:
        whole = to_file(file, [(4,), (0,), (1,), (4,), (1,)], tmp_path / "out")
    assert sorted(place for begin, end in begun for place in range(begin, end)) == [*range(len(whole))]
