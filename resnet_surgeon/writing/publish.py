"""New files that get their names whole or not at all: temporary files beside them, and the moment of naming.

Knows neither tensors nor manifests, only descriptors and paths.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from resnet_surgeon.platform import disk, names, opening

_TURN = 1.0  # seconds to wait for others who are naming files in the same folder
_OWN_NAME = 128  # bytes of the target's name in a temporary one: some file systems take no more than 143 in all


class Temporaries:
    """New files beside their targets, which nobody sees until they get their names. Whatever happens, they are closed
    at the end, and removed if they got none.

    Entered twice, it tidies up twice: a signal may raise in the middle of the first time. Tidying raises nothing of its
    own, so that what went wrong before is what is heard of.
    """

    def __init__(self) -> None:
        self._paths: list[Path] = []
        self._files: list[io.FileIO] = []

    def __enter__(self) -> Temporaries:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()
        for path in self._paths:
            with contextlib.suppress(OSError):
                path.unlink()
        self._paths.clear()

    def make(self, target: Path) -> tuple[Path, int]:
        """The path and descriptor of a new file, with the mode that `target` has. It is held as long as its writer
        lives; those whose writers were killed are removed now.
        """
        _remove_abandoned(target)
        while True:
            path = target.with_name(f"{_beginning(target)}{os.urandom(4).hex()}.tmp")
            self._paths.append(path)  # before it is there: a signal may come while it is made
            descriptor = opening.new(path)
            self._files.append(io.FileIO(descriptor, "r+"))
            with contextlib.suppress(BlockingIOError):
                names.hold(descriptor)
                if os.fstat(descriptor).st_nlink:
                    break
            # Else another writer took it for abandoned before it was locked.
        disk.copy_mode(target, descriptor)
        return path, descriptor

    def complete(self) -> None:
        """Nothing more is written: the files may get their names."""
        if not names.OPEN_FILES_MOVE:
            self._close()

    def _close(self) -> None:
        for file in self._files:
            with contextlib.suppress(OSError):
                file.close()


def _beginning(target: Path) -> str:
    """How the names of a target's temporary files begin."""
    name = target.name
    while len(os.fsencode(name)) > _OWN_NAME:
        name = name[:-1]
    return f".{name}."


def _remove_abandoned(target: Path) -> None:
    """Removes temporary files of this output whose writers were killed: nobody holds them any more."""
    name = re.compile(rf"{re.escape(_beginning(target))}[0-9a-f]{{8}}\.tmp")
    with contextlib.suppress(OSError):
        for path in [Path(entry.path) for entry in os.scandir(target.parent) if name.fullmatch(entry.name)]:
            with contextlib.suppress(OSError):
                names.remove_unless_held(path)


@contextlib.contextmanager
def turn(folder: Path) -> Iterator[int | None]:
    """Files get their names in here, one writer after the other, if that does not take too long.

    Yields the folder's descriptor, to sync it; None where it has none.
    """
    descriptor = opening.folder(folder)
    if descriptor is None:
        yield None
        return
    try:
        deadline = time.monotonic() + _TURN
        while names.is_held_by_another(descriptor) and time.monotonic() < deadline:
            time.sleep(0.01)
        yield descriptor
    finally:
        os.close(descriptor)


def publish(files: Sequence[tuple[Path, Path]], force: bool) -> None:
    """Gives temporary files their names, the network's first; without `force`, only if nobody took them meanwhile.

    If one fails, those before it go too. Where they replaced others, they stay, since the network has its own manifest
    embedded, but not the old ones' companions beside it.
    """
    for number, (temporary, target) in enumerate(files):
        try:
            names.give_name(temporary, target, replacing=force)
        except (OSError, MemoryError):
            for _, stale in (files[number:] if number else ()) if force else files[:number]:
                with contextlib.suppress(OSError):
                    stale.unlink(missing_ok=True)
            raise
