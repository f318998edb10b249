"""`make faults`: every system call that writes fails, and the process is killed at every one of them, by strace.

As in SQLite's own tests of input and output errors: the Nth call, for each N that there is, once and from then on.
Afterwards the old output stands or the whole new one, with its manifest, and no litter but what SIGKILL leaves.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

import resnet_surgeon as rs
from tests import OLD_MANIFEST, PATIENCE

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace: install Debian's strace")
CALLS = (
    "openat", "fallocate", "pwrite64", "copy_file_range", "fsync", "fchmod", "flock", "link", "rename", "unlink",
)  # fmt: skip
ERRORS = ("ENOSPC", "EIO")
SIGNALS = ("SIGKILL", "SIGTERM", "SIGINT", "SIGHUP")
OLD = b"old"


@dataclass(frozen=True)
class Fault:
    """What strace does to the Nth call: `when` is N, or N+ for that and all that follow."""

    call: str
    when: str
    what: str

    def __str__(self) -> str:
        return f"{self.call} {self.when} {self.what}"


@dataclass(frozen=True)
class Stage:
    """A command that writes out.safetensors in a folder, and what it comes to."""

    source: Path
    whole: bytes
    manifest: bytes
    force: bool

    def command(self) -> list[str]:
        operation = ["heads", str(self.source), "--classes", "2", "-q", "-o", "out.safetensors"]
        return [sys.executable, "-B", "-m", "resnet_surgeon", *operation, *["--force"] * self.force]

    def prepare(self, folder: Path) -> None:
        folder.mkdir()
        if self.force:
            (folder / "out.safetensors").write_bytes(OLD)
            (folder / "out.json").write_bytes(OLD_MANIFEST)

    def run(self, folder: Path, *strace: str) -> subprocess.CompletedProcess[bytes]:
        command = ["strace", "-f", "-qq", "-o", str(folder.with_suffix(".log")), *strace, *self.command()]
        return subprocess.run(command, cwd=folder, capture_output=True, timeout=PATIENCE)


@pytest.fixture(scope="module", params=[True, False], ids=["replacing", "new"])
def stage(request: pytest.FixtureRequest, checkpoints: Path, tmp_path_factory: pytest.TempPathFactory) -> Stage:
    folder = tmp_path_factory.mktemp("stage")
    # In the order of our own files, so that untouched tensors are one run of bytes, and calls are few.
    source = rs.open(checkpoints / "basic.pth").adapt(1).save(folder / "source.safetensors")
    whole = rs.open(source).heads([2]).save(folder / "whole.safetensors")
    return Stage(source, whole.read_bytes(), whole.with_suffix(".json").read_bytes(), request.param)


def faults(stage: Stage, folder: Path) -> Iterator[Fault]:
    """Every call of a clean run, in every way. Opening counts only where it makes a file."""
    stage.prepare(folder)
    assert stage.run(folder, "-e", f"trace={','.join(CALLS)}").returncode == 0
    yield from _calls(folder)


def _calls(folder: Path) -> Iterator[Fault]:
    lines = folder.with_suffix(".log").read_text("utf-8").splitlines()
    main = lines[0].split()[0]
    seen: Counter[str] = Counter()
    for line in lines:
        match = re.match(r"(\d+) +(\w+)\(", line)
        if match is None or match[1] != main:
            continue
        call = match[2]
        seen[call] += 1
        if call == "openat" and "O_CREAT|O_EXCL" not in line:
            continue
        for error in ERRORS:
            yield Fault(call, f"{seen[call]}", f"error={error}")
            yield Fault(call, f"{seen[call]}+", f"error={error}")
        for name in SIGNALS:
            yield Fault(call, f"{seen[call]}", f"signal={name}")


def check(stage: Stage, fault: Fault, folder: Path) -> str | None:
    """What is wrong after the fault, if anything."""
    try:
        return problem(stage, fault, folder)
    finally:
        shutil.rmtree(folder)  # hundreds of them would fill a disk


def problem(stage: Stage, fault: Fault, folder: Path) -> str | None:
    stage.prepare(folder)
    done = stage.run(folder, "-e", f"inject={fault.call}:{fault.what}:when={fault.when}")
    found = {path.name: path.read_bytes() for path in folder.iterdir()}
    output, manifest = found.pop("out.safetensors", None), found.pop("out.json", None)
    before = (OLD, OLD_MANIFEST) if stage.force else (None, None)
    killed = fault.what == "signal=SIGKILL"
    after = (stage.whole, stage.manifest)
    # The new file always has its manifest embedded; killed between two renames, it may not yet have it beside it.
    states = [before, after, (stage.whole, None), *[(stage.whole, before[1])] * killed]
    if (output, manifest) not in states:
        return "neither the old pair nor the new"
    if done.returncode == 0 and (output, manifest) != after:
        return "it says that it is done, and is not"
    if b"Traceback" in done.stderr:
        return done.stderr.decode()
    if found and not killed and fault.call != "unlink":
        return f"litter: {[*found]}"
    if killed:
        again = subprocess.run([*stage.command(), "--force"], cwd=folder, capture_output=True, timeout=PATIENCE)
        left = sorted(path.name for path in folder.iterdir())
        if again.returncode or left != ["out.json", "out.safetensors"]:
            return f"what a killed writer left is not removed: {left}"
    return None


def test_at_every_fault_the_old_file_stands_or_the_whole_new_one(stage: Stage, tmp_path: Path) -> None:
    every = [*faults(stage, tmp_path / "clean")]
    assert {fault.call for fault in every} >= {"openat", "pwrite64", "copy_file_range", "fsync", "unlink"}
    with ThreadPoolExecutor(2) as executor:
        folders = (tmp_path / str(number) for number in range(len(every)))
        found = [*executor.map(check, [stage] * len(every), every, folders)]
    print(f"{len(every)} faults")
    assert {str(fault): problem for fault, problem in zip(every, found, strict=True) if problem} == {}


# The command beside idle threads, to which the kernel may hand a signal; first it says which process it is.
BESIDE_IDLE_THREADS = """
import os, sys, threading
for _ in range(3):
    threading.Thread(target=threading.Event().wait, daemon=True).start()
os.write(1, b"%d\\n" % os.getpid())
from resnet_surgeon.cli.main import main
main()
"""
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LONG = 300_000  # microseconds for which strace holds a call up, while the signal comes
SOON = 40  # signals at random moments

Moment = Callable[["subprocess.Popen[bytes]", Path], bool]


def signalled(stage: Stage, folder: Path, number: signal.Signals, await_moment: Moment, *strace: str) -> str | None:
    """What is wrong after the signal, if anything. It comes from another process, at the moment that is waited for."""
    stage.prepare(folder)
    command = [sys.executable, "-B", "-c", BESIDE_IDLE_THREADS, *stage.command()[4:]]
    traced = ["strace", "-f", "-qq", "-o", str(folder.with_suffix(".log")), *strace, *command] if strace else command
    with subprocess.Popen(traced, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        victim = int(process.stdout.readline())
        is_alive = await_moment(process, folder)
        if is_alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, number)
        _, stderr = process.communicate(timeout=PATIENCE)
    found = {path.name: path.read_bytes() for path in folder.iterdir()}
    shutil.rmtree(folder)
    pair = found.pop("out.safetensors", None), found.pop("out.json", None)
    before = (OLD, OLD_MANIFEST) if stage.force else (None, None)
    if pair not in (before, (stage.whole, stage.manifest)):
        return "neither the old pair nor the new"
    if process.returncode not in (0, -number) or b"Traceback" in stderr:
        return f"it ends with {process.returncode}: {stderr.decode()}"
    if process.returncode == 0 and pair == before:
        return "it says that it is done, and is not"
    return f"litter: {[*found]}" if found else None


def named(file: str) -> Moment:
    """When `file` has its new content."""

    def wait(process: subprocess.Popen[bytes], folder: Path) -> bool:
        path = folder / file
        before = (OLD, OLD_MANIFEST)
        while not path.exists() or path.read_bytes() in before:
            if process.poll() is not None:
                return False
            time.sleep(0.001)
        return True

    return wait


def made(process: subprocess.Popen[bytes], folder: Path) -> bool:
    """When the first temporary file is there."""
    while process.poll() is None:
        if [*folder.glob(".*.tmp")]:
            return True
        time.sleep(0.001)
    return False


def after(seconds: float) -> Moment:
    def wait(process: subprocess.Popen[bytes], _: Path) -> bool:
        time.sleep(seconds)
        return process.poll() is None

    return wait


@pytest.mark.parametrize("number", ENDING)
@pytest.mark.parametrize(
    ("call", "moment"),
    [
        ("fsync:delay_enter", made),
        ("rename,link,renameat2,linkat:delay_enter", made),
        ("rename,link,renameat2,linkat:delay_exit", named("out.safetensors")),
        ("rename,link,renameat2,linkat:delay_exit", named("out.json")),
        ("unlink:delay_enter", named("out.json")),
    ],
    ids=["syncing", "before the names", "between the names", "after the names", "tidying"],
)
def test_wherever_a_signal_from_outside_comes_the_pair_is_whole(
    stage: Stage, call: str, moment: Moment, number: signal.Signals, tmp_path: Path
) -> None:
    if stage.force and call.startswith("unlink"):
        pytest.skip("nothing is left to tidy up")
    for turn in range(2):
        inject = f"inject={call}={LONG}"
        assert signalled(stage, tmp_path / str(turn), number, moment, "-e", inject) is None


def test_whenever_a_signal_from_outside_comes_the_pair_is_whole(stage: Stage, tmp_path: Path) -> None:
    chance = random.Random(0)
    begun = time.monotonic()
    assert signalled(stage, tmp_path / "clean", signal.SIGINT, named("never")) is None
    length = time.monotonic() - begun
    every = [(chance.choice(ENDING), chance.uniform(0, length)) for _ in range(SOON)]
    found = {
        f"{number.name} after {seconds} s": problem
        for turn, (number, seconds) in enumerate(every)
        if (problem := signalled(stage, tmp_path / str(turn), number, after(seconds)))
    }
    print(f"{len(every)} signals at random moments")
    assert found == {}


def test_all_that_is_written_is_synced_before_it_gets_its_name_and_names_are_synced_last(
    stage: Stage, tmp_path: Path
) -> None:
    """As the kernel sees it. Threads may sync earlier, too; what counts is the last time before the name."""
    folder = tmp_path / "folder"
    stage.prepare(folder)
    writing = "pwrite64,copy_file_range,fsync,rename,renameat,renameat2,link,linkat"
    assert stage.run(folder, "-y", "-e", f"trace={writing}").returncode == 0
    events: list[tuple[str, str]] = []
    for line in folder.with_suffix(".log").read_text("utf-8").splitlines():
        call = re.match(r"\d+ +(\w+)\(", line)
        temporary = re.search(r"\.(out\.\w+)\.[0-9a-f]{8}\.tmp", line)
        if call and (temporary or f"<{folder}>" in line):
            events.append((call[1], temporary[1] if temporary else "folder"))
    for file in ("out.safetensors", "out.json"):
        calls = [call for call, name in events if name == file]
        assert calls[-2] == "fsync"
        assert calls[-1].startswith(("rename", "link"))
    assert [name for _, name in events[-3:]] == ["out.safetensors", "out.json", "folder"]
    assert events[-1] == ("fsync", "folder")


STREAMING = ("write", "sendfile")


def streamed(stage: Stage, folder: Path, *strace: str) -> tuple[int, bytes, bytes]:
    """Exit code, standard output and standard error of the command that streams."""
    folder.mkdir()
    command = ["strace", "-f", "-qq", "-o", str(folder.with_suffix(".log")), *strace]
    command += [sys.executable, "-B", "-m", "resnet_surgeon", "heads", str(stage.source), "--classes", "2", "-o", "-"]
    with (folder / "got").open("wb") as got:
        done = subprocess.run(command, stdout=got, stderr=subprocess.PIPE, cwd=folder, timeout=PATIENCE)
    return done.returncode, (folder / "got").read_bytes(), done.stderr


@pytest.mark.parametrize("stage", [False], ids=["stream"], indirect=True)
def test_a_stream_is_whole_or_the_exit_code_says_that_it_is_not(stage: Stage, tmp_path: Path) -> None:
    code, whole, _ = streamed(stage, tmp_path / "clean", "-e", f"trace={','.join(STREAMING)}")
    assert (code, whole) == (0, stage.whole)
    found = {}
    for number, fault in enumerate(_calls(tmp_path / "clean")):
        inject = f"inject={fault.call}:{fault.what}:when={fault.when}"
        code, got, stderr = streamed(stage, tmp_path / str(number), "-e", inject)
        if (code == 0 and got != whole) or b"Traceback" in stderr:
            found[str(fault)] = stderr
    assert found == {}
