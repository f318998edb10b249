"""verify: all checks, in their order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from resnet_surgeon.history.opening import Opening
from resnet_surgeon.location import Location
from resnet_surgeon.sources.progress import Progress, silent
from resnet_surgeon.verification import document, function, tensors
from resnet_surgeon.verification.case import Against, Case, open_case
from resnet_surgeon.verification.proof import Check, Proof

if TYPE_CHECKING:
    from typing_extensions import Unpack


def verify(
    path: Location, *, against: Against = None, progress: Progress = silent, **opening: Unpack[Opening]
) -> Proof:
    """Proves that a file of this tool is what its manifest says, as far as it can be proven.

    `against` is the source that it was made from, or several in any order, and `opening` how they are opened, as by
    `open`; left out, weights and seed are those that the manifest names. A file on the way can be given too: then what
    that was made from stays unproven. Without a source, what needs it is unproven; random weights are their own source,
    since their seed is recorded.

    Raises the errors of `open` for what cannot be read, and CheckpointError for a file without a manifest, or one that
    is written to meanwhile.

    >>> verify("resnet50-in1.safetensors", against="resnet50").holds
    True
    """
    return prove(open_case(path, against, opening, progress))


def prove(case: Case) -> Proof:
    """Raises CheckpointError if a file was written to meanwhile: the proof would be of neither state."""
    return case.proof(_checks(case))


def _checks(case: Case) -> Iterator[Check]:
    yield from document.checks(case)
    of_tensors = tuple(tensors.checks(case))
    yield from of_tensors
    yield from function.checks(case, of_tensors)
    if case.sound is None:
        yield Check("tensors", "unproven", "this needs a valid manifest that fits the file")
        yield Check("function", "unproven", "this needs a valid manifest that fits the file")
