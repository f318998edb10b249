"""heads: new classifiers, each with its own copy of the last stages."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, ClassVar, Literal

from resnet_surgeon.architecture.parameters import parameters
from resnet_surgeon.architecture.spec import HEAD_NAME, MOST_HEADS, STEM_WEIGHT, Architecture, Classes, Head
from resnet_surgeon.errors import OperationError, UsageError, listed, printable
from resnet_surgeon.fields import Count, Seed
from resnet_surgeon.formats.tensors import Initialised, LazyTensor
from resnet_surgeon.operations.checkpoint import Checkpoint, operation, option, settle

Own = Literal["none", "layer1", "layer2", "layer3", "layer4"]


@operation
class Heads:
    """Replace the classifier by one or several new ones.

    Each of several heads owns a private copy of the layers from `--own` on (layer4 if left out), then pooling, flatten
    and a new linear layer; the module returns a list, one output a head. A single head is a new `fc` and returns its
    tensor.
    """

    name: ClassVar[str] = "heads"
    example: ClassVar[str] = "resnet-surgeon heads resnet50 --classes 3,5"
    keeps_packing: ClassVar[bool] = False

    classes: Annotated[Sequence[Classes], Count(1, MOST_HEADS)] = option("Classes of each head: 3,5.")
    names: Sequence[str] | None = option("Names of the heads: a,b. Left out: head1, head2, ...", default=None)
    own: Own | None = option("First layer that each head owns a copy of; none: heads share all layers.", default=None)
    seed: Seed = option("Seed for whatever is drawn at random.", default=0)

    def __post_init__(self) -> None:
        settle(self)
        if self.own not in (None, "none") and len(self.classes) == 1:
            raise UsageError(
                "a single head has no layers of its own: it is a new `fc`, and nobody shares the layers before it",
                subject="heads",
                hint="leave `--own` out: the network computes the same",
            )
        if self.names is not None:
            self._check_names(self.names)

    def _check_names(self, names: Sequence[str]) -> None:
        if len(names) != len(self.classes):
            raise UsageError(
                f"{len(names)} names for {len(self.classes)} heads",
                subject="heads",
                hint="give one name for each number of classes",
            )
        if len(set(names)) != len(names):
            raise UsageError("two heads have the same name", subject="heads")
        for name in names:
            if not HEAD_NAME.fullmatch(name):
                raise UsageError(
                    f"a head cannot be called {printable(name)}",
                    subject="heads",
                    hint="use letters, digits and `_`, 64 of them at most",
                )

    @property
    def suffix(self) -> str:
        return f"heads-{'-'.join(str(count) for count in self.classes)}" + (f"-seed{self.seed}" if self.seed else "")

    @classmethod
    def advice(cls, architecture: Architecture) -> str:
        if architecture.branches:
            return "after `remove --layers heads`"
        features = architecture.depth[-1].out_channels if architecture.depth else architecture.trunk_channels
        return f"--classes A,B: new classifiers on {features} features"

    def resolved(self, checkpoint: Checkpoint) -> Heads:
        architecture = checkpoint.architecture
        if architecture.branches:
            raise OperationError(
                f"the network has several heads already ({listed([head.name for head in architecture.heads])})",
                hint="remove them first: `remove --layers heads`",
            )
        stages = [stage.name for stage in architecture.stages]
        default_own: Own = "layer4" if len(self.classes) > 1 and "layer4" in stages else "none"
        own = self.own or default_own
        if own != "none" and own not in stages:
            raise OperationError(
                f"the network has no `{own}` that heads could own",
                hint=f"it has {', '.join(stages) or 'no stages'}; or use `--own none`",
            )
        default = (
            tuple(f"head{number}" for number in range(1, len(self.classes) + 1)) if len(self.classes) > 1 else ("fc",)
        )
        return replace(self, names=self.names or default, own=own)

    def apply(self, checkpoint: Checkpoint) -> Checkpoint:
        """The trunk's tensors are kept, the owned stages' are given to every head, each `fc` is drawn anew."""
        assert self.names is not None
        old = checkpoint.architecture
        stages = [stage.name for stage in old.stages]
        cut = stages.index(self.own) if self.own in stages else len(stages)
        owned = old.stages[cut:]
        heads = tuple(Head(name, classes, owned) for name, classes in zip(self.names, self.classes, strict=True))
        # Heads with layers of their own pool their own features; otherwise the trunk pools once for all.
        architecture = replace(old, stages=old.stages[:cut], avgpool=not owned, heads=heads, maps=())
        dtype = checkpoint.tensors[STEM_WEIGHT].dtype

        tensors: dict[str, LazyTensor] = {}
        for parameter in parameters(architecture):
            inner = re.sub(r"^heads\.[^.]+\.", "", parameter.name)
            if inner in ("fc.weight", "fc.bias"):
                stream = checkpoint.stream(self.name, parameter.name)
                tensors[parameter.name] = Initialised(dtype, parameter.shape, parameter.law, self.seed, stream)
            else:
                tensors[parameter.name] = checkpoint.tensors[inner]
        return replace(checkpoint, architecture=architecture, tensors=tensors)
