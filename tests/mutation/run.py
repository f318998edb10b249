"""Runs the tests of a room on mutants of its modules: python -m tests.mutation.run ROOM [COUNT [SEED]]

A tool of others starts Python, and with it torch, for each mutant anew, or puts its own functions round ours, whose
signatures and annotations then are not those that the package reads. Here each mutant is written into a copy of the
tree, and tested in a fork of a process that has imported torch already.
"""

from __future__ import annotations

import os
import random
import resource
import shutil
import sys
from importlib import import_module
from pathlib import Path

from tests.mutation.mutants import Mutant, mutants

TOP = Path(__file__).parents[2]
COPY = TOP / "build" / "mutants"
_PATIENCE = 300  # seconds of the processor's time for the tests of one mutant


def main(room: str, count: int = 100, seed: int = 0) -> None:
    """Draws `count` mutants, and says which are alive when the tests have passed, and how many were killed."""
    shutil.rmtree(COPY, ignore_errors=True)
    for name in ("resnet_surgeon", "tests", "docs"):
        shutil.copytree(TOP / name, COPY / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(TOP / "pyproject.toml", COPY)
    found = [(module, mutant) for module in _modules(room) for mutant in mutants((COPY / module).read_text("utf-8"))]
    drawn = random.Random(seed).sample(found, min(count, len(found)))
    os.chdir(COPY)
    sys.path[:] = [str(COPY), *(path for path in sys.path if path and Path(path).resolve() != TOP)]
    os.environ["PYTHONPATH"] = str(COPY)
    for name in [name for name in sys.modules if name.split(".")[0] == "tests"]:
        del sys.modules[name]  # the copy's are to be imported
    _import_what_is_heavy()
    if not _passes(None, _tests(room)):
        sys.exit(f"error: {room}: its tests fail without a mutant")
    alive = 0
    for module, mutant in sorted(drawn, key=lambda pair: (str(pair[0]), pair[1].line)):
        if _passes((module, mutant), _tests(room, module)) and _passes((module, mutant), _tests(room)):
            alive += 1
            print(f"alive: {module}:{mutant}", flush=True)
    print(f"{room}: {len(drawn)} of {len(found)} mutants, {len(drawn) - alive} killed, {alive} alive")


def _modules(room: str) -> list[Path]:
    """Relative to the tree, as are the tests below."""
    package = Path("resnet_surgeon")
    paths = [*(TOP / package / room).rglob("*.py"), *(TOP / package).glob(f"{room}.py")]
    return sorted(path.relative_to(TOP) for path in paths)


def _tests(room: str, module: Path | None = None) -> list[str]:
    """The tests of a room, or those that mirror one of its modules."""
    stem = f"test_{module.stem if module else room}.py"
    paths = [Path("tests", room, stem), Path("tests", stem)] if module else [Path("tests", room), Path("tests", stem)]
    return [str(path) for path in paths if (COPY / path).exists()]


def _passes(mutant: tuple[Path, Mutant] | None, tests: list[str]) -> bool:
    """Whether the tests pass on the mutant, in a fork; what has no tests passes."""
    if not tests:
        return True
    path = COPY / mutant[0] if mutant else None
    original = path.read_bytes() if path else b""
    if path and mutant:
        path.write_text(mutant[1].text, "utf-8")
    try:
        process = os.fork()
        if process == 0:
            os._exit(_run(tests, quietly=mutant is not None))
        return os.waitpid(process, 0)[1] == 0
    finally:
        if path:
            path.write_bytes(original)


def _run(tests: list[str], quietly: bool) -> int:
    resource.setrlimit(resource.RLIMIT_CPU, (_PATIENCE, _PATIENCE))
    if quietly:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for descriptor in (1, 2):
            os.dup2(nowhere, descriptor)
    import pytest

    return int(pytest.main(["-x", "-p", "no:cacheprovider", *tests]))


def _import_what_is_heavy() -> None:
    """What takes the tests longest to import; pytest wants to see its plugins imported by itself."""
    for name in ("pytest", "safetensors.torch", "torchvision"):
        import_module(name)
    import torch

    torch.set_num_threads(1)  # threads do not survive a fork
    sys.dont_write_bytecode = True  # a mutant may be as old, and as long, as the one before it


if __name__ == "__main__":
    name, *numbers = sys.argv[1:]
    main(name, *map(int, numbers))
