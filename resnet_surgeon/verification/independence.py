"""Proof that heads do not touch each other: no storage and no gradient leads from one to another."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from resnet_surgeon.architecture.spec import STEM_WEIGHT, Head
from resnet_surgeon.verification.activations import PROBE, fitting, images, submodule
from resnet_surgeon.verification.proof import Check, some


def checks(module: nn.Module, heads: tuple[Head, ...], dtype: torch.dtype) -> Iterator[Check]:
    """No two tensors have storage in common, and the output of a head has no gradient in another."""
    storages = [tensor.untyped_storage().data_ptr() for tensor in module.state_dict().values()]
    shared = len(storages) - len(set(storages))
    own = {head.name: [*submodule(module, f"heads.{head.name}").parameters()] for head in heads}
    channels = module.get_parameter(STEM_WEIGHT).shape[1]
    outputs = dict(zip(own, module(images(channels, fitting(PROBE, channels), dtype)), strict=True))
    crossing = []
    for name, output in outputs.items():
        others = [parameter for other, parameters in own.items() if other != name for parameter in parameters]
        gradients = torch.autograd.grad(output.sum(), [*own[name], *others], allow_unused=True, retain_graph=True)
        split = len(own[name])
        if any(gradient is not None for gradient in gradients[split:]) or any(g is None for g in gradients[:split]):
            crossing.append(name)
    if shared or crossing:
        finding = f"{shared} of {len(storages)} tensors share another's storage" if shared else "no storage is shared"
        finding += f", gradients cross from {some(tuple(crossing))}" if crossing else ""
        yield Check("independence", "failed", finding, tuple(crossing))
        return
    yield Check("independence", "proven", f"{len(heads)} heads: no storage shared, no gradient from one to another")
