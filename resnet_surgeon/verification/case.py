"""What is on trial: an opened file with its manifest, and the source that it is said to be made from."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from resnet_surgeon import manifest as documents
from resnet_surgeon.architecture.recognise import check_fit
from resnet_surgeon.architecture.variants import VARIANTS
from resnet_surgeon.errors import CheckpointError, SurgeonError
from resnet_surgeon.manifest import Manifest
from resnet_surgeon.network import Network
from resnet_surgeon.network import open as open_network
from resnet_surgeon.sources import catalog
from resnet_surgeon.sources.progress import Progress
from resnet_surgeon.sources.source import MANIFEST_KEY, Location, Source, check_distinct, open_source
from resnet_surgeon.targets import manifest_path
from resnet_surgeon.verification.proof import some


@dataclass(frozen=True)
class Case:
    """`text` is the manifest as it is embedded, `sidecar` as it stands beside the file; `problem` says why there is no
    `manifest`, `misfit` why it does not fit the tensors. `original` is the source, `replayed` what the recorded
    operations make of it, or why they cannot be repeated; `expected` is the manifest that comes of it.
    """

    file: Source
    text: str | None
    sidecar: str | None
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


def open_case(path: Location, against: Location | None, key: str | None, progress: Progress) -> Case:
    """Raises the errors of `open` for a file that cannot be read, CheckpointError for one without any manifest."""
    check_distinct(path, against)
    file = open_source(path)
    text, sidecar = file.metadata.get(MANIFEST_KEY), _sidecar(path, file)
    if text is None and sidecar is None:
        raise CheckpointError(
            "it has no manifest, which says what to prove",
            subject=file.container.file.name if file.container else file.label,
            hint="verify takes files that this tool wrote; `resnet-surgeon diff` compares any two checkpoints",
        )
    manifest = problem = None
    try:
        manifest = documents.from_json(text if text is not None else sidecar or "")
    except CheckpointError as error:
        problem = error.reason
    misfit = _misfit(manifest, file) if manifest else None
    original = _original(against, key, manifest, progress)
    replayed = _replayed(original, manifest) if original and manifest else None
    expected = replayed.manifest() if isinstance(replayed, Network) else None
    return Case(file, text, sidecar, manifest, problem, misfit, original, replayed, expected)


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


def _sidecar(path: Location, file: Source) -> str | None:
    """The text beside the file, if it was given by path and has one."""
    if file.is_anonymous or not isinstance(path, (str, os.PathLike)) or "://" in os.fspath(path):
        return None
    beside = manifest_path(Path(path))
    try:
        return beside.read_bytes().decode("utf-8", "replace") if beside.is_file() else None
    except OSError:
        return None


def _original(
    against: Location | None, key: str | None, manifest: Manifest | None, progress: Progress
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
        return open_network(against, weights=weights, seed=recorded.seed or 0, key=key, progress=progress)
    return open_network(against, key=key, progress=progress)


def _replayed(original: Network, manifest: Manifest) -> Network | str:
    """The source after the recorded operations, but for those that it has behind it already."""
    done = original.history.operations if original.history else ()
    if manifest.operations[: len(done)] != done:
        return "the source has operations behind it that the manifest does not begin with"
    network = original
    try:
        for record in manifest.operations[len(done) :]:
            network = network.apply(documents.operation_from_record(record))
    except SurgeonError as error:
        return str(error)
    return network
