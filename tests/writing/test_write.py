"""At any moment the old file or the whole new one stands, and what is written is what the libraries read."""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import re
import shlex
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load, load_file, save_file

import resnet_surgeon as rs
from resnet_surgeon.errors import AccessError, CheckpointError, UsageError
from resnet_surgeon.formats import safetensors
from resnet_surgeon.formats.files import OpenFile
from resnet_surgeon.platform import disk, names
from resnet_surgeon.platform.transfer import write_all
from resnet_surgeon.writing import publish
from tests import OLD_MANIFEST, PATIENCE
from tests.fixtures import small_network


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with basic.safetensors and basic.pth: a network up to layer2, for here bytes are only carried about."""
    folder = tmp_path_factory.mktemp("checkpoints")
    whole = small_network(depths=(2, 1, 1, 1)).state_dict()
    state = {name: tensor for name, tensor in whole.items() if not name.startswith(("layer3", "layer4", "fc"))}
    save_file(state, folder / "basic.safetensors", metadata={"format": "pt"})
    torch.save(state, folder / "basic.pth")
    return folder


@pytest.mark.parametrize("name", ["basic.safetensors", "basic.pth"])
def test_untouched_tensors_are_identical_to_the_bit(name: str, checkpoints: Path, tmp_path: Path) -> None:
    rs.open(checkpoints / name).adapt(1).save(tmp_path / "out.safetensors")
    written = load_file(tmp_path / "out.safetensors")
    original = load_file(checkpoints / "basic.safetensors")
    assert written.keys() == original.keys()
    for key in original.keys() - {"conv1.weight"}:
        assert torch.equal(written[key].view(-1).view(torch.uint8), original[key].view(-1).view(torch.uint8))


def test_nan_payloads_infinities_and_subnormals_pass_untouched(tmp_path: Path) -> None:
    model = small_network()
    bits = torch.tensor([0x7FA00001, -0x400001, 0x7F800000, -0x800000, 1, -0x80000000], dtype=torch.int32)
    model.layer1[0].conv1.weight.data.view(-1)[:6] = bits.view(torch.float32)
    torch.save(model.state_dict(), tmp_path / "in.pth")
    rs.open(tmp_path / "in.pth").adapt(1).save(tmp_path / "out.safetensors")
    written = load_file(tmp_path / "out.safetensors")["layer1.0.conv1.weight"].view(-1)[:6]
    assert torch.equal(written.view(torch.int32), bits)


def test_the_sidecar_is_the_embedded_manifest_to_the_byte(checkpoints: Path, tmp_path: Path) -> None:
    path = rs.open(checkpoints / "basic.pth").adapt(1).save(tmp_path / "out.safetensors")
    data = path.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert header["__metadata__"]["resnet_surgeon.manifest"].encode() == (tmp_path / "out.json").read_bytes()


def test_every_tensor_is_aligned_to_its_elements(checkpoints: Path, tmp_path: Path) -> None:
    torch.save(small_network().half().state_dict(), tmp_path / "half.pth")
    path = rs.open(tmp_path / "half.pth").heads([3, 5]).save(tmp_path / "out.safetensors")
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    sizes = {"I64": 8, "F16": 2}
    for name, entry in header.items():
        if name != "__metadata__":
            assert (start + entry["data_offsets"][0]) % sizes[entry["dtype"]] == 0


def test_the_digest_is_that_of_the_source(checkpoints: Path, tmp_path: Path) -> None:
    import hashlib

    rs.open(checkpoints / "basic.pth").adapt(1).save(tmp_path / "out.safetensors")
    document = json.loads((tmp_path / "out.json").read_text("utf-8"))
    assert document["source"]["sha256"] == hashlib.sha256((checkpoints / "basic.pth").read_bytes()).hexdigest()


def saved(path: Path, checkpoints: Path, **options: Any) -> Path:
    return rs.open(checkpoints / "basic.safetensors").adapt(1).save(path, **options)


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_new_files_have_the_mode_of_the_umask(umask: int, checkpoints: Path, tmp_path: Path) -> None:
    old = os.umask(umask)
    try:
        saved(tmp_path / "out.safetensors", checkpoints)
    finally:
        os.umask(old)
    for path in tmp_path.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask


def test_a_replaced_file_keeps_its_mode(checkpoints: Path, tmp_path: Path) -> None:
    path = saved(tmp_path / "out.safetensors", checkpoints)
    path.chmod(0o640)
    saved(path, checkpoints, force=True)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_symbolic_link_is_followed(checkpoints: Path, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "out.safetensors").symlink_to("real/out.safetensors")
    saved(tmp_path / "out.safetensors", checkpoints)
    assert (tmp_path / "out.safetensors").is_symlink()
    assert load_file(tmp_path / "real" / "out.safetensors")


@pytest.mark.parametrize("taken", ["out.safetensors", "out.json"])
def test_an_existing_file_is_refused_without_force(taken: str, checkpoints: Path, tmp_path: Path) -> None:
    old = OLD_MANIFEST.decode() if taken.endswith(".json") else "old"
    (tmp_path / taken).write_text(old)
    with pytest.raises(AccessError, match="exists already"):
        saved(tmp_path / "out.safetensors", checkpoints)
    assert [path.name for path in tmp_path.iterdir()] == [taken]
    assert (tmp_path / taken).read_text() == old


def test_a_file_that_appears_meanwhile_is_not_replaced(
    checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out.safetensors"
    reserve = disk.reserve
    monkeypatch.setattr(disk, "reserve", lambda *arguments: (target.write_text("theirs"), reserve(*arguments)))
    with pytest.raises(AccessError, match="file exists"):
        saved(target, checkpoints)
    assert [path.name for path in tmp_path.iterdir()] == ["out.safetensors"]
    assert target.read_text() == "theirs"


@pytest.mark.parametrize("way", ["the same path", "a hard link", "a symbolic link"])
def test_the_output_may_be_the_input(way: str, checkpoints: Path, tmp_path: Path) -> None:
    source = tmp_path / "model.safetensors"
    source.write_bytes((checkpoints / "basic.safetensors").read_bytes())
    target = source if way == "the same path" else tmp_path / "link.safetensors"
    if way == "a hard link":
        os.link(source, target)
    elif way == "a symbolic link":
        target.symlink_to(source)
    rs.open(source).adapt(1).save(target, force=True)
    witness = saved(tmp_path / "witness.safetensors", checkpoints)
    assert load_file(target)["conv1.weight"].equal(load_file(witness)["conv1.weight"])
    assert load_file(target)["layer2.0.conv1.weight"].equal(load_file(witness)["layer2.0.conv1.weight"])


PLACES: list[tuple[str, type[Exception], str]] = [
    ("missing/out.safetensors", AccessError, "does not exist"),
    ("folder", AccessError, "it is a folder"),
    ("fifo", AccessError, "not a regular file"),
    ("out.json", UsageError, "its manifest gets the .json name"),
    ("file/out.safetensors", AccessError, "is not a folder"),
]


@pytest.mark.parametrize(("name", "error", "reason"), PLACES)
def test_places_that_cannot_be_written_are_refused(
    name: str, error: type[Exception], reason: str, checkpoints: Path, tmp_path: Path
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(error, match=reason):
        saved(tmp_path / name, checkpoints, force=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fifo", "file", "folder"]


Fail = Callable[..., Any]
CALLS = ["open", "pwrite", "copy_file_range", "fsync", "posix_fallocate", "replace", "link"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("force", [True, False])
@pytest.mark.parametrize("lasting", [True, False])
def test_whichever_call_fails_the_old_file_stands_or_the_whole_new_one(
    call: str, code: int, force: bool, lasting: bool, checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Nth call fails, for each N until none does, as in SQLite's own tests of input and output errors; and all that
    follow, if the fault is lasting.
    """
    target, sidecar = tmp_path / "out.safetensors", tmp_path / "out.json"
    # In the order of our own files untouched tensors are one run of bytes, and calls are few.
    ours = rs.open(checkpoints / "basic.safetensors").remove(last=1).save(tmp_path / "ours.safetensors")
    network = rs.open(ours).heads([3])
    whole = network.save(tmp_path / "whole.safetensors")
    new = (whole.read_bytes(), whole.with_suffix(".json").read_bytes())
    old = (b"old", OLD_MANIFEST) if force else (None, None)
    original = getattr(os, call)
    for failing in range(1, 1000):
        for path, content in zip((target, sidecar), old, strict=True):
            path.write_bytes(content) if content else path.unlink(missing_ok=True)
        calls = 0

        def fail(*arguments: Any, failing: int = failing, **options: Any) -> Any:
            nonlocal calls
            if threading.current_thread() is threading.main_thread() or call == "fsync":
                calls += 1
                if calls == failing or (lasting and calls > failing):
                    raise OSError(code, os.strerror(code))
            return original(*arguments, **options)

        with monkeypatch.context() as patch:
            patch.setattr(os, call, fail)
            try:
                network.save(target, force=force)
            except AccessError:
                succeeded = False
            else:
                succeeded = True
        assert not [path.name for path in tmp_path.iterdir() if path.name.endswith(".tmp")]
        found = tuple(path.read_bytes() if path.exists() else None for path in (target, sidecar))
        # The new file always has its manifest embedded, if it cannot have it beside it.
        assert found in (old, new, (new[0], None))
        if succeeded:
            assert found == new
            if calls < failing:
                return
    pytest.fail("it never succeeded")


def test_nothing_is_written_with_a_manifest_that_nobody_could_read(
    checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = rs.open(checkpoints / "basic.pth").adapt(1)
    monkeypatch.setattr("resnet_surgeon.history.recording.notes_of", lambda manifest: ("one\ntwo",))
    with pytest.raises(CheckpointError, match="its manifest would not be valid"):
        network.save(tmp_path / "out.safetensors")
    with (tmp_path / "stream").open("wb") as stream, pytest.raises(CheckpointError, match="would not be valid"):
        network.stream(stream.fileno())
    assert [path.name for path in tmp_path.iterdir()] == ["stream"]
    with pytest.raises(CheckpointError, match="truncated"):  # the header alone went out
        rs.open(tmp_path / "stream")


def streamed(network: rs.Network) -> bytes:
    """What comes out of the other end of a pipe."""
    reader, writer = os.pipe()
    received: list[bytes] = []

    def drain() -> None:
        with open(reader, "rb") as stream:
            received.append(stream.read())

    thread = threading.Thread(target=drain)
    thread.start()
    try:
        network.stream(writer)
    finally:
        os.close(writer)
        thread.join()
    return received[0]


LINUX = ["copy_file_range", "sendfile", "splice", "posix_fallocate", "posix_fadvise"]
SYSTEMS: dict[str, dict[str, str]] = {
    "Windows": {},
    "macOS": {"sendfile": "ENOTSOCK"},
    **{code: dict.fromkeys(LINUX, code) for code in ("EXDEV", "EINVAL", "ENOSYS", "EOPNOTSUPP", "ENOTSUP")},
}


@pytest.fixture(params=[*SYSTEMS.values()], ids=[*SYSTEMS])
def elsewhere(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that lacks these calls, or where they answer that they cannot do it."""

    def failing(code: int) -> Callable[..., int]:
        def fail(*_: object) -> int:
            raise OSError(code, os.strerror(code))

        return fail

    for call in LINUX:
        if call in request.param:
            monkeypatch.setattr(os, call, failing(getattr(errno, request.param[call])), raising=False)
        else:
            monkeypatch.delattr(os, call, raising=False)


@pytest.fixture(scope="module")
def witness(checkpoints: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The file that is written where the kernel copies."""
    return saved(tmp_path_factory.mktemp("witness") / "out.safetensors", checkpoints).read_bytes()


@pytest.mark.usefixtures("elsewhere")
def test_where_the_kernel_cannot_copy_the_bytes_are_the_same(witness: bytes, checkpoints: Path, tmp_path: Path) -> None:
    assert saved(tmp_path / "out.safetensors", checkpoints).read_bytes() == witness


@pytest.mark.usefixtures("elsewhere")
def test_where_the_kernel_cannot_send_the_stream_is_the_same(witness: bytes, checkpoints: Path) -> None:
    assert streamed(rs.open(checkpoints / "basic.safetensors").adapt(1)) == witness


@pytest.mark.usefixtures("elsewhere")
def test_where_the_kernel_cannot_move_a_pipe_it_is_read(witness: bytes) -> None:
    reader, writer = os.pipe()

    def feed() -> None:
        write_all(writer, witness)
        os.close(writer)

    thread = threading.Thread(target=feed)
    thread.start()
    file = OpenFile.spooled(reader, "pipe")
    thread.join()
    os.close(reader)
    assert file.read(0, file.size) == witness


def test_the_disk_begins_with_what_was_copied_before_it_is_all_there(
    checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Copies of 256 KiB and more, each as soon as it was made, and no byte twice."""
    calls: list[tuple[str, int, int]] = []
    copy = os.copy_file_range

    def copied(source: int, target: int, count: int, offset: int, position: int) -> int:
        count = copy(source, target, min(count, 300_000), offset, position)
        calls.append(("copied", position, count))
        return count

    monkeypatch.setattr(os, "copy_file_range", copied)
    monkeypatch.setattr(os, "posix_fadvise", lambda _, position, count, __: calls.append(("begun", position, count)))
    saved(tmp_path / "out.safetensors", checkpoints)
    large = [(position, count) for what, position, count in calls if what == "copied" and count >= 1 << 18]
    assert len(large) > 1
    assert [(position, count) for what, position, count in calls if what == "begun"] == large
    assert all(calls[calls.index(("copied", *place)) + 1] == ("begun", *place) for place in large)


def test_short_writes_are_continued(checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    witness = saved(tmp_path / "witness.safetensors", checkpoints)
    pwrite, copy = os.pwrite, os.copy_file_range
    monkeypatch.setattr(os, "pwrite", lambda fd, data, position: pwrite(fd, data[:1000], position))
    monkeypatch.setattr(os, "copy_file_range", lambda a, b, count, *offsets: copy(a, b, min(count, 50_000), *offsets))
    assert saved(tmp_path / "out.safetensors", checkpoints).read_bytes() == witness.read_bytes()


def test_without_threads_the_bytes_are_the_same(
    checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    witness = saved(tmp_path / "witness.safetensors", checkpoints)

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert saved(tmp_path / "out.safetensors", checkpoints).read_bytes() == witness.read_bytes()


def test_what_killed_writers_left_goes_and_what_others_write_stays(checkpoints: Path, tmp_path: Path) -> None:
    import fcntl

    abandoned = [tmp_path / ".out.safetensors.0123abcd.tmp", tmp_path / ".out.json.0123abcd.tmp"]
    others = [tmp_path / ".other.safetensors.0123abcd.tmp", tmp_path / ".out.safetensors.note.tmp"]
    alive = tmp_path / ".out.safetensors.89abcdef.tmp"
    for path in (*abandoned, *others, alive):
        path.touch()
    with alive.open("rb") as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)
        saved(tmp_path / "out.safetensors", checkpoints)
    assert [path for path in abandoned if path.exists()] == []
    assert [path for path in (*others, alive) if not path.exists()] == []


def test_a_temporary_file_that_another_writer_took_for_abandoned_is_made_again(
    checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be gone already when its writer locks it, or be locked and about to go."""
    lock, calls = names.hold, itertools.count()

    def too_late(descriptor: int) -> bool:
        call = next(calls)
        if call == 0:
            next(tmp_path.glob(".out.safetensors.*.tmp")).unlink()
        elif call == 1:
            raise BlockingIOError
        return lock(descriptor)

    monkeypatch.setattr(names, "hold", too_late)
    assert load_file(saved(tmp_path / "out.safetensors", checkpoints))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.json", "out.safetensors"]


def test_of_two_writers_one_pair_stands(checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish, "_TURN", PATIENCE)
    target = tmp_path / "out.safetensors"
    networks = [rs.open(checkpoints / "basic.safetensors").heads([classes]) for classes in (2, 3, 4, 5)]

    def write(network: rs.Network) -> None:
        for _ in range(5):
            network.save(target, force=True)

    threads = [threading.Thread(target=write, args=(network,)) for network in networks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with safe_open(target, "pt") as file:
        assert file.metadata()["resnet_surgeon.manifest"] == (tmp_path / "out.json").read_text("utf-8")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.json", "out.safetensors"]


def test_a_source_that_is_replaced_meanwhile_is_read_as_it_was(checkpoints: Path, tmp_path: Path) -> None:
    source = tmp_path / "model.safetensors"
    source.write_bytes((checkpoints / "basic.safetensors").read_bytes())
    network = rs.open(source).adapt(1)
    (tmp_path / "other").write_bytes(b"another file")
    (tmp_path / "other").replace(source)
    witness = saved(tmp_path / "witness.safetensors", checkpoints)
    found, expected = (load_file(network.save(tmp_path / "out.safetensors"))), load_file(witness)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_source_that_is_cut_meanwhile_is_refused(checkpoints: Path, tmp_path: Path) -> None:
    source = tmp_path / "model.safetensors"
    source.write_bytes((checkpoints / "basic.safetensors").read_bytes())
    network = rs.open(source).adapt(1)
    os.truncate(source, source.stat().st_size // 2)
    with pytest.raises(CheckpointError, match="became shorter"):
        network.save(tmp_path / "out.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


@contextlib.contextmanager
def unprivileged() -> Iterator[None]:
    """Not root, for whom nothing is forbidden."""
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)


def test_a_folder_that_may_only_be_read_is_refused(checkpoints: Path) -> None:
    network = rs.open(checkpoints / "basic.safetensors").adapt(1)
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o555)
        with unprivileged(), pytest.raises(AccessError, match="permission"):
            network.save(Path(folder) / "out.safetensors")


def test_a_source_that_may_not_be_read_is_refused() -> None:
    with tempfile.NamedTemporaryFile() as source:
        os.chmod(source.name, 0)
        with unprivileged(), pytest.raises(AccessError, match="permission denied"):
            rs.open(source.name)


def test_a_source_that_changes_meanwhile_is_refused(
    checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "model.safetensors"
    source.write_bytes((checkpoints / "basic.safetensors").read_bytes())
    network = rs.open(source).adapt(1)
    os.utime(source, ns=(1, 1))
    with pytest.raises(CheckpointError, match="changed while it was read"):
        network.save(tmp_path / "out.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


def test_a_damaged_member_of_a_zip_is_noticed_and_nothing_is_written(checkpoints: Path, tmp_path: Path) -> None:
    data = bytearray((checkpoints / "basic.pth").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "model.pth").write_bytes(data)
    with pytest.raises(CheckpointError, match="checksum of `data/"):
        rs.open(tmp_path / "model.pth").adapt(1).save(tmp_path / "out.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["model.pth"]


@pytest.mark.parametrize("way", ["beside", "over its source", "stream", "check"])
def test_a_file_that_nobody_could_open_is_refused_before_anything_is_written(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "in.safetensors"
    save_file(small_network().state_dict(), source, metadata={"note": "x" * 100_000})
    before = source.read_bytes()
    network = rs.open(source).adapt(1)
    monkeypatch.setattr(safetensors, "HEADER_LIMIT", 100_000)
    reader, writer = os.pipe()
    ways: dict[str, Callable[[], object]] = {
        "beside": lambda: network.save(tmp_path / "out.safetensors"),
        "over its source": lambda: network.save(source, force=True),
        "stream": lambda: network.stream(writer),
        "check": network.check,
    }
    with pytest.raises(CheckpointError, match="in.safetensors: its header would be .* bytes long") as caught:
        ways[way]()
    os.close(writer)
    assert "save the source without them" in str(caught.value.hint)
    assert os.read(reader, 1) == b""
    os.close(reader)
    assert [path.name for path in tmp_path.iterdir()] == ["in.safetensors"]
    assert source.read_bytes() == before


@pytest.mark.parametrize("name", ["basic.safetensors", "basic.pth"])
def test_the_stream_is_the_file(name: str, checkpoints: Path, tmp_path: Path) -> None:
    network = rs.open(checkpoints / name).adapt(1).heads([3, 5])
    witness = network.save(tmp_path / "out.safetensors").read_bytes()
    assert streamed(network) == witness


def sharded(folder: Path, checkpoints: Path) -> list[Path]:
    """An index and its two shards."""
    names = ("1.safetensors", "2.safetensors")
    tensors = load_file(checkpoints / "basic.safetensors")
    shard = {tensor: names[number % 2] for number, tensor in enumerate(tensors)}
    for name in names:
        save_file({tensor: tensors[tensor] for tensor in tensors if shard[tensor] == name}, folder / name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shard}))
    return [folder / name for name in ("model.safetensors.index.json", *names)]


def source_files(kind: str, folder: Path, checkpoints: Path) -> list[Path]:
    """The files of a source; the first is the one to open."""
    folder.mkdir()
    if kind == "shards":
        return sharded(folder, checkpoints)
    if kind == "with a manifest":
        return [rs.open(checkpoints / "basic.pth").remove(layers=["maxpool"]).save(folder / "model.safetensors")]
    copy = folder / f"model{kind}"
    copy.write_bytes((checkpoints / f"basic{kind}").read_bytes())
    return [copy]


def overwrite(path: Path) -> None:
    """Changes the last byte and sets the time of that back: size and mtime are what they were."""
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last[0] ^ 1]))
    # A coarse clock may give two changes one time; a file's own times are all that there is to see.
    while path.stat().st_ctime_ns == before.st_ctime_ns:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"\0")


def during(action: Callable[[], object]) -> Any:
    """A progress that calls `action` once, when a first part was copied and other threads (the digest) are through."""
    pending = [action]

    @contextlib.contextmanager
    def progress(*_: object) -> Iterator[Callable[[int], None]]:
        def advance(_: int) -> None:
            if pending:
                for thread in threading.enumerate():
                    if thread.daemon and "_run" in thread.name:
                        thread.join()
                pending.pop()()

        yield advance

    return progress


KINDS = [".safetensors", ".pth", "with a manifest", "shards"]


@pytest.mark.parametrize("change", [overwrite, append])
@pytest.mark.parametrize("moment", ["before", "during"])
@pytest.mark.parametrize("kind", KINDS)
def test_whichever_file_of_a_source_changes_until_it_is_written_nothing_is(
    kind: str, moment: str, change: Callable[[Path], None], checkpoints: Path, tmp_path: Path
) -> None:
    for number, changing in enumerate(source_files(kind, tmp_path / "first", checkpoints)):
        files = source_files(kind, tmp_path / str(number), checkpoints)
        network = rs.open(files[0]).adapt(1)
        path = files[number]
        assert path.name == changing.name
        progress = during(partial(change, path))
        if moment == "before":
            change(path)
            progress = during(int)
        (tmp_path / "out").mkdir(exist_ok=True)
        with pytest.raises(CheckpointError, match=r"changed while it was read|checksum"):
            network.save(tmp_path / "out" / "out.safetensors", progress=progress)
        assert [*(tmp_path / "out").iterdir()] == []


@pytest.mark.parametrize("change", [overwrite, append])
@pytest.mark.parametrize("moment", ["before", "during"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_whose_source_changes_ends_with_an_error_and_is_not_whole(
    kind: str, moment: str, change: Callable[[Path], None], checkpoints: Path, tmp_path: Path
) -> None:
    files = source_files(kind, tmp_path / "source", checkpoints)
    network = rs.open(files[0]).adapt(1)
    whole = len(streamed(network))
    progress = during(lambda: change(files[-1]))
    if moment == "before":
        change(files[-1])
        progress = during(int)
    with (tmp_path / "stream").open("wb") as stream:
        with pytest.raises(CheckpointError, match=r"changed while it was read|checksum"):
            network.stream(stream.fileno(), progress=progress)
        assert os.fstat(stream.fileno()).st_size < whole


@pytest.mark.parametrize("kind", [".safetensors", ".pth", "with a manifest"])
def test_what_was_saved_over_its_source_can_be_saved_again(kind: str, checkpoints: Path, tmp_path: Path) -> None:
    (source,) = source_files(kind, tmp_path / "source", checkpoints)
    network = rs.open(source).adapt(1).heads([3])
    for path in (source, tmp_path / "again.safetensors", source):
        witness = network.save(tmp_path / f"witness{path.suffix}", force=True).read_bytes()
        assert network.save(path, force=True).read_bytes() == witness


def test_neighbours_in_different_files_are_read_each_from_its_own(checkpoints: Path, tmp_path: Path) -> None:
    """Two files of one layout, whose tensors alternate: each begins where the one before ends, in the other file."""
    paths = []
    for seed in (1, 2):
        torch.save(small_network(seed=seed).state_dict(), tmp_path / "source.pth")
        paths.append(rs.open(tmp_path / "source.pth").adapt(1).save(tmp_path / f"{seed}.safetensors"))
    networks, contents = [rs.open(path) for path in paths], [load_file(path) for path in paths]
    turns = {name: number % 2 for number, name in enumerate(safetensors.in_file_order(networks[0].tensors))}
    mixed = replace(
        networks[0].checkpoint, tensors={name: networks[turns[name]].tensors[name] for name in networks[0].tensors}
    )
    opened = replace(networks[0].opened, checkpoint=mixed)
    network = replace(networks[0], opened=opened, checkpoint=mixed)
    written = network.save(tmp_path / "out.safetensors")
    found = load_file(written)
    assert all(torch.equal(found[name], contents[turn][name]) for name, turn in turns.items())
    assert streamed(network) == written.read_bytes()


class Journal:
    """The calls that write, sync and name files, in the order in which they come."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.events: list[tuple[str, str]] = []
        self._monkeypatch = monkeypatch
        for call, descriptor in (("pwrite", 0), ("copy_file_range", 1), ("fsync", 0)):
            self._record(call, "sync" if call == "fsync" else "write", descriptor)
        for call in ("replace", "link"):
            self._record(call, "name", 1)

    def _record(self, call: str, event: str, argument: int) -> None:
        original = getattr(os, call)

        def recorded(*arguments: Any) -> Any:
            place = arguments[argument]
            path = os.readlink(f"/proc/self/fd/{place}") if isinstance(place, int) else os.fspath(place)
            name = re.sub(r"^\.(.*)\.[0-9a-f]{8}\.tmp$", r"\1", Path(path).name)
            done = original(*arguments)
            self.events.append((event, name))
            return done

        self._monkeypatch.setattr(os, call, recorded)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc to name descriptors")
@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("name", ["basic.safetensors", "basic.pth"])
def test_all_that_is_written_is_synced_before_it_gets_its_name_and_names_are_synced_last(
    name: str, force: bool, checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    network = rs.open(checkpoints / name).adapt(1).heads([3])
    journal = Journal(monkeypatch)
    network.save(folder / "out.safetensors", force=force)
    events = journal.events
    for file in ("out.safetensors", "out.json"):
        of_file = [event for event, name in events if name == file]
        assert of_file[-2:] == ["sync", "name"]
        assert "write" in of_file
    assert events[-3:] == [("name", "out.safetensors"), ("name", "out.json"), ("sync", "folder")]


def test_room_is_taken_before_a_byte_is_written(
    checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = saved(tmp_path / "witness.safetensors", checkpoints).stat().st_size
    asked: list[int] = []

    def full(_: int, offset: int, length: int) -> None:
        asked.append(offset + length)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    for call in ("pwrite", "copy_file_range"):
        monkeypatch.setattr(os, call, lambda *_: pytest.fail("it writes on a full disk"))
    with pytest.raises(AccessError, match=rf"no space left on device \({size} bytes are needed\)"):
        saved(tmp_path / "out.safetensors", checkpoints)
    assert asked == [size]


@pytest.mark.parametrize("letter", ["x", "é", "模"])
@pytest.mark.parametrize("size", [*range(242, 258)])
def test_a_long_name_works_or_is_refused_and_leaves_nothing(
    size: int, letter: str, checkpoints: Path, tmp_path: Path
) -> None:
    room = size - len(".safetensors")
    name = letter * (room // len(letter.encode()))
    name += "x" * (room - len(name.encode())) + ".safetensors"
    assert len(name.encode()) == size
    network = rs.open(checkpoints / "basic.safetensors").remove(last=5)
    if size <= 255:
        network.save(tmp_path / name)
        assert len([*tmp_path.iterdir()]) == 2
    else:
        with pytest.raises(AccessError, match="file name too long"):
            network.save(tmp_path / name)
        assert [*tmp_path.iterdir()] == []


def failing(code: int, concerns: Callable[..., bool] = lambda *_: True) -> Callable[[Any], Any]:
    """A call that answers `code` for the arguments that it concerns."""

    def wrap(original: Any) -> Any:
        def fail(*arguments: Any, **options: Any) -> Any:
            if concerns(*arguments):
                raise OSError(code, os.strerror(code))
            return original(*arguments, **options)

        return fail

    return wrap


@pytest.mark.parametrize("size", [20, 250])
@pytest.mark.parametrize("call", ["fsync", "link", "posix_fallocate"])
def test_what_went_wrong_is_heard_of_even_if_tidying_fails_too(
    call: str, size: int, checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = rs.open(checkpoints / "basic.safetensors").remove(last=5)
    target = tmp_path / f"{'x' * (size - 12)}.safetensors"
    for tidying in (False, True):
        with monkeypatch.context() as patch:
            patch.setattr(os, call, failing(errno.ENOSPC)(getattr(os, call)))
            if call == "link":
                patch.setattr(os, "replace", failing(errno.ENOSPC)(os.replace))
            if tidying:
                patch.setattr(os, "unlink", failing(errno.EIO)(os.unlink))
                patch.setattr(Path, "unlink", failing(errno.EIO)(Path.unlink))
            with pytest.raises(AccessError, match="writing failed: no space left on device"):
                network.save(target)
        if not tidying:
            assert [*tmp_path.iterdir()] == []


def is_folder(descriptor: int) -> bool:
    return stat.S_ISDIR(os.fstat(descriptor).st_mode)


LACKING = ["EINVAL", "ENOTSUP", "EOPNOTSUPP", "ENOSYS"]


@pytest.mark.parametrize(("call", "code"), [*(("fsync", code) for code in LACKING), ("fchmod", "EPERM")])
def test_a_file_system_without_modes_or_syncing_of_folders_will_do(
    call: str, code: str, checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = saved(tmp_path / "out.safetensors", checkpoints)
    witness = target.read_bytes()
    wrap = failing(getattr(errno, code), is_folder) if call == "fsync" else failing(getattr(errno, code))
    monkeypatch.setattr(os, call, wrap(getattr(os, call)))
    assert saved(target, checkpoints, force=True).read_bytes() == witness
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.json", "out.safetensors"]


@pytest.mark.parametrize("call", ["fsync", "fchmod"])
def test_a_disk_that_fails_is_never_taken_for_one_that_lacks_something(
    call: str, checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = saved(tmp_path / "out.safetensors", checkpoints)
    wrap = failing(errno.EIO, is_folder) if call == "fsync" else failing(errno.EIO)
    monkeypatch.setattr(os, call, wrap(getattr(os, call)))
    with pytest.raises(AccessError, match="input/output error"):
        saved(target, checkpoints, force=True)


ENDING = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


class Ended(BaseException):
    """What the handler of a test raises."""


@contextlib.contextmanager
def handled(number: signal.Signals) -> Iterator[type[BaseException]]:
    """SIGINT raises KeyboardInterrupt as always, the others Ended."""

    def end(*_: object) -> None:
        raise Ended

    before = signal.getsignal(number)
    if number != signal.SIGINT:
        signal.signal(number, end)
    chosen = signal.getsignal(number)
    try:
        yield KeyboardInterrupt if number == signal.SIGINT else Ended
        assert signal.getsignal(number) is chosen
    finally:
        signal.signal(number, before)


@contextlib.contextmanager
def idle_thread() -> Iterator[None]:
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@pytest.mark.parametrize("number", ENDING)
@pytest.mark.parametrize("force", [True, False])
@pytest.mark.parametrize("when", [1, 2])
def test_a_signal_between_two_names_waits_for_the_pair(
    when: int, force: bool, number: signal.Signals, checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = rs.open(checkpoints / "basic.safetensors").adapt(1)
    witness = network.save(tmp_path / "witness.safetensors")
    folder = tmp_path / "folder"
    folder.mkdir()
    if force:
        (folder / "out.safetensors").write_bytes(b"old")
        (folder / "out.json").write_bytes(OLD_MANIFEST)
    naming, calls = getattr(os, "replace" if force else "link"), itertools.count(1)

    def signalled(*arguments: Any) -> None:
        naming(*arguments)
        if next(calls) == when:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(os, "replace" if force else "link", signalled)
    with handled(number) as error, idle_thread(), pytest.raises(error):
        network.save(folder / "out.safetensors", force=force)
    assert sorted(path.name for path in folder.iterdir()) == ["out.json", "out.safetensors"]
    assert (folder / "out.safetensors").read_bytes() == witness.read_bytes()
    assert (folder / "out.json").read_bytes() == witness.with_suffix(".json").read_bytes()


# The command with an idle thread beside it, which gets a signal after the first of two names.
SIGNALLED = """
import os, sys, threading
threading.Thread(target=threading.Event().wait, daemon=True).start()
number = int(sys.argv.pop(1))
for call in ("replace", "link"):
    def named(*arguments, naming=getattr(os, call)):
        global number
        naming(*arguments)
        if number:
            number = os.kill(os.getpid(), number)
    setattr(os, call, named)
from resnet_surgeon.cli.main import main
main()
"""


@pytest.mark.parametrize("number", ENDING)
@pytest.mark.parametrize("force", [True, False])
def test_a_command_that_gets_a_signal_between_two_names_ends_by_it_with_a_whole_pair(
    force: bool, number: signal.Signals, checkpoints: Path, tmp_path: Path
) -> None:
    if force:
        (tmp_path / "out.safetensors").write_bytes(b"old")
        (tmp_path / "out.json").write_bytes(OLD_MANIFEST)
    command = ["adapt", str(checkpoints / "basic.safetensors"), "--in-ch", "1", "-q", "-o", "out.safetensors"]
    done = subprocess.run(
        [sys.executable, "-c", SIGNALLED, str(int(number)), *command, *["--force"] * force],
        cwd=tmp_path,
        capture_output=True,
        timeout=PATIENCE,
    )
    assert (done.returncode, b"Traceback" in done.stderr) == (-number, False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.json", "out.safetensors"]
    with safe_open(tmp_path / "out.safetensors", "pt") as file:
        assert file.metadata()["resnet_surgeon.manifest"] == (tmp_path / "out.json").read_text("utf-8")


@pytest.mark.parametrize("megabytes", [48, 80, 112, 144, 400])
@pytest.mark.parametrize(("operation", "place"), [("heads --classes 3,5", "out.safetensors"), ("adapt --in-ch 1", "-")])
def test_with_too_little_memory_there_is_a_whole_file_or_one_error(
    operation: str, place: str, megabytes: int, checkpoints: Path, tmp_path: Path
) -> None:
    limit = f"ulimit -v {megabytes * 1024}; exec {sys.executable} -m resnet_surgeon"
    command = shlex.join([*operation.split(), str(checkpoints / "basic.pth"), "-q", "-o", place])
    done = subprocess.run(["bash", "-c", f"{limit} {command}"], cwd=tmp_path, capture_output=True, timeout=PATIENCE)
    made = sorted(path.name for path in tmp_path.iterdir())
    if done.returncode == 0:
        assert made == ([] if place == "-" else ["out.json", "out.safetensors"])
        data = done.stdout if place == "-" else (tmp_path / place).read_bytes()
        assert load(data)
    else:
        errors = [line for line in done.stderr.splitlines() if line.startswith(b"error:")]
        assert (done.returncode, made, len(errors)) == (1, [], 1), done.stderr
        assert b"Traceback" not in done.stderr
    assert done.returncode == 0 or megabytes < 400
