"""Proof that a network whose layers are set otherwise than in its source computes what torchvision's own class does
with the same tensors and these options.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn
from torchvision.models.feature_extraction import create_feature_extractor

from resnet_surgeon.architecture.spec import Architecture
from resnet_surgeon.architecture.variants import variant_name
from resnet_surgeon.formats.tensors import LazyTensor
from resnet_surgeon.manifest import Manifest
from resnet_surgeon.verification.activations import images, probe, same_bits
from resnet_surgeon.verification.modules import as_torchvision, loaded, torchvision_has
from resnet_surgeon.verification.proof import Check, some

_DUE_AFTER = ("stem", "dilate", "features")
Tensors = Mapping[str, LazyTensor]


def is_due(manifest: Manifest) -> bool:
    """Whether an operation promises that torchvision computes the same."""
    return any(name in _DUE_AFTER for record in manifest.operations for name in record)


@torch.no_grad()
def checks(module: nn.Module, architecture: Architecture, tensors: Tensors, dtype: torch.dtype) -> Iterator[Check]:
    """Every output is torchvision's to the bit; nothing is said of a network that its class cannot be."""
    rows = dict(_rows(architecture, tensors))
    if not all(torchvision_has(row) for row, _ in rows.values()):
        return
    image = images(architecture.in_channels, probe(architecture.in_channels), dtype)
    given = _named(module(image), architecture)
    wrong: list[str] = []
    for output, (row, own) in rows.items():
        expected = _expected(loaded(as_torchvision, row, own, dtype), row, image)
        names = expected if row.maps else {output: expected[""]}
        wrong += [name for name, value in names.items() if not same_bits(given[name], value.reshape(given[name].shape))]
    what = f"those of torchvision's {variant_name(architecture) or 'ResNet'}{_options(architecture)}"
    finding = f"{len(given) - len(wrong)} of {len(given)} outputs are {what} to the bit"
    yield Check("torchvision", "failed" if wrong else "proven", finding + (f"; not {some(wrong)}" if wrong else ""))


def _rows(architecture: Architecture, tensors: Tensors) -> Iterator[tuple[str, tuple[Architecture, Tensors]]]:
    """By the names of the outputs, what leads to each as one row of layers, as torchvision has them."""
    if not architecture.branches:
        yield "", (architecture, tensors)
    trunk = {name: tensor for name, tensor in tensors.items() if not name.startswith("heads.")}
    for head in architecture.branches:
        prefix = architecture.prefix(head)
        own = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        fc = replace(head, name="fc", stages=(), keeps_name=False)
        pool = architecture.pool if architecture.avgpool else head.pool
        stages = architecture.stages + head.stages
        row = replace(architecture, stages=stages, heads=(replace(fc, pool="avg"),), avgpool=True, pool=pool)
        yield head.name, (row, {**trunk, **own})


def _named(outputs: Tensor | list[Tensor] | dict[str, Tensor], architecture: Architecture) -> dict[str, Tensor]:
    if isinstance(outputs, dict):
        return outputs
    if isinstance(outputs, list):
        return dict(zip((head.name for head in architecture.heads), outputs, strict=True))
    return {"": outputs}


def _expected(witness: nn.Module, architecture: Architecture, image: Tensor) -> dict[str, Tensor]:
    if not architecture.maps:
        return {"": witness(image)}
    layers = {one.layer: one.name for one in architecture.maps}
    maps: dict[str, Tensor] = create_feature_extractor(witness, layers, suppress_diff_warning=True)(image)
    return maps


def _options(architecture: Architecture) -> str:
    """What sets it apart from torchvision's default."""
    options = []
    if any(stage.dilation > 1 for stage in architecture.depth):
        replaced = [stage.stride == 1 and stage.dilation > stage.first_dilation for stage in architecture.depth[1:]]
        options.append(f"replace_stride_with_dilation={replaced}")
    if (architecture.stem_kernel, architecture.stem_stride) != (7, 2):
        options.append(
            f"a {architecture.stem_kernel}x{architecture.stem_kernel} conv1 of stride {architecture.stem_stride}"
        )
    if architecture.maxpool_is_identity:
        options.append("no maxpool")
    if architecture.maps:
        options.append("create_feature_extractor")
    return f" with {', '.join(options)}" if options else ""
