"""How the process ends: by its exit code, or by the signal that came; and what it leaves behind."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from resnet_surgeon import errors
from resnet_surgeon.errors import SurgeonError
from tests import PATIENCE
from tests.fixtures import Run

SMALL = Path(__file__).parents[1] / "data" / "0.1.0" / "small.safetensors"
COMMAND = [sys.executable, "-m", "resnet_surgeon"]
RANDOM = ["adapt", "resnet18", "--weights", "random", "--in-ch", "1"]
# The command, which stops for good where it first makes a certain call, and says so on standard output. Of a suite that
# runs in the background it would inherit that SIGINT is ignored.
STUCK = """
import os, signal, sys, threading
from resnet_surgeon.cli.main import main
signal.signal(signal.SIGINT, signal.default_int_handler)
def stop(*_):
    os.write(1, b"here")
    while True:
        threading.Event().wait(0.1)
setattr(os, sys.argv.pop(1), stop)
main()
"""


@pytest.mark.parametrize("call", ["pwrite", "fsync"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGKILL])
def test_a_signal_ends_it_by_that_signal_and_leaves_nothing(number: signal.Signals, call: str, tmp_path: Path) -> None:
    (tmp_path / "out.safetensors").write_text("old")
    command = [sys.executable, "-c", STUCK, call, *RANDOM, "-q", "-o", "out.safetensors", "--force"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout
    assert process.stdout.read(4) == b"here"
    process.send_signal(number)
    _, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == -number
    assert b"Traceback" not in stderr
    assert (tmp_path / "out.safetensors").read_text() == "old"
    left = [path.name for path in tmp_path.iterdir() if path.name != "out.safetensors"]
    if number == signal.SIGKILL:
        assert [re.sub("[0-9a-f]{8}", "*", name) for name in left] == [".out.safetensors.*.tmp"]
    else:
        assert left == []


def test_a_signal_that_python_makes_another_error_of_still_ends_it(tmp_path: Path) -> None:
    code = """
import os, signal
from resnet_surgeon.cli import main

class Descriptor:
    def __set_name__(self, owner, name):
        os.kill(os.getpid(), signal.SIGTERM)

def command():
    class Made:
        member = Descriptor()

main._command = command
main.main()
"""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=PATIENCE)
    assert (process.returncode, process.stderr) == (-signal.SIGTERM, b"")


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_goes_away_ends_it_by_sigpipe(unbuffered: str, checkpoints: Path) -> None:
    process = subprocess.Popen(
        [*COMMAND, "adapt", str(checkpoints / "bottleneck.safetensors"), "--in-ch", "1", "-o", "-"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
    )
    assert process.stdout
    assert process.stderr
    process.stdout.read(1)
    process.stdout.close()
    stderr = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=PATIENCE) == -signal.SIGPIPE
    assert b"Traceback" not in stderr


@pytest.mark.parametrize(
    "arguments",
    ["--version", "list", "inspect a.safetensors", "diff a.safetensors resnet18 --weights random"],
)
def test_a_command_that_prints_ends_quietly_when_nobody_reads_on(arguments: str, tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(SMALL.read_bytes())
    done = shell(f"rs {arguments} >&3; echo $? >&2", tmp_path, "exec 3> >(exec true); wait $!; ")
    assert done.stderr.split() == [str(128 + signal.SIGPIPE).encode()]


def shell(command: str, folder: Path, before: str = "") -> subprocess.CompletedProcess[bytes]:
    """Runs a line of shell in which `rs` is the command."""
    prefix = f'rs() {{ {" ".join(COMMAND)} "$@"; }}; {before}'
    return subprocess.run(["bash", "-c", prefix + command], cwd=folder, capture_output=True, timeout=PATIENCE)


@pytest.mark.parametrize(
    ("redirection", "reason"),
    [(">/dev/full", b"No space left on device"), (">&-", b"standard output")],
)
@pytest.mark.parametrize("output", ["-o -", "-o out.safetensors --force", "--json --dry-run"])
def test_a_standard_output_that_fails_is_an_error(
    output: str, redirection: str, reason: bytes, checkpoints: Path, tmp_path: Path
) -> None:
    done = shell(f"rs adapt {checkpoints}/basic.safetensors --in-ch 1 {output} {redirection}", tmp_path)
    assert done.returncode == 1
    assert reason in done.stderr
    assert b"Traceback" not in done.stderr


def test_a_file_that_may_not_become_so_large_is_an_error(checkpoints: Path, tmp_path: Path) -> None:
    done = shell(f"ulimit -f 1000; rs adapt {checkpoints}/basic.safetensors --in-ch 1 -o out.safetensors", tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith(b"error: out.safetensors: writing failed: file too large")
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("megabytes", range(36, 72, 8))
def test_with_too_little_memory_it_does_its_work_or_says_so(megabytes: int, checkpoints: Path, tmp_path: Path) -> None:
    limit = f"ulimit -v {megabytes * 1024}"
    done = shell(f"{limit}; rs adapt {checkpoints}/basic.pth --in-ch 1 -q -o out.safetensors", tmp_path)
    assert (done.returncode, b"this is a bug" in done.stderr) in ((0, False), (1, False))
    assert len([*tmp_path.iterdir()]) == (2 if done.returncode == 0 else 0)


def test_a_closed_standard_input_is_an_error(tmp_path: Path) -> None:
    done = shell("rs adapt - --in-ch 1 <&-", tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith(b"error: standard input: ")


def test_closed_standard_streams_never_become_the_output(checkpoints: Path, tmp_path: Path) -> None:
    done = shell(f"rs adapt {checkpoints}/basic.safetensors --in-ch 1 -o a.safetensors <&- >&- 2>&-; true", tmp_path)
    again = shell(f"rs adapt {checkpoints}/basic.safetensors --in-ch 1 -o b.safetensors", tmp_path)
    assert (done.returncode, again.returncode) == (0, 0)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def on_a_terminal(*arguments: str, stream: str) -> tuple[int, bytes]:
    """Runs the command with one standard stream on a terminal."""
    controller, terminal = pty.openpty()
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, stream: terminal}
    process = subprocess.run([*COMMAND, *arguments], stderr=subprocess.PIPE, timeout=PATIENCE, **streams)  # type: ignore[call-overload]
    os.close(terminal)
    os.close(controller)
    return process.returncode, process.stderr


def test_a_stream_never_goes_to_a_terminal() -> None:
    code, stderr = on_a_terminal("adapt", "resnet18", "--weights", "random", "--in-ch", "1", "-o", "-", stream="stdout")
    assert (code, stderr.splitlines()[0][:41]) == (2, b"error: standard output is a terminal, and")


def test_a_terminal_is_never_waited_for() -> None:
    code, stderr = on_a_terminal("adapt", "-", "--in-ch", "1", stream="stdin")
    assert (code, stderr.splitlines()[0]) == (2, b"error: standard input: it is a terminal, not a stream")


@pytest.mark.parametrize(("patience", "is_drawn"), [("-1", True), ("float('inf')", False)])
def test_a_terminal_gets_a_progress_bar_if_it_takes_long(patience: str, is_drawn: bool, tmp_path: Path) -> None:
    script = f"from resnet_surgeon.cli import main, progress; progress._BAR_AFTER = {patience}; main.main()"
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", script, *RANDOM, "-o", "out.safetensors"],
        stdout=subprocess.DEVNULL,
        stderr=terminal,
        cwd=tmp_path,
        env={**os.environ, "TERM": "xterm"},
    )
    os.close(terminal)
    shown = b""
    while True:
        try:
            piece = os.read(controller, 4096)
        except OSError:
            break
        shown += piece
    os.close(controller)
    assert process.wait(timeout=PATIENCE) == 0
    assert ("writing out.safetensors" in shown.decode()) == is_drawn
    assert bool(re.search(r"/44\.6 MiB", shown.decode())) == is_drawn


def test_a_bug_of_ours_asks_for_a_report(run: Run, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import resnet_surgeon.operations.adapt as a\na.Adapt.apply = lambda *_: 1 / 0\n"
    )
    arguments = ["adapt", "resnet18", "--weights", "random", "--in-ch", "1"]
    env = {"PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[2]}"}
    done = run(*arguments, env=env)
    assert done.returncode == 3
    assert done.stderr.decode().splitlines() == [
        "error: this is a bug in resnet-surgeon: ZeroDivisionError: division by zero",
        "hint: please report it with what the same command prints with `--debug`",
    ]
    assert b"Traceback" in run(*arguments, "--debug", env=env).stderr


def test_a_message_comes_to_an_end(run: Run) -> None:
    done = run("adapt", "resnet18", "--in-ch", "1" * 30_000)
    assert done.returncode == 2
    assert max(map(len, done.stderr.splitlines())) < 2100


def test_a_locale_without_the_letters_of_a_name_is_no_bug(run: Run, tmp_path: Path) -> None:
    save_file(load_file(SMALL) | {"\u6743\u91cd": torch.zeros(2)}, tmp_path / "a.safetensors")
    locale = {"PYTHONUTF8": "0", "LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0"}
    done = run("inspect", "a.safetensors", "--tensors", env=locale)
    assert done.returncode == 0, done.stderr
    assert b"\\u6743\\u91cd" in done.stdout


def kinds(error: type[SurgeonError]) -> set[type[SurgeonError]]:
    return {error}.union(*map(kinds, error.__subclasses__()))


def test_every_kind_of_error_is_drawn_with_its_exit_code() -> None:
    for kind in kinds(SurgeonError):
        assert kind is SurgeonError or re.search(rf"{kind.__name__} +{kind.exit_code} ", errors.__doc__ or ""), kind
