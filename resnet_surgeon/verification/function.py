"""Proofs about what the network computes: it loads, runs, and what was kept gives the source's very activations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial

import torch
from torch import nn

from resnet_surgeon.history import recording
from resnet_surgeon.manifest import Manifest, Provenance
from resnet_surgeon.module import ResNet
from resnet_surgeon.network import Network
from resnet_surgeon.verification import forward, fused, independence, inserted, kept_layers, stem, whole
from resnet_surgeon.verification.case import Case, called
from resnet_surgeon.verification.layers import correspondence
from resnet_surgeon.verification.modules import common_dtype, loaded, witness
from resnet_surgeon.verification.proof import Check, not_carried_out


def checks(case: Case, of_tensors: tuple[Check, ...]) -> Iterator[Check]:
    """`of_tensors` are the checks of the tensors: whether numbers that are not finite are as they should be."""
    manifest = case.sound
    if manifest is None:
        return
    original, architecture = case.original, manifest.architecture
    dtype = common_dtype(case.file.tensors, *(network.tensors for network in case.given_networks))
    try:
        module = loaded(ResNet, architecture, case.file.tensors, dtype)
    except (RuntimeError, MemoryError) as error:
        yield not_carried_out("load", error)
        return
    count = len(module.state_dict())
    yield Check("load", "proven", f"{count} of {count} tensors load with strict=True into the module of the manifest")
    yield from _carried_out("forward", lambda: forward.checks(module, architecture, dtype, of_tensors))
    if blocks := inserted.inserted(manifest):
        file, label = witness(architecture, case.file.tensors, dtype)
        label = label if label.startswith("torchvision") else "the file"
        yield from _carried_out("inserted", lambda: inserted.blocks(blocks, file, label, dtype))
    if original is None:
        yield Check("layers", "unproven", "this needs the source: give it with `--against`")
    else:
        yield from _carried_out("layers", lambda: _beside(case, manifest, original, module, dtype))
    for number, other in case.others.items():
        in_file = recording.names_in_file(other.opened, number)
        names: dict[Provenance, str] = {kept: name for name, kept in in_file.items()}
        yield from _carried_out("grafted", partial(_grafted, manifest, names, other, module, dtype))
    if whole.is_due(manifest):
        yield from _carried_out("torchvision", lambda: whole.checks(module, architecture, case.file.tensors, dtype))
    if architecture.branches:
        yield from _carried_out("independence", lambda: independence.checks(module, architecture.branches, dtype))


def _carried_out(name: str, make: Callable[[], Iterator[Check]]) -> Iterator[Check]:
    """The checks; of one that torch cannot carry out, why."""
    try:
        yield from make()
    except (RuntimeError, MemoryError) as error:
        yield not_carried_out(name, error)


@torch.no_grad()
def _grafted(
    manifest: Manifest, names: Mapping[Provenance, str], other: Network, module: nn.Module, dtype: torch.dtype
) -> Iterator[Check]:
    """The layers that are another source's, and that source's own."""
    pairs = correspondence(manifest, other.architecture, lambda provenance, _: names.get(provenance))
    with_tensors = {name.rpartition(".")[0] for name, record in manifest.tensors.items() if record.provenance in names}
    origins = {
        unit: origin
        for unit, origin in pairs.origins.items()
        if any(layer == unit or layer.startswith(f"{unit}.") for layer in with_tensors)
    }
    if origins:
        source, _ = witness(other.architecture, other.tensors, dtype)
        pairs = replace(pairs, origins=origins)
        yield from kept_layers.grafted(pairs, module, source, other.architecture.in_channels, dtype, called(other))


@torch.no_grad()
def _beside(
    case: Case, manifest: Manifest, original: Network, module: nn.Module, dtype: torch.dtype
) -> Iterator[Check]:
    """The file's module and the source's, side by side."""
    pairs = correspondence(manifest, original.architecture, case.known.name)
    source, label = witness(original.architecture, original.tensors, dtype, pairs.casts)
    if blocks := inserted.inserted(manifest):
        file, _ = witness(manifest.architecture, case.file.tensors, dtype)
        channels = manifest.architecture.in_channels
        yield from inserted.outputs(blocks, pairs, channels, file, source, dtype)
    if folds := fused.folds(manifest, case.known.name):
        whose = label if case.is_first else case.given
        networks = (manifest.architecture, original.architecture)
        yield from fused.convolutions(folds, module, original.tensors, whose)
        yield from fused.outputs(folds, blocks, pairs, networks, module, source, dtype, whose)
    yield from stem.check(module, source, manifest, original.architecture, case.known.name)
    yield from kept_layers.checks(
        pairs, module, source, original.architecture.in_channels, dtype, label if case.is_first else case.given
    )
