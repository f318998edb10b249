"""Builds what a recipe says: opens each source once, writes what is not there already, and records what it wrote.

Knows networks, and neither YAML nor operations.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Literal, TypedDict

from resnet_surgeon.dataclass import dataclass
from resnet_surgeon.errors import AccessError, SurgeonError, UsageError
from resnet_surgeon.formats import sniff
from resnet_surgeon.formats.files import OpenFile
from resnet_surgeon.formats.tensors import byte_size
from resnet_surgeon.location import check_distinct
from resnet_surgeon.network import Network
from resnet_surgeon.network import open as open_network
from resnet_surgeon.operations.checkpoint import Other, Unopened, others_of, with_others
from resnet_surgeon.recipes.lock import Lock
from resnet_surgeon.recipes.reading import Target
from resnet_surgeon.sources.progress import Advance, Progress
from resnet_surgeon.sources.sidecar import MANIFEST_KEY, manifest_path
from resnet_surgeon.writing.names import Names
from resnet_surgeon.writing.targets import output_path
from resnet_surgeon.writing.unchanged import digest

Outcome = Literal["made", "up to date", "planned"]
_IN_TWO = "list all operations from the first source on, or put it into a recipe that you apply afterwards"
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
class Planned:
    """An output, and the network that belongs there."""

    output: Path
    network: Network
    written: Written
    line: int

    @property
    def is_made(self) -> bool:
        """Whether the output is there already, byte for byte."""
        return self.network.is_written(self.output, **self.written)


def plan(name: str, targets: Sequence[Target], source: str | None, progress: Progress) -> tuple[Built, ...]:
    """What would be built of the recipe of this name, from `source` if that is given in place of its own, and what is
    there already, byte for byte; writes nothing. Raises the errors of `planned`.
    """
    return tuple(
        Built(item.output, "up to date", item.network, *digest(item.output))
        if item.is_made
        else Built(item.output, "planned", item.network)
        for item in planned(name, targets, source, progress)
    )


def build(
    name: str, targets: Sequence[Target], source: str | None, force: bool, progress: Progress
) -> tuple[Built, ...]:
    """Builds every output that is not byte for byte there already, and records all of them in the recipe's lock.

    An output that stands in the way is replaced if this recipe made it, by its lock, and nobody changed it since; or
    with `force`. Nothing is written before all sources were opened and all operations fit. What was made before one
    fails, or a signal comes, is recorded too. Raises AccessError and the errors of `plan`.
    """
    items = planned(name, targets, source, progress)
    lock = Lock.beside(Path(name))
    total = sum(byte_size(tensor) for item in items for tensor in item.network.tensors.values())
    with progress(f"building {len(items)} file{'s' * (len(items) > 1)}", total) as advance:
        in_turn = _in_turn(advance)
        futures: list[Future[Built]] = []
        with ThreadPoolExecutor(_AT_ONCE) as executor:
            try:
                futures.extend(executor.submit(_made, item, lock, force, in_turn) for item in items)
                built = tuple(future.result() for future in futures)
            except BaseException:
                executor.shutdown(wait=True, cancel_futures=True)
                made = [future.result() for future in futures if not (future.cancelled() or future.exception())]
                with contextlib.suppress(AccessError):  # what went wrong first is what is heard of
                    _recorded(lock, made).write()
                raise
    _recorded(lock, built).write()
    return built


def _recorded(lock: Lock, built: Sequence[Built]) -> Lock:
    return lock.with_digests({str(item.output): (item.size, item.sha256) for item in built})


def planned(name: str, targets: Sequence[Target], source: str | None, progress: Progress) -> tuple[Planned, ...]:
    """The outputs of the recipe of this name, each with its network. Raises the errors of `open` and of operations,
    with the line of the recipe.
    """
    opened: dict[str, Network] = {}
    found: dict[Path, Planned] = {}
    for target in targets:
        try:
            network = _made_of(target, source or target.source, opened, progress)
            output = Path(output_path(target.output, network.default_name))
            written = Written(names=target.names, share_blocks=target.share_blocks)
            network.check(output, **written)
        except SurgeonError as error:
            if isinstance(error.__context__, FileNotFoundError) and error.subject:
                makers = {path: item.line for path, item in found.items()} | _stated_outputs(targets)
                _explain_missing(error, {path.resolve(): line for path, line in makers.items()})
            error.subject = f"{name}:{target.place.line}: {error.subject or target.source}"
            raise
        if output in found:
            hint = "put the variables that set them apart into `output:`, such as `model-${channels}.safetensors`"
            raise UsageError(f"two of its outputs are {output}", subject=f"{name}:{target.place.line}", hint=hint)
        found[output] = Planned(output, network, written, target.place.line)
    outputs = {output.resolve(): output for output in found}
    for target, (output, item) in zip(targets, found.items(), strict=True):
        made = (outputs[path] for path in _read_by(item.network) if outputs.get(path, output) != output)
        if other := next(made, None):
            raise UsageError(
                f"it is made of {other}, another output, as that was before: all sources are opened first",
                subject=f"{name}:{target.place.line}: {output}",
                hint=_IN_TWO,
            )
    return tuple(found.values())


def _stated_outputs(targets: Sequence[Target]) -> dict[Path, int]:
    """The outputs that have names of their own, each with the line of its recipe."""
    return {Path(target.output): target.place.line for target in targets if target.output is not None}


def _explain_missing(error: SurgeonError, outputs: Mapping[Path, int]) -> None:
    """Says of a file that is not there whether it is one of the outputs."""
    line = outputs.get(Path(error.subject or "").resolve())
    if line is None:
        error.hint = error.hint or "make it first, or correct the recipe"
    else:
        error.reason = f"it is not there yet: it is the output of line {line}, and all sources are opened first"
        error.hint = _IN_TWO


def _read_by(network: Network) -> Iterator[Path]:
    """The files that it is made of."""
    containers = (source.container for source in network.sources if source.container is not None)
    return (Path(file.name).resolve() for container in containers for file in container.files)


def _made_of(target: Target, source: str, opened: dict[str, Network], progress: Progress) -> Network:
    """The target's network. A source is opened, and read for its digest, once, however many outputs are made of it."""
    number = itertools.count()

    def at(place: Unopened) -> Network:
        # Each of the sources of one network is opened by itself, as commands do, though it be the same file as another.
        key = json.dumps([next(number), place.location, dict(place.opening)], sort_keys=True, default=str)
        if key not in opened:
            opened[key] = open_network(place.location, progress=progress, **place.opening).identified()
        return opened[key]

    others = [[_place(other) for other in others_of(operation)] for operation in target.operations]
    places = [Unopened(source, target.opening), *itertools.chain.from_iterable(others)]
    for one, two in itertools.combinations([place.location for place in places], 2):
        check_distinct(one, two)
    network = at(places[0])
    for operation, needed in zip(target.operations, others, strict=True):
        network = network.apply(with_others(operation, [at(place) for place in needed]))
    return network


def _place(other: Other) -> Unopened:
    return other if isinstance(other, Unopened) else Unopened(str(other))


def _made(item: Planned, lock: Lock, force: bool, advance: Advance) -> Built:
    if item.is_made:
        advance(sum(map(byte_size, item.network.tensors.values())))
        return Built(item.output, "up to date", item.network, *digest(item.output))
    in_the_way = next(filter(os.path.lexists, (item.output, manifest_path(item.output))), None)
    if in_the_way and not force and not _may_replace(lock, item.output):
        reason, hint = "it exists already, and is not what this recipe made", "or name another output"
        raise AccessError(reason, subject=str(in_the_way), hint=f"use `--force` to replace it, {hint}")
    item.network.save(item.output, force=in_the_way is not None or force, progress=_part_of(advance), **item.written)
    return Built(item.output, "made", item.network, *digest(item.output))


def _may_replace(lock: Lock, output: Path) -> bool:
    """Whether the recipe made what stands there, and nobody changed it. Of an output that has gone the manifest may
    still be there, unless it is that of another file, as `model.json` is of `model.pth` too.
    """
    if not os.path.lexists(output):
        beside = manifest_path(output)
        return str(output) in lock.outputs and not any(
            manifest_path(path) == beside for path in output.parent.iterdir()
        )
    return lock.holds(output) and _is_of_this_tool(output)


def _is_of_this_tool(path: Path) -> bool:
    """Whether the file holds a manifest: a stranger's lock can name any file whose digest the world knows."""
    try:
        return MANIFEST_KEY in sniff.read(OpenFile.at(path)).metadata
    except SurgeonError:
        return False


def _in_turn(advance: Advance) -> Advance:
    """The function, for several threads."""
    turn = threading.Lock()

    def in_turn(count: int) -> None:
        with turn:
            advance(count)

    return in_turn


def _part_of(advance: Advance) -> Progress:
    """One bar for all outputs, however many are written at once."""

    @contextlib.contextmanager
    def progress(what: str, total: int | None) -> Iterator[Advance]:
        yield advance

    return progress
