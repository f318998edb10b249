"""How releases named the streams of random numbers. Until 0.1.0 the tensor's name stood alone, without the operation
and its place; `Checkpoint.stream` says how they are named since.
"""

from __future__ import annotations

import itertools
from dataclasses import replace

from resnet_surgeon import manifest as records
from resnet_surgeon.manifest import Manifest, Provenance


def as_recorded(expected: Manifest, recorded: Manifest) -> Manifest:
    """`expected` with the streams named as in `recorded`, where and only where that has exactly the name of 0.1.0."""
    return replace(
        expected,
        tensors={
            name: replace(record, provenance=_renamed(record.provenance, recorded.tensors[name].provenance))
            if name in recorded.tensors
            else record
            for name, record in expected.tensors.items()
        },
    )


def _renamed(expected: Provenance, recorded: Provenance | None) -> Provenance:
    if isinstance(expected, records.Initialised) and isinstance(recorded, records.Initialised):
        tensor = expected.stream.rpartition("/")[2]
        return replace(expected, stream=tensor) if recorded.stream == tensor else expected
    if isinstance(expected, records.Computed) and isinstance(recorded, records.Computed):
        pairs = itertools.zip_longest(expected.inputs, recorded.inputs)
        return replace(expected, inputs=tuple(_renamed(ours, theirs) for ours, theirs in pairs if ours))
    if isinstance(expected, records.Trained) and isinstance(recorded, records.Trained):
        began = _renamed(expected.began, recorded.began)
        assert not isinstance(began, records.Trained)
        return records.Trained(began)
    return expected
