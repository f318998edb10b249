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
import select
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import IO, NoReturn

from tests import PATIENCE, TORCH
from tests.platform.elsewhere import import_what_asks, run

_LARGEST = 1 << 17  # bytes of a request
_LISTENING, _WITH_TORCH = "listening", "torch"
_NEEDING_TORCH = ("verify", "report", "load", "-c")  # the commands
_fork, _alarm = os.fork, signal.alarm  # which another system may lack


class Server:
    """The processes that fork: one without torch, whose forks take a tenth of the time, and one that has imported it.
    Each starts when it is needed. `system` is a module of `tests.platform`.
    """

    def __init__(self, system: str = "") -> None:
        self._system = system
        self._started: dict[bool, tuple[socket.socket, subprocess.Popen[bytes]]] = {}

    def _requests(self, with_torch: bool) -> socket.socket:
        if with_torch not in self._started:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                self._started[with_torch] = ours, _start(theirs, with_torch, self._system)
        return self._started[with_torch][0]

    def run(
        self, words: list[str], folder: Path, env: dict[str, str], stdin: bytes | IO[bytes] | None
    ) -> subprocess.CompletedProcess[bytes]:
        """Runs one command to its end. Bytes come to its standard input through a pipe."""
        ends = [os.pipe(), os.pipe()]
        given = os.pipe() if isinstance(stdin, bytes) else None
        source = given[0] if given else os.open(os.devnull, os.O_RDONLY) if stdin is None else os.dup(stdin.fileno())  # type: ignore[union-attr]
        theirs = [source, *(writer for _, writer in ends)]
        request = json.dumps({"words": words, "folder": str(folder), "env": env}).encode()
        requests = self._requests(words[:1] in [[word] for word in _NEEDING_TORCH] and "--help" not in words)
        socket.send_fds(requests, [request], theirs)
        for descriptor in theirs:
            os.close(descriptor)
        with ThreadPoolExecutor() as threads:
            outputs = [threads.submit(_read, reader) for reader, _ in ends]
            if given:
                _write(given[1], stdin)  # type: ignore[arg-type]
            stdout, stderr = (output.result() for output in outputs)
        return subprocess.CompletedProcess(words, json.loads(requests.recv(_LARGEST)), stdout, stderr)

    def close(self) -> None:
        for requests, process in self._started.values():
            requests.close()
            process.wait()


_SCRIPT = """\
#!{python} -SE
import json, os, socket, sys

with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
    server.connect({folder!r} + "/torch-" + str(sys.argv[1] in {needing!r}))
    request = {{"words": sys.argv[1:], "folder": os.getcwd(), "env": dict(os.environ)}}
    socket.send_fds(server, [json.dumps(request).encode()], [0, 1, 2])
    code = json.loads(server.recv(100))
sys.exit(code if code >= 0 else 128 - code)
"""


@contextmanager
def script(folder: Path, env: dict[str, str]) -> Iterator[None]:
    """Puts into the folder a script `resnet-surgeon`, for which processes in the environment `env` fork. With `-c` it
    runs Python's code, as Python does.
    """
    path, processes = folder / "resnet-surgeon", []
    for with_torch in (False, True):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
            listening.bind(str(folder / f"torch-{with_torch}"))
            listening.listen()
            processes.append(_start(listening, with_torch, _LISTENING, env))
    path.write_text(_SCRIPT.format(python=sys.executable, folder=str(folder), needing=_NEEDING_TORCH), "utf-8")
    path.chmod(0o755)
    yield
    for process in processes:
        process.kill()
        process.wait()


def _start(
    requests: socket.socket, with_torch: bool, kind: str, env: dict[str, str] | None = None
) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.served", str(requests.fileno()), _WITH_TORCH * with_torch, kind]
    nothing = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
    return subprocess.Popen(command, pass_fds=[requests.fileno()], env=env, **nothing)  # type: ignore[call-overload, no-any-return]


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
        request = json.loads(data)
        prepare(request["words"])
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            if (child := os.fork()) == 0:
                listening.close()
                connection.close()
                _run(command, descriptors, **request)
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


def _import_rooms(with_torch: bool) -> None:
    import resnet_surgeon

    for module in pkgutil.walk_packages(resnet_surgeon.__path__, "resnet_surgeon."):
        room = module.name.split(".")[1]
        if room != "__main__" and (with_torch or room not in TORCH):
            importlib.import_module(module.name)
    for name in ("numpy.random", "typer.rich_utils"):  # of what is drawn, and of help
        importlib.import_module(name)
    from resnet_surgeon.cli import progress

    progress._LINE_AFTER = math.inf  # a slow machine prints what a quick one does


def _main(requests: socket.socket, with_torch: bool, kind: str) -> None:
    if kind == _LISTENING:
        select.select([requests], [], [])  # what is never asked need not get ready
    if kind in ("", _LISTENING):
        import_what_asks(with_torch)
        _import_rooms(with_torch)
        (_listen if kind else _serve)(requests, _prepare, _command)
    played = importlib.import_module(f"tests.platform.{kind}")
    played.become(with_torch)
    sys.platform = played.PLATFORM
    _import_rooms(with_torch)
    _serve(requests, lambda words: None, partial(run, played.PLATFORM))


def _prepare(words: list[str]) -> None:
    if any("random" in word for word in words):
        from tests.drawing import draw_ahead

        draw_ahead()


def _command() -> None:
    from resnet_surgeon.cli.main import main

    if sys.argv[1:2] == ["-c"]:
        exec(sys.argv[2], {"__name__": "__main__"})
    else:
        main()


if __name__ == "__main__":
    _main(socket.socket(fileno=int(sys.argv[1])), sys.argv[2] == _WITH_TORCH, sys.argv[3])
