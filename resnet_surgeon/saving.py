"""Saves a trained module as a file with its manifest, whose history then tells of the training.

Finds the module in what people wrap it in, and compares it with what it was loaded from. Writes as `Network` does.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from resnet_surgeon.architecture.parameters import parameters
from resnet_surgeon.architecture.recognise import check_fit
from resnet_surgeon.arithmetic.laws import Constant
from resnet_surgeon.errors import CheckpointError, UsageError
from resnet_surgeon.formats.tensors import Initialised, LazyTensor, Trained, chunks
from resnet_surgeon.history.opening import Opened
from resnet_surgeon.loading import Loaded
from resnet_surgeon.manifest import Manifest
from resnet_surgeon.module import DTYPES, ResNet
from resnet_surgeon.network import Network
from resnet_surgeon.operations.checkpoint import Checkpoint
from resnet_surgeon.operations.training import Training
from resnet_surgeon.sources.found import Found
from resnet_surgeon.sources.progress import Progress, silent
from resnet_surgeon.sources.source import Source

_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_COMPILED = "_orig_mod."  # stands in the names of a child that was compiled by itself


def save(
    model: nn.Module,
    output: str | os.PathLike[str],
    *,
    force: bool = False,
    share_blocks: bool = False,
    progress: Progress = silent,
) -> Path:
    """Writes the trained module and its manifest, as `Network.save` does. Returns the file's path.

    `model` is what `resnet_surgeon.load` gave, or DataParallel, DistributedDataParallel, AveragedModel or torch.compile
    around it. What still has the bits that were loaded keeps its history; everything else was trained since. Of a
    module that came out of a pickle it is not known what has changed, so all of it was.

    Raises UsageError for another module, CheckpointError for one whose tensors are no longer those of its architecture,
    and the errors of `Network.save`.

    >>> save(model, "trained.safetensors")
    """
    network = trained(_unwrapped(model))
    return network.save(output, force=force, share_blocks=share_blocks, progress=progress)


def trained(module: ResNet) -> Network:
    """The network that the module is now, with the history of what it was loaded from."""
    manifest = module.manifest
    if manifest is None:
        raise UsageError(
            "it was not loaded from anything, so there is nothing to tell of it",
            subject="save",
            hint="build it with resnet_surgeon.load, and load your state_dict into that",
        )
    state = _state(module, manifest)
    loaded = _loaded(module, manifest)
    began = loaded or _forgotten(manifest, state)
    changed = [name for name, tensor in state.items() if not (loaded and _is_still(tensor, loaded.tensors[name]))]
    if not changed:
        return began
    network = began.apply(Training(changed))
    numbers = {name: _with_numbers(network.tensors[name], state[name]) for name in changed}
    checkpoint = replace(network.checkpoint, tensors={**network.tensors, **numbers})
    return replace(network, checkpoint=checkpoint)


def _unwrapped(model: nn.Module) -> ResNet:
    """The ResNet in what wraps it: each has it as its `module`, or as its `_orig_mod` if it was compiled."""
    inner: object = model
    while isinstance(inner, nn.Module) and not isinstance(inner, ResNet):
        inner = getattr(inner, "_orig_mod", None) or getattr(inner, "module", None)
    if not isinstance(inner, ResNet):
        raise UsageError(
            f"a {type(model).__name__} is not a module that resnet_surgeon.load gave",
            subject="save",
            hint="torch.save(model.state_dict(), path) and resnet_surgeon.open(path) take any ResNet",
        )
    return inner


def _state(module: ResNet, manifest: Manifest) -> dict[str, Tensor]:
    """Its tensors in torchvision's order, in memory that the CPU can read. Raises CheckpointError unless they are those
    of the architecture.
    """
    found = {name.replace(_COMPILED, ""): tensor for name, tensor in module.state_dict().items()}
    unknown = {tensor.dtype for tensor in found.values()} - _NAMES.keys()
    if unknown:
        raise CheckpointError(f"it holds tensors of {', '.join(map(str, unknown))}", subject="save")
    described = {
        name: Initialised(_NAMES[tensor.dtype], tuple(tensor.shape), Constant(0.0), 0, "")
        for name, tensor in found.items()
    }
    try:
        check_fit(manifest.architecture, described)
    except CheckpointError as error:
        hint = "take out what was added to the module, and what parametrises its weights (pruning, weight norm, LoRA)"
        raise CheckpointError(error.reason, subject="save", hint=hint) from None
    names = [parameter.name for parameter in parameters(manifest.architecture)]
    return {name: found[name].detach().to("cpu", memory_format=torch.contiguous_format).contiguous() for name in names}


def _loaded(module: ResNet, manifest: Manifest) -> Network | None:
    """What it was loaded from, if that is known and is still there as it was."""
    network = module.loaded.network if isinstance(module.loaded, Loaded) else None
    if network is None or network.architecture != manifest.architecture:
        return None
    try:
        network.check_unchanged()
    except CheckpointError:
        return None
    return network


def _forgotten(manifest: Manifest, state: Mapping[str, Tensor]) -> Network:
    """What it was loaded from, as far as the manifest tells: names and shapes. The law lends nothing but these."""
    tensors: dict[str, LazyTensor] = {
        name: Initialised(manifest.tensors[name].dtype, tuple(tensor.shape), Constant(0.0), 0, "")
        for name, tensor in state.items()
    }
    source = Source("model", manifest.source, Found(tensors), is_anonymous=True)
    inputs, done = manifest.inputs, len(manifest.operations)
    checkpoint = Checkpoint(manifest.architecture, tensors, inputs.preprocessing, done, inputs.channel_names)
    return Network(Opened(source, checkpoint, manifest, manifest.facts), checkpoint)


def _bytes(tensor: Tensor) -> memoryview:
    return memoryview(tensor.reshape(-1).view(torch.uint8).numpy().data)


def _is_still(tensor: Tensor, began: LazyTensor) -> bool:
    """Whether the tensor has the very bits that it began with. Reads no further than the first that differ."""
    if (_NAMES[tensor.dtype], tuple(tensor.shape)) != (began.dtype, began.shape):
        return False
    numbers, position = _bytes(tensor), 0
    for chunk in chunks(began):
        if numbers[position : position + len(chunk)] != chunk:
            return False
        position += len(chunk)
    return True


def _with_numbers(trained: LazyTensor, tensor: Tensor) -> LazyTensor:
    assert isinstance(trained, Trained)
    return replace(trained, dtype=_NAMES[tensor.dtype], numbers=_bytes(tensor))
