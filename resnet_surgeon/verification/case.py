"""What is on trial: an opened file with its manifest, and the sources that it is said to be made from."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from resnet_surgeon import manifest as documents
from resnet_surgeon.architecture.recognise import check_fit
from resnet_surgeon.architecture.variants import VARIANTS
from resnet_surgeon.dataclass import dataclass
from resnet_surgeon.errors import ArchitectureError, CheckpointError, SurgeonError, UsageError, listed
from resnet_surgeon.formats.tensors import LazyTensor
from resnet_surgeon.history import recording
from resnet_surgeon.history.opening import Opening, recognised
from resnet_surgeon.location import STANDARD_INPUT, Location, check_distinct
from resnet_surgeon.manifest import Kept, Manifest, OtherSource, Provenance
from resnet_surgeon.network import Network
from resnet_surgeon.network import open as open_network
from resnet_surgeon.operations.checkpoint import others_of
from resnet_surgeon.sources import catalog
from resnet_surgeon.sources.origin import Origin
from resnet_surgeon.sources.progress import Progress
from resnet_surgeon.sources.sidecar import MANIFEST_KEY, MANIFEST_LIMIT, manifest_path
from resnet_surgeon.sources.source import Source, open_source
from resnet_surgeon.verification.proof import Check, Proof, some

MOST_CHANNELS = 1 << 20  # on the way from source to file: a manifest may state any number


@dataclass(frozen=True)
class Case:
    """`text` is the manifest as it is embedded, `sidecar` the bytes beside the file, of which no more are read than
    MANIFEST_LIMIT and one; `problem` says why there is no `manifest`, `misfit` why it does not fit the tensors.
    `original` is the first source and `others` those besides, as far as they were given; `replayed` is what the
    recorded operations make of them, or why they cannot be repeated; `expected` is the manifest that comes of it.
    """

    file: Source
    text: str | None
    sidecar: bytes | None
    manifest: Manifest | None
    problem: str | None
    misfit: str | None
    original: Network | None
    replayed: Network | str | None
    expected: Manifest | None
    others: Mapping[int, Network] = field(default_factory=dict)

    @property
    def sound(self) -> Manifest | None:
        """The manifest, if it is valid and fits the file: what all further proofs need."""
        return None if self.problem or self.misfit else self.manifest

    @property
    def document(self) -> str:
        """The manifest's text: the embedded one if there is one."""
        return self.text if self.text is not None else _decoded(self.sidecar or b"")

    @property
    def is_first(self) -> bool:
        """Whether the given source is where the manifest begins: not a file of this tool, which may itself tell lies
        of what it was made from.
        """
        return self.original is not None and self.original.history is None

    @property
    def given(self) -> str:
        """What people call the given source."""
        assert self.original
        return called(self.original)

    @property
    def given_networks(self) -> tuple[Network, ...]:
        """The sources, as far as they were given."""
        return (*([self.original] if self.original else []), *self.others.values())

    def is_given(self, kept: Kept) -> bool:
        """Whether the source that the tensor is said to be from was given: one that the given file has behind it is
        there with that.
        """
        if kept.source in self.others:
            return True
        history = self.original.history if self.original else None
        behind = len(history.other_sources) if history else 0
        return self.original is not None and kept.source <= behind

    @property
    def missing(self) -> str:
        """The sources that were not given, where others were, as people call them."""
        assert self.manifest
        origins = [self.manifest.source, *(other.origin for other in self.manifest.other_sources)]
        given = {*self.others, *[0] * (self.original is not None)}
        names = [str(origin.file or origin.architecture) for n, origin in enumerate(origins) if n not in given]
        return f"{listed(names)}: give {'it' if len(names) == 1 else 'each'} with `--against`"

    @cached_property
    def known(self) -> Known:
        elsewhere: dict[Provenance, LazyTensor] = {
            kept: tensor
            for number, other in self.others.items()
            for kept, tensor in recording.in_file(other.opened, number).items()
        }
        if self.original is None:
            return Known({}, {}, {}, elsewhere)
        return Known(self.original.tensors, self.original.records, self.original.source.found.parts, elsewhere)

    def proof(self, checks: Iterable[Check]) -> Proof:
        """What the checks come to. Raises CheckpointError if a file was written to meanwhile: the proof would be of
        neither state.
        """
        name = self.file.container.file.name if self.file.container else self.file.label
        given = ", ".join(network.source.label for network in self.given_networks) or None
        made = tuple(checks)
        self.check_unchanged()
        return Proof(name, given, made)

    def check_unchanged(self) -> None:
        """Raises CheckpointError if a file was written to since it was opened."""
        for network in self.given_networks:
            network.check_unchanged()
        if self.file.container:
            self.file.container.check_unchanged()


class Known:
    """The source's tensors by their provenance: its own names, or what its own history says of them.

    `parts` are tensors of its file that others were computed from when it was opened; these are not known, but worked
    out again. `elsewhere` are the tensors in the files of other sources.
    """

    def __init__(
        self,
        tensors: Mapping[str, LazyTensor],
        records: Mapping[str, documents.TensorRecord],
        parts: Mapping[str, LazyTensor],
        elsewhere: Mapping[Provenance, LazyTensor],
    ) -> None:
        self._tensors = tensors
        self._parts: dict[Provenance, LazyTensor] = {
            **{documents.Kept(name): tensor for name, tensor in parts.items()},
            **elsewhere,
        }
        self._names: dict[Provenance, list[str]] = {}
        for name, record in records.items():
            if not (parts and isinstance(record.provenance, documents.Computed)):
                self._names.setdefault(record.provenance, []).append(name)

    def name(self, provenance: Provenance, name: str) -> str | None:
        """The source's name of the tensor with this provenance; the same as `name` if several have it."""
        names = self._names.get(provenance)
        return None if names is None else name if name in names else names[0]

    def tensor(self, provenance: Provenance, name: str) -> LazyTensor | None:
        found = self.name(provenance, name)
        return self._parts.get(provenance) if found is None else self._tensors[found]


# One source, or several in any order.
Against = Location | Sequence[Location] | None


def open_case(path: Location, against: Against, opening: Opening, progress: Progress) -> Case:
    """Raises the errors of `open` for a file that cannot be read, CheckpointError for one without any manifest, or a
    source that is not one of the file's.
    """
    given = _given(against)
    for one, two in itertools.combinations([path, *given], 2):
        check_distinct(one, two)
    named = opening.get("manifest")
    opening = {**opening, "manifest": None}  # the rest concerns the source
    file = open_source(path, manifest=named, progress=progress)
    text, sidecar = file.metadata.get(MANIFEST_KEY), _sidecar(path, file)
    if text is None and file.sidecar is not None:
        sidecar = file.sidecar.text.encode()
        file = _fitted(file)
    if text is None and sidecar is None:
        raise CheckpointError(
            "it has no manifest, so there is nothing to prove",
            subject=file.container.file.name if file.container else file.label,
            hint="verify takes files that this tool wrote; `resnet-surgeon diff` compares any two checkpoints",
        )
    manifest = problem = None
    try:
        manifest = documents.from_json(text if text is not None else _decoded(sidecar or b""))
        if text is None and manifest.tensors.keys() == file.tensors.keys():
            manifest = documents.trained_since(manifest, file.tensors)
    except CheckpointError as error:
        problem = error.reason
    misfit = _misfit(manifest, file) if manifest else None
    sources = _sources(given, opening, manifest, progress)
    original, others = sources.get(0), {number: network for number, network in sources.items() if number}
    replayed = _replayed(original, others, manifest) if original and manifest else None
    expected = replayed.manifest() if isinstance(replayed, Network) else None
    return Case(file, text, sidecar, manifest, problem, misfit, original, replayed, expected, others)


def called(network: Network) -> str:
    """What people call a source that was given."""
    container = network.source.container
    return os.path.basename(container.file.name) if container else network.source.label


def _fitted(file: Source) -> Source:
    """The file with its tensors by the names of the manifest beside it, if they fit that; else as it is."""
    try:
        return recognised(file).source
    except CheckpointError:
        return file


def published(source: Origin) -> catalog.Entry | None:
    """The published file that a manifest says its source is."""
    claimed = (source.architecture, source.weights)
    return next((entry for entry in catalog.entries() if (entry.architecture, entry.weights) == claimed), None)


def _misfit(manifest: Manifest, file: Source) -> str | None:
    """What keeps the tensors from being those of the manifest: other names, shapes or dtypes."""
    try:
        check_fit(manifest.architecture, file.tensors)
    except CheckpointError as error:
        return error.reason
    tensors, records = file.tensors, manifest.tensors
    if unlisted := tuple(sorted(tensors.keys() ^ records.keys())):
        return f"the manifest has no record of {some(unlisted)}, or the file has no such tensor"
    if others := tuple(name for name, record in records.items() if tensors[name].dtype != record.dtype):
        return f"{some(others)} do not have the recorded dtype"
    return None


def _sidecar(path: Location, file: Source) -> bytes | None:
    """What stands beside the file, if it was given by path; whatever is too long for a manifest is not read to its
    end.
    """
    if file.is_anonymous or not isinstance(path, (str, os.PathLike)) or "://" in os.fspath(path):
        return None
    beside = manifest_path(Path(path))
    try:
        if not beside.is_file():
            return None
        with beside.open("rb") as stream:
            return stream.read(MANIFEST_LIMIT + 1)
    except OSError:
        return None


def _decoded(sidecar: bytes) -> str:
    """Its text; of one that is too long nothing, which is no manifest."""
    return sidecar.decode("utf-8", "replace") if len(sidecar) <= MANIFEST_LIMIT else ""


def _given(against: Against) -> tuple[Location, ...]:
    """The locations, each of which can be opened more than once where there are several."""
    if not isinstance(against, (list, tuple)):
        return () if against is None else (cast(Location, against),)
    return tuple(against) if len(against) < 2 else tuple(map(_repeatable, against))


def _repeatable(location: Location) -> Location:
    if location == STANDARD_INPUT:
        return sys.stdin.buffer.read()
    return location.read() if hasattr(location, "read") else location


def _sources(
    given: Sequence[Location], opening: Opening, manifest: Manifest | None, progress: Progress
) -> dict[int, Network]:
    """The given networks by the numbers of the manifest's sources that they are, which their digests tell. What is none
    of them is taken for the first that is not there, which it then proves not to be.
    """
    recorded = [OtherSource(manifest.source, manifest.facts), *manifest.other_sources] if manifest else []
    if len(given) > max(1, len(recorded)):
        raise UsageError(
            f"{len(given)} sources for a file that is made from {max(1, len(recorded))}", subject="against"
        )
    if len(recorded) < 2:
        original = _original(given[0] if given else None, opening, recorded[0] if recorded else None, progress)
        return {0: original} if original else {}
    found: dict[int, Network] = {}
    strangers = []
    for location in given:
        network = _tried(location, opening, recorded, progress)
        digest = network.source.identified().sha256
        numbers = [number for number, source in enumerate(recorded) if source.origin.sha256 == digest is not None]
        for number in numbers:
            found[number] = _other(location, opening, recorded[number], progress)
        if not numbers:
            strangers.append(network)
    for number, source in enumerate(recorded):
        if number not in found and source.origin.weights == "random":
            original = _original(None, opening, source, progress)
            if original is not None:
                found[number] = original
    for network in strangers:
        free = [number for number in range(len(recorded)) if number not in found]
        if not free:
            raise CheckpointError("it is none of the sources that the manifest names", subject=called(network))
        found[free[0]] = network
    return found


def _tried(location: Location, opening: Opening, recorded: Sequence[OtherSource], progress: Progress) -> Network:
    """The network, opened as the first of the sources that it can be. Raises the errors of `open`."""
    problem: SurgeonError | None = None
    for source in recorded:
        try:
            return _other(location, opening, source, progress)
        except SurgeonError as error:
            problem = problem or error
    assert problem
    raise problem


def _other(location: Location, opening: Opening, recorded: OtherSource, progress: Progress) -> Network:
    """One of several sources: of a file that holds several networks the recorded one, unless the user says which."""
    wrapping = recorded.origin.wrapping
    keys = [opening.get("key"), None, *([wrapping.key, wrapping.prefix.rstrip(".")] if wrapping else [])]
    problem: SurgeonError | None = None
    for key in dict.fromkeys(keys):
        try:
            network = _original(location, {**opening, "key": key}, recorded, progress)
        except SurgeonError as error:
            problem = problem or error
        else:
            assert network
            return network
    assert problem
    raise problem


def _original(
    against: Location | None, opening: Opening, recorded: OtherSource | None, progress: Progress
) -> Network | None:
    """The source as given; one of random weights is made anew from its seed, without being given."""
    origin = recorded.origin if recorded else None
    if against is None and origin and origin.weights == "random" and origin.architecture in VARIANTS:
        against = origin.architecture
    if against is None:
        return None
    if origin and against == origin.architecture and against in VARIANTS:
        known = {entry.weights for entry in catalog.entries() if entry.architecture == against} | {"random"}
        weights = origin.weights if origin.weights in known else None
        opening = {"weights": weights, "seed": origin.seed or 0, **opening}
    if origin and origin.wrapping:
        opening = {"fc": origin.wrapping.classifier, "ignore": origin.wrapping.ignored, **opening}
    opened = _opened(against, opening, recorded, progress)
    return _named(opened, origin) if origin else opened


def _opened(against: Location, opening: Opening, recorded: OtherSource | None, progress: Progress) -> Network:
    """The source, with the facts that a user stated when the file was made; without them if they cannot be true of it,
    which then is found to have others.
    """
    facts = recorded.facts if recorded else ()
    said: dict[str, object] = {fact.name: fact.value for fact in facts if fact.said_by == "user"}
    if said and "assume" not in opening:
        stated: Opening = {**opening, "assume": said}
        try:
            return open_network(against, progress=progress, **stated)
        except (ArchitectureError, UsageError):
            pass
    return open_network(against, progress=progress, **opening)


def _named(original: Network, recorded: Origin) -> Network:
    """The source under the name that the manifest has for it. How images are prepared, what the classes are called and
    some facts are known by a published file's name, which a copy, a pipe or bytes do not have: the same bytes can have
    either manifest. Whether they are the published ones is for their SHA-256 to say.
    """
    if original.history is not None or original.source.container is None:
        return original
    source = replace(original.source, entry=published(recorded))
    try:
        opened = recognised(replace(source, origin=replace(source.origin, file=recorded.file)))
    except CheckpointError:  # for what the manifest says of its name, which is not so
        return original
    return Network(replace(opened, source=source), opened.checkpoint)


def _since(
    done: tuple[Mapping[str, Any], ...], recorded: tuple[Mapping[str, Any], ...]
) -> tuple[Mapping[str, Any], ...] | None:
    """The recorded operations after those that are done; training that went on is among them once more. None if they do
    not begin with those.
    """
    if recorded[: len(done)] == done:
        return recorded[len(done) :]
    *before, last = done
    goes_on = recorded[: len(before)] == tuple(before) and documents.joined((last, *recorded[len(before) :]))
    return recorded[len(before) :] if goes_on == recorded[len(before) :] else None


def _replayed(original: Network, others: Mapping[int, Network], manifest: Manifest) -> Network | str | None:
    """The source after the recorded operations, but for those that it has behind it already; None if one of them takes
    a source that was not given.
    """
    since = _since(original.history.operations if original.history else (), manifest.operations)
    if since is None:
        return "the source has operations behind it that the manifest does not begin with"
    network = original
    try:
        for record in since:
            operation = documents.operation_from_record(record)
            if getattr(operation, "in_channels", 0) > MOST_CHANNELS:
                return f"more than {MOST_CHANNELS:,} channels are too many to repeat"
            numbers = [number for number in others_of(operation) if isinstance(number, int)]
            if not others.keys() >= set(numbers):
                return None
            network = network.joined(operation, [others[number].opened for number in numbers])
    except SurgeonError as error:
        return error.about(operation.name).what
    return network
