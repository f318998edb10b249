"""Proofs about every tensor: the source's to the bit, equal to its formula, or drawn from its law and seed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from resnet_surgeon import manifest as records
from resnet_surgeon.architecture.initialisation import Constant, Law, Normal, Uniform, conv2d_default
from resnet_surgeon.architecture.parameters import Parameter, parameters
from resnet_surgeon.formats.tensors import BITS, Initialised, LazyTensor, byte_size, pieces
from resnet_surgeon.manifest import Manifest, Provenance
from resnet_surgeon.module import to_torch
from resnet_surgeon.verification import formulas
from resnet_surgeon.verification.case import Case
from resnet_surgeon.verification.proof import Check, some

_PIECE = 1 << 20
_STANDARD_ERRORS = 6.0  # a moment further off than this is not chance: two in a thousand million


def checks(case: Case) -> Iterator[Check]:
    manifest = case.sound
    if manifest is None:
        return
    known = _known(case)
    yield from _kept(case, manifest, known)
    yield from _computed(case, manifest, known)
    yield from _initialised(case, manifest)


def _known(case: Case) -> Mapping[Provenance, LazyTensor]:
    """The source's tensors by their provenance: its own names, or what its own history says of them."""
    if case.original is None:
        return {}
    return {record.provenance: case.original.tensors[name] for name, record in case.original.records.items()}


def _kept(case: Case, manifest: Manifest, known: Mapping[Provenance, LazyTensor]) -> Iterator[Check]:
    kept = {name: record.provenance for name, record in manifest.tensors.items() if _is(record, records.Kept)}
    if not kept:
        return
    if case.original is None:
        yield Check("kept", "unproven", f"{len(kept)} tensors are said to be the source's: give it with `--against`")
        return
    wrong: dict[str, str] = {}
    total = 0
    for name, provenance in kept.items():
        source, tensor = known.get(provenance), case.file.tensors[name]
        total += byte_size(tensor)
        if source is None:
            wrong[name] = "is not in the source"
        elif (source.dtype, source.shape) != (tensor.dtype, tensor.shape):
            wrong[name] = f"is {source.dtype} {list(source.shape)} in the source"
        elif count := _differing(source, tensor):
            wrong[name] = f"differs in {count:,} of {math.prod(tensor.shape):,} numbers"
    finding = f"{len(kept) - len(wrong)} of {len(kept)} tensors are the source's to the bit ({total:,} bytes)"
    yield _check("kept", finding, wrong)


def _computed(case: Case, manifest: Manifest, known: Mapping[Provenance, LazyTensor]) -> Iterator[Check]:
    computed = {name: record.provenance for name, record in manifest.tensors.items() if _is(record, records.Computed)}
    wrong: dict[str, str] = {}
    unknown: list[str] = []
    for name, provenance in computed.items():
        tensor = case.file.tensors[name]
        try:
            expected = _recomputed(provenance, tensor, known)
        except ValueError as error:
            wrong[name] = str(error)
            continue
        if expected is None:
            unknown.append(name)
        elif not _same_bits(expected, to_torch(tensor)):
            wrong[name] = "is not what its formula gives"
    if unknown and not wrong:
        yield Check("computed", "unproven", f"{some(tuple(unknown))}: give the source with `--against`")
    elif computed:
        names = some(tuple(name for name in computed if name not in wrong))
        finding = f"{len(computed) - len(wrong)} of {len(computed)} equal their formula to the bit"
        yield _check("computed", finding + (f": {names}" if names else ""), wrong)


def _recomputed(provenance: Provenance, like: LazyTensor, known: Mapping[Provenance, LazyTensor]) -> Tensor | None:
    """The tensor that a provenance describes, of `like`'s shape and dtype; None if that takes a source that is not
    there. Raises ValueError for a formula that is not known, or does not fit.
    """
    if provenance in known:
        return to_torch(known[provenance])
    if isinstance(provenance, records.Initialised):
        return to_torch(Initialised(like.dtype, like.shape, provenance.law, provenance.seed, provenance.stream))
    if isinstance(provenance, records.Kept):
        return None
    formula = formulas.parse(provenance.formula)
    if formula is None or len(provenance.inputs) != 1 or len(like.shape) != 4 or like.shape[1] != formula.new:
        raise ValueError(f"has the formula `{provenance.formula}`, which gives no such tensor")
    out, _, *kernel = like.shape
    law = Constant(0.0)  # of no matter: it only lends its shape
    before = _recomputed(provenance.inputs[0], Initialised(like.dtype, (out, formula.old, *kernel), law, 0, ""), known)
    if before is None:
        return None
    if before.shape != (out, formula.old, *kernel):
        raise ValueError(f"has the formula `{provenance.formula}`, but the source's shape is {list(before.shape)}")
    return formula.apply(before)


def _initialised(case: Case, manifest: Manifest) -> Iterator[Check]:
    drawn = {
        parameter: provenance
        for parameter in parameters(manifest.architecture)
        if isinstance(provenance := manifest.tensors[parameter.name].provenance, records.Initialised)
    }
    if not drawn:
        return
    wrong: dict[str, str] = {}
    numbers, furthest = 0, 0.0
    for parameter, provenance in drawn.items():
        tensor, law = case.file.tensors[parameter.name], provenance.law
        numbers += math.prod(tensor.shape)
        again = Initialised(tensor.dtype, tensor.shape, law, provenance.seed, provenance.stream)
        deviation = _deviation(to_torch(tensor), law, tensor.dtype)
        furthest = max(furthest, deviation)
        if law not in _laws(parameter):
            wrong[parameter.name] = f"is said to be {law}, not the law of its layer, {parameter.law}"
        elif count := _differing(again, tensor):
            wrong[parameter.name] = f"differs from its seed's in {count:,} of {math.prod(tensor.shape):,} numbers"
        elif deviation > _STANDARD_ERRORS:
            wrong[parameter.name] = f"is not {law}"
    finding = f"{len(drawn) - len(wrong)} of {len(drawn)} tensors ({numbers:,} numbers) come again from law and seed"
    within = f"; their moments lie within {furthest:.1f} standard errors of the law's" if not wrong else ""
    yield _check("initialised", finding + within, wrong)


def _laws(parameter: Parameter) -> tuple[Law, ...]:
    """What torch and torchvision draw such a tensor from; `adapt --init random` draws as `torch.nn.Conv2d` does."""
    convolution = (conv2d_default(parameter.shape),) if len(parameter.shape) == 4 else ()
    return (parameter.law, *convolution)


def _deviation(tensor: Tensor, law: Law, dtype: str) -> float:
    """How far mean and variance are from the law's, in standard errors; infinite beyond its bounds.

    The standard errors of a sample's mean and variance: sigma / sqrt n, and sigma^2 sqrt((kurtosis - 1) / n).
    """
    values = tensor.double()
    if isinstance(law, Constant):
        return 0.0 if bool((values == law.value).all()) else math.inf
    if isinstance(law, Normal):
        sigma, kurtosis, bound = law.std, 3.0, 7 * law.std
    else:
        assert isinstance(law, Uniform)
        sigma, kurtosis, bound = law.bound / math.sqrt(3), 1.8, law.bound * (1 + 2.0 ** -BITS_OF_PRECISION[dtype])
    if not bool((values.abs() <= bound).all()):
        return math.inf
    count = values.numel()
    mean = abs(float(values.mean())) / (sigma / math.sqrt(count))
    variance = float(values.square().mean())
    return max(mean, abs(variance - sigma**2) / (sigma**2 * math.sqrt((kurtosis - 1) / count)))


BITS_OF_PRECISION = {"F64": 52, "F32": 23, "F16": 10, "BF16": 7}


def _differing(one: LazyTensor, other: LazyTensor) -> int:
    """How many elements of two tensors of one layout differ in any bit."""
    import numpy as np

    element = f"u{BITS[one.dtype] // 8}"
    count = 0
    for a, b in zip(pieces(one, _PIECE), pieces(other, _PIECE), strict=True):
        if a != b:
            count += int(np.count_nonzero(np.frombuffer(a, element) != np.frombuffer(b, element)))
    return count


def _same_bits(one: Tensor, other: Tensor) -> bool:
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    return torch.equal(*(tensor.contiguous().view(-1).view(torch.uint8) for tensor in (one, other)))


def _is(record: records.TensorRecord, kind: type[Provenance]) -> bool:
    return isinstance(record.provenance, kind)


def _check(name: str, finding: str, wrong: Mapping[str, str]) -> Check:
    """Proven unless some tensors are wrong; then these are named with what is wrong with them."""
    if not wrong:
        return Check(name, "proven", finding)
    first = next(iter(wrong))
    more = f"; likewise {some(tuple(wrong)[1:])}" if len(wrong) > 1 else ""
    return Check(name, "failed", f"{finding.partition(':')[0]}; `{first}` {wrong[first]}{more}", tuple(wrong))
