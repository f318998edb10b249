"""Proof that the network runs: outputs have the promised shapes, and are finite as far as its numbers are."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from resnet_surgeon.architecture.outputs import outputs
from resnet_surgeon.architecture.spec import Architecture
from resnet_surgeon.verification.activations import fitting, images
from resnet_surgeon.verification.proof import Check, not_carried_out, some

_BATCHES = ((1, 224, 224), (2, 64, 64), (3, 97, 130))


def checks(
    module: nn.Module, architecture: Architecture, dtype: torch.dtype, of_tensors: tuple[Check, ...]
) -> Iterator[Check]:
    """`of_tensors` are the checks of the tensors: whether numbers that are not finite are as they should be."""
    sizes = [fitting(size, architecture.in_channels) for size in _BATCHES]
    is_finite = True
    for batch, height, width in sizes:
        what = f"[{batch}, {architecture.in_channels}, {height}, {width}]"
        try:
            given = _outputs(module, images(architecture.in_channels, (batch, height, width), dtype))
        except RuntimeError as error:
            yield not_carried_out("forward", RuntimeError(f"on {what}: {error}"))
            return
        shapes = [tuple(output.shape) for output in given]
        promised = [(batch, *output.shape) for output in outputs(architecture, height, width)]
        if shapes != promised:
            finding = f"on {what} the outputs have shapes {shapes}, promised were {promised}"
            yield Check("forward", "failed", finding)
            return
        is_finite = is_finite and all(map(_is_finite, given))
    batches = ", ".join(f"{batch} of {height}x{width}" for batch, height, width in sizes)
    finite = "finite " * is_finite
    finding = f"{len(sizes)} batches ({batches}) give {finite}outputs of the promised shapes"
    yield Check("forward", "proven", finding)
    names = tuple(name for name, tensor in module.state_dict().items() if not _is_finite(tensor))
    if names or not is_finite:
        yield _finite(names, of_tensors)


def _finite(names: tuple[str, ...], of_tensors: tuple[Check, ...]) -> Check:
    """Numbers that are not finite, or become so on the way, are no fault if every tensor is as its source has it."""
    what = (
        f"{some(names)} hold numbers that are not finite" if names else "outputs are not finite, though all numbers are"
    )
    if failed := tuple(check.name for check in of_tensors if check.outcome == "failed"):
        return Check("finite", "failed", f"{what}, and {some(failed)} failed", names)
    if any(check.outcome == "unproven" for check in of_tensors):
        return Check("finite", "unproven", f"{what}: `--against` tells whether the source's are so too")
    return Check(
        "finite",
        "proven",
        f"{what}: so are the source's own, and what the formulas make of them",
    )


def _is_finite(tensor: Tensor) -> bool:
    """Whether all its numbers are: so are they if their sum is, which is quicker to see, but may overflow."""
    return bool(tensor.sum().isfinite()) or bool(tensor.isfinite().all())


@torch.no_grad()
def _outputs(module: nn.Module, image: Tensor) -> list[Tensor]:
    outputs = module(image)
    if isinstance(outputs, dict):
        return [*outputs.values()]
    return outputs if isinstance(outputs, list) else [outputs]
