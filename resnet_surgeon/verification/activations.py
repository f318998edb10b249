"""What layers make of images: recorded in a forward pass, and compared to the bit."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from resnet_surgeon.dataclass import dataclass

_MOST_NUMBERS = 1 << 25  # in one batch of images
_SMALLEST_SIDE = 16
_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
Size = tuple[int, int, int]  # batch, height, width
_PROBE: Size = (2, 64, 64)  # of the images that layers are compared on: the last stage still sees each of its weights


def fitting(size: Size, channels: int) -> Size:
    """The size, with sides halved until images of so many channels do not take the machine's memory."""
    batch, height, width = size
    while batch * channels * height * width > _MOST_NUMBERS and min(height, width) >= 2 * _SMALLEST_SIDE:
        height, width = height // 2, width // 2
    return batch, height, width


def probe(channels: int) -> Size:
    """The size of images of so many channels that layers are compared on."""
    return fitting(_PROBE, channels)


def images(channels: int, size: Size, dtype: torch.dtype) -> Tensor:
    """[batch, channels, height, width] of standard normal numbers, the same every time."""
    batch, height, width = size
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, channels, height, width, generator=generator).to(dtype)


def submodule(module: nn.Module, path: str) -> nn.Module:
    """The module at the path, whatever its name: `get_submodule` finds a head called `train` to be a method."""
    for name in path.split("."):
        found = module._modules[name]
        assert found is not None
        module = found
    return module


@dataclass(frozen=True)
class Activation:
    input: Tensor
    output: Tensor


def activations(
    module: nn.Module, names: Sequence[str], image: Tensor, instead: tuple[str, Tensor] | None = None
) -> dict[str, Activation]:
    """What goes into and comes out of the named submodules in one forward pass; copied, as ReLUs work in place.

    `instead` names a submodule and what is handed on in place of its output.
    """
    inputs: dict[str, Tensor] = {}
    found: dict[str, Activation] = {}

    def watch(name: str) -> Iterator[torch.utils.hooks.RemovableHandle]:
        def before(_: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            inputs[name] = arguments[0].clone()

        def after(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> Tensor:
            handed_on = instead[1].clone() if instead and instead[0] == name else output
            found[name] = Activation(inputs[name], handed_on.clone())
            return handed_on

        watched = submodule(module, name)
        yield watched.register_forward_pre_hook(before)
        yield watched.register_forward_hook(after)

    handles = [handle for name in names for handle in watch(name)]
    try:
        module(image)
    finally:
        for handle in handles:
            handle.remove()
    return found


def output_of(layer: nn.Module, activation: Tensor) -> Tensor | None:
    """What the layer makes of the activation; None if it is not of its shape."""
    try:
        output: Tensor = layer(activation.clone())
    except RuntimeError:
        return None
    return output


def same_bits(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are equal to the bit. One not-a-number is as good as another: processors choose its bits."""
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    integers = _INTEGERS[one.element_size()]
    differ = one.contiguous().view(integers) != other.contiguous().view(integers)
    if one.is_floating_point():
        differ &= ~(one.isnan() & other.isnan())
    return not bool(differ.any())


def relative(one: Tensor, other: Tensor) -> float | None:
    """The largest difference, relative to the largest number; None where that says nothing: it is zero, or not
    finite.
    """
    scale, difference = float(other.abs().max()), float((one - other).abs().max())
    return difference / scale if scale and math.isfinite(scale) and math.isfinite(difference) else None
