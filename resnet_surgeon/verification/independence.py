"""Proof that heads do not touch each other: no storage and no gradient leads from one to another."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from resnet_surgeon.architecture.spec import STEM_WEIGHT, Head
from resnet_surgeon.verification.activations import images, probe, submodule
from resnet_surgeon.verification.proof import Check, some


def checks(module: nn.Module, heads: tuple[Head, ...], dtype: torch.dtype) -> Iterator[Check]:
    """No two tensors have storage in common, and the output of a head has gradients in its own tensors alone."""
    storages = [tensor.untyped_storage().data_ptr() for tensor in module.state_dict().values()]
    shared = len(storages) - len(set(storages))
    own = {head.name: [*submodule(module, f"heads.{head.name}").parameters()] for head in heads}
    channels = module.get_parameter(STEM_WEIGHT).shape[1]
    outputs = dict(zip(own, module(images(channels, probe(channels), dtype)), strict=True))
    crossing = []
    for name, output in outputs.items():
        reached = _reached(output)
        if any((id(one) in reached) != (other == name) for other, parameters in own.items() for one in parameters):
            crossing.append(name)
    if shared or crossing:
        finding = f"{shared} of {len(storages)} tensors share another's storage" if shared else "no storage is shared"
        finding += f", gradients cross from {some(tuple(crossing))}" if crossing else ""
        yield Check("independence", "failed", finding, tuple(crossing))
        return
    yield Check("independence", "proven", f"{len(heads)} heads: no storage shared, no gradient from one to another")


def _reached(output: Tensor) -> set[int]:
    """The identities of the parameters that a gradient of the output leads to: the ends of the graph that torch would
    follow backwards. No gradient is worked out.
    """
    waiting, seen = [output.grad_fn], set()
    found = set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.add(id(node.variable))
        waiting += [before for before, _ in node.next_functions]
    return found
