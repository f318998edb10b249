"""A signal is heard of, though its exception was lost on its way; and a second one ends the process."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests import PATIENCE

# The command, in which a signal comes while a finalizer runs: Python passes over the exception that it raises there.
LOST = """
import os, signal, sys, threading
from resnet_surgeon.platform import disk, transfer
sys.unraisablehook = lambda _: None

class Ending:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(1000):
            pass

endings = [Ending]

def losing(call):
    def lost(*arguments):
        if endings and threading.current_thread() is threading.main_thread():
            endings.pop()()
        return call(*arguments)
    return lost

module, name = {"copy": (transfer, "copy"), "wait": (threading.Thread, "join"), "sync": (disk, "sync")}[sys.argv.pop(1)]
setattr(module, name, losing(getattr(module, name)))
slow = os.fsync
os.fsync = lambda descriptor: (threading.Event().wait(0.5), slow(descriptor))
from resnet_surgeon.cli.main import main
main()
"""


@pytest.mark.parametrize("moment", ["copy", "wait", "sync"])
def test_a_signal_whose_exception_is_lost_still_ends_it(moment: str, checkpoints: Path, tmp_path: Path) -> None:
    command = ["adapt", str(checkpoints / "basic.safetensors"), "--in-ch", "1", "-q", "-o", "out.safetensors"]
    done = subprocess.run(
        [sys.executable, "-c", LOST, moment, *command], cwd=tmp_path, capture_output=True, timeout=PATIENCE
    )
    assert (done.returncode, done.stderr, [*tmp_path.iterdir()]) == (-signal.SIGTERM, b"", [])


# The command, which never comes to an end of tidying up.
TIDYING = """
import os, pathlib, signal, sys, threading, time
def stop(*_):
    if threading.current_thread() is threading.main_thread():
        os.write(1, b"here")
        while True:
            time.sleep(0.01)
def tidy(*_, **__):
    os.write(1, b"tidy")
    while True:
        time.sleep(0.01)
os.fsync = stop
pathlib.Path.unlink = tidy
signal.signal(signal.SIGINT, signal.default_int_handler)
from resnet_surgeon.cli.main import main
main()
"""


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_second_signal_ends_it_at_once(second: signal.Signals, checkpoints: Path, tmp_path: Path) -> None:
    command = ["adapt", str(checkpoints / "basic.safetensors"), "--in-ch", "1", "-q", "-o", "out.safetensors"]
    process = subprocess.Popen([sys.executable, "-c", TIDYING, *command], cwd=tmp_path, stdout=subprocess.PIPE)
    assert process.stdout
    with process.stdout as said:
        assert said.read(4) == b"here"
        process.send_signal(signal.SIGINT)
        assert said.read(4) == b"tidy"
        process.send_signal(second)
        assert process.wait(timeout=PATIENCE) == -second
