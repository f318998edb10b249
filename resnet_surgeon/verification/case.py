"""What is on trial: an opened file with its manifest, and the source that it is said to be made from."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from resnet_surgeon import manifest as documents
from resnet_surgeon.architecture.recognise import check_fit
from resnet_surgeon.architecture.variants import VARIANTS
from resnet_surgeon.errors import ArchitectureError, CheckpointError, SurgeonError, UsageError
from resnet_surgeon.formats.tensors import LazyTensor
from resnet_surgeon.history.opening import Opening, recognised
from resnet_surgeon.manifest import Manifest, Provenance
from resnet_surgeon.network import Network
from resnet_surgeon.network import open as open_network
from resnet_surgeon.sources import catalog
from resnet_surgeon.sources.location import Location, check_distinct
from resnet_surgeon.sources.origin import Origin
from resnet_surgeon.sources.progress import Progress
from resnet_surgeon.sources.sidecar import MANIFEST_KEY, MANIFEST_LIMIT, manifest_path
from resnet_surgeon.sources.source import Source, open_source
from resnet_surgeon.verification.proof import some

MOST_CHANNELS = 1 << 20  # on the way from source to file: a manifest may state any number


@dataclass(frozen=True)
class Case:
    """`text` is the manifest as it is embedded, `sidecar` the bytes beside the file, of which no more are read than
    MANIFEST_LIMIT and one; `problem` says why there is no `manifest`, `misfit` why it does not fit the tensors.
    `original` is the source, `replayed` what the recorded operations make of it, or why they cannot be repeated;
    `expected` is the manifest that comes of it.
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
        container = self.original.source.container
        return os.path.basename(container.file.name) if container else self.original.source.label

    @cached_property
    def known(self) -> Known:
        if self.original is None:
            return Known({}, {}, {})
        return Known(self.original.tensors, self.original.records, self.original.source.found.parts)

    def check_unchanged(self) -> None:
        """Raises CheckpointError if a file was written to since it was opened."""
        for source in (self.file, *([self.original.source] if self.original else [])):
            if source.container:
                source.container.check_unchanged()


class Known:
    """The source's tensors by their provenance: its own names, or what its own history says of them.

    `parts` are tensors of its file that others were computed from when it was opened; these are not known, but worked
    out again.
    """

    def __init__(
        self,
        tensors: Mapping[str, LazyTensor],
        records: Mapping[str, documents.TensorRecord],
        parts: Mapping[str, LazyTensor],
    ) -> None:
        self._tensors = tensors
        self._parts: dict[Provenance, LazyTensor] = {documents.Kept(name): tensor for name, tensor in parts.items()}
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


def open_case(path: Location, against: Location | None, opening: Opening, progress: Progress) -> Case:
    """Raises the errors of `open` for a file that cannot be read, CheckpointError for one without any manifest."""
    check_distinct(path, against)
    named = opening.get("manifest")
    opening = {**opening, "manifest": None}  # the rest concerns the source
    file = open_source(path, manifest=named)
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
    original = _original(against, opening, manifest, progress)
    replayed = _replayed(original, manifest) if original and manifest else None
    expected = replayed.manifest() if isinstance(replayed, Network) else None
    return Case(file, text, sidecar, manifest, problem, misfit, original, replayed, expected)


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


def _original(
    against: Location | None, opening: Opening, manifest: Manifest | None, progress: Progress
) -> Network | None:
    """The source as given; one of random weights is made anew from its seed, without being given."""
    recorded = manifest.source if manifest else None
    if against is None and recorded and recorded.weights == "random" and recorded.architecture in VARIANTS:
        against = recorded.architecture
    if against is None:
        return None
    if recorded and against == recorded.architecture and against in VARIANTS:
        known = {entry.weights for entry in catalog.entries() if entry.architecture == against} | {"random"}
        weights = recorded.weights if recorded.weights in known else None
        opening = {"weights": weights, "seed": recorded.seed or 0, **opening}
    if recorded and recorded.wrapping:
        opening = {"fc": recorded.wrapping.classifier, "ignore": recorded.wrapping.ignored, **opening}
    opened = _opened(against, opening, manifest, progress)
    return _named(opened, recorded) if recorded else opened


def _opened(against: Location, opening: Opening, manifest: Manifest | None, progress: Progress) -> Network:
    """The source, with the facts that a user stated when the file was made; without them if they cannot be true of it,
    which then is found to have others.
    """
    facts = manifest.facts if manifest else ()
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


def _replayed(original: Network, manifest: Manifest) -> Network | str:
    """The source after the recorded operations, but for those that it has behind it already."""
    since = _since(original.history.operations if original.history else (), manifest.operations)
    if since is None:
        return "the source has operations behind it that the manifest does not begin with"
    network = original
    try:
        for record in since:
            operation = documents.operation_from_record(record)
            if getattr(operation, "in_channels", 0) > MOST_CHANNELS:
                return f"more than {MOST_CHANNELS:,} channels are too many to repeat"
            network = network.apply(operation)
    except SurgeonError as error:
        return error.what
    return network
