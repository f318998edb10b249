"""Proof about a computed conv1: on an image it gives what the source's gives on the image of the mixed channels."""

from __future__ import annotations

import copy
import operator
from collections.abc import Iterator
from dataclasses import replace
from functools import reduce

import torch
from torch import Tensor, nn

from resnet_surgeon import manifest as records
from resnet_surgeon.architecture.layers import Convolution, conv1
from resnet_surgeon.architecture.spec import STEM_WEIGHT, Architecture
from resnet_surgeon.arithmetic.formulas import Mixing
from resnet_surgeon.manifest import Manifest, Provenance
from resnet_surgeon.module import DTYPES
from resnet_surgeon.verification import formulas
from resnet_surgeon.verification.activations import PROBE, fitting, images, relative, submodule
from resnet_surgeon.verification.layers import Naming
from resnet_surgeon.verification.proof import Check


def check(
    module: nn.Module, source: nn.Module, manifest: Manifest, original: Architecture, naming: Naming
) -> Iterator[Check]:
    """For the sum over red, green and blue it is a gray image, fed as R=G=B. Both convolutions run in float64, so that
    what sets them apart is the rounding of the new filters alone, which has a bound.
    """
    record = manifest.tensors[STEM_WEIGHT]
    steps = _formulas(record.provenance, naming)
    if steps is None or steps[0].old != original.in_channels:
        return
    ours, theirs = (copy.deepcopy(submodule(network, "conv1")).double() for network in (module, source))
    channels = manifest.architecture.in_channels
    if steps[-1].new != channels:
        return
    rebuilt = replace(original, stem_stride=manifest.architecture.stem_stride)
    theirs.stride = ours.stride  # which `stem` may have changed since
    image = images(channels, fitting(PROBE, max(channels, *(step.old for step in steps))), torch.float64)
    got, expected = ours(image), theirs(_mixed(image, steps))
    bound = _rounding(theirs, conv1(rebuilt), image, steps, DTYPES[record.dtype])
    judged = _finite_filters(ours) & _finite_filters(theirs)
    if not bool(judged.any()):
        return
    got, expected, bound = (activation[:, judged] for activation in (got, expected, bound))
    overflows = ~(got.isfinite() & expected.isfinite())
    holds = bool((((got - expected).abs() <= bound) | overflows).all())
    is_gray = channels == 1 and bool((_mixed(torch.ones(1, 1, 1, 1), steps) == 1).all())
    what = (
        "gray images, R=G=B for the source" if is_gray else "images, their channels mixed by the formula for the source"
    )
    difference = relative(got, expected)
    within = (
        f"the same within {difference:.1e} of the largest" if difference is not None else "nothing but zeros for both"
    )
    finding = f"on {what}, conv1 gives {within if holds or difference is not None else 'something else'}"
    if not bool(judged.all()):
        finding += f", in {int(judged.sum())} of {len(judged)} filters: the others are not finite"
    if holds:
        yield Check("stem", "proven", f"{finding}: no more than rounding the new filters explains")
    else:
        yield Check("stem", "failed", f"{finding}: more than rounding explains", (STEM_WEIGHT,))


def _formulas(provenance: Provenance, naming: Naming) -> list[Mixing] | None:
    """From the source's conv1 on, the formulas by which it was computed; None if that is not how it was made."""
    if not isinstance(provenance, records.Computed) or naming(provenance, STEM_WEIGHT) is not None:
        return None
    formula = provenance.formula
    if not isinstance(formula, Mixing) or len(provenance.inputs) != 1:
        return None
    if naming(provenance.inputs[0], STEM_WEIGHT) == STEM_WEIGHT:
        return [formula]
    before = _formulas(provenance.inputs[0], naming)
    return [*before, formula] if before is not None and before[-1].new == formula.old else None


def _finite_filters(convolution: nn.Module) -> Tensor:
    return convolution.get_parameter("weight").isfinite().flatten(1).all(1)


def _rounding(theirs: nn.Module, conv1: Convolution, image: Tensor, steps: list[Mixing], dtype: torch.dtype) -> Tensor:
    """A bound on how far rounding moves each activation [batch, 64, height, width].

    Every formula rounds each of its operations (an addition a channel, a product, a quotient) in float32 or wider and
    once to `dtype`; no intermediate number is larger than the same sum of absolute values. An operation whose result is
    subnormal is off by up to the smallest number. So is a convolution of the absolute values a bound on the whole.
    """
    wide = torch.finfo(torch.promote_types(dtype, torch.float32))
    narrow, double = torch.finfo(dtype), torch.finfo(torch.float64)
    area = conv1.kernel**2
    terms = 4 * area * max(max(step.old, step.new) for step in steps)  # roundings of a convolution in float64, and more
    roundings = sum(step.old + 3 for step in steps)
    theirs = copy.deepcopy(theirs)
    theirs.get_parameter("weight").abs_()
    relative = len(steps) * narrow.eps + roundings * wide.eps + terms * double.eps
    gain = reduce(operator.mul, (max(1.0, formulas.gain(step)) for step in steps))
    around = (
        nn.functional.avg_pool2d(image.abs().sum(1, keepdim=True), conv1.kernel, conv1.stride, conv1.padding) * area
    )
    absolute = gain * roundings * narrow.smallest_normal * narrow.eps * around
    bound: Tensor = relative * theirs(_mixed(image.abs(), steps)) + absolute
    return bound + gain * terms * double.smallest_normal * double.eps * around


def _mixed(image: Tensor, steps: list[Mixing]) -> Tensor:
    """The image for the source's conv1, of the one for a conv1 that was made from it in these steps."""
    for step in reversed(steps):
        image = formulas.mixed_image(step, image)
    return image
