"""Proofs about every tensor: the source's to the bit, equal to its formula, or drawn from its law and seed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from resnet_surgeon import manifest as records
from resnet_surgeon.architecture.parameters import Parameter, parameters
from resnet_surgeon.arithmetic.formulas import Average, Mix, input_dtypes
from resnet_surgeon.arithmetic.laws import Constant, Law, Normal, Uniform, conv2d_default
from resnet_surgeon.formats.tensors import BITS, Initialised, LazyTensor, byte_size, pieces
from resnet_surgeon.manifest import Manifest, Provenance
from resnet_surgeon.module import DTYPES, to_torch
from resnet_surgeon.verification import copies, formulas
from resnet_surgeon.verification.activations import same_bits
from resnet_surgeon.verification.case import Case, Known
from resnet_surgeon.verification.implied import expectation
from resnet_surgeon.verification.laws import by_shape, hands_on
from resnet_surgeon.verification.proof import Check, some

_PIECE = 1 << 20
_LARGEST = 1 << 28  # bytes of a tensor that is in no file: a manifest may state anything
_STANDARD_ERRORS = 6.0  # a moment further off than this is not chance: two in a thousand million


def checks(case: Case) -> Iterator[Check]:
    manifest = case.sound
    if manifest is None:
        return
    yield from _kept(case, manifest)
    yield from copies.checks(case)
    yield from _computed(case, manifest)
    yield from _initialised(case, manifest)
    yield from _trained(case, manifest)


def _kept(case: Case, manifest: Manifest) -> Iterator[Check]:
    kept = {name: made for name, r in manifest.tensors.items() if isinstance(made := r.provenance, records.Kept)}
    if not kept:
        return
    missing = {name: provenance for name, provenance in kept.items() if not case.is_given(provenance)}
    if len(missing) == len(kept) and not manifest.other_sources:
        yield Check("kept", "unproven", f"{len(kept)} tensors are said to be the source's: give it with `--against`")
        return
    wrong: dict[str, str] = {}
    total = 0
    for name, provenance in kept.items():
        if name in missing:
            continue
        source, tensor = case.known.tensor(provenance, name), case.file.tensors[name]
        total += byte_size(tensor)
        if source is None:
            wrong[name] = "is not in the source"
        elif (source.dtype, source.shape) != (tensor.dtype, tensor.shape):
            wrong[name] = f"is {source.dtype} {list(source.shape)} in the source"
        elif count := _differing(source, tensor):
            wrong[name] = f"differs in {count:,} of {math.prod(tensor.shape):,} numbers"
    whose = "the source's" if case.is_first or case.original is None else f"those of {case.given}"
    if manifest.other_sources:
        whose = "their source's"
    right = len(kept) - len(wrong) - len(missing)
    finding = f"{right} of {len(kept)} tensors are {whose} to the bit ({total:,} bytes)"
    if missing and not wrong:
        yield Check("kept", "unproven", f"{finding}; the others are said to be of {case.missing}")
    else:
        yield _check("kept", finding, wrong)


def _computed(case: Case, manifest: Manifest) -> Iterator[Check]:
    computed = {name: record.provenance for name, record in manifest.tensors.items() if _is(record, records.Computed)}
    laws = _laws(manifest)
    wrong: dict[str, str] = {}
    unknown: dict[str, str] = {}
    given: list[str] = []
    for name, provenance in computed.items():
        tensor = case.file.tensors[name]
        try:
            source = case.known.tensor(provenance, name)
            expected = to_torch(source) if source else _recomputed(provenance, name, tensor, case.known, laws[name])
        except ValueError as error:
            wrong[name] = str(error)
            continue
        except _UnknownError as error:
            unknown[name] = str(error)
            continue
        if not _agree(expected, to_torch(tensor), exactly=source is not None or _is_exact(provenance)):
            wrong[name] = "is not what its formula gives" if source is None else f"is not that of {case.given}"
        elif source:
            given.append(name)
    if unknown and not wrong:
        yield Check("computed", "unproven", f"{some(tuple(unknown))}: {next(iter(unknown.values()))}")
    elif computed:
        right = tuple(name for name in computed if name not in wrong)
        how = f"are those of {case.given}" if given else "equal their formula"
        precisely = "to the bit" if all(map(_is_exact, computed.values())) else "to the bit, or within one rounding"
        finding = f"{len(right)} of {len(computed)} {how} {precisely}"
        yield _check("computed", finding + (f": {some(right)}" if right else ""), wrong)


def _is_exact(provenance: Provenance) -> bool:
    """Whether everybody who works the tensor out comes to the same bits."""
    if not isinstance(provenance, records.Computed):
        return True
    return formulas.is_exact(provenance.formula) and all(map(_is_exact, provenance.inputs))


def _agree(expected: Tensor, found: Tensor, *, exactly: bool) -> bool:
    if exactly or same_bits(expected, found):
        return same_bits(expected, found)
    within = 2 * torch.finfo(found.dtype).eps
    return torch.allclose(expected.double(), found.double(), rtol=within, atol=0.0, equal_nan=True)


class _UnknownError(Exception):
    """A tensor cannot be worked out here: its source was not given, or it is too large."""


def _recomputed(provenance: Provenance, name: str, like: LazyTensor, known: Known, laws: Sequence[Law]) -> Tensor:
    """The tensor that a provenance describes, of `like`'s shape and dtype; what is drawn on the way is of these laws.

    Raises ValueError for a formula or law that is not known, or does not fit; _UnknownError.
    """
    if source := known.tensor(provenance, name):
        return to_torch(source)
    if isinstance(provenance, records.Initialised):
        if provenance.law not in (*laws, *by_shape(like.shape)):
            raise ValueError(f"is said to be of {provenance.law}, not the law of its layer")
        return to_torch(Initialised(like.dtype, like.shape, provenance.law, provenance.seed, provenance.stream))
    if isinstance(provenance, records.Kept):
        raise _UnknownError("give the source with `--against`")
    if isinstance(provenance, records.Trained):
        raise _UnknownError("trained tensors cannot be recomputed")
    formula = provenance.formula
    try:
        shapes = formula.input_shapes(tuple(like.shape))
    except ValueError as error:
        raise ValueError(f"is said to be made by `{formula}`, but {error}") from None
    if len(shapes) != len(provenance.inputs):
        raise ValueError(f"is said to be made by `{formula}` from {len(provenance.inputs)} tensors, not {len(shapes)}")
    dtypes = input_dtypes(formula, like.dtype, len(shapes))
    if isinstance(formula, Mix):  # channels that are drawn for it are drawn as all of its layer would be
        laws = (*laws, conv2d_default(like.shape))
    inputs = [
        _input(part, name, Initialised(dtype, shape, Constant(0.0), 0, ""), known, laws)
        for part, shape, dtype in zip(provenance.inputs, shapes, dtypes, strict=True)
    ]
    for before, shape in zip(inputs, shapes, strict=True):
        if before.shape != shape:
            raise ValueError(f"has the formula `{formula}`, but its input's shape is {list(before.shape)}")
    return formulas.apply(formula, inputs, DTYPES[like.dtype])


def _input(provenance: Provenance, name: str, described: Initialised, known: Known, laws: Sequence[Law]) -> Tensor:
    """A formula's input, of the described shape and dtype: the law lends nothing but these."""
    if byte_size(described) > _LARGEST and not (isinstance(provenance, records.Kept) or known.name(provenance, name)):
        raise _UnknownError(f"working it out takes a tensor of {byte_size(described):,} bytes, which is too large")
    return _recomputed(
        provenance, name, replace(described, dtype=_dtype(provenance, name, described, known)), known, laws
    )


def _dtype(provenance: Provenance, name: str, described: LazyTensor, known: Known) -> str:
    """That of an average is its sources', be it another than the formula's result has."""
    while isinstance(provenance, records.Computed) and isinstance(provenance.formula, Average):
        provenance = provenance.inputs[0]
    source = known.tensor(provenance, name)
    return source.dtype if source else described.dtype


def _initialised(case: Case, manifest: Manifest) -> Iterator[Check]:
    drawn = {
        parameter: provenance
        for parameter in parameters(manifest.architecture)
        if isinstance(provenance := manifest.tensors[parameter.name].provenance, records.Initialised)
    }
    if not drawn:
        return
    laws = _laws(manifest)
    wrong: dict[str, str] = {}
    numbers, furthest = 0, 0.0
    for parameter, provenance in drawn.items():
        tensor, law = case.file.tensors[parameter.name], provenance.law
        numbers += math.prod(tensor.shape)
        if law not in laws[parameter.name]:
            wrong[parameter.name] = f"is said to be {law}, not the law of its layer, {parameter.law}"
            continue
        again = Initialised(tensor.dtype, tensor.shape, law, provenance.seed, provenance.stream)
        deviation = deviation_of(to_torch(tensor), law, tensor.dtype)
        furthest = max(furthest, deviation)
        if count := _differing(again, tensor):
            wrong[parameter.name] = f"differs from its seed's in {count:,} of {math.prod(tensor.shape):,} numbers"
        elif deviation > _STANDARD_ERRORS:
            wrong[parameter.name] = f"is not {law}"
    finding = f"{len(drawn) - len(wrong)} of {len(drawn)} tensors ({numbers:,} numbers) are as law and seed give them"
    within = f"; their moments lie within {furthest:.1f} standard errors of the law's" if not wrong else ""
    yield _check("initialised", finding + within, wrong)


def _trained(case: Case, manifest: Manifest) -> Iterator[Check]:
    """What training made of the tensors nobody can prove; but how many of them it left as they were can be counted."""
    trained = {name: record.provenance for name, record in manifest.tensors.items() if _is(record, records.Trained)}
    if not trained:
        return
    finding = f"{len(trained)} of {len(manifest.tensors)} tensors were trained since, which cannot be proven"
    if case.original is None:
        yield Check("trained", "unproven", f"{finding}; `--against` the source tells how many are still as they were")
        return
    laws = _laws(manifest)
    same = sum(_is_still(case, name, provenance, laws[name]) for name, provenance in trained.items())
    yield Check("trained", "unproven", f"{finding}; {same} of them are to the bit what they were before")


def _is_still(case: Case, name: str, provenance: Provenance, laws: tuple[Law, ...]) -> bool:
    """Whether the tensor has the very bits that it had before it was trained, as far as these can be known."""
    assert isinstance(provenance, records.Trained)
    tensor, began = case.file.tensors[name], provenance.began
    if isinstance(began, records.Initialised):
        drawn = Initialised(tensor.dtype, tensor.shape, began.law, began.seed, began.stream)
        return began.law in laws and not _differing(drawn, tensor)
    try:
        return same_bits(_recomputed(began, name, tensor, case.known, laws), to_torch(tensor))
    except (ValueError, _UnknownError):
        return False


def _laws(manifest: Manifest) -> dict[str, tuple[Law, ...]]:
    """What each tensor may be drawn from: as torch and torchvision have it, `adapt --init random` as `torch.nn.Conv2d`,
    the last layer of a new head as was asked for. Zero are the bias of a classifier that had none in the source's file,
    and what makes an inserted block hand on what it is given.
    """
    architecture, made = manifest.architecture, expectation(manifest).heads
    origins = (manifest.source, *(other.origin for other in manifest.other_sources))
    filled = {name for origin in origins if origin.wrapping for name in origin.wrapping.filled}
    last = {f"{architecture.prefix(head)}{head.last}": head.name for head in architecture.heads}

    def laws(parameter: Parameter) -> tuple[Law, ...]:
        module, _, leaf = parameter.name.rpartition(".")
        if module in last and last[module] in made and made[last[module]].init != "default":
            is_small = made[last[module]].init == "small" and leaf == "weight"
            return (Normal(0.01),) if is_small else (Constant(0.0),)
        convolution = (conv2d_default(parameter.shape),) if len(parameter.shape) == 4 else ()
        zeros = (Constant(0.0),) if leaf == "bias" and module in last and "fc.bias" in filled else ()
        if any(hands_on(leaf, manifest) for leaf in _drawn(manifest.tensors[parameter.name].provenance)):
            zeros = (Constant(0.0),)
        return (parameter.law, *convolution, *zeros)

    return {parameter.name: laws(parameter) for parameter in parameters(architecture)}


def _drawn(provenance: Provenance) -> Iterator[records.Initialised]:
    """All that was drawn, on the way to it."""
    if isinstance(provenance, records.Initialised):
        yield provenance
    for part in records.made_from(provenance):
        yield from _drawn(part)


def deviation_of(tensor: Tensor, law: Law, dtype: str) -> float:
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


def _is(record: records.TensorRecord, kind: type[Provenance]) -> bool:
    return isinstance(record.provenance, kind)


def _check(name: str, finding: str, wrong: Mapping[str, str]) -> Check:
    """Proven unless some tensors are wrong; then these are named with what is wrong with them."""
    if not wrong:
        return Check(name, "proven", finding)
    first = next(iter(wrong))
    more = f"; likewise {some(tuple(wrong)[1:])}" if len(wrong) > 1 else ""
    return Check(name, "failed", f"{finding.partition(':')[0]}; `{first}` {wrong[first]}{more}", tuple(wrong))
