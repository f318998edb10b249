"""Runs the tests of rooms on mutants of their modules:

    python -m tests.mutation.run "ROOM[/MODULE] ..." [COUNT [SEED [SECONDS]]]

A tool of others starts Python, and with it torch, for each mutant anew, or puts its own functions round ours, whose
signatures and annotations then are not those that the package reads. Here each mutant is written into a copy of the
tree, and tested in a fork of a process that has imported torch already; with the tests that come to its line, which a
first run of all tests of the room has found.
"""

from __future__ import annotations

import compileall
import os
import random
import resource
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib import import_module
from pathlib import Path

from tests.mutation.choice import Chosen, Test, Watched, choice, reached, written
from tests.mutation.mutants import mutant, mutants_in

TOP = Path(__file__).parents[2]
PACKAGE = Path("resnet_surgeon")
COPY = TOP / "build" / "mutants"
BATCH = 10


def main(what: list[str], count: int = 100, seed: int = 0, seconds: int = 60) -> None:
    """Draws `count` mutants of each room, or of one module of it, and says which are alive when the tests have passed:
    those that come to the mutant, as many as take about `seconds`. All rooms take turns, so that a run that is
    interrupted has tried as many of each.
    """
    drawn = {each: _drawn(each, count, seed) for each in what}
    _enter_a_copy(COPY)
    _keep_bytecode(COPY)
    _import_what_is_heavy()
    alive = dict.fromkeys(what, 0)
    for first in range(0, count, BATCH):
        for each in what:
            batch = drawn[each][first : first + BATCH]
            alive[each] += sum(_survives(each, module, number, seconds) for module, number in batch)
            tried = min(first + BATCH, len(drawn[each]))
            print(f"{each}: {tried} tried, {tried - alive[each]} killed, {alive[each]} alive", flush=True)


def _drawn(what: str, count: int, seed: int) -> list[tuple[Path, int]]:
    """Modules and the numbers of their mutants in a random order: a larger count goes on where a smaller one ended."""
    found = [(module, number) for module in _modules(what) for number in range(mutants_in(module.read_text("utf-8")))]
    random.Random(seed).shuffle(found)
    return found[:count]


@cache
def _watched(what: str) -> list[Test]:
    """The tests of a room, and what they come to."""
    path = _lines(what).with_suffix(".jsonl")
    room = what.split("/")[0]
    files = sorted([*Path("tests", room).glob("test_*.py"), *Path("tests").glob(f"test_{room}.py")])
    with path.open("w", encoding="utf-8") as out:
        if not _passes(list(map(str, files)), None, lambda: Watched(out, _lines(what))):
            print(f"{what}: some of its tests fail without a mutant, and are left out", flush=True)
    return written(path)


def _lines(what: str) -> Path:
    """Of the file that says which lines these tests come to."""
    return Path(f"{what.replace('/', '-')}.lines")


def _enter_a_copy(copy: Path) -> None:
    """A copy of the tree becomes the current folder, and the one that is imported from."""
    shutil.rmtree(copy, ignore_errors=True)
    for name in ("resnet_surgeon", "tests", "docs"):
        shutil.copytree(TOP / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(TOP / "pyproject.toml", copy)
    os.chdir(copy)
    sys.path[:] = [str(copy), *(path for path in sys.path if path and Path(path).resolve() != TOP)]
    os.environ["PYTHONPATH"] = str(copy)
    for name in [name for name in sys.modules if name.split(".")[0] == "tests"]:
        del sys.modules[name]  # the copy's are to be imported


def _keep_bytecode(copy: Path) -> None:
    """Else each fork would compile the package, and the tests, which the first run compiles."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    compileall.compile_dir(copy / PACKAGE, quiet=1)


def _modules(what: str) -> list[Path]:
    """Relative to the tree, as are the tests below."""
    return sorted([*(PACKAGE / what).rglob("*.py"), *PACKAGE.glob(f"{what}.py")])


def _survives(what: str, module: Path, number: int, seconds: float) -> bool:
    original = module.read_text("utf-8")
    changed = mutant(original, number)
    tests = _watched(what)
    chosen = choice(tests, reached(_lines(what), module), module, original, changed.line, seconds)
    files = list(dict.fromkeys(test.id.split("::")[0] for test in chosen))
    patience = 10 + 3 * sum(test.seconds for test in chosen)
    with _written(changed.text, module):
        survives = not files or _passes(files, patience, lambda: Chosen(chosen))
    if survives:
        print(f"alive: {module}:{changed} ({len(chosen)} tests)", flush=True)
    return survives


@contextmanager
def _written(text: str, module: Path) -> Iterator[None]:
    original, status = module.read_bytes(), module.stat()
    module.write_text(text, "utf-8")
    try:
        yield
    finally:
        module.write_bytes(original)
        os.utime(module, ns=(status.st_atime_ns, status.st_mtime_ns))  # by which its bytecode is known


def _passes(files: list[str], patience: float | None, plugin: Callable[[], object]) -> bool:
    """Whether the tests in these files pass, in a fork, within `patience` seconds of the processor's time: an
    endless loop fails. What waits for ever fails as well, after sixty times as long.
    """
    process = os.fork()
    if process == 0:
        os.setpgid(0, 0)
        if patience is not None:
            _be_quiet()
            sys.dont_write_bytecode = True  # what is compiled without a mutant serves all mutants
            resource.setrlimit(resource.RLIMIT_CPU, (int(patience), int(patience)))
            signal.alarm(int(60 * patience))
        import pytest

        options = ["-p", "no:cacheprovider", *(["-x"] if patience else [])]
        os._exit(int(pytest.main([*options, *files], plugins=[plugin()])))
    try:
        return os.waitpid(process, 0)[1] == 0
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process, signal.SIGKILL)  # the tests, where they were interrupted, and what they started


def _be_quiet() -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(nowhere, descriptor)


def _import_what_is_heavy() -> None:
    """What takes the tests longest to import; pytest wants to see its plugins imported by itself."""
    for name in ("pytest", "safetensors.torch", "torchvision"):
        import_module(name)
    import torch

    torch.set_num_threads(1)  # threads do not survive a fork


if __name__ == "__main__":
    names, *numbers = sys.argv[1:]
    main(names.split(), *map(int, numbers))
