"""The command on systems that are played here: what it writes, sends and refuses there."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import resnet_surgeon as rs
from tests.fixtures import Run
from tests.served import Server

On = Callable[..., "subprocess.CompletedProcess[bytes]"]
SYSTEMS = ["macos", "windows"]


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, Server]]:
    """Those that were needed so far."""
    servers: dict[str, Server] = {}
    yield servers
    for server in servers.values():
        server.close()


@pytest.fixture
def on(tmp_path: Path, servers: dict[str, Server]) -> On:
    """Runs a command on a system, in an empty folder."""

    def on(system: str, *arguments: str | Path, stdin: bytes = b"", **env: str) -> subprocess.CompletedProcess[bytes]:
        if system not in servers:
            servers[system] = Server(system)
        return servers[system].run([*map(str, arguments)], tmp_path, {**os.environ, **env}, stdin)

    return on


@pytest.fixture(scope="module")
def witness(checkpoints: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is written here."""
    network = rs.open(checkpoints / "basic.pth").adapt(1).heads([3])
    return network.save(tmp_path_factory.mktemp("witness") / "out.safetensors")


HEADS = ("--classes", "3", "-q", "-o")


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("force", [False, True])
def test_a_file_is_written_as_it_is_here(
    force: bool, system: str, witness: Path, checkpoints: Path, tmp_path: Path, on: On
) -> None:
    """The first command reads a zip archive, the second what the first wrote, and replaces what is there."""
    adapt = ["adapt", checkpoints / "basic.pth", "--in-ch", "1", "-q", "-o", "mid.safetensors"]
    assert (done := on(system, *adapt)).returncode == 0, done.stderr
    if force:
        rs.open(checkpoints / "basic.pth").save(tmp_path / "out.safetensors")
    done = on(system, "heads", "mid.safetensors", *HEADS, "out.safetensors", *["--force"] * force)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out.safetensors").read_bytes() == witness.read_bytes()
    assert (tmp_path / "out.json").read_bytes() == witness.with_suffix(".json").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


@pytest.mark.parametrize("system", SYSTEMS)
def test_blocks_that_cannot_be_shared_are_copied(system: str, checkpoints: Path, tmp_path: Path, on: On) -> None:
    source = checkpoints / "basic.safetensors"
    here = rs.open(source).adapt(1).save(tmp_path / "here.safetensors", share_blocks=True)
    done = on(system, "adapt", source, "--in-ch", "1", "-q", "--share-blocks", "-o", "there.safetensors")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "there.safetensors").read_bytes() == here.read_bytes()


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_stream_comes_in_and_goes_out_as_it_does_here(system: str, witness: Path, checkpoints: Path, on: On) -> None:
    first = on(system, "adapt", checkpoints / "basic.pth", "--in-ch", "1", "-q", "-o", "-")
    assert first.returncode == 0, first.stderr
    second = on(system, "heads", "-", *HEADS, "-", stdin=first.stdout)
    assert (second.returncode, second.stdout == witness.read_bytes()) == (0, True), second.stderr


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("command", ["inspect", "verify"])
def test_other_commands_say_what_they_say_here(command: str, system: str, witness: Path, run: Run, on: On) -> None:
    here, there = run(command, witness), on(system, command, witness)
    assert (there.returncode, there.stdout, there.stderr) == (0, here.stdout, here.stderr)


def test_windows_writes_a_page(witness: Path, tmp_path: Path, run: Run, on: On) -> None:
    assert run("report", witness, "-q", "-o", "here.html").returncode == 0
    done = on("windows", "report", witness, "-q", "-o", "page.html")
    assert (done.returncode, done.stdout) == (0, b"page.html\n"), done.stderr
    assert (tmp_path / "page.html").read_text("utf-8") == (tmp_path / "here.html").read_text("utf-8")


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_network_loads_and_computes(system: str, witness: Path, on: On) -> None:
    import torch

    done = on(system, "load", witness)
    assert done.returncode == 0, done.stderr
    with torch.no_grad():
        assert done.stdout.decode().strip() == str(rs.load(witness).eval()(torch.ones(1, 1, 64, 64)).tolist())


def test_macos_syncs_files_and_folder_to_the_drive_itself(checkpoints: Path, tmp_path: Path, on: On) -> None:
    journal = tmp_path / "journal"
    adapt = ["adapt", checkpoints / "basic.safetensors", "--in-ch", "1", "-q", "-o", "out.safetensors"]
    assert on("macos", *adapt, JOURNAL=str(journal)).returncode == 0
    events = journal.read_text().splitlines()
    assert events[-3:] == ["fullfsync file", "fullfsync file", "fullfsync folder"]
    assert "fsync" not in {event.split()[0] for event in events}


@pytest.mark.parametrize("code", ["ENOTSUP", "EINVAL", "ENOTTY"])
def test_macos_syncs_as_it_can_where_the_drive_cannot(code: str, checkpoints: Path, tmp_path: Path, on: On) -> None:
    journal = tmp_path / "journal"
    adapt = ["adapt", checkpoints / "basic.safetensors", "--in-ch", "1", "-q", "-o", "out.safetensors"]
    assert on("macos", *adapt, JOURNAL=str(journal), FULLFSYNC=code).returncode == 0
    assert journal.read_text().splitlines()[-3:] == ["fsync file", "fsync file", "fsync folder"]


def test_macos_reports_a_drive_that_fails(checkpoints: Path, tmp_path: Path, on: On) -> None:
    adapt = ["adapt", checkpoints / "basic.safetensors", "--in-ch", "1", "-q", "-o", "out.safetensors"]
    assert on("macos", *adapt, FULLFSYNC="EIO").returncode == 1
    assert [*tmp_path.iterdir()] == []


def test_windows_does_not_replace_the_source_which_is_open(witness: Path, tmp_path: Path, on: On) -> None:
    (tmp_path / "model.safetensors").write_bytes(witness.read_bytes())
    done = on("windows", "heads", "model.safetensors", *HEADS, "model.safetensors", "--force")
    assert done.returncode == 1
    assert b"it is the source, and this system replaces no file that is open" in done.stderr
    assert b"hint: write to another file" in done.stderr
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"model.safetensors": witness.read_bytes()}


def test_windows_removes_what_killed_writers_left_and_nothing_that_is_open(
    checkpoints: Path, tmp_path: Path, on: On
) -> None:
    abandoned, alive = (tmp_path / f".out.safetensors.0000000{number}.tmp" for number in (1, 2))
    abandoned.touch()
    alive.touch()
    adapt = ["adapt", checkpoints / "basic.safetensors", "--in-ch", "1", "-q", "-o", "out.safetensors"]
    assert on("windows", *adapt, HOLD=str(alive)).returncode == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [alive.name, "out.json", "out.safetensors"]


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_folder_is_refused_as_one(system: str, tmp_path: Path, on: On) -> None:
    (tmp_path / "folder").mkdir()
    done = on(system, "adapt", "folder", "--in-ch", "1")
    assert (done.returncode, done.stderr.splitlines()[0]) == (1, b"error: folder: it is a folder without a checkpoint")
