"""Proofs about what the network computes: it loads, runs, and what was kept gives the source's very activations.

The source runs as torchvision's own module wherever torchvision has such a network.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import reduce

import torch
from torch import Tensor, nn
from torchvision.models import resnet as torchvision

from resnet_surgeon import manifest as records
from resnet_surgeon.architecture.spec import STAGE_NAMES, Architecture, Head, Stage
from resnet_surgeon.architecture.variants import resnet, variant_name
from resnet_surgeon.formats.tensors import LazyTensor
from resnet_surgeon.manifest import Manifest, Provenance
from resnet_surgeon.module import DTYPES, ResNet, to_torch
from resnet_surgeon.network import Network
from resnet_surgeon.verification import formulas
from resnet_surgeon.verification.case import Case
from resnet_surgeon.verification.proof import Check, some

_BATCHES = ((1, 224, 224), (2, 64, 64), (3, 97, 130))  # batch, height, width
_PROBE = (2, 96, 96)
# One layer, and the whole depth, in units of the dtype's epsilon relative to the largest activation.
_ROUNDING, _ROUNDING_OF_ALL = 2**7, 2**13


def checks(case: Case) -> Iterator[Check]:
    manifest = case.sound
    if manifest is None:
        return
    try:
        module = _loaded(ResNet, manifest.architecture, case.file.tensors)
    except RuntimeError as error:
        yield Check("load", "failed", f"{error}".splitlines()[0])
        return
    count = len(module.state_dict())
    yield Check("load", "proven", f"{count} of {count} tensors load with strict=True into the module of the manifest")
    with torch.no_grad():
        yield _forward(module, manifest)
        yield from _functions(case, manifest, module)
    if len(manifest.architecture.heads) > 1:
        yield _independence(module, manifest.architecture.heads)


def _loaded(
    build: Callable[[Architecture], nn.Module], architecture: Architecture, tensors: Mapping[str, LazyTensor]
) -> nn.Module:
    """The module in evaluation mode, in float32 or wider."""
    with torch.device("meta"):
        module = build(architecture)
    state = {name: to_torch(tensor) for name, tensor in tensors.items()}
    module.load_state_dict(state, strict=True, assign=True)
    is_double = any(tensor.dtype == torch.float64 for tensor in state.values())
    return module.to(torch.float64 if is_double else torch.float32).eval()


def _forward(module: nn.Module, manifest: Manifest) -> Check:
    """Finite, and of the promised shapes, for several sizes of image and batch."""
    architecture = manifest.architecture
    heads: tuple[Head | None, ...] = architecture.heads or (None,)
    for batch, height, width in _BATCHES:
        size = f"[{batch}, {architecture.in_channels}, {height}, {width}]"
        try:
            outputs = _as_list(module(_image(module, architecture.in_channels, (batch, height, width))))
        except RuntimeError as error:
            return Check("forward", "failed", f"on {size}: {str(error).splitlines()[0]}")
        shapes = [tuple(output.shape) for output in outputs]
        promised = [(batch, *architecture.output_shape(head, height, width)) for head in heads]
        if shapes != promised:
            return Check("forward", "failed", f"on {size} the outputs have shapes {shapes}, promised were {promised}")
        if not all(bool(output.isfinite().all()) for output in outputs):
            return Check("forward", "failed", f"on {size} an output is not finite")
    sizes = ", ".join(f"{batch} of {height}x{width}" for batch, height, width in _BATCHES)
    return Check("forward", "proven", f"{len(_BATCHES)} batches ({sizes}) give finite outputs of the promised shapes")


@dataclass(frozen=True)
class Unit:
    """A layer or residual block that is compared by itself, and the one whose output it takes."""

    name: str
    before: str | None


def units(architecture: Architecture) -> tuple[Unit, ...]:
    """The network layer by layer: the stem's, each residual block, avgpool, fc; then those of each of several heads."""
    trunk = [*architecture.stem, *_blocks(architecture.stages), *["avgpool"] * architecture.avgpool]
    if len(architecture.heads) == 1:
        trunk.append("fc")
    chains = [trunk]
    if len(architecture.heads) > 1:
        for head in architecture.heads:
            own = [*_blocks(head.stages), *["avgpool"] * (not architecture.avgpool), "fc"]
            chains.append([trunk[-1], *(architecture.prefix(head) + name for name in own)])
    first = Unit(trunk[0], None)
    return (first, *(Unit(name, before) for chain in chains for before, name in itertools.pairwise(chain)))


def _blocks(stages: tuple[Stage, ...]) -> list[str]:
    return [f"{stage.name}.{index}" for stage in stages for index in range(stage.blocks)]


@dataclass(frozen=True)
class _Comparison:
    """Output and source side by side: `origins` tells for each unit which of the source's it is said to be."""

    module: nn.Module
    witness: nn.Module
    units: tuple[Unit, ...]
    source_units: Mapping[str, Unit]
    origins: Mapping[str, str]

    def connected(self, start: str) -> set[str]:
        """The units that, from `start` on, follow each other in the output as they do in the source."""
        found = {start}
        for unit in self.units:
            origin = self.source_units.get(self.origins.get(unit.name, ""))
            if origin and unit.before in found and origin.before == self.origins.get(unit.before, unit.before):
                found.add(unit.name)
        return found


def _functions(case: Case, manifest: Manifest, module: nn.Module) -> Iterator[Check]:
    if case.original is None:
        yield Check("layers", "unproven", "what the source computes: give it with `--against`")
        return
    original, architecture = case.original, manifest.architecture
    witness, label = _witness(original)
    names = {record.provenance: name for name, record in original.records.items()}
    source_units = {unit.name: unit for unit in units(original.architecture)}
    own_units = units(architecture)
    origins = _origins(own_units, source_units, manifest, names, original.architecture)
    comparison = _Comparison(module, witness, own_units, source_units, origins)
    yield from _stem(comparison, manifest, original, names)
    yield from _layers(comparison, original.architecture.in_channels, label)


def _witness(network: Network) -> tuple[nn.Module, str]:
    """The source as a module: torchvision's own class where it has such a network, else ours."""
    architecture = network.architecture
    depths = tuple(stage.blocks for stage in architecture.stages)
    if len(depths) == len(STAGE_NAMES) and len(architecture.heads) == 1:
        width = architecture.stages[0].width // architecture.groups if architecture.block == "bottleneck" else 64
        classes = architecture.heads[0].classes
        if replace(architecture, in_channels=3) == resnet(
            architecture.block, depths, architecture.groups, width, classes
        ):
            name = variant_name(architecture) or "ResNet"
            return _loaded(_torchvision, architecture, network.tensors), f"torchvision's {name}"
    return _loaded(ResNet, architecture, network.tensors), "the source"


def _torchvision(architecture: Architecture) -> nn.Module:
    is_basic = architecture.block == "basic"
    module: nn.Module = torchvision.ResNet(
        torchvision.BasicBlock if is_basic else torchvision.Bottleneck,
        [stage.blocks for stage in architecture.stages],
        num_classes=architecture.heads[0].classes,
        groups=architecture.groups,
        width_per_group=64 if is_basic else architecture.stages[0].width // architecture.groups,
    )
    module.conv1 = nn.Conv2d(architecture.in_channels, 64, kernel_size=7, stride=2, padding=3, bias=False)
    return module


def _origins(
    own_units: tuple[Unit, ...],
    source_units: Mapping[str, Unit],
    manifest: Manifest,
    names: Mapping[Provenance, str],
    source: Architecture,
) -> dict[str, str]:
    """For each unit that is said to be one of the source's, which. A layer without tensors is that of its own name."""
    origins: dict[str, str] = {}
    for unit in own_units:
        members = [name for name in manifest.tensors if name.startswith(f"{unit.name}.")]
        if members:
            sources = {
                _unit_of(names.get(manifest.tensors[name].provenance), name[len(unit.name) :]) for name in members
            }
            origin = sources.pop() if len(sources) == 1 else None
        elif unit.name == "maxpool" and manifest.architecture.maxpool_is_identity != source.maxpool_is_identity:
            origin = None
        else:
            origin = unit.name if unit.name in source_units else unit.name.rpartition(".")[2]
        if origin is not None and origin in source_units:
            origins[unit.name] = origin
    return origins


def _unit_of(tensor: str | None, member: str) -> str | None:
    """The source's unit that has the tensor as its `member`."""
    return tensor.removesuffix(member) if tensor is not None and tensor.endswith(member) else None


def _stem(
    comparison: _Comparison, manifest: Manifest, original: Network, names: Mapping[Provenance, str]
) -> Iterator[Check]:
    """A computed conv1 on an image gives what the source's gives on the image whose channels are mixed by the formula:
    for the sum over red, green and blue, on a gray image fed as R=G=B. So does all that follows it unchanged.
    """
    record = manifest.tensors["conv1.weight"]
    steps = _formulas(record.provenance, names)
    if steps is None or steps[0].old != original.architecture.in_channels:
        return
    image = _image(comparison.module, manifest.architecture.in_channels, _PROBE)
    mixing = reduce(torch.matmul, (step.mixing() for step in steps))
    mixed = torch.einsum("cn,bnhw->bchw", mixing.to(image.dtype), image)
    ours = _activations(comparison.module, [unit.name for unit in comparison.units], image)
    theirs = _activations(comparison.witness, [*comparison.source_units], mixed)
    connected = comparison.connected("conv1")
    followers = [unit.name for unit in comparison.units if unit.name in connected]
    difference = _relative(ours["conv1"].output, theirs["conv1"].output)
    epsilon = torch.finfo(DTYPES[record.dtype]).eps
    is_gray = manifest.architecture.in_channels == 1 and bool((mixing == 1).all())
    what = (
        "gray images, R=G=B for the source" if is_gray else "images, their channels mixed by the formula for the source"
    )
    finding = f"on {what}, conv1 gives the same within {difference:.1e} of the largest"
    wrong = not difference <= _ROUNDING * epsilon
    # Stored in 16 bits, the rounding of the new filters grows through the depth, and says nothing there.
    if len(followers) > 1 and epsilon < 1e-6:
        last = followers[-1]
        difference = _relative(ours[last].output, theirs[comparison.origins[last]].output)
        finding += f", {last} within {difference:.1e}"
        wrong = wrong or not difference <= _ROUNDING_OF_ALL * epsilon
    yield Check("stem", "failed" if wrong else "proven", finding, ("conv1.weight",) if wrong else ())


def _formulas(provenance: Provenance, names: Mapping[Provenance, str]) -> list[formulas.Formula] | None:
    """From the source's conv1 on, the formulas by which it was computed; None if that is not how it was made."""
    if not isinstance(provenance, records.Computed) or provenance in names:
        return None
    formula = formulas.parse(provenance.formula)
    if formula is None or len(provenance.inputs) != 1:
        return None
    if names.get(provenance.inputs[0]) == "conv1.weight":
        return [formula]
    before = _formulas(provenance.inputs[0], names)
    return [*before, formula] if before is not None else None


def _layers(comparison: _Comparison, in_channels: int, label: str) -> Iterator[Check]:
    """Every kept layer gives the source's activation to the bit: in the run of the whole network as long as nothing
    before it was changed, from there on when it is given the source's input.
    """
    image = _image(comparison.witness, in_channels, _PROBE)
    theirs = _activations(comparison.witness, [*comparison.source_units], image)
    is_kept = "conv1" in comparison.origins
    connected = comparison.connected("conv1") if is_kept else set()
    ours = _activations(comparison.module, [unit.name for unit in comparison.units], image) if is_kept else {}
    same: dict[str, bool] = {}
    for name, origin in comparison.origins.items():
        if name in connected:
            output: Tensor | None = ours[name].output
        else:
            output = _output(comparison.module.get_submodule(name), theirs[origin].input)
        same[name] = output is not None and torch.equal(output, theirs[origin].output)
    trunk = {name: equal for name, equal in same.items() if not name.startswith("heads.")}
    owned = {name: equal for name, equal in same.items() if name.startswith("heads.")}
    if trunk:
        last = [*trunk][-1]
        yield _equality("layers", trunk, f"kept layers, up to {last}, give the activations of {label} to the bit")
    if any("layer" in name for name in owned):
        yield _equality("heads", owned, f"layers that heads own give the features of {label} to the bit")


def _output(layer: nn.Module, activation: Tensor) -> Tensor | None:
    """What the layer makes of the activation; None if it is not of its shape."""
    try:
        output: Tensor = layer(activation.clone())
    except RuntimeError:
        return None
    return output


def _equality(name: str, same: Mapping[str, bool], what: str) -> Check:
    wrong = tuple(unit for unit, equal in same.items() if not equal)
    finding = f"{len(same) - len(wrong)} of {len(same)} {what}"
    return Check(name, "failed", f"{finding}; not {some(wrong)}", wrong) if wrong else Check(name, "proven", finding)


def _independence(module: nn.Module, heads: tuple[Head, ...]) -> Check:
    """No two tensors have storage in common, and the output of a head has no gradient in another."""
    storages = [tensor.untyped_storage().data_ptr() for tensor in module.state_dict().values()]
    shared = len(storages) - len(set(storages))
    own = {head.name: [*module.get_submodule(f"heads.{head.name}").parameters()] for head in heads}
    outputs = dict(zip(own, module(_image(module, module.get_parameter("conv1.weight").shape[1], _PROBE)), strict=True))
    crossing = []
    for name, output in outputs.items():
        others = [parameter for other, parameters in own.items() if other != name for parameter in parameters]
        gradients = torch.autograd.grad(output.sum(), [*own[name], *others], allow_unused=True)
        split = len(own[name])
        if any(gradient is not None for gradient in gradients[split:]) or any(g is None for g in gradients[:split]):
            crossing.append(name)
    if shared or crossing:
        return Check(
            "independence", "failed", f"{shared} shared storages; gradients cross from {some(tuple(crossing))}"
        )
    return Check("independence", "proven", f"{len(heads)} heads: no storage shared, no gradient from one to another")


@dataclass(frozen=True)
class _Activation:
    input: Tensor
    output: Tensor


def _activations(module: nn.Module, names: list[str], image: Tensor) -> dict[str, _Activation]:
    """What goes into and comes out of the named submodules in one forward pass; copied, as ReLUs work in place."""
    inputs: dict[str, Tensor] = {}
    found: dict[str, _Activation] = {}

    def watch(name: str) -> Iterator[torch.utils.hooks.RemovableHandle]:
        def before(_: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            inputs[name] = arguments[0].clone()

        def after(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> None:
            found[name] = _Activation(inputs[name], output.clone())

        submodule = module.get_submodule(name)
        yield submodule.register_forward_pre_hook(before)
        yield submodule.register_forward_hook(after)

    handles = [handle for name in names for handle in watch(name)]
    module(image)
    for handle in handles:
        handle.remove()
    return found


def _image(module: nn.Module, channels: int, size: tuple[int, int, int]) -> Tensor:
    batch, height, width = size
    generator = torch.Generator().manual_seed(0)
    dtype = next(module.parameters()).dtype
    return torch.randn(batch, channels, height, width, generator=generator).to(dtype)


def _relative(one: Tensor, other: Tensor) -> float:
    """The largest difference, relative to the largest number."""
    scale = float(other.abs().max())
    return float((one - other).abs().max()) / scale if one.shape == other.shape and scale else math.inf


def _as_list(outputs: Tensor | list[Tensor]) -> list[Tensor]:
    return outputs if isinstance(outputs, list) else [outputs]
