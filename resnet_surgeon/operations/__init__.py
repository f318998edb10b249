"""The operations, one file each. This registry is all that the other rooms know of them.

To add one: write its file, name it here and among the methods of `Network`. The command, the manifest's schema and the
docs follow from its fields.
"""

from __future__ import annotations

from resnet_surgeon.operations.adapt import Adapt
from resnet_surgeon.operations.average import Average
from resnet_surgeon.operations.cast import Cast
from resnet_surgeon.operations.checkpoint import Operation
from resnet_surgeon.operations.depth import Depth
from resnet_surgeon.operations.dilate import Dilate
from resnet_surgeon.operations.features import Features
from resnet_surgeon.operations.fuse import Fuse
from resnet_surgeon.operations.graft import Graft
from resnet_surgeon.operations.heads import Heads
from resnet_surgeon.operations.remove import Remove
from resnet_surgeon.operations.stem import Stem
from resnet_surgeon.operations.training import Training

OPERATIONS: dict[str, type[Operation]] = {
    operation.name: operation
    for operation in (Adapt, Stem, Remove, Depth, Dilate, Features, Heads, Cast, Fuse, Graft, Average)
}

# What a manifest can record.
RECORDED: dict[str, type[Operation]] = {**OPERATIONS, Training.name: Training}
