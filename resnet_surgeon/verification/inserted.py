"""Proof that the blocks which `depth` inserted hand on what they are given, and so the network computes what it did."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor, nn

from resnet_surgeon.arithmetic.formulas import Cast, FoldedBias, FoldedWeight
from resnet_surgeon.manifest import Computed, Initialised, Manifest, Provenance
from resnet_surgeon.verification.activations import images, probe, submodule
from resnet_surgeon.verification.laws import hands_on
from resnet_surgeon.verification.layers import Correspondence
from resnet_surgeon.verification.proof import Check, some

_IN_BLOCK = re.compile(r"((?:heads\.\w+\.)?layer[1-4]\.[0-9]+)\.(.+)")
_SIDE = 14  # pixels of what the blocks are given


def inserted(manifest: Manifest) -> tuple[str, ...]:
    """The blocks that hand on what they are given, by the manifest's word: as `depth` drew them, cast and folded at
    most.
    """
    architecture = manifest.architecture
    last = f"{'conv' if architecture.fused else 'bn'}{2 if architecture.block == 'basic' else 3}.weight"
    members: dict[str, dict[str, list[Provenance]]] = {}
    for name, record in manifest.tensors.items():
        if match := _IN_BLOCK.fullmatch(name):
            members.setdefault(match[1], {})[match[2]] = [*_drawn(record.provenance)]

    def hands_it_on(block: str) -> bool:
        is_fresh = all(isinstance(leaf, Initialised) for leaves in members[block].values() for leaf in leaves)
        zeros = (leaf for leaf in members[block][last] if isinstance(leaf, Initialised))
        return is_fresh and any(hands_on(leaf, manifest) for leaf in zeros)

    return tuple(filter(hands_it_on, members))


def _drawn(provenance: Provenance) -> Iterator[Provenance]:
    """What was cast and folded."""
    if isinstance(provenance, Computed) and isinstance(provenance.formula, Cast | FoldedWeight | FoldedBias):
        for part in provenance.inputs:
            yield from _drawn(part)
    else:
        yield provenance


@torch.no_grad()
def blocks(names: tuple[str, ...], witness: nn.Module, label: str, dtype: torch.dtype) -> Iterator[Check]:
    """Each is given numbers as a ReLU gives them. `witness` is a module with the file's tensors."""
    wrong = []
    for name in names:
        block = submodule(witness, name)
        channels = block.get_parameter("conv1.weight").shape[1]
        given = images(channels, (2, _SIDE, _SIDE), dtype).relu()
        if not torch.equal(block(given.clone()), given):
            wrong.append(name)
    finding = f"{len(names) - len(wrong)} of {len(names)} inserted blocks of {label} hand on what they are given"
    if wrong:
        yield Check("inserted", "failed", f"{finding}; not {some(wrong)}", tuple(wrong))
    else:
        yield Check("inserted", "proven", f"{finding}, every number")


@torch.no_grad()
def outputs(
    names: tuple[str, ...],
    pairs: Correspondence,
    channels: int,
    witness: nn.Module,
    source: nn.Module,
    dtype: torch.dtype,
) -> Iterator[Check]:
    """Where nothing else has changed, both networks give the same on images, as long as all numbers are finite."""
    others = [unit.name for unit in pairs.units if unit.name not in names]
    if [pairs.origins.get(name) for name in others] != [*pairs.source_units]:
        return
    image = images(channels, probe(channels), dtype)
    ours, theirs = (_outputs(network(image.clone())) for network in (witness, source))
    if not all(bool(output.isfinite().all()) for output in (*ours, *theirs)):
        return
    same = sum(map(torch.equal, ours, theirs))
    outcome: Literal["proven", "failed"] = "proven" if same == len(theirs) == len(ours) else "failed"
    yield Check("same outputs", outcome, f"with them, {same} of {len(theirs)} outputs equal the source's, every number")


def _outputs(given: Tensor | list[Tensor] | dict[str, Tensor]) -> list[Tensor]:
    if isinstance(given, dict):
        return [*given.values()]
    return given if isinstance(given, list) else [given]
