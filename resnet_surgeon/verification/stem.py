"""Proof about a computed conv1: on an image it gives what the source's gives on the image of the mixed channels, and
where mean and std are folded into it and bn1, what both gave on the normalised image.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from resnet_surgeon import manifest as records
from resnet_surgeon.architecture.layers import Convolution, conv1
from resnet_surgeon.architecture.spec import STEM_WEIGHT, Architecture
from resnet_surgeon.arithmetic.formulas import FoldedInputMean, FoldedInputWeight
from resnet_surgeon.dataclass import dataclass
from resnet_surgeon.formats.tensors import Initialised, byte_size
from resnet_surgeon.manifest import Manifest, Provenance
from resnet_surgeon.module import DTYPES, to_torch
from resnet_surgeon.verification import formulas
from resnet_surgeon.verification.activations import images, probe, relative, submodule
from resnet_surgeon.verification.formulas import Linear
from resnet_surgeon.verification.layers import Naming
from resnet_surgeon.verification.proof import Check

_MEAN = "bn1.running_mean"
_REST_OF_BN1 = ("bn1.weight", "bn1.bias", "bn1.running_var")
_LARGEST = 1 << 28  # bytes of drawn filters: a manifest may state anything


def check(
    module: nn.Module, source: nn.Module, manifest: Manifest, original: Architecture, naming: Naming
) -> Iterator[Check]:
    """For the sum over red, green and blue it is a gray image, fed as R=G=B. Both convolutions run in float64, so that
    what sets them apart is the rounding of the new filters alone, which has a bound.
    """
    record = manifest.tensors[STEM_WEIGHT]
    if naming(record.provenance, STEM_WEIGHT) is not None or not isinstance(record.provenance, records.Computed):
        return
    ours, theirs = (copy.deepcopy(submodule(network, "conv1")).double() for network in (module, source))
    witness = _Witness(theirs.get_parameter("weight"), conv1(manifest.architecture), record.dtype, naming)
    channels = manifest.architecture.in_channels
    image = images(channels, probe(max(channels, original.in_channels)), torch.float64)
    shares = witness.shares(record.provenance, image, image.abs(), ())
    if not shares:
        return
    yield from _mixed(ours, witness, image, shares)
    formula = record.provenance.formula
    if isinstance(formula, FoldedInputWeight) and "bn1" in original.stem and "bn1" in manifest.architecture.stem:
        yield from _normalised(module, source, ours, witness, manifest, original, formula, record.provenance.inputs[0])


@dataclass(frozen=True)
class _Share:
    """What one tensor adds to a convolution: its filters, their image, no smaller than which are the `sizes` that any
    number on the way can have, and the formulas between it and the file, the last one first.
    """

    weight: Tensor
    image: Tensor
    sizes: Tensor
    steps: tuple[Linear, ...]
    is_drawn: bool = False


@dataclass(frozen=True)
class _Witness:
    """The source's conv1, and how the file's came of it, whose stride `layer` has: it may be another since."""

    weight: Tensor
    layer: Convolution
    dtype: str
    naming: Naming

    def shares(
        self, provenance: Provenance, image: Tensor, sizes: Tensor, steps: tuple[Linear, ...]
    ) -> tuple[_Share, ...] | None:
        """What the convolution of this provenance makes of the image is the sum of these; None if it is another."""
        channels = image.shape[1]
        if self.naming(provenance, STEM_WEIGHT) == STEM_WEIGHT:
            fits = self.weight.shape[1:] == (channels, self.layer.kernel, self.layer.kernel)
            return (_Share(self.weight, image, sizes, steps),) if fits else None
        if isinstance(provenance, records.Initialised):
            shape = (*self.weight.shape[:1], channels, self.layer.kernel, self.layer.kernel)
            drawn = Initialised(self.dtype, shape, provenance.law, provenance.seed, provenance.stream)
            if byte_size(drawn) > _LARGEST:
                return None
            return (_Share(to_torch(drawn).double(), image, sizes, steps, is_drawn=True),)
        if not isinstance(provenance, records.Computed) or not isinstance(provenance.formula, Linear):
            return None
        formula = provenance.formula
        if formulas.channels(formula)[1] != channels:
            return None
        inputs = [shape[1] for shape in formula.input_shapes((1, channels, 1, 1))]
        if len(inputs) != len(provenance.inputs):
            return None
        parts = zip(
            provenance.inputs,
            torch.split(formulas.mixed_image(formula, image), inputs, dim=1),
            torch.split(formulas.mixed_sizes(formula, sizes), inputs, dim=1),
            strict=True,
        )
        found = [self.shares(part, seen, large, (*steps, formula)) for part, seen, large in parts]
        return tuple(share for one in found if one for share in one) if all(found) else None

    def convolved(self, image: Tensor, weight: Tensor) -> Tensor:
        return functional.conv2d(image, weight, stride=self.layer.stride, padding=self.layer.padding)

    def given(self, shares: Sequence[_Share]) -> Tensor:
        return _total([self.convolved(share.image, share.weight) for share in shares])

    def rounding(self, image: Tensor, shares: Sequence[_Share]) -> Tensor:
        """A bound on how far rounding moves each activation [batch, 64, height, width].

        Every formula rounds each of its operations (an addition a channel, a product, a quotient) in float32 or wider
        and once to the dtype; no intermediate number is larger than the same sum of absolute values. An operation whose
        result is subnormal is off by up to the smallest number. So is a convolution of the absolute values a bound on
        the whole.
        """
        dtype = DTYPES[self.dtype]
        wide = torch.finfo(torch.promote_types(dtype, torch.float32))
        narrow, double = torch.finfo(dtype), torch.finfo(torch.float64)
        area = self.layer.kernel**2
        # Roundings of a convolution in float64, and more.
        terms = 4 * area * max(max(formulas.channels(step)) for share in shares for step in share.steps)
        around = (
            functional.avg_pool2d(
                image.abs().sum(1, keepdim=True), self.layer.kernel, self.layer.stride, self.layer.padding
            )
            * area
        )
        bounds = []
        for share in shares:
            roundings = sum(formulas.channels(step)[0] + 3 for step in share.steps)
            relative = len(share.steps) * narrow.eps + roundings * wide.eps + terms * double.eps
            gain = math.prod(max(1.0, formulas.gain(step)) for step in share.steps)
            smallest = roundings * narrow.smallest_normal * narrow.eps + terms * double.smallest_normal * double.eps
            bounds.append(relative * self.convolved(share.sizes, share.weight.abs()) + gain * smallest * around)
        return _total(bounds)


def _mixed(ours: nn.Module, witness: _Witness, image: Tensor, shares: Sequence[_Share]) -> Iterator[Check]:
    """conv1 by itself."""
    got = witness.convolved(image, ours.get_parameter("weight"))  # a fused network's bias is as it was
    expected, bound = witness.given(shares), witness.rounding(image, shares)
    judged = _finite_filters(ours.get_parameter("weight")) & _finite_filters(witness.weight)
    if not bool(judged.any()):
        return
    got, expected, bound = (activation[:, judged] for activation in (got, expected, bound))
    overflows = ~(got.isfinite() & expected.isfinite())
    holds = bool((((got - expected).abs() <= bound) | overflows).all())
    difference = relative(got, expected)
    within = (
        f"the same within {difference:.1e} of the largest" if difference is not None else "nothing but zeros for both"
    )
    finding = f"on {_what(witness, image, shares)}, conv1 gives "
    finding += within if holds or difference is not None else "something else"
    if not bool(judged.all()):
        finding += f", in {int(judged.sum())} of {len(judged)} filters: the others are not finite"
    if holds:
        yield Check("stem", "proven", f"{finding}: no more than rounding the new filters explains")
    else:
        yield Check("stem", "failed", f"{finding}: more than rounding explains", (STEM_WEIGHT,))


def _what(witness: _Witness, image: Tensor, shares: Sequence[_Share]) -> str:
    """What both are given."""
    gray = torch.ones(1, 1, 1, 1, dtype=image.dtype)
    (first, *more) = shares
    if image.shape[1] == 1 and not more:
        for step in first.steps:
            gray = formulas.mixed_image(step, gray)
        if bool((gray == 1).all()):
            return "gray images, R=G=B for the source"
    drawn = " and those that are drawn for filters of their own" if any(share.is_drawn for share in shares) else ""
    return f"images, their channels mixed by the formula for the source{drawn}"


def _normalised(
    module: nn.Module,
    source: nn.Module,
    ours: nn.Module,
    witness: _Witness,
    manifest: Manifest,
    original: Architecture,
    std: FoldedInputWeight,
    unfolded: Provenance,
) -> Iterator[Check]:
    """conv1 and bn1 on images from 0 to 1, beside the source's on the same ones normalised. Where the window of conv1
    lies within the image they agree but for rounding; beyond the border one has zeros before, the other after.
    """
    record = manifest.tensors[_MEAN]
    made = record.provenance
    if (
        not isinstance(made, records.Computed)
        or not isinstance(made.formula, FoldedInputMean)
        or witness.naming(made.inputs[0], _MEAN) != _MEAN
        or any(witness.naming(manifest.tensors[name].provenance, name) != name for name in _REST_OF_BN1)
        or len(made.formula.mean) != len(std.std)
    ):
        return
    channels = len(std.std)
    noise = images(channels, probe(channels), torch.float64)
    image = torch.sigmoid(noise)
    mean, deviation = (
        torch.tensor(numbers, dtype=image.dtype).reshape(1, -1, 1, 1) for numbers in (made.formula.mean, std.std)
    )
    shares = witness.shares(unfolded, (image - mean) / deviation, ((image - mean) / deviation).abs(), (std,))
    if not shares:
        return
    bn, bn_before = (copy.deepcopy(submodule(network, "bn1")).double() for network in (module, source))
    got, expected = bn(ours(image)), bn_before(witness.given(shares))
    new_mean = bn.get_buffer("running_mean")
    scale = (bn.get_parameter("weight") / (bn.get_buffer("running_var") + original.eps).sqrt()).abs()
    double = torch.finfo(torch.float64).eps * 8 * channels * witness.layer.kernel**2
    larger = witness.convolved(image + mean.abs(), ours.get_parameter("weight").abs()) + new_mean.abs()[:, None, None]
    bound = witness.rounding((image - mean) / deviation, shares) + double * larger
    bound = bound + (new_mean.abs() * torch.finfo(DTYPES[record.dtype]).eps)[:, None, None]
    bound = bound * scale[:, None, None] + double * (got.abs() + bn.get_parameter("bias").abs()[:, None, None])
    ones = torch.ones(1, 1, *image.shape[2:], dtype=image.dtype)
    kernel = torch.ones(1, 1, *ours.get_parameter("weight").shape[2:], dtype=image.dtype)
    inside = (witness.convolved(ones, kernel) == kernel.numel()).expand_as(got)
    judged = (got.isfinite() & expected.isfinite()).flatten(2).all(2).all(0)[:, None, None].expand_as(
        got
    ) & bound.isfinite()
    if not bool((inside & judged).any()):
        return
    apart = torch.where(judged, (got - expected).abs(), torch.zeros_like(got))
    largest = float(torch.where(judged, expected.abs(), torch.zeros_like(got)).max()) or 1.0
    within, beyond = (
        float(torch.where(where, apart, torch.zeros_like(apart)).max()) / largest for where in (inside, ~inside)
    )
    finding = (
        f"on images from 0 to 1, conv1 and bn1 give what the source's give on normalised ones within {within:.1e} of "
        f"the largest, inside; at the border, where zeros are padded, they differ by up to {beyond:.1e}"
    )
    if bool(((apart <= bound) | ~inside | ~judged).all()):
        yield Check("normalization", "proven", finding)
    else:
        yield Check("normalization", "failed", f"{finding}: more than rounding explains", (STEM_WEIGHT, _MEAN))


def _total(parts: Sequence[Tensor]) -> Tensor:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def _finite_filters(weight: Tensor) -> Tensor:
    return weight.isfinite().flatten(1).all(1)
