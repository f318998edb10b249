"""Proof that folded batch norms compute the same: convolution by convolution within a bound, and the network within a
measured difference.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from resnet_surgeon.architecture import layers
from resnet_surgeon.architecture.spec import Architecture
from resnet_surgeon.arithmetic.formulas import Cast, FoldedBias, FoldedWeight
from resnet_surgeon.dataclass import dataclass
from resnet_surgeon.formats.tensors import LazyTensor
from resnet_surgeon.manifest import Computed, Manifest, Provenance
from resnet_surgeon.module import DTYPES, to_torch
from resnet_surgeon.verification.activations import activations, images, probe, relative, submodule
from resnet_surgeon.verification.layers import Correspondence, Naming
from resnet_surgeon.verification.proof import Check, some

_SIDE = 7  # pixels of what a convolution is given
TOLERANCE = 1e-5  # of the largest number, for a network in float32


@dataclass(frozen=True)
class Part:
    """A tensor of the source, and the dtypes that it was cast to before it was folded."""

    name: str
    dtypes: tuple[str, ...]


@dataclass(frozen=True)
class Fold:
    """A convolution of the file's: its weight and the batch norm's gamma, beta, mean and variance, as they are in the
    source; `dtypes` are those that the result was rounded to.
    """

    weight: Part
    norm: tuple[Part, Part, Part, Part]
    eps: float
    dtypes: tuple[str, ...]


def folds(manifest: Manifest, naming: Naming) -> dict[str, Fold]:
    """By the paths of the convolutions that are folded from the source's own."""
    made = {path: _fold(path, manifest, naming) for path in _convolutions(manifest)}
    return {path: fold for path, fold in made.items() if fold is not None}


def _convolutions(manifest: Manifest) -> Iterator[str]:
    for part in layers.parts(manifest.architecture):
        inner = part.layers + part.shortcut if isinstance(part, layers.Block) else (part,)
        for layer in inner:
            if isinstance(layer, layers.Convolution) and layer.bias:
                yield part.name if layer is part else f"{part.name}.{layer.name}"


def _fold(path: str, manifest: Manifest, naming: Naming) -> Fold | None:
    weight, bias = (manifest.tensors[f"{path}.{leaf}"] for leaf in ("weight", "bias"))
    of_weight, dtypes = _peeled(weight.provenance, weight.dtype)
    of_bias, _ = _peeled(bias.provenance, bias.dtype)
    if not (isinstance(of_weight, Computed) and isinstance(of_weight.formula, FoldedWeight)):
        return None
    if not (isinstance(of_bias, Computed) and isinstance(of_bias.formula, FoldedBias)):
        return None
    norm_dtype = of_bias.formula.norm or dtypes[0]
    sources = [(of_weight.inputs[0], dtypes[0]), *((part, norm_dtype) for part in of_bias.inputs)]
    parts = [_part(provenance, dtype, naming) for provenance, dtype in sources]
    known = [part for part in parts if part is not None]
    if len(known) != 5 or of_weight.formula.eps != of_bias.formula.eps:
        return None
    gamma, beta, mean, variance = known[1:]
    return Fold(known[0], (gamma, beta, mean, variance), of_bias.formula.eps, dtypes)


def _peeled(provenance: Provenance, dtype: str) -> tuple[Provenance, tuple[str, ...]]:
    """What was cast, and the dtypes that it had from there on."""
    dtypes: tuple[str, ...] = (dtype,)
    while isinstance(provenance, Computed) and isinstance(provenance.formula, Cast):
        dtypes = (provenance.formula.old, *dtypes)
        provenance = provenance.inputs[0]
    return provenance, dtypes


def _part(provenance: Provenance, dtype: str, naming: Naming) -> Part | None:
    dtypes: tuple[str, ...] = ()
    while (name := naming(provenance, "")) is None:
        if not (isinstance(provenance, Computed) and isinstance(provenance.formula, Cast)):
            return None
        dtypes, dtype = (dtype, *dtypes), provenance.formula.old
        provenance = provenance.inputs[0]
    return Part(name, dtypes)


@torch.no_grad()
def convolutions(
    found: Mapping[str, Fold], module: nn.Module, tensors: Mapping[str, LazyTensor], label: str
) -> Iterator[Check]:
    """Each gives what it would with the source's weight, and the source's batch norm after it, but for the rounding of
    its own numbers. In float64, on images of random numbers.
    """
    wrong = []
    for path, fold in found.items():
        ours = submodule(module, path)
        weight, *norm = (_cast(tensors[part.name], part) for part in (fold.weight, *fold.norm))
        is_fitting = weight.shape == ours.get_parameter("weight").shape
        if not (is_fitting and isinstance(ours, nn.Conv2d) and {vector.shape for vector in norm} == {weight.shape[:1]}):
            wrong.append(path)
            continue
        image = images(ours.in_channels, (1, _SIDE, _SIDE), torch.float64)
        gamma, beta, mean, variance = norm
        expected = nn.functional.batch_norm(_convolved(ours, image, weight), mean, variance, gamma, beta, eps=fold.eps)
        own, bias = ours.get_parameter("weight").double(), ours.get_parameter("bias").double()
        bound = _bound(
            _convolved(ours, image.abs(), own.abs(), bias.abs()), _summed(ours, image.abs()), ours, fold, *norm
        )
        if not _agree(_convolved(ours, image, own, bias), expected, bound):
            wrong.append(path)
    finding = f"{len(found) - len(wrong)} of {len(found)} convolutions give what those of {label} give with their norms"
    if wrong:
        yield Check("fused", "failed", f"{finding}; not {some(wrong)}", tuple(wrong))
    else:
        yield Check("fused", "proven", f"{finding}: no further off than rounding explains")


def _cast(tensor: LazyTensor, part: Part) -> Tensor:
    numbers = to_torch(tensor)
    for dtype in part.dtypes:
        numbers = numbers.to(DTYPES[dtype])
    return numbers.double()


def _agree(got: Tensor, expected: Tensor, bound: Tensor) -> bool:
    """Where all numbers are finite."""
    judged = got.isfinite() & expected.isfinite() & bound.isfinite()
    return bool(((got - expected).abs() <= bound)[judged].all())


def _convolved(layer: nn.Conv2d, image: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """What the layer would make of the image with this weight and bias."""
    return nn.functional.conv2d(image, weight, bias, layer.stride, layer.padding, layer.dilation, layer.groups)


def _summed(layer: nn.Conv2d, image: Tensor) -> Tensor:
    """What the layer would make of the image with a weight and bias of ones."""
    by_group = image.reshape(image.shape[0], layer.groups, -1, *image.shape[2:]).sum(2)
    ones = image.new_ones(layer.groups, 1, *layer.kernel_size)
    places = (layer.stride, layer.padding, layer.dilation)
    summed = nn.functional.conv2d(by_group, ones, None, *places, layer.groups)  # type: ignore[arg-type]
    return summed.repeat_interleave(layer.out_channels // layer.groups, 1) + 1


def _bound(
    size: Tensor,
    summed: Tensor,
    ours: nn.Conv2d,
    fold: Fold,
    gamma: Tensor,
    beta: Tensor,
    mean: Tensor,
    variance: Tensor,
) -> Tensor:
    """How far rounding moves each activation: every weight and bias by the precision of each dtype that it was rounded
    to, or by its smallest number; every operation in float64 by that of float64. `size` and `summed` are what the layer
    makes of the absolute image with its own numbers' absolute values, and with ones.
    """
    infos = [torch.finfo(DTYPES[dtype]) for dtype in (*fold.dtypes, "F32")]
    double = torch.finfo(torch.float64)
    terms = 8 * (ours.weight[0].numel() + 8)
    factor = (gamma / (variance + fold.eps).sqrt()).abs()
    wide = size + ((mean.abs() * factor + beta.abs())[:, None, None])
    smallest = sum(info.smallest_normal * info.eps for info in infos)
    precision = sum(info.eps for info in infos[:-1])
    bound: Tensor = precision * size + smallest * summed + terms * double.eps * wide
    return bound


@torch.no_grad()
def outputs(
    found: Mapping[str, Fold],
    passing: tuple[str, ...],
    pairs: Correspondence,
    architectures: tuple[Architecture, Architecture],
    module: nn.Module,
    source: nn.Module,
    dtype: torch.dtype,
    label: str,
) -> Iterator[Check]:
    """How far the networks are apart where they still do the same: at the last unit that both reach alike. `passing`
    are blocks that hand on what they are given, `architectures` the file's and the source's.
    """
    units = [unit.name for unit in pairs.units if unit.name not in passing]
    ours, theirs = ({part.name: part for part in layers.parts(network)} for network in architectures)
    origins = [_origin(unit, found, pairs, ours, theirs) for unit in units]
    triples = zip(units, origins, pairs.source_units, strict=False)
    alike = [*itertools.takewhile(lambda names: names[1] == names[2], triples)]
    channels = architectures[0].in_channels
    if not alike or alike[-1][0].startswith("heads."):
        return
    last, _, origin = alike[-1]
    image = images(channels, probe(channels), dtype)
    got = activations(module, [last], image)[last].output
    expected = activations(source, [origin], image)[origin].output
    difference = relative(got, expected)
    if difference is None:
        return
    precision = max(torch.finfo(DTYPES[dtype]).eps for fold in found.values() for dtype in fold.dtypes)
    tolerance = TOLERANCE * max(1.0, precision / torch.finfo(torch.float32).eps)
    finding = f"up to {last}, the network differs from {label} by {difference:.1e} of the largest number"
    if difference <= tolerance:
        yield Check("same function", "proven", f"{finding}, less than {tolerance:.0e}")
    else:
        yield Check("same function", "unproven", f"{finding}: its layers make more than {tolerance:.0e} of rounding")


def _origin(
    unit: str,
    found: Mapping[str, Fold],
    pairs: Correspondence,
    ours: Mapping[str, layers.Part],
    theirs: Mapping[str, layers.Part],
) -> str | None:
    """The source's unit that this one is folded from, if it has the same convolutions, or kept; an identity is the norm
    in whose place it stands.
    """
    if unit == "bn1":
        return unit
    folded = {path.removeprefix(unit): fold for path, fold in found.items() if f"{path}.".startswith(f"{unit}.")}
    if not folded:
        return pairs.origins.get(unit)
    names = {fold.weight.name.removesuffix(f"{inner}.weight") for inner, fold in folded.items()}
    name = names.pop()
    is_same = not names and name in theirs and _convolutions_of(ours[unit]) == _convolutions_of(theirs[name])
    return name if is_same else None


def _convolutions_of(part: layers.Part) -> list[layers.Convolution]:
    """As they are but for their biases, by their names within a block."""
    if isinstance(part, layers.Block):
        inner = part.layers + part.shortcut
        return [replace(layer, bias=False) for layer in inner if isinstance(layer, layers.Convolution)]
    return [replace(part, name="", bias=False)] if isinstance(part, layers.Convolution) else []
