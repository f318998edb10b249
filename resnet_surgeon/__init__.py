"""Surgery on torchvision ResNet checkpoints: adapt the input channels, remove layers, add heads.

>>> import resnet_surgeon as rs
>>> rs.open("resnet50", weights="random").adapt(in_channels=1).heads([3, 5]).save("model.safetensors")
>>> model = rs.load("model.safetensors")

Importing it imports next to nothing: what a name needs is loaded when the name is first used, and torch by `load`,
`ResNet`, `verify` and `report` alone.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from resnet_surgeon._version import __version__

if TYPE_CHECKING:
    from resnet_surgeon.comparison import Change, Difference, TensorDifference, diff
    from resnet_surgeon.errors import (
        AccessError,
        ArchitectureError,
        CheckpointError,
        DependencyError,
        OperationError,
        RecipeError,
        SurgeonError,
        UsageError,
        WeightsError,
    )
    from resnet_surgeon.inspection import Inspection, inspect
    from resnet_surgeon.loading import load
    from resnet_surgeon.module import ResNet
    from resnet_surgeon.network import Network, open
    from resnet_surgeon.operations.heads import NewHead
    from resnet_surgeon.recipes.recipe import Recipe
    from resnet_surgeon.reporting.report import report
    from resnet_surgeon.saving import save
    from resnet_surgeon.verification.proof import Check, Proof
    from resnet_surgeon.verification.quick import verify_quickly
    from resnet_surgeon.verification.verify import verify

__all__ = [
    "AccessError",
    "ArchitectureError",
    "Change",
    "Check",
    "CheckpointError",
    "DependencyError",
    "Difference",
    "Inspection",
    "Network",
    "NewHead",
    "OperationError",
    "Proof",
    "Recipe",
    "RecipeError",
    "ResNet",
    "SurgeonError",
    "TensorDifference",
    "UsageError",
    "WeightsError",
    "__version__",
    "diff",
    "inspect",
    "load",
    "open",
    "report",
    "save",
    "verify",
    "verify_quickly",
]

_ROOMS = {
    "Change": "comparison",
    "Check": "verification.proof",
    "Difference": "comparison",
    "Inspection": "inspection",
    "Network": "network",
    "NewHead": "operations.heads",
    "Proof": "verification.proof",
    "Recipe": "recipes.recipe",
    "ResNet": "module",
    "TensorDifference": "comparison",
    "diff": "comparison",
    "inspect": "inspection",
    "load": "loading",
    "open": "network",
    "report": "reporting.report",
    "save": "saving",
    "verify": "verification.verify",
    "verify_quickly": "verification.quick",
}

_EXTRA = ("torch", "torchvision", "jinja2", "PIL")  # the modules that the extra [torch] installs


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    room = _ROOMS.get(name, "errors")
    try:
        return getattr(import_module(f"{__name__}.{room}"), name)
    except ModuleNotFoundError as error:
        if error.name not in _EXTRA:
            raise
        from resnet_surgeon.errors import DependencyError

        reason = f"{error.name} is not installed"
        raise DependencyError(
            reason, subject=f"{__name__}.{name}", hint="pip install 'resnet-surgeon[torch]'"
        ) from None


def __dir__() -> list[str]:
    return sorted(__all__)
