"""Proof that what was kept computes the same: every kept layer gives the activations of the source's, to the bit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import nn

from resnet_surgeon.architecture.spec import STEM_WEIGHT
from resnet_surgeon.verification.activations import activations, images, output_of, probe, same_bits, submodule
from resnet_surgeon.verification.layers import Correspondence
from resnet_surgeon.verification.proof import Check, some


def checks(
    pairs: Correspondence, module: nn.Module, source: nn.Module, in_channels: int, dtype: torch.dtype, label: str
) -> Iterator[Check]:
    """Every kept layer gives the source's activation to the bit: in the run of the whole network as long as nothing
    before it was changed but conv1, whose activation is then the source's; from there on when it is given the source's
    input.
    """
    same = _same(pairs, module, source, in_channels, dtype)
    trunk = {name: equal for name, equal in same.items() if not name.startswith("heads.")}
    owned = {name: equal for name, equal in same.items() if name.startswith("heads.")}
    if trunk:
        last = [*trunk][-1]
        yield _equality("layers", trunk, f"kept layers, up to {last}, give the activations of {label} to the bit")
    if any(not name.endswith("avgpool") for name in owned):
        yield _equality("heads", owned, f"layers that heads own give the features of {label} to the bit")


def grafted(
    pairs: Correspondence, module: nn.Module, source: nn.Module, in_channels: int, dtype: torch.dtype, label: str
) -> Iterator[Check]:
    """Every layer that is another source's gives that source's activation to the bit, when it is given its input."""
    same = _same(pairs, module, source, in_channels, dtype)
    if same:
        yield _equality("grafted", same, f"layers give the activations of those of {label} to the bit")


def _same(
    pairs: Correspondence, module: nn.Module, source: nn.Module, in_channels: int, dtype: torch.dtype
) -> dict[str, bool]:
    """Which units give the activations of those that they are said to be."""
    image = images(in_channels, probe(in_channels), dtype)
    theirs = activations(source, [*pairs.source_units], image)
    stand_in = None
    if "conv1" not in pairs.origins:
        channels = module.get_parameter(STEM_WEIGHT).shape[1]
        batch, _, height, width = image.shape
        image = torch.zeros(batch, channels, height, width, dtype=dtype)
        stand_in = ("conv1", theirs["conv1"].output)
    ours = activations(module, [unit.name for unit in pairs.units], image, stand_in)
    same: dict[str, bool] = {}
    for name, origin in pairs.origins.items():
        connected = name in pairs.connected
        output = ours[name].output if connected else output_of(submodule(module, name), theirs[origin].input)
        same[name] = output is not None and same_bits(output, theirs[origin].output)
    return same


def _equality(name: str, same: Mapping[str, bool], what: str) -> Check:
    wrong = tuple(unit for unit, equal in same.items() if not equal)
    finding = f"{len(same) - len(wrong)} of {len(same)} {what}"
    return Check(name, "failed", f"{finding}; not {some(wrong)}", wrong) if wrong else Check(name, "proven", finding)
