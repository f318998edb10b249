"""features: the feature maps of some layers, by name, in the place of the network's output."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, ClassVar

from resnet_surgeon.architecture.parameters import parameters
from resnet_surgeon.architecture.spec import HEAD_NAME, MAPPED, Architecture, FeatureMap
from resnet_surgeon.errors import OperationError, UsageError, listed, printable
from resnet_surgeon.fields import ANY, Count, Text
from resnet_surgeon.operations.checkpoint import Checkpoint, operation, option, settle

Layer = Annotated[str, Text("the name of a layer, such as layer3", ANY, 100)]  # `__post_init__` says more
_LAYER = re.compile(rf"(?:heads\.({HEAD_NAME.pattern})\.)?({'|'.join(MAPPED)})")


@operation
class Features:
    """Let the network return the feature maps of some layers, as a dict by name.

    What no map needs is dropped: the classifier, pooling, and later stages. The maps are those of torchvision's
    `create_feature_extractor`, and the module goes into `FeaturePyramidNetwork` and `BackboneWithFPN`. Layers are relu,
    maxpool and layer1 to layer4, or stages that a head owns, such as heads.grade.layer4.
    """

    name: ClassVar[str] = "features"
    example: ClassVar[str] = "resnet-surgeon features resnet50 --layers layer1,layer2,layer3,layer4 --names 0,1,2,3"
    keeps_packing: ClassVar[bool] = False

    layers: Annotated[Sequence[Layer], Count(1, len(MAPPED))] = option("The layers whose maps come out: a,b,c.")
    names: Annotated[Sequence[Layer], Count(1, len(MAPPED))] | None = option(
        "What the maps are called: 0,1,2. Left out: as their layers.", default=None
    )

    def __post_init__(self) -> None:
        settle(self)
        for layer in self.layers:
            if not _LAYER.fullmatch(layer):
                raise UsageError(
                    f"{printable(layer)} is not a layer whose feature map can be had",
                    subject="features",
                    hint=f"these are {', '.join(MAPPED)}, and those of heads, such as heads.grade.layer4",
                )
        self._check_names(self._names)

    @property
    def _names(self) -> tuple[str, ...]:
        return tuple(self.names if self.names is not None else (layer.rpartition(".")[2] for layer in self.layers))

    def _check_names(self, names: Sequence[str]) -> None:
        if len(names) != len(self.layers):
            raise UsageError(
                f"{len(names)} names for {len(self.layers)} layers", subject="features", hint="give each layer one name"
            )
        if len(set(names)) != len(names) or len({*self.layers}) != len(self.layers):
            raise UsageError("two maps have the same name, or the same layer", subject="features")
        for name in names:
            if not HEAD_NAME.fullmatch(name):
                raise UsageError(
                    f"a map cannot be called {printable(name)}",
                    subject="features",
                    hint="use letters, digits and `_`, 64 of them at most",
                )

    @property
    def suffix(self) -> str:
        return f"features-{'-'.join(layer.rpartition('.')[2] for layer in self.layers)}"

    @classmethod
    def advice(cls, architecture: Architecture) -> str:
        layers = [*_layers(architecture)]
        return f"--layers {','.join(layers[-4:])}: their feature maps by name" if layers else "it ends before relu"

    def resolved(self, checkpoint: Checkpoint) -> Features:
        """In the order of the network, every map with its name."""
        order = [*_layers(checkpoint.architecture)]
        if unknown := [layer for layer in self.layers if layer not in order]:
            raise OperationError(
                f"the network has no {listed([f'`{layer}`' for layer in unknown])}",
                hint=f"its feature maps are those of {', '.join(order)}" if order else "it ends before its first one",
            )
        heads = list(dict.fromkeys(layer.split(".")[1] for layer in self.layers if "." in layer))
        if len(heads) > 1:
            raise OperationError(
                f"the maps of {len(heads)} heads ({listed(heads)}) do not come out of one row of layers",
                hint=f"take those of one head, such as {heads[0]}, and make another file for the next",
            )
        pairs = sorted(zip(self.layers, self._names, strict=True), key=lambda pair: order.index(pair[0]))
        layers, names = zip(*pairs, strict=True)
        return Features(layers, names)

    def apply(self, checkpoint: Checkpoint) -> Checkpoint:
        """The tensors of the layers up to the last map's, those that a head owns under the names of the trunk's."""
        old = checkpoint.architecture
        maps = tuple(
            FeatureMap(name, layer.rpartition(".")[2]) for layer, name in zip(self.layers, self._names, strict=True)
        )
        owner = next((head for head in old.branches if self.layers[-1].startswith(f"heads.{head.name}.")), None)
        owned = {stage.name for stage in owner.stages} if owner else set()
        children = [*old.stem, *(stage.name for stage in (*old.stages, *(owner.stages if owner else ())))]
        kept = children[: children.index(maps[-1].layer) + 1]
        stages = (*old.stages, *(owner.stages if owner else ()))
        architecture = replace(
            old,
            stem=tuple(name for name in old.stem if name in kept),
            maxpool_is_identity=old.maxpool_is_identity and "maxpool" in kept,
            stages=tuple(stage for stage in stages if stage.name in kept),
            avgpool=False,
            pool="avg",
            heads=(),
            maps=maps,
        )

        def old_name(name: str) -> str:
            return f"heads.{owner.name}.{name}" if owner and name.partition(".")[0] in owned else name

        tensors = {
            parameter.name: checkpoint.tensors[old_name(parameter.name)] for parameter in parameters(architecture)
        }
        return replace(checkpoint, architecture=architecture, tensors=tensors)


def _layers(architecture: Architecture) -> list[str]:
    """Every layer whose map can be had, in the order of the data's flow, head after head."""
    trunk = [name for name in (*architecture.stem, *(stage.name for stage in architecture.stages)) if name in MAPPED]
    return trunk + [f"heads.{head.name}.{stage.name}" for head in architecture.branches for stage in head.stages]
