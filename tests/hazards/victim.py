"""A process that runs commands in forks of itself, with little memory and an audit hook, and tells what happened.

Everything that any command needs is imported before; whatever is imported, executed or opened in a fork is reported.
One line of JSON in, {"argv", "folder", "pipe"}: one line out, a `tests.hazards.trial.Outcome`.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import resource
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, NoReturn

from tests import PATIENCE, TORCH

_MEMORY = 96 << 20  # beyond what is there when a command begins: address space, so buffers of threads count whole
_CPU = 20  # seconds of the processor, whatever else runs: at least twenty times what any row takes
_HARMFUL = (
    "import", "exec", "compile", "open", "os.", "subprocess.", "socket.", "ctypes.", "shutil.", "code.__new__",
    "pickle.", "marshal.", "urllib.",
)  # fmt: skip
_HARMLESS = ("os.listdir", "os.scandir", "os.getxattr", "os.fwalk", "os.walk")


def main() -> None:
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(_tried(**request)), flush=True)


def _tried(argv: list[str], folder: str, pipe: str | None) -> dict[str, Any]:
    """Runs one command; `pipe` is a file whose content comes to its standard input through a pipe."""
    reader, writer = os.pipe() if pipe else (os.open(os.devnull, os.O_RDONLY), -1)
    feeder = os.fork() if pipe else 0
    if pipe and feeder == 0:
        _feed(pipe, reader, writer)
    if writer >= 0:
        os.close(writer)
    with contextlib.ExitStack() as stack:
        outputs = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(3)]
        return _watched(argv, folder, reader, feeder, outputs)


def _watched(argv: list[str], folder: str, reader: int, feeder: int, outputs: Sequence[IO[bytes]]) -> dict[str, Any]:
    child = os.fork()
    if child == 0:
        _run(argv, folder, [reader, outputs[0].fileno(), outputs[1].fileno()], outputs[2].fileno())
    os.close(reader)
    _, status = os.waitpid(child, 0)
    if feeder:
        os.kill(feeder, signal.SIGKILL)
        os.waitpid(feeder, 0)
    texts = []
    for output in outputs:
        output.seek(0)
        texts.append(output.read().decode("utf-8", "backslashreplace"))
    return {
        "code": os.waitstatus_to_exitcode(status),
        "stdout": texts[0],
        "stderr": texts[1],
        "events": texts[2].splitlines(),
    }


def _feed(path: str, reader: int, writer: int) -> NoReturn:
    os.close(reader)
    data = Path(path).read_bytes()
    try:
        while data:
            data = data[os.write(writer, data) :]
    except OSError:
        pass
    os._exit(0)


def _run(argv: list[str], folder: str, streams: list[int], report: int) -> NoReturn:
    os.chdir(folder)
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
    sys.argv = ["resnet-surgeon", *argv]
    beside = {str(Path(argument).with_suffix(".json")) for argument in argv if argument.startswith("model.")}
    named = {*argv, *beside}
    allowed = {*named, *(str(Path(folder, argument)) for argument in named), os.devnull}
    with open("/proc/self/statm", encoding="ascii") as statm:
        size = int(statm.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + _MEMORY, size + _MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU, _CPU))
    signal.alarm(PATIENCE)
    sys.addaudithook(_hook(allowed, report))
    from resnet_surgeon.cli.main import main as command

    command()
    os._exit(99)


def _hook(allowed: set[str], report: int) -> Any:
    """Reports, from the moment when the command opens its input or a temporary file for it, what a hostile file could
    be after: any import or execution, and any file but those named and the manifest beside them. What comes before is
    the command line's own doing.
    """
    temporary = tempfile.gettempdir()
    is_reading = False

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal is_reading
        if not event.startswith(_HARMFUL) or event in _HARMLESS:
            return
        if event == "open":
            path, _, flags = arguments
            is_temporary = path == temporary or bool(flags & os.O_EXCL)
            if isinstance(path, int) or path in allowed or is_temporary:
                is_reading = True
                return
        if is_reading and not (event == "import" and arguments[0] in sys.modules):
            os.write(report, f"{event} {arguments!r}\n".encode())

    return hook


def _import_everything() -> None:
    """By doing once, on harmless files, what the commands do on hostile ones."""
    import importlib
    import pkgutil

    import numpy  # noqa: F401
    import rich.console  # noqa: F401
    import typer  # noqa: F401

    import resnet_surgeon

    for module in pkgutil.walk_packages(resnet_surgeon.__path__, "resnet_surgeon."):
        if module.name.split(".")[1] not in (*TORCH, "__main__"):
            importlib.import_module(module.name)
    from resnet_surgeon.cli import progress

    progress._LINE_AFTER = math.inf  # a slow machine prints what a quick one does
    "\x1b".encode("unicode_escape")  # Python loads this codec when it is first used
    for argv in json.loads(sys.argv[1]):
        _tried_quietly(argv)


def _tried_quietly(argv: list[str]) -> None:
    """The command in this very process, so that its imports stay."""
    from resnet_surgeon.cli import app

    null = os.open(os.devnull, os.O_WRONLY)
    kept = os.dup(1), os.dup(2)
    os.dup2(null, 1)
    os.dup2(null, 2)
    try:
        app.app(argv, standalone_mode=False)
    except BaseException as error:
        str(error)
    finally:
        os.dup2(kept[0], 1)
        os.dup2(kept[1], 2)


if __name__ == "__main__":
    _import_everything()
    main()
