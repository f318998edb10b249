"""What a ResNet is: frozen descriptions of its stem, stages and heads, and of what each is connected to.

Knows nothing of files, tensors' values or torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Literal

from resnet_surgeon.dataclass import dataclass
from resnet_surgeon.fields import Count, Line, Range, Text, unsaid

Block = Literal["basic", "bottleneck"]
OutputKind = Literal["logits", "embedding", "feature_map"]
# Over all places of a feature map: their mean, their maximum, the mean of both (timm's `avgmax`), or the generalised
# mean of Radenovic et al. 2018 (arXiv:1711.02512), whose exponent is trained.
Pool = Literal["avg", "max", "avgmax", "gem"]
# By the names of torch's classes.
Function = Literal["relu", "leaky_relu", "elu", "gelu", "silu", "tanh", "sigmoid"]

STAGE_NAMES = ("layer1", "layer2", "layer3", "layer4")
STEM = ("conv1", "bn1", "relu", "maxpool")
STEM_CHANNELS = 64
STEM_WEIGHT = "conv1.weight"
# So that no manifest can ask for a network that never ends.
LARGEST = 1 << 16  # of the input channels, and of any number in a stage
MOST_CLASSES = 1 << 24  # of one head
MOST_HEADS = 1 << 12
LARGEST_KERNEL = 31  # of the stem
# The children of the trunk whose feature maps can be had: what stands before relu is overwritten by it.
MAPPED = ("relu", "maxpool", *STAGE_NAMES)
MOST_HEAD_LAYERS = 64
HEAD_NAME = re.compile(r"[A-Za-z0-9_]{1,64}")
_Number = Annotated[int, Range(1, LARGEST)]
Channels = _Number  # that an image has
Stride = _Number
Kernel = Annotated[int, Range(1, LARGEST_KERNEL)]  # an odd number
Classes = Annotated[int, Range(1, MOST_CLASSES)]
EXPANSION: dict[Block, int] = {"basic": 1, "bottleneck": 4}


@dataclass(frozen=True)
class Stage:
    """`layer1` ... `layer4`: residual blocks in sequence, the first of which may change channels and resolution.

    `width` counts the channels of the 3x3 convolutions (`planes` in a basic block), `first_dilation` belongs to the
    first block, `dilation` to the others, as `replace_stride_with_dilation` of `torchvision.models.ResNet` sets them.
    """

    name: Annotated[str, Text("a stage", "|".join(STAGE_NAMES))]
    blocks: _Number
    in_channels: _Number
    width: _Number
    out_channels: _Number
    stride: _Number
    first_dilation: _Number = 1
    dilation: _Number = 1

    def __post_init__(self) -> None:
        sizes = (
            self.blocks,
            self.in_channels,
            self.width,
            self.out_channels,
            self.stride,
            self.first_dilation,
            self.dilation,
        )
        _require(self.name in STAGE_NAMES, f"a stage is one of {', '.join(STAGE_NAMES)}")
        _require(all(0 < size <= LARGEST for size in sizes), f"every number of a stage is between 1 and {LARGEST}")

    @property
    def downsample(self) -> bool:
        """Whether the first block's shortcut is a convolution (elsewhere it is the identity)."""
        return self.stride != 1 or self.in_channels != self.out_channels


@dataclass(frozen=True)
class HiddenLinear:
    """A linear layer before a head's last one."""

    features: _Number
    bias: bool = True
    kind: Literal["linear"] = "linear"


@dataclass(frozen=True)
class HiddenNorm:
    """A batch norm of the features."""

    kind: Literal["norm"] = "norm"


@dataclass(frozen=True)
class HiddenActivation:
    """A function of each feature, with torch's default options."""

    function: Function
    kind: Literal["activation"] = "activation"


@dataclass(frozen=True)
class HiddenDropout:
    """In training, each feature is zero with this probability."""

    probability: Annotated[float, Range(0, 1, "a number from 0 to 1")]
    kind: Literal["dropout"] = "dropout"


HiddenLayer = HiddenLinear | HiddenNorm | HiddenActivation | HiddenDropout


@dataclass(frozen=True)
class Head:
    """A classifier: its own copy of some last stages (often none), then pooling, flatten, hidden layers (often none)
    and a linear layer, whose `bias` it may lack.

    `keeps_name` says that it stays the child of `heads` that it was, even where it is the only head. `pool` is its own
    pooling, where the trunk has none. With hidden layers, all of them and the last are members of the nn.Sequential
    `fc`, by their numbers. `labels` are the names of its classes, where somebody has stated them.
    """

    name: str
    classes: Classes
    stages: tuple[Stage, ...] = ()
    keeps_name: bool = False
    pool: Pool = unsaid("avg")
    hidden: Annotated[tuple[HiddenLayer, ...], Count(0, MOST_HEAD_LAYERS)] = unsaid(())
    bias: bool = unsaid(True)
    labels: tuple[Line, ...] = unsaid(())

    def __post_init__(self) -> None:
        _require(0 < self.classes <= MOST_CLASSES, f"a head has at least one class and at most {MOST_CLASSES}")
        _require(bool(HEAD_NAME.fullmatch(self.name)), "a head's name has letters, digits and `_`, 64 of them at most")
        _require(len(self.labels) in (0, self.classes), "a head has as many labels as classes, or none")

    @property
    def last(self) -> str:
        """The path of its last linear layer, within what has the head."""
        return f"fc.{len(self.hidden)}" if self.hidden else "fc"


@dataclass(frozen=True)
class FeatureMap:
    """A feature map that comes out of a network by name: what its child `layer` gives."""

    name: Annotated[str, Text("the name of a feature map", HEAD_NAME.pattern)]
    layer: Annotated[str, Text("a layer that gives a feature map", "|".join(MAPPED))]

    def __post_init__(self) -> None:
        _require(bool(HEAD_NAME.fullmatch(self.name)), "a map's name has letters, digits and `_`, 64 of them at most")
        _require(self.layer in MAPPED, f"feature maps are those of {', '.join(MAPPED)}")


@dataclass(frozen=True)
class Architecture:
    """A ResNet of torchvision's kind, with its ends as they are: all that is needed to build the module.

    A single head is the child `fc`; several are children of `heads` by their names, and so is one that `keeps_name`
    though the others have gone. Without a head the output is the pooled embedding (`avgpool`), else the last child's
    feature map, or the maps that `maps` name. A head pools what it is given unless the trunk's `avgpool` did.

    What names and shapes of tensors do not show has torchvision's value unless somebody says otherwise.
    `bottleneck_stride` names the convolution of a bottleneck that carries the stride: `conv2` in torchvision ("v1.5"),
    `conv1` in He et al. 2015. `stem_stride` is conv1's, `eps` that of every batch norm. `maxpool` is torchvision's
    (padding 1) or Caffe's (no padding, sizes rounded up), where it is not the identity. `pool` is what the trunk's
    `avgpool` does. `stem_kernel` is the height and width of conv1's kernels, an odd number, padded by half of it.

    A network that is `fused`, for inference, has its batch norms folded into the convolutions before them, which have
    biases; identities stand in the norms' places.
    """

    block: Block
    in_channels: Channels
    stages: tuple[Stage, ...]
    heads: Annotated[tuple[Head, ...], Count(0, MOST_HEADS)]
    groups: _Number = 1
    stem: tuple[str, ...] = STEM
    maxpool_is_identity: bool = False
    avgpool: bool = True
    bottleneck_stride: Literal["conv1", "conv2"] = "conv2"
    stem_stride: _Number = 2
    maxpool: Literal["torchvision", "caffe"] = "torchvision"
    eps: Annotated[float, Range(0, 1, "a number from 0 to 1")] = 1e-5
    fused: bool = unsaid(False)
    pool: Pool = unsaid("avg")
    stem_kernel: Kernel = unsaid(7)
    maps: Annotated[tuple[FeatureMap, ...], Count(0, len(MAPPED))] = unsaid(())

    def __post_init__(self) -> None:
        _require(0 < self.in_channels <= LARGEST, f"in_channels is at least 1 and at most {LARGEST}")
        _require(len(self.heads) <= MOST_HEADS, f"there are at most {MOST_HEADS} heads")
        _require(
            bool(self.stem) and self.stem == STEM[: len(self.stem)], f"the stem is a beginning of {', '.join(STEM)}"
        )
        _require(self.stem == STEM or not self.stages, "stages need the whole stem")
        _require(0 < self.stem_stride <= LARGEST, f"the stem's stride is between 1 and {LARGEST}")
        _require(0 <= self.eps <= 1, "eps is between 0 and 1")
        _require(
            0 < self.stem_kernel <= LARGEST_KERNEL and self.stem_kernel % 2 == 1,
            f"the stem's kernel is an odd number of at most {LARGEST_KERNEL}",
        )
        if self.maps:
            self._check_maps()
        _require(
            self.classifier is None or (self.avgpool and not self.classifier.stages),
            "the head `fc` follows avgpool and owns no stages",
        )
        _require(self.pool == "avg" or self.avgpool, "a trunk that does not pool has no kind of pooling")
        _require(
            not self.avgpool or all(head.pool == "avg" for head in self.heads), "the heads pool what the trunk has not"
        )
        _require(len({head.name for head in self.heads}) == len(self.heads), "every head has a name of its own")
        for stages in [self.stages + head.stages for head in self.heads] or [self.stages]:
            channels = [STEM_CHANNELS, *(stage.out_channels for stage in stages)]
            _require(
                [stage.in_channels for stage in stages] == channels[:-1],
                "every stage takes the channels that come before it",
            )
            _require([stage.name for stage in stages] == list(STAGE_NAMES[: len(stages)]), "the stages stand in order")
            _require(
                self.groups > 0 and all(stage.width % self.groups == 0 for stage in stages), "groups divide every width"
            )

    def _check_maps(self) -> None:
        children, layers = self.trunk_children, [one.layer for one in self.maps]
        _require(not self.heads and not self.avgpool, "feature maps come out in the place of heads and pooling")
        _require(
            [child for child in children if child in layers] == layers and layers[-1] == children[-1],
            "feature maps stand in the order of their layers, and nothing comes after the last",
        )
        _require(len({one.name for one in self.maps}) == len(layers), "every map has a name of its own")

    @property
    def classifier(self) -> Head | None:
        """The head that is the child `fc`, if there is one."""
        return self.heads[0] if len(self.heads) == 1 and not self.heads[0].keeps_name else None

    @property
    def branches(self) -> tuple[Head, ...]:
        """The heads that are children of `heads`."""
        return () if self.classifier else self.heads

    @property
    def trunk_children(self) -> tuple[str, ...]:
        """The names of the module's children but for `heads`, in order of the data's flow."""
        names = (*self.stem, *(stage.name for stage in self.stages))
        return (*names, *["avgpool"] * self.avgpool, *["fc"] * bool(self.classifier))

    @property
    def children(self) -> tuple[str, ...]:
        """The names of the module's children, in order of the data's flow."""
        return (*self.trunk_children, *["heads"] * bool(self.branches))

    @property
    def output_kind(self) -> OutputKind:
        if self.heads:
            return "logits"
        return "embedding" if self.avgpool else "feature_map"

    @property
    def depth(self) -> tuple[Stage, ...]:
        """The stages that an image passes on its way to the first output: the trunk's, then the first head's own."""
        return self.stages + (self.heads[0].stages if self.heads else ())

    @property
    def trunk_channels(self) -> int:
        """The channels that the trunk hands on."""
        return self.stages[-1].out_channels if self.stages else STEM_CHANNELS

    def prefix(self, head: Head) -> str:
        """What stands before the names of the head's tensors: nothing for `fc`."""
        return "" if self.classifier else f"heads.{head.name}."

    def features(self, head: Head) -> int:
        """The features that the head's first layer after pooling takes."""
        return head.stages[-1].out_channels if head.stages else self.trunk_channels


def _require(condition: bool, rule: str) -> None:
    """Raises ValueError, since only a damaged manifest or a mistake in this tool can break a rule."""
    if not condition:
        raise ValueError(rule)


def standard_stages(
    block: Block, depths: tuple[int, ...], groups: int = 1, width_per_group: int = 64
) -> tuple[Stage, ...]:
    """torchvision's stages for these depths: the widths and strides of `torchvision.models.ResNet._make_layer`.

    >>> [stage.out_channels for stage in standard_stages("bottleneck", (3, 4, 6, 3))]
    [256, 512, 1024, 2048]
    """

    def stages() -> Iterator[Stage]:
        in_channels = STEM_CHANNELS
        for index, blocks in enumerate(depths):
            planes = 64 * 2**index
            out_channels = planes * EXPANSION[block]
            width = planes if block == "basic" else int(planes * (width_per_group / 64.0)) * groups
            yield Stage(f"layer{index + 1}", blocks, in_channels, width, out_channels, stride=1 if index == 0 else 2)
            in_channels = out_channels

    return tuple(stages())
