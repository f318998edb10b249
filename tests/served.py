"""The command in forks of one process that has imported what it needs: a process of its own each time, as when people
start it, without what starting Python costs. Also as on another system, which the process becomes before it imports
the package.

Requests come over a socket: the words, the folder, the environment, and three open files. Tests send them one after
another; shells run a script that does, and may run several at once.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import pkgutil
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cache, partial
from pathlib import Path
from typing import IO, NoReturn

from tests import PATIENCE
from tests.platform.elsewhere import import_what_asks, run

_LARGEST = 1 << 17  # bytes of a request
_LISTENING = "listening"
_fork, _alarm = os.fork, signal.alarm  # which another system may lack
_TORCH = ("module", "loading", "saving", "verification", "reporting")


class Server:
    """The process that forks; `system` is a module of `tests.platform`."""

    def __init__(self, system: str = "") -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-m", "tests.served", str(theirs.fileno()), *filter(None, [system])]
            nothing = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
            self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], **nothing)  # type: ignore[call-overload]

    def run(
        self, words: list[str], folder: Path, env: dict[str, str], stdin: bytes | IO[bytes] | None
    ) -> subprocess.CompletedProcess[bytes]:
        """Runs one command to its end. Bytes come to its standard input through a pipe."""
        ends = [os.pipe(), os.pipe()]
        given = os.pipe() if isinstance(stdin, bytes) else None
        source = given[0] if given else os.open(os.devnull, os.O_RDONLY) if stdin is None else os.dup(stdin.fileno())  # type: ignore[union-attr]
        theirs = [source, *(writer for _, writer in ends)]
        request = json.dumps({"words": words, "folder": str(folder), "env": env}).encode()
        socket.send_fds(self._socket, [request], theirs)
        for descriptor in theirs:
            os.close(descriptor)
        with ThreadPoolExecutor() as threads:
            outputs = [threads.submit(_read, reader) for reader, _ in ends]
            if given:
                _write(given[1], stdin)  # type: ignore[arg-type]
            stdout, stderr = (output.result() for output in outputs)
        return subprocess.CompletedProcess(words, json.loads(self._socket.recv(_LARGEST)), stdout, stderr)

    def close(self) -> None:
        self._socket.close()
        self._process.wait()


_SCRIPT = """\
#!{python} -SE
import json, os, socket, sys

with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
    server.connect({address!r})
    request = {{"words": sys.argv[1:], "folder": os.getcwd(), "env": dict(os.environ)}}
    socket.send_fds(server, [json.dumps(request).encode()], [0, 1, 2])
    code = json.loads(server.recv(100))
sys.exit(code if code >= 0 else 128 - code)
"""


@contextmanager
def script(folder: Path, env: dict[str, str]) -> Iterator[None]:
    """Puts into the folder a script `resnet-surgeon`, for which a process in the environment `env` forks. With `-c` it
    runs Python's code, as Python does.
    """
    path = folder / "resnet-surgeon"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(address := str(folder / "socket"))
        listening.listen()
        path.write_text(_SCRIPT.format(python=sys.executable, address=address), "utf-8")
        path.chmod(0o755)
        command = [sys.executable, "-m", "tests.served", str(listening.fileno()), _LISTENING]
        process = subprocess.Popen(command, pass_fds=[listening.fileno()], env=env, stdin=subprocess.DEVNULL)
    yield
    process.kill()
    process.wait()


def _read(descriptor: int) -> bytes:
    with open(descriptor, "rb") as stream:
        return stream.read()


def _write(descriptor: int, data: bytes) -> None:
    with suppress(BrokenPipeError), open(descriptor, "wb", buffering=0) as stream:
        while data:
            data = data[stream.write(data) :]


def _serve(requests: socket.socket, prepare: Callable[[list[str]], None], command: Callable[[], object]) -> NoReturn:
    while True:
        data, descriptors, _, _ = socket.recv_fds(requests, _LARGEST, 3)
        if not data:
            os._exit(0)
        request = json.loads(data)
        prepare(request["words"])
        child = _fork()
        if child == 0:
            requests.close()
            _run(command, descriptors, **request)
        for descriptor in descriptors:
            os.close(descriptor)
        requests.send(json.dumps(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])).encode())


def _listen(listening: socket.socket, prepare: Callable[[list[str]], None], command: Callable[[], object]) -> NoReturn:
    """Forks for each that connects; that fork forks the command, and says how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        connection, _ = listening.accept()
        data, descriptors, _, _ = socket.recv_fds(connection, _LARGEST, 3)
        prepare(json.loads(data)["words"])
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            if (child := os.fork()) == 0:
                listening.close()
                connection.close()
                _run(command, descriptors, **json.loads(data))
            for descriptor in descriptors:
                os.close(descriptor)
            connection.send(json.dumps(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])).encode())
            os._exit(0)
        for descriptor in descriptors:
            os.close(descriptor)
        connection.close()


def _run(
    command: Callable[[], object], descriptors: list[int], words: list[str], folder: str, env: dict[str, str]
) -> NoReturn:
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    _alarm(PATIENCE)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = ["resnet-surgeon", *words]
    try:
        command()
        sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def _import_rooms(wanted: Callable[[str], bool]) -> None:
    import resnet_surgeon

    for module in pkgutil.walk_packages(resnet_surgeon.__path__, "resnet_surgeon."):
        room = module.name.split(".")[1]
        if room != "__main__" and wanted(room):
            importlib.import_module(module.name)
    from resnet_surgeon.cli import progress

    progress._LINE_AFTER = math.inf  # a slow machine prints what a quick one does


def _needs_torch(words: list[str]) -> bool:
    return words[:1] in (["verify"], ["report"], ["load"], ["-c"]) and "--help" not in words


def _prepare(words: list[str]) -> None:
    _import_for(_needs_torch(words))


@cache
def _import_for(torch: bool) -> None:
    import_what_asks(with_torch=torch)
    _import_rooms(lambda room: room not in _TORCH or torch)


def _main(requests: socket.socket, system: str = "") -> None:
    if system and system != _LISTENING:
        played = importlib.import_module(f"tests.platform.{system}")
        played.become()
        sys.platform = played.PLATFORM
        _import_rooms(lambda room: True)
        _serve(requests, lambda words: None, partial(run, played.PLATFORM))
    _prepare([])
    (_listen if system else _serve)(requests, _prepare, _command)


def _command() -> None:
    from resnet_surgeon.cli.main import main

    if sys.argv[1:2] == ["-c"]:
        exec(sys.argv[2], {"__name__": "__main__"})
    else:
        main()


if __name__ == "__main__":
    _main(socket.socket(fileno=int(sys.argv[1])), *sys.argv[2:])
