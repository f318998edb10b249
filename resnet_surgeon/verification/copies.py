"""Proof that copies of one tensor are equal to each other, where the source that has it was not given.

Compares bytes; knows nothing of what they mean, and no torch.
"""

from __future__ import annotations

from collections.abc import Iterator

from resnet_surgeon.formats.tensors import LazyTensor, pieces
from resnet_surgeon.manifest import Kept
from resnet_surgeon.verification.case import Case
from resnet_surgeon.verification.proof import Check, some

_PIECE = 1 << 20  # bytes that are compared at once


def checks(case: Case) -> Iterator[Check]:
    """Every tensor that is said to be the same of a missing source as another one has the very bytes of that."""
    groups: dict[Kept, list[str]] = {}
    for name, record in case.sound.tensors.items() if case.sound else ():
        if isinstance(record.provenance, Kept) and not case.is_given(record.provenance):
            groups.setdefault(record.provenance, []).append(name)
    copies = [(first, name) for first, *others in groups.values() for name in others]
    wrong = tuple(name for first, name in copies if not same(case.file.tensors[first], case.file.tensors[name]))
    if wrong:
        first = next(first for first, name in copies if name == wrong[0])
        reason = f"{some(wrong)} and `{first}` are said to be one and the same tensor of the source, and differ"
        yield Check("copies", "failed", reason, wrong)
    elif copies:
        originals = len({first for first, _ in copies})
        yield Check(
            "copies", "proven", f"{len(copies) + originals} tensors are copies of {originals}, equal to the bit"
        )


def same(one: LazyTensor, other: LazyTensor) -> bool:
    """Whether both have the same dtype, shape and bytes."""
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    return all(a == b for a, b in zip(pieces(one, _PIECE), pieces(other, _PIECE), strict=True))
