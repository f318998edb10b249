"""Proofs about the document: it is valid, the same as its sidecar, fits the file, and tells its history."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from resnet_surgeon import manifest as documents
from resnet_surgeon.architecture.facts import in_words
from resnet_surgeon.architecture.outputs import IMAGE, outputs
from resnet_surgeon.errors import CheckpointError
from resnet_surgeon.history.facts import facts_now
from resnet_surgeon.history.notes import notes_of
from resnet_surgeon.manifest import Manifest
from resnet_surgeon.sources.sidecar import MANIFEST_LIMIT
from resnet_surgeon.verification import origin, streams
from resnet_surgeon.verification.case import Case
from resnet_surgeon.verification.implied import contradictions
from resnet_surgeon.verification.proof import Check, some


def checks(case: Case) -> Iterator[Check]:
    yield _manifest(case)
    yield _pair(case)
    if case.manifest is None:
        return
    yield _fit(case)
    yield _promises(case.manifest)
    yield origin.check(case, case.manifest)
    yield from origin.others(case, case.manifest)
    yield from _assumed(case.manifest)
    yield _history(case, case.manifest)


def _manifest(case: Case) -> Check:
    if case.manifest is None:
        return Check("manifest", "failed", f"{case.problem}")
    size = len(case.document.encode("utf-8", "surrogatepass"))
    return Check("manifest", "proven", f"valid, of format version {case.manifest.format_version}, {size:,} bytes")


def _pair(case: Case) -> Check:
    """The sidecar is the very text that is embedded. A stream, or a file sent alone, has none to compare."""
    if case.text is None:
        finding = "the manifest stands beside the file, and not in it: something else has saved the file since"
        return Check("pair", "unproven", finding)
    if case.sidecar is None:
        return Check("pair", "unproven", "the manifest is embedded; there is none beside the file to compare it with")
    if case.sidecar == case.text.encode("utf-8", "surrogatepass"):
        return Check("pair", "proven", "the manifest beside the file is the embedded one, byte for byte")
    if len(case.sidecar) > MANIFEST_LIMIT:
        return Check("pair", "failed", f"the file beside it is too long for a manifest (over {MANIFEST_LIMIT:,} bytes)")
    try:
        beside = documents.from_json(case.sidecar.decode("utf-8", "replace"))
    except CheckpointError:
        return Check("pair", "failed", "the file beside it is not a valid manifest")
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
    if inputs.channel_names and not _are_names(inputs.channel_names, inputs.channels):
        wrong.append("inputs.channel_names")
    promised = outputs(architecture)
    if len(promised) != len(manifest.outputs):
        wrong.append("outputs")
    for index, (given, output) in enumerate(zip(promised, manifest.outputs, strict=False)):
        same = replace(output, name=given.name, kind=given.kind, shape=given.shape, classes=given.classes)
        if output != same or (output.categories and len(output.categories) != output.classes):
            wrong.append(f"outputs[{index}]")
    if manifest.notes not in ((), notes_of(manifest)):
        wrong.append("notes")
    if wrong:
        return Check("promises", "failed", f"{some(tuple(wrong))} are not what the architecture gives")
    shapes = ", ".join(f"{output.name} {list(output.shape)}" for output in manifest.outputs)
    channels = f"{inputs.channels} channel{'s' * (inputs.channels != 1)} in"
    return Check("promises", "proven", f"{channels}, {shapes} out for {IMAGE}x{IMAGE}: as the architecture gives them")


def _are_names(names: tuple[str, ...], channels: int) -> bool:
    """One for each channel, none twice, and none a number but that of its own channel."""
    numbers = all(not name.isdecimal() or name == str(index) for index, name in enumerate(names))
    return numbers and len({*names}) == len(names) == channels


def _assumed(manifest: Manifest) -> Iterator[Check]:
    """What tensors do not show is what was said of the source, or what operations made of that; `history` names what is
    not.
    """
    if manifest.facts and not any(contradictions(manifest)):
        facts = "; ".join(in_words(facts_now(manifest)))
        yield Check("assumed", "proven", f"the architecture agrees with what was assumed: {facts}")


def _history(case: Case, manifest: Manifest) -> Check:
    """The recorded operations, applied to the source, come to this very document (but for file names and versions)."""
    if impossible := tuple(contradictions(manifest)):
        return Check("history", "failed", f"the source and the operations do not give {some(impossible)}")
    names = ", ".join(name for record in manifest.operations for name in record) or "nothing"
    if isinstance(case.replayed, str):
        return Check("history", "failed", f"the operations cannot be repeated: {case.replayed}")
    if case.expected is None and case.original is not None:
        return Check("history", "unproven", f"recorded: {names}; to repeat them takes {case.missing}")
    if case.expected is None:
        return Check("history", "unproven", f"recorded: {names}; give the source with `--against`")
    repeated = replace(
        case.expected,
        source=manifest.source,
        versions=manifest.versions,
        notes=manifest.notes,
        share_blocks=manifest.share_blocks,
    )
    if len(repeated.other_sources) == len(manifest.other_sources):  # whose names may be others: see `origin`
        pairs = zip(repeated.other_sources, manifest.other_sources, strict=True)
        others = tuple(replace(ours, origin=theirs.origin) for ours, theirs in pairs)
        repeated = replace(repeated, other_sources=others)
    if not manifest.facts:  # written before there were any: then the network is torchvision's, or contradicts itself
        repeated = replace(repeated, facts=())
    repeated = streams.as_recorded(repeated, manifest)
    fields = documents.differing_fields(repeated, manifest)
    if fields:
        return Check("history", "failed", f"the recorded operations ({names}) do not give {some(fields)}")
    records = f"{len(manifest.tensors)} records"
    if not case.is_first:
        return Check("history", "proven", f"{_since(case, manifest)} gives this architecture and {records}")
    return Check("history", "proven", f"applying {names} to it gives this architecture and {records}")


def _since(case: Case, manifest: Manifest) -> str:
    """The operations after those that the given file has behind it, by its own word."""
    assert case.original
    assert case.original.history
    done = len(case.original.history.operations)
    names = ", ".join(name for record in manifest.operations[done:] for name in record) or "nothing"
    before = f"which by its own account had {done} operation{'s' * (done != 1)} before"
    return f"applying {names} to {case.given}, {before},"
