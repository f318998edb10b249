"""Builds what a recipe says: opens each source once, writes what is not there already, and records what it wrote.

Knows networks, and neither YAML nor operations.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypedDict

from resnet_surgeon.errors import AccessError, SurgeonError, UsageError
from resnet_surgeon.formats import sniff
from resnet_surgeon.formats.files import OpenFile
from resnet_surgeon.formats.tensors import byte_size
from resnet_surgeon.network import Network
from resnet_surgeon.network import open as open_network
from resnet_surgeon.recipes.lock import Lock
from resnet_surgeon.recipes.reading import Target
from resnet_surgeon.sources.progress import Advance, Progress
from resnet_surgeon.sources.sidecar import MANIFEST_KEY
from resnet_surgeon.writing.names import Names
from resnet_surgeon.writing.targets import output_path
from resnet_surgeon.writing.unchanged import digest

Outcome = Literal["made", "up to date", "planned"]
_AT_ONCE = 2  # outputs: while one is synced to the disk, the next is copied


@dataclass(frozen=True)
class Built:
    """An output, and what became of it: what is only planned has neither size nor digest."""

    output: Path
    outcome: Outcome
    network: Network
    size: int | None = None
    sha256: str | None = None


class Written(TypedDict):
    """How an output is written: keywords of `Network.save`."""

    names: Names
    share_blocks: bool


@dataclass(frozen=True)
class _Planned:
    output: Path
    network: Network
    written: Written


def plan(name: str, targets: Sequence[Target], source: str | None, progress: Progress) -> tuple[Built, ...]:
    """What would be built of the recipe of this name, from `source` if that is given in place of its own; writes
    nothing. Raises the errors of `open` and of operations, with the line of the recipe.
    """
    return tuple(Built(item.output, "planned", item.network) for item in _planned(name, targets, source, progress))


def build(
    name: str, targets: Sequence[Target], source: str | None, force: bool, progress: Progress
) -> tuple[Built, ...]:
    """Builds every output that is not byte for byte there already, and records all of them in the recipe's lock.

    An output that stands in the way is replaced if this recipe made it, by its lock, and nobody changed it since; or
    with `force`. Nothing is written before all sources were opened and all operations fit. Raises AccessError and the
    errors of `plan`.
    """
    planned = _planned(name, targets, source, progress)
    lock = Lock.beside(Path(name))
    total = sum(byte_size(tensor) for item in planned for tensor in item.network.tensors.values())
    with progress(f"building {len(planned)} file{'s' * (len(planned) > 1)}", total) as advance:
        shared = _shared(advance)
        with ThreadPoolExecutor(_AT_ONCE) as executor:
            futures = [executor.submit(_made, item, lock, force, shared) for item in planned]
            try:
                built = tuple(future.result() for future in futures)
            except BaseException:
                executor.shutdown(wait=True, cancel_futures=True)
                raise
    lock.with_digests({str(item.output): (item.size, item.sha256) for item in built}).write()
    return built


def _planned(name: str, targets: Sequence[Target], source: str | None, progress: Progress) -> tuple[_Planned, ...]:
    opened: dict[str, Network] = {}
    planned: dict[Path, _Planned] = {}
    for target in targets:
        try:
            network = _opened(target, source or target.source, opened, progress)
            for operation in target.operations:
                network = network.apply(operation)
            output = Path(output_path(target.output, network.default_name))
            written = Written(names=target.names, share_blocks=target.share_blocks)
            network.check(output, **written)
        except SurgeonError as error:
            error.subject = f"{name}:{target.place.line}: {error.subject or target.source}"
            raise
        if output in planned:
            hint = "put the variables that set them apart into `output:`, such as `model-${channels}.safetensors`"
            raise UsageError(f"two of its outputs are {output}", subject=f"{name}:{target.place.line}", hint=hint)
        planned[output] = _Planned(output, network, written)
    return tuple(planned.values())


def _opened(target: Target, source: str, opened: dict[str, Network], progress: Progress) -> Network:
    """The source, opened and read for its digest once, however many outputs are made of it."""
    key = json.dumps([source, dict(target.opening)], sort_keys=True, default=str)
    if key not in opened:
        opened[key] = open_network(source, progress=progress, **target.opening).identified()
    return opened[key]


def _made(item: _Planned, lock: Lock, force: bool, progress: Progress) -> Built:
    outcome: Outcome = "up to date" if item.network.is_written(item.output, **item.written) else "made"
    if outcome == "made":
        is_there = os.path.lexists(item.output)
        if is_there and not force and not (lock.holds(item.output) and _is_of_this_tool(item.output)):
            reason, hint = "it exists already, and is not what this recipe made", "or name another output"
            raise AccessError(reason, subject=str(item.output), hint=f"use `--force` to replace it, {hint}")
        item.network.save(item.output, force=is_there or force, progress=progress, **item.written)
    return Built(item.output, outcome, item.network, *digest(item.output))


def _is_of_this_tool(path: Path) -> bool:
    """Whether the file holds a manifest: a stranger's lock can name any file whose digest the world knows."""
    try:
        return MANIFEST_KEY in sniff.read(OpenFile.at(path)).metadata
    except SurgeonError:
        return False


def _shared(advance: Advance) -> Progress:
    """One bar for all outputs, however many are written at once."""
    turn = threading.Lock()

    def one(count: int) -> None:
        with turn:
            advance(count)

    @contextlib.contextmanager
    def progress(what: str, total: int | None) -> Iterator[Advance]:
        yield one

    return progress
