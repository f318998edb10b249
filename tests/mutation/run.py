"""Runs the tests of a room on mutants of its modules: python -m tests.mutation.run ROOM[/MODULE] [COUNT [SEED]]

A tool of others starts Python, and with it torch, for each mutant anew, or puts its own functions round ours, whose
signatures and annotations then are not those that the package reads. Here each mutant is written into a copy of the
tree, and tested in a fork of a process that has imported torch already.
"""

from __future__ import annotations

import os
import random
import re
import resource
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from itertools import groupby
from pathlib import Path

from tests.mutation.mutants import Mutant, mutant, mutants_in

TOP = Path(__file__).parents[2]
PACKAGE = Path("resnet_surgeon")
COPIES = TOP / "build" / "mutants"


def main(what: str, count: int = 100, seed: int = 0) -> None:
    """Draws `count` mutants of a room, or of one module of it, and says which are alive when the tests have passed."""
    room = what.split("/")[0]
    found = [(module, number) for module in _modules(what) for number in range(mutants_in(module.read_text("utf-8")))]
    drawn = sorted(random.Random(seed).sample(found, min(count, len(found))))
    _enter_a_copy(COPIES / what.replace("/", "-"))
    _import_what_is_heavy()
    before = _processor_time()
    if not _passes(_tests(room), None):
        sys.exit(f"error: {room}: its tests fail without a mutant")
    patience = 10 + 3 * (_processor_time() - before)
    _keep_the_bytecode()
    alive = 0
    for module, group in groupby(drawn, key=lambda pair: pair[0]):
        tests, original = _tests(room, module), module.read_text("utf-8")
        mutants = [mutant(original, number) for _, number in group]
        survivors = [each for each in mutants if _survives(module, each, tests, patience)]
        alive += len(survivors)
        print(f"{module}: {len(mutants)} tried, {len(survivors)} alive", flush=True)
    print(f"{what}: {len(drawn)} of {len(found)} mutants, {len(drawn) - alive} killed, {alive} alive", flush=True)


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


def _keep_the_bytecode() -> None:
    """What the tests compiled without a mutant serves all mutants, and none leaves its own behind."""
    sys.dont_write_bytecode = True
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"


def _modules(what: str) -> list[Path]:
    """Relative to the tree, as are the tests below."""
    return sorted([*(PACKAGE / what).rglob("*.py"), *PACKAGE.glob(f"{what}.py")])


def _tests(room: str, module: Path | None = None) -> list[str]:
    """The tests of a room: first those that mirror the module, then those that name it, then all others."""

    def distance(path: Path) -> int:
        if module is None or path.stem == f"test_{module.stem}":
            return 0
        return 1 if re.search(rf"\b{module.stem}\b", path.read_text("utf-8")) else 2

    paths = sorted([*Path("tests", room).glob("test_*.py"), *Path("tests").glob(f"test_{room}.py")])
    return [str(path) for path in sorted(paths, key=distance)]


def _survives(module: Path, mutant: Mutant, tests: list[str], patience: float) -> bool:
    with _written(mutant.text, module):
        survives = _passes(tests, patience)
    if survives:
        print(f"alive: {module}:{mutant}", flush=True)
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


def _passes(tests: list[str], patience: float | None) -> bool:
    """Whether the tests pass, in a fork, within `patience` seconds of the processor's time: an endless loop fails. What
    waits for ever fails as well, after sixty times as long.
    """
    process = os.fork()
    if process == 0:
        os.setpgid(0, 0)
        if patience is not None:
            _be_quiet()
            resource.setrlimit(resource.RLIMIT_CPU, (int(patience), int(patience)))
            signal.alarm(int(60 * patience))
        import pytest

        os._exit(int(pytest.main(["-x", "-p", "no:cacheprovider", *tests])))
    try:
        return os.waitpid(process, 0)[1] == 0
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process, signal.SIGKILL)  # the tests, where they were interrupted, and what they started


def _be_quiet() -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(nowhere, descriptor)


def _processor_time() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _import_what_is_heavy() -> None:
    """What takes the tests longest to import; pytest wants to see its plugins imported by itself."""
    for name in ("pytest", "safetensors.torch", "torchvision"):
        import_module(name)
    import torch

    torch.set_num_threads(1)  # threads do not survive a fork


if __name__ == "__main__":
    name, *numbers = sys.argv[1:]
    main(name, *map(int, numbers))
