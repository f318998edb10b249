"""Proofs about the document: it is valid, one with its sidecar, fits the file, and tells its source and history."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from resnet_surgeon import manifest as documents
from resnet_surgeon.architecture.spec import Head
from resnet_surgeon.errors import CheckpointError
from resnet_surgeon.manifest import Manifest
from resnet_surgeon.sources import catalog
from resnet_surgeon.verification import streams
from resnet_surgeon.verification.case import Case
from resnet_surgeon.verification.proof import Check, some


def checks(case: Case) -> Iterator[Check]:
    yield _manifest(case)
    yield _pair(case)
    if case.manifest is None:
        return
    yield _fit(case)
    yield _promises(case.manifest)
    yield _source(case, case.manifest)
    yield _history(case, case.manifest)


def _manifest(case: Case) -> Check:
    if case.manifest is None:
        return Check("manifest", "failed", f"{case.problem}")
    size = len((case.text or case.sidecar or "").encode())
    return Check("manifest", "proven", f"valid, of format version {case.manifest.format_version}, {size:,} bytes")


def _pair(case: Case) -> Check:
    """The sidecar is the very text that is embedded. A stream, or a file sent alone, has none to compare."""
    if case.text is None:
        return Check("pair", "failed", "the manifest stands beside the file, but is not embedded in it")
    if case.sidecar is None:
        return Check("pair", "unproven", "the manifest is embedded; none stands beside the file to compare it with")
    if case.sidecar == case.text:
        return Check("pair", "proven", "the manifest beside the file is the embedded one, byte for byte")
    try:
        beside = documents.from_json(case.sidecar)
    except CheckpointError:
        return Check("pair", "failed", "what stands beside the file is no valid manifest")
    if case.manifest is None:
        return Check("pair", "failed", "the manifest beside the file is valid, the embedded one is not")
    fields = documents.differing_fields(case.manifest, beside)
    where = f"in {some(fields)}" if fields else "in its layout"
    return Check("pair", "failed", f"the manifest beside the file differs from the embedded one {where}")


def _fit(case: Case) -> Check:
    if case.misfit:
        return Check("fit", "failed", case.misfit)
    count = len(case.file.tensors)
    return Check("fit", "proven", f"{count} of {count} tensors have the names, shapes and dtypes of the manifest")


def _promises(manifest: Manifest) -> Check:
    """Inputs and outputs are what the architecture takes and gives."""
    architecture, inputs = manifest.architecture, manifest.inputs
    wrong = []
    if inputs.channels != architecture.in_channels:
        wrong.append("inputs.channels")
    if inputs.preprocessing and {len(inputs.preprocessing.mean), len(inputs.preprocessing.std)} != {inputs.channels}:
        wrong.append("inputs.preprocessing")
    heads: tuple[Head | None, ...] = architecture.heads or (None,)
    if len(heads) != len(manifest.outputs):
        wrong.append("outputs")
    for index, (head, output) in enumerate(zip(heads, manifest.outputs, strict=False)):
        promised = replace(
            output,
            name=head.name if head else architecture.output_kind,
            kind=architecture.output_kind,
            shape=architecture.output_shape(head, 224, 224),
            classes=head.classes if head else None,
        )
        if output != promised or (output.categories and len(output.categories) != output.classes):
            wrong.append(f"outputs[{index}]")
    if wrong:
        return Check("promises", "failed", f"{some(tuple(wrong))} are not what the architecture gives")
    shapes = ", ".join(f"{output.name} {list(output.shape)}" for output in manifest.outputs)
    channels = f"{inputs.channels} channel{'s' * (inputs.channels != 1)} in"
    return Check("promises", "proven", f"{channels}, {shapes} out for 224x224: as the architecture gives them")


def _source(case: Case, manifest: Manifest) -> Check:
    """The given source is the one that the manifest names, and published weights have the published digest."""
    recorded = manifest.source
    digest = recorded.sha256 or ""
    if recorded.weights and recorded.weights != "random":
        label = f"{recorded.architecture} {recorded.weights}"
        known = {f"{entry.architecture} {entry.weights}": entry.digest for entry in catalog.entries()}.get(label)
        if known is None or not digest.startswith(known):
            return Check("source", "failed", f"the SHA-256 {digest[:8]}... is not that of the published {label}")
    if case.original is None:
        return Check("source", "unproven", f"said to be {_label(manifest)}: give it with `--against`")
    given = (case.expected or case.original.manifest()).source
    if recorded.container is None or given.container is None:
        same = recorded == given
    else:
        same = recorded.sha256 == given.sha256
    if not same:
        found = given.sha256[:16] + "..." if given.sha256 else f"{given.architecture} {given.weights}"
        return Check("source", "failed", f"the manifest says {_label(manifest)}, given was {found}")
    return Check("source", "proven", f"it is {_label(manifest)}")


def _label(manifest: Manifest) -> str:
    source = manifest.source
    if source.weights == "random":
        return f"{source.architecture} with random weights, seed {source.seed}"
    return f"{source.file}, SHA-256 {(source.sha256 or '')[:16]}..."


def _history(case: Case, manifest: Manifest) -> Check:
    """The recorded operations, applied to the source, come to this very document (but for file names and versions)."""
    count = len(manifest.operations)
    names = ", ".join(name for record in manifest.operations for name in record) or "none"
    if isinstance(case.replayed, str):
        return Check("history", "failed", f"the operations cannot be repeated: {case.replayed}")
    if case.expected is None:
        return Check("history", "unproven", f"{count} operations ({names}): give their source with `--against`")
    repeated = replace(case.expected, source=manifest.source, versions=manifest.versions)
    repeated = streams.as_recorded(repeated, manifest)
    fields = documents.differing_fields(repeated, manifest)
    if fields:
        return Check("history", "failed", f"the operations ({names}) do not lead to {some(fields)}")
    records = f"{len(manifest.tensors)} records"
    return Check("history", "proven", f"{count} operations ({names}) lead from it to this architecture and {records}")
