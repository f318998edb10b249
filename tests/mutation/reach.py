"""Which lines of the package a process comes to, and with it the test that started the process. Does without pytest,
which each of these processes would have to import.
"""

from __future__ import annotations

import atexit
import json
import os
import sys
import threading
from collections import Counter
from functools import cache
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

_PLACE = "RESNET_SURGEON_REACH"
_PACKAGE = f"{os.sep}resnet_surgeon{os.sep}"
_ENOUGH = 100  # calls of a function, after which what else it comes to is not worth the time
_lines: set[tuple[str, int]] = set()
_calls: Counter[CodeType] = Counter()


def start(place: Path) -> None:
    """From now on, this process and all that it starts are watched; those write into the folder `place`."""
    place.mkdir(exist_ok=True)
    (place / "sitecustomize.py").write_text("from tests.mutation.reach import watch\n\nwatch()\n", "utf-8")
    os.environ["PYTHONPATH"] = f"{place}{os.pathsep}{os.environ['PYTHONPATH']}"
    os.environ[_PLACE] = str(place)


def begin() -> None:
    """Forgets what this process came to, and watches it anew, whoever else has watched it meanwhile."""
    _lines.clear()
    _calls.clear()
    threading.settrace(_called)
    sys.settrace(_called)


def end() -> dict[str, list[int]]:
    """The lines that this process came to since it began, and those of the processes that ended: by module."""
    sys.settrace(None)
    threading.settrace(None)
    for path in Path(os.environ[_PLACE]).glob("*.json"):
        _lines.update(map(tuple, json.loads(path.read_text("utf-8"))))
        path.unlink()
    modules: dict[str, list[int]] = {}
    for filename, line in sorted(_lines):
        modules.setdefault(filename[filename.rindex(_PACKAGE) + 1 :], []).append(line)
    return modules


def watch() -> None:
    """What every process does that a watched one started: it writes down what it came to when it ends."""
    place, leave = os.environ.get(_PLACE), os._exit
    if place is None:
        return

    def write() -> None:
        sys.settrace(None)
        path = f"{place}/{os.getpid()}"
        with open(f"{path}.new", "w", encoding="utf-8") as file:
            json.dump(sorted(_lines), file)
        os.rename(f"{path}.new", f"{path}.json")

    def write_and_leave(code: int) -> None:
        write()
        leave(code)

    atexit.register(write)
    os._exit = write_and_leave  # type: ignore[assignment]
    begin()


def _called(frame: FrameType, event: str, argument: object) -> Any:
    code = frame.f_code
    if not _is_ours(code.co_filename) or _calls[code] > _ENOUGH:
        return None
    _calls[code] += 1
    return _at_line(frame, event, argument)


def _at_line(frame: FrameType, event: str, argument: object) -> Any:
    _lines.add((frame.f_code.co_filename, frame.f_lineno))
    return _at_line


@cache
def _is_ours(filename: str) -> bool:
    return _PACKAGE in filename
