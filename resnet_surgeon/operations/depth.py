"""depth: more or fewer residual blocks in the stages."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, ClassVar, Literal

from resnet_surgeon.architecture import layers
from resnet_surgeon.architecture.parameters import Parameter, parameters
from resnet_surgeon.architecture.spec import STAGE_NAMES, Architecture, Head, Stage
from resnet_surgeon.arithmetic.laws import Constant
from resnet_surgeon.arithmetic.numbers import decode
from resnet_surgeon.dataclass import dataclass
from resnet_surgeon.errors import OperationError
from resnet_surgeon.fields import Count, Range, Seed
from resnet_surgeon.formats.tensors import Initialised, LazyTensor, content, is_known
from resnet_surgeon.operations.checkpoint import Checkpoint, found, operation, option, settle

Keep = Literal["norm", "first", "last"]
_MOST = 1000  # blocks of a stage: the deepest of He et al. 2015 have 200
Blocks = Annotated[int, Range(1, _MOST)]
Numbers = Annotated[tuple[int, ...], Count(1, 1 << 16)]
_LAST_CONVOLUTION = {"basic": "conv2", "bottleneck": "conv3"}
_LAST_NORM = {"basic": "bn2", "bottleneck": "bn3"}


@operation
class Depth:
    """Give every stage so many residual blocks: `--blocks 3,4,23,3` makes a ResNet-50 the start of a ResNet-101.

    A stage that becomes shorter keeps the blocks that change their input most, by the weights alone: `norm` compares
    what the last batch norm of a block gives (the sum of weight^2 + bias^2) with all that was added before. `first` and
    `last` keep by position. A first block with a downsample stays in any case.

    A stage that becomes longer gets blocks at its end, drawn as torchvision draws them but for the last batch norm,
    whose weight is zero: until they are trained, they hand on what they are given, and the network computes the same.
    """

    name: ClassVar[str] = "depth"
    example: ClassVar[str] = "resnet-surgeon depth resnet50 --blocks 3,4,23,3"
    keeps_packing: ClassVar[bool] = False

    blocks: Annotated[Sequence[Blocks], Count(1, len(STAGE_NAMES))] = option("Blocks of each stage: 3,4,23,3.")
    keep: Keep = option("Which blocks of a stage stay, if it becomes shorter.", default="norm")
    seed: Seed = option("Seed for whatever is drawn at random.", default=0)
    kept: Annotated[tuple[Numbers, ...], Count(1, len(STAGE_NAMES))] | None = found(
        "The old numbers of the blocks that stay, stage by stage.", default=None
    )

    def __post_init__(self) -> None:
        settle(self)

    @property
    def suffix(self) -> str:
        keep = f"-{self.keep}" if self.keep != "norm" else ""
        return f"depth-{'-'.join(map(str, self.blocks))}{keep}" + (f"-seed{self.seed}" if self.seed else "")

    @classmethod
    def advice(cls, architecture: Architecture) -> str:
        if not architecture.depth:
            return "it has no stages"
        return f"--blocks A,B,...: other numbers than {','.join(str(stage.blocks) for stage in architecture.depth)}"

    def resolved(self, checkpoint: Checkpoint) -> Depth:
        stages = [*_stages(checkpoint.architecture)]
        if len(stages) != len(self.blocks):
            raise OperationError(
                f"{len(self.blocks)} numbers of blocks for {len(stages)} stages",
                hint=f"as it is, the network has --blocks {','.join(str(stage.blocks) for stage in stages)}"
                if stages
                else None,
            )
        shrinks = any(blocks < stage.blocks for stage, blocks in zip(stages, self.blocks, strict=True))
        if shrinks and self.keep == "norm":
            if checkpoint.architecture.fused:
                raise OperationError(
                    "the batch norms are folded away, whose weights tell how much a block changes its input",
                    hint="use `--keep first` or `--keep last`",
                )
            if self.kept is not None and not _are_known(checkpoint):
                return self._checked(stages)
        kept = [_kept(checkpoint, stage, blocks, self.keep) for stage, blocks in zip(stages, self.blocks, strict=True)]
        return replace(self, kept=tuple(kept))

    def _checked(self, stages: Sequence[Stage]) -> Depth:
        """Itself, if the stages have the blocks that were kept."""
        assert self.kept is not None
        for stage, blocks, kept in zip(stages, self.blocks, self.kept, strict=False):
            wanted = min(stage.blocks, blocks)
            if sorted({*kept} & {*range(stage.blocks)}) != [*kept] or len(kept) != wanted:
                raise OperationError(f"`{stage.name}` cannot keep the blocks {', '.join(map(str, kept))}")
        if len(self.kept) != len(stages):
            raise OperationError("it does not say for every stage which blocks stay")
        return self

    def apply(self, checkpoint: Checkpoint) -> Checkpoint:
        """The blocks that stay, numbered without a gap, and fresh ones after them."""
        assert self.kept is not None
        old = checkpoint.architecture
        counts = {stage.name: blocks for stage, blocks in zip(_stages(old), self.blocks, strict=True)}
        kept = {stage.name: numbers for stage, numbers in zip(_stages(old), self.kept, strict=True)}

        def deepened(stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
            return tuple(replace(stage, blocks=counts[stage.name]) for stage in stages)

        heads = tuple(replace(head, stages=deepened(head.stages)) for head in old.heads)
        architecture = replace(old, stages=deepened(old.stages), heads=heads)
        tensors = {parameter.name: self._tensor(checkpoint, parameter, kept) for parameter in parameters(architecture)}
        return replace(checkpoint, architecture=architecture, tensors=tensors)

    def _tensor(self, checkpoint: Checkpoint, parameter: Parameter, kept: Mapping[str, tuple[int, ...]]) -> LazyTensor:
        place = _Place.of(parameter.name)
        if place is None:
            return checkpoint.tensors[parameter.name]
        numbers = kept[place.stage]
        if place.block < len(numbers):
            return checkpoint.tensors[place.named(numbers[place.block])]
        # Of the dtype that the block before it has there; a first block may have a shortcut that it lacks, not less.
        like = checkpoint.tensors[place.named(numbers[0])]
        law = Constant(0.0) if is_last(place.within, checkpoint.architecture) else parameter.law
        stream = checkpoint.stream(self.name, parameter.name)
        return Initialised(like.dtype, parameter.shape, law, self.seed, stream)


def is_last(within: str, architecture: Architecture) -> bool:
    """Whether this tensor of a block, being zero, makes it hand on what it is given: its last batch norm's weight, or
    where that is folded away the last convolution's.
    """
    last = _LAST_CONVOLUTION if architecture.fused else _LAST_NORM
    return within == f"{last[architecture.block]}.weight"


@dataclass(frozen=True)
class _Place:
    """The name of a block's tensor, in parts: `heads.a.`, `layer4`, 2, `conv1.weight`."""

    before: str
    stage: str
    block: int
    within: str

    @classmethod
    def of(cls, name: str) -> _Place | None:
        parts = name.split(".")
        start = 2 if parts[0] == "heads" else 0
        if parts[start] not in STAGE_NAMES:
            return None
        stage, block, *within = parts[start:]
        return cls("".join(f"{part}." for part in parts[:start]), stage, int(block), ".".join(within))

    def named(self, block: int) -> str:
        return f"{self.before}{self.stage}.{block}.{self.within}"


def _stages(architecture: Architecture) -> Iterator[Stage]:
    """One of each name. Raises OperationError for a stage that heads own in different depths."""
    stages = [*architecture.stages, *(stage for head in architecture.heads for stage in head.stages)]
    for name in STAGE_NAMES:
        same = [stage for stage in stages if stage.name == name]
        if len({stage.blocks for stage in same}) > 1:
            raise OperationError(f"the heads' own `{name}` have different numbers of blocks")
        yield from same[:1]


def _kept(checkpoint: Checkpoint, stage: Stage, blocks: int, keep: Keep) -> tuple[int, ...]:
    """The old numbers of those that stay, in their order."""
    numbers = range(stage.blocks)
    if blocks >= stage.blocks:
        return tuple(numbers)
    fixed = [0] if stage.downsample else []
    free = [number for number in numbers if number not in fixed]
    if keep == "norm":
        changes = _changes(checkpoint, stage)
        free.sort(key=lambda number: (-changes[number], number))
    elif keep == "last":
        free.reverse()
    return tuple(sorted([*fixed, *free[: blocks - len(fixed)]]))


def _changes(checkpoint: Checkpoint, stage: Stage) -> list[float]:
    """How much each block of the stage changes its input: the square of what its last batch norm gives, weight^2 +
    bias^2 summed over the channels, over the same of all that was added before: by bn1 or the downsample of the first
    block, and by the blocks since. Heads that own the stage are added up.

    On images like those of the training, a batch norm gives each channel its bias as the mean and its weight as the
    standard deviation. What activations and the maxpool take away is left out.
    """
    architecture = checkpoint.architecture
    owners = [None] if stage in architecture.stages else [head for head in architecture.heads if stage in head.stages]
    changes = [0.0] * stage.blocks
    for head in owners:
        stream = 0.0
        for path, begins in _added(architecture, head):
            square = _square(checkpoint, path)
            place = _Place.of(f"{path}.weight")
            if place and place.stage == stage.name and not begins:
                changes[place.block] += square / stream if stream else math.inf if square else 0.0
            stream = square if begins else stream + square
    return changes


def _added(architecture: Architecture, head: Head | None) -> Iterator[tuple[str, bool]]:
    """The batch norms whose outputs are added up on the way through the trunk, and the head's own stages; with whether
    the sum begins anew with it.
    """
    yield "bn1", True
    for part in (*layers.trunk(architecture), *(layers.branch(architecture, head) if head else ())):
        if isinstance(part, layers.Block):
            if part.shortcut:
                yield f"{part.name}.{part.shortcut[-1].name}", True
            yield f"{part.name}.{_LAST_NORM[part.kind]}", False


def _square(checkpoint: Checkpoint, norm: str) -> float:
    """Raises OperationError for numbers that are not finite."""
    tensors = [checkpoint.tensors[name] for name in _names(norm)]
    numbers = [number for tensor in tensors for number in decode(content(tensor), tensor.dtype)]
    if not all(map(math.isfinite, numbers)):
        raise OperationError(
            f"`{norm}` holds numbers that are not finite, which say nothing of how much its block changes",
            hint="use `--keep first` or `--keep last`",
        )
    return math.fsum(number * number for number in numbers)


def _names(norm: str) -> tuple[str, str]:
    return f"{norm}.weight", f"{norm}.bias"


def _are_known(checkpoint: Checkpoint) -> bool:
    """Whether the numbers that `_changes` reads can be had."""
    norms = (
        norm for head in (None, *checkpoint.architecture.branches) for norm, _ in _added(checkpoint.architecture, head)
    )
    return all(is_known(checkpoint.tensors[name]) for norm in norms for name in _names(norm))
