"""Fills a module with a network's tensors. Knows how to open a network, and that a module may forget what it was opened
from; no names of layers.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Literal

import torch

from resnet_surgeon.architecture.outputs import outputs as named_outputs
from resnet_surgeon.errors import UsageError
from resnet_surgeon.history.opening import Opening
from resnet_surgeon.location import Location
from resnet_surgeon.module import ResNet, to_torch, without_numbers
from resnet_surgeon.network import Network
from resnet_surgeon.network import open as open_network

if TYPE_CHECKING:
    from typing_extensions import Unpack


def load(
    source: Location | Network,
    device: torch.device | str | int | None = None,
    dtype: torch.dtype | None = None,
    outputs: Literal["list", "dict"] = "list",
    **opening: Unpack[Opening],
) -> ResNet:
    """The network in a file that this tool wrote (or any checkpoint that it reads), as a module in training mode, ready
    to train.

    `source` is a network, or all that `resnet_surgeon.open` takes, with its keywords in `opening`. `device` and `dtype`
    say where the parameters live and in which floating point type; left out, they are on the CPU (or torch's default
    device) in the file's own. `outputs` says how those of several heads come: as a list, or as a dict by their
    names; in a dict a single output has its name too. Every tensor and every parameter must fit. Raises the errors of
    `open`.

    >>> load("resnet50-heads-3-5.safetensors")(torch.zeros(2, 3, 224, 224))     # two tensors, [2, 3] and [2, 5]
    """
    if outputs not in ("list", "dict"):
        raise UsageError(f"{outputs!r} is neither list nor dict", subject="outputs")
    network = source if isinstance(source, Network) else open_network(source, **opening)
    target = torch.get_default_device() if device is None else torch.device(device)
    has_names = outputs == "dict" and not network.architecture.maps  # which have theirs
    with ThreadPoolExecutor(1) as executor:
        manifest = executor.submit(network.manifest)  # reads the file through for its digest, if it has no manifest yet
        with without_numbers():
            names = [output.name for output in named_outputs(network.architecture)] if has_names else None
            module = ResNet(network.architecture, names)
        state = {name: to_torch(tensor).to(target) for name, tensor in network.tensors.items()}
        module.load_state_dict(state, strict=True, assign=True)
        module.manifest = manifest.result()
    module.loaded = Loaded(network)
    network.check_unchanged()
    return module.to(dtype=dtype) if dtype is not None else module


class Loaded:
    """The network that a module was loaded from. A copy of the module has it too; a pickled module comes back without,
    since another process has not opened the file.
    """

    def __init__(self, network: Network) -> None:
        self.network = network

    def __deepcopy__(self, _: object) -> Loaded:
        return self

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        return type(None), ()
