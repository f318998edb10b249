"""Proofs about what the network computes: it loads, runs, and what was kept gives the source's very activations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn

from resnet_surgeon.architecture.spec import Head
from resnet_surgeon.manifest import Manifest
from resnet_surgeon.module import ResNet
from resnet_surgeon.network import Network
from resnet_surgeon.verification import stem
from resnet_surgeon.verification.activations import activations, fitting, images, output_of, same_bits
from resnet_surgeon.verification.case import Case
from resnet_surgeon.verification.layers import Correspondence, correspondence
from resnet_surgeon.verification.modules import common_dtype, loaded, witness
from resnet_surgeon.verification.proof import Check, some

_BATCHES = ((1, 224, 224), (2, 64, 64), (3, 97, 130))
PROBE = (2, 96, 96)


def checks(case: Case, of_tensors: tuple[Check, ...]) -> Iterator[Check]:
    """`of_tensors` are the checks of the tensors: whether numbers that are not finite are as they should be."""
    manifest = case.sound
    if manifest is None:
        return
    original = case.original
    dtype = common_dtype(case.file.tensors, original.tensors if original else {})
    try:
        module = loaded(ResNet, manifest.architecture, case.file.tensors, dtype)
    except (RuntimeError, MemoryError) as error:
        yield _not_carried_out("load", error)
        return
    count = len(module.state_dict())
    yield Check("load", "proven", f"{count} of {count} tensors load with strict=True into the module of the manifest")
    yield from _carried_out("forward", lambda: _forward(module, manifest, dtype, of_tensors))
    if original is None:
        yield Check("layers", "unproven", "what the source computes: give it with `--against`")
    else:
        yield from _carried_out("layers", lambda: _beside(case, manifest, original, module, dtype))
    if len(manifest.architecture.heads) > 1:
        yield from _carried_out("independence", lambda: independence(module, manifest.architecture.heads, dtype))


def _carried_out(name: str, make: Callable[[], Iterator[Check]]) -> Iterator[Check]:
    """The checks; of one that torch cannot carry out, why."""
    try:
        yield from make()
    except (RuntimeError, MemoryError) as error:
        yield _not_carried_out(name, error)


def _not_carried_out(name: str, error: Exception) -> Check:
    """A lack of memory is not the file's fault; another error of torch's is."""
    if isinstance(error, MemoryError) or "not enough memory" in str(error) or "can't allocate memory" in str(error):
        return Check(name, "unproven", "there was not enough memory for it")
    return Check(name, "failed", f"{error}".splitlines()[0] if str(error) else type(error).__name__)


@torch.no_grad()
def _outputs(module: nn.Module, image: Tensor) -> list[Tensor]:
    outputs = module(image)
    return outputs if isinstance(outputs, list) else [outputs]


def _forward(
    module: nn.Module, manifest: Manifest, dtype: torch.dtype, of_tensors: tuple[Check, ...]
) -> Iterator[Check]:
    """Outputs have the promised shapes for several sizes of image and batch, and are finite as far as numbers are."""
    architecture = manifest.architecture
    heads: tuple[Head | None, ...] = architecture.heads or (None,)
    sizes = [fitting(size, architecture.in_channels) for size in _BATCHES]
    is_finite = True
    for batch, height, width in sizes:
        what = f"[{batch}, {architecture.in_channels}, {height}, {width}]"
        try:
            outputs = _outputs(module, images(architecture.in_channels, (batch, height, width), dtype))
        except RuntimeError as error:
            yield _not_carried_out("forward", RuntimeError(f"on {what}: {error}"))
            return
        shapes = [tuple(output.shape) for output in outputs]
        promised = [(batch, *architecture.output_shape(head, height, width)) for head in heads]
        if shapes != promised:
            finding = f"on {what} the outputs have shapes {shapes}, promised were {promised}"
            yield Check("forward", "failed", finding)
            return
        is_finite = is_finite and all(bool(output.isfinite().all()) for output in outputs)
    batches = ", ".join(f"{batch} of {height}x{width}" for batch, height, width in sizes)
    finite = "finite " * is_finite
    finding = f"{len(sizes)} batches ({batches}) give {finite}outputs of the promised shapes"
    yield Check("forward", "proven", finding)
    names = tuple(name for name, tensor in module.state_dict().items() if not bool(tensor.isfinite().all()))
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
        return Check("finite", "unproven", f"{what}: whether that is the source's own it takes `--against` to see")
    return Check("finite", "proven", f"{what}: so it is with the source's own, and what its formulas make of them")


@torch.no_grad()
def _beside(
    case: Case, manifest: Manifest, original: Network, module: nn.Module, dtype: torch.dtype
) -> Iterator[Check]:
    """The file's module and the source's, side by side."""
    source, label = witness(original.architecture, original.tensors, dtype)
    pairs = correspondence(manifest, original.architecture, case.known.name)
    yield from stem.check(module, source, manifest, original.architecture, case.known.name)
    yield from _layers(
        pairs, module, source, original.architecture.in_channels, dtype, label if case.is_first else case.given
    )


def _layers(
    pairs: Correspondence, module: nn.Module, source: nn.Module, in_channels: int, dtype: torch.dtype, label: str
) -> Iterator[Check]:
    """Every kept layer gives the source's activation to the bit: in the run of the whole network as long as nothing
    before it was changed but conv1, whose activation is then the source's; from there on when it is given the source's
    input.
    """
    image = images(in_channels, fitting(PROBE, in_channels), dtype)
    theirs = activations(source, [*pairs.source_units], image)
    stand_in = None
    if "conv1" not in pairs.origins:
        channels = module.get_parameter("conv1.weight").shape[1]
        batch, _, height, width = image.shape
        image = torch.zeros(batch, channels, height, width, dtype=dtype)
        stand_in = ("conv1", theirs["conv1"].output)
    ours = activations(module, [unit.name for unit in pairs.units], image, stand_in)
    same: dict[str, bool] = {}
    for name, origin in pairs.origins.items():
        connected = name in pairs.connected
        output = ours[name].output if connected else output_of(module.get_submodule(name), theirs[origin].input)
        same[name] = output is not None and same_bits(output, theirs[origin].output)
    trunk = {name: equal for name, equal in same.items() if not name.startswith("heads.")}
    owned = {name: equal for name, equal in same.items() if name.startswith("heads.")}
    if trunk:
        last = [*trunk][-1]
        yield _equality("layers", trunk, f"kept layers, up to {last}, give the activations of {label} to the bit")
    if any("layer" in name for name in owned):
        yield _equality("heads", owned, f"layers that heads own give the features of {label} to the bit")


def _equality(name: str, same: Mapping[str, bool], what: str) -> Check:
    wrong = tuple(unit for unit, equal in same.items() if not equal)
    finding = f"{len(same) - len(wrong)} of {len(same)} {what}"
    return Check(name, "failed", f"{finding}; not {some(wrong)}", wrong) if wrong else Check(name, "proven", finding)


def independence(module: nn.Module, heads: tuple[Head, ...], dtype: torch.dtype) -> Iterator[Check]:
    """No two tensors have storage in common, and the output of a head has no gradient in another."""
    storages = [tensor.untyped_storage().data_ptr() for tensor in module.state_dict().values()]
    shared = len(storages) - len(set(storages))
    own = {head.name: [*module.get_submodule(f"heads.{head.name}").parameters()] for head in heads}
    channels = module.get_parameter("conv1.weight").shape[1]
    outputs = dict(zip(own, module(images(channels, fitting(PROBE, channels), dtype)), strict=True))
    crossing = []
    for name, output in outputs.items():
        others = [parameter for other, parameters in own.items() if other != name for parameter in parameters]
        gradients = torch.autograd.grad(output.sum(), [*own[name], *others], allow_unused=True, retain_graph=True)
        split = len(own[name])
        if any(gradient is not None for gradient in gradients[split:]) or any(g is None for g in gradients[:split]):
            crossing.append(name)
    if shared or crossing:
        finding = f"{shared} storages are shared" if shared else "no storage is shared"
        finding += f", gradients cross from {some(tuple(crossing))}" if crossing else ""
        yield Check("independence", "failed", finding, tuple(crossing))
        return
    yield Check("independence", "proven", f"{len(heads)} heads: no storage shared, no gradient from one to another")
