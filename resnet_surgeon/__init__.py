"""Surgery on torchvision ResNet checkpoints: adapt the input channels, remove layers, add heads.

>>> import resnet_surgeon as rs
>>> rs.open("resnet50", weights="random").adapt(in_channels=1).heads([3, 5]).save("model.safetensors")
>>> model = rs.load("model.safetensors")

Importing it imports neither torch nor numpy: they are loaded by the first function that needs them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from resnet_surgeon._version import __version__
from resnet_surgeon.errors import (
    AccessError,
    ArchitectureError,
    CheckpointError,
    DependencyError,
    OperationError,
    SurgeonError,
    UsageError,
    WeightsError,
)
from resnet_surgeon.network import Network, open

if TYPE_CHECKING:
    from resnet_surgeon.module import ResNet, load

__all__ = [
    "AccessError",
    "ArchitectureError",
    "CheckpointError",
    "DependencyError",
    "Network",
    "OperationError",
    "ResNet",
    "SurgeonError",
    "UsageError",
    "WeightsError",
    "__version__",
    "load",
    "open",
]


def __getattr__(name: str) -> Any:
    if name in ("ResNet", "load"):
        try:
            from resnet_surgeon import module
        except ModuleNotFoundError as error:
            if error.name != "torch":
                raise
            raise DependencyError(
                "torch is not installed", subject=f"resnet_surgeon.{name}", hint="pip install 'resnet-surgeon[torch]'"
            ) from None
        return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
