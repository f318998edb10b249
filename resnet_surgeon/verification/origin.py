"""Proof about the source: that the given one is what the manifest names. Says no more than what was seen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

from resnet_surgeon.architecture.variants import VARIANTS
from resnet_surgeon.manifest import Manifest
from resnet_surgeon.network import Network
from resnet_surgeon.sources.origin import Origin
from resnet_surgeon.verification.case import Case, called, published
from resnet_surgeon.verification.proof import Check, some


def check(case: Case, manifest: Manifest) -> Check:
    recorded = manifest.source
    if problem := _impossible(recorded):
        return Check("source", "failed", problem)
    if case.original is None:
        return Check("source", "unproven", f"said to be {_label(recorded)}: give it with `--against`")
    given = (case.expected or case.original.manifest()).source
    if not case.is_first:
        return _of_middle(case, recorded, given)
    if recorded.container is None or given.container is None:
        if recorded == given:
            return Check("source", "proven", f"it is {_label(recorded)}")
    elif recorded.sha256 == given.sha256:
        return _of_file(case, manifest, given)
    found = given.sha256[:16] + "..." if given.sha256 else _label(given)
    return Check("source", "failed", f"the manifest says {_label(recorded)}, given was {found}")


def others(case: Case, manifest: Manifest) -> Iterator[Check]:
    """The same of each source besides the first. What the given file has behind it is its own word."""
    behind = case.original.history.other_sources if case.original and case.original.history else ()
    for number, recorded in enumerate((other.origin for other in manifest.other_sources), 1):
        name, given = f"source {number}", case.others.get(number)
        if problem := _impossible(recorded):
            yield Check(name, "failed", problem)
        elif given is not None:
            yield _of_other(name, recorded, given)
        elif case.original is not None and number <= len(behind) and behind[number - 1].origin != recorded:
            yield Check(name, "failed", f"`other_sources[{number - 1}]` is not what {case.given} says of its own")
        else:
            yield Check(name, "unproven", f"said to be {_label(recorded)}: give it with `--against`")


def _of_other(name: str, recorded: Origin, given: Network) -> Check:
    found = given.source.identified()
    if (recorded.container is None or found.container is None) and recorded == found:
        return Check(name, "proven", f"it is {_label(recorded)}")
    if recorded.sha256 is None or recorded.sha256 != found.sha256:
        seen = f"{found.sha256[:16]}..." if found.sha256 else _label(found)
        return Check(name, "failed", f"the manifest says {_label(recorded)}, given was {seen}")
    finding = f"{called(given)} has the recorded SHA-256 {recorded.sha256[:16]}..., all 64 digits"
    unproven = [f"its {field}" for field in _differing(recorded, found)]
    if unproven:
        finding += f"; the manifest's own word, unproven: {some(unproven)}"
    return Check(name, "proven", finding)


def _impossible(recorded: Origin) -> str | None:
    """Why there can be no such source: random weights that are a file, or of an unknown network; published ones with
    another digest.
    """
    if (recorded.weights == "random") != (recorded.container is None):
        return "it is said to be a file with random weights, or neither"
    if recorded.weights == "random":
        return None if recorded.architecture in VARIANTS else f"there is no network `{recorded.architecture}`"
    entry, digest = published(recorded), recorded.sha256 or ""
    if recorded.weights is None or (entry and digest.startswith(entry.digest)):
        return None
    return f"the SHA-256 {digest[:8]}... is not that of the published {recorded.architecture} {recorded.weights}"


def _of_file(case: Case, manifest: Manifest, given: Origin) -> Check:
    """The same digest, so the same bytes; what else the manifest says of them is compared with what was seen, and the
    names that the file does not have are the manifest's own word.
    """
    recorded, entry = manifest.source, published(manifest.source)
    differing = _differing(recorded, given)
    wrong = [f"source.{name}" for name in differing if name in ("container", "wrapping", "warnings", "not_loaded")]
    if wrong and case.expected and manifest.versions == case.expected.versions:
        # Another version may have seen it otherwise; this one tells a lie.
        return Check("source", "failed", f"{case.given} has the recorded SHA-256, but is not what {some(wrong)} say")
    finding = f"{case.given} has the recorded SHA-256 {(given.sha256 or '')[:16]}..., all 64 digits"
    names = {"file": entry.file_name, "url": entry.url} if entry else {}
    own = [f"source.{name}" for name in ("file", "url") if getattr(recorded, name) not in (None, names.get(name))]
    unproven = [*(name for name in own if name.removeprefix("source.") in differing), *wrong]
    if entry:
        claim = f"{entry.architecture} {entry.weights}"
        finding += f"; of that of {claim} the catalogue has {len(entry.digest)} digits, which match"
    if unproven:
        finding += f"; the manifest's own word, unproven: {some(unproven)}"
    return Check("source", "proven", finding)


def _of_middle(case: Case, recorded: Origin, given: Origin) -> Check:
    """What a file of this tool was made from is its own word: that two such words agree proves nothing."""
    if recorded != given:
        differing = [
            field.name for field in fields(Origin) if getattr(recorded, field.name) != getattr(given, field.name)
        ]
        says = f"`{'`, `'.join(f'source.{name}' for name in differing)}`"
        return Check("source", "failed", f"{says} are not what {case.given} says of its own source")
    how = "leave out `--against`" if recorded.weights == "random" else "give that with `--against`"
    finding = f"{case.given} was given, whose own word is, like this file's, that it was made from {_label(recorded)}"
    return Check("source", "unproven", f"{finding}: to prove that, {how}")


def _differing(one: Origin, other: Origin) -> list[str]:
    return [field.name for field in fields(Origin) if getattr(one, field.name) != getattr(other, field.name)]


def _label(source: Origin) -> str:
    if source.container is None:
        return f"{source.architecture} with {source.weights} weights, seed {source.seed}"
    return f"{source.file}, SHA-256 {(source.sha256 or '')[:16]}..."
