"""What can be proven without torch: the document, and every tensor against what the recorded operations make again.

Uses the tool's own operations and arithmetic, so it finds a file that is damaged or was made otherwise than it says,
not a mistake in these: that takes `verify`. Runs no network.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from resnet_surgeon.formats.tensors import Initialised, LazyTensor, byte_size, prepare
from resnet_surgeon.history.opening import Opening
from resnet_surgeon.location import Location
from resnet_surgeon.manifest import Computed, Kept, Provenance, Trained
from resnet_surgeon.manifest import Initialised as Drawn
from resnet_surgeon.network import Network
from resnet_surgeon.sources.progress import Progress, silent
from resnet_surgeon.verification import copies, document
from resnet_surgeon.verification.case import Against, Case, open_case
from resnet_surgeon.verification.copies import same
from resnet_surgeon.verification.proof import Check, Proof, some

if TYPE_CHECKING:
    from typing_extensions import Unpack

_KINDS: dict[type[Provenance], tuple[str, str]] = {
    Kept: ("kept", "the source's to the bit"),
    Computed: ("computed", "what their formulas give, by our own arithmetic"),
    Drawn: ("initialised", "what law and seed give"),
}


def verify_quickly(
    path: Location, *, against: Against = None, progress: Progress = silent, **opening: Unpack[Opening]
) -> Proof:
    """Proves of a file of this tool what takes no torch: the document, that it fits the tensors, and that every tensor
    is, byte for byte, what the recorded operations make of the source, or several, given as `against`.

    Takes what `verify` takes and raises what it raises. What the network computes is not looked at.

    >>> verify_quickly("resnet50-in1.safetensors", against="resnet50").holds
    True
    """
    case = open_case(path, against, opening, progress)
    return case.proof(_checks(case))


def _checks(case: Case) -> Iterator[Check]:
    yield from document.checks(case)
    yield from _of_tensors(case)


def _of_tensors(case: Case) -> Iterator[Check]:
    manifest = case.sound
    if manifest is None:
        yield Check("tensors", "unproven", "it takes a valid manifest that fits the file")
        return
    expected = case.replayed.tensors if isinstance(case.replayed, Network) else {}
    for kind, (name, what) in _KINDS.items():
        members = {tensor: r.provenance for tensor, r in manifest.tensors.items() if isinstance(r.provenance, kind)}
        if members:
            yield _check(case, name, what, members, expected)
        if kind is Kept:
            yield from copies.checks(case)
    if trained := sum(isinstance(record.provenance, Trained) for record in manifest.tensors.values()):
        yield Check("trained", "unproven", f"{trained} tensors were trained since, which cannot be proven")


def _check(
    case: Case, name: str, what: str, members: Mapping[str, Provenance], expected: Mapping[str, LazyTensor]
) -> Check:
    again = {tensor: _again(case, tensor, provenance, expected) for tensor, provenance in members.items()}
    what = "their source's to the bit" if name == "kept" and case.sound and case.sound.other_sources else what
    prepare(tensor for tensor in again.values() if tensor is not None)
    unknown = tuple(tensor for tensor, made in again.items() if made is None)
    wrong = tuple(tensor for tensor, made in again.items() if made and not same(made, case.file.tensors[tensor]))
    right = len(members) - len(unknown) - len(wrong)
    finding = f"{right} of {len(members)} tensors are {what}"
    if wrong:
        return Check(name, "failed", f"{finding}; not {some(wrong)}", wrong)
    if unknown:
        return Check(name, "unproven", f"{finding}; {some(unknown)} were not compared; {_reason(case)}", unknown)
    return Check(name, "proven", f"{finding} ({sum(byte_size(case.file.tensors[one]) for one in members):,} bytes)")


def _again(case: Case, name: str, provenance: Provenance, expected: Mapping[str, LazyTensor]) -> LazyTensor | None:
    """The tensor made again: what is kept takes its own source, what is drawn takes none."""
    if name in expected:
        return expected[name]
    if isinstance(provenance, Kept):
        return case.known.tensor(provenance, name)
    if not isinstance(provenance, Drawn):
        return None
    tensor = case.file.tensors[name]
    return Initialised(tensor.dtype, tensor.shape, provenance.law, provenance.seed, provenance.stream)


def _reason(case: Case) -> str:
    if isinstance(case.replayed, str):
        return case.replayed
    return f"that takes {case.missing}" if case.given_networks else "give the source with `--against`"
