"""adapt: other input channels, with the pretrained filters of conv1 kept."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, ClassVar, Literal

from resnet_surgeon.architecture.preprocessing import Preprocessing
from resnet_surgeon.architecture.spec import STEM_WEIGHT, Architecture, Channels
from resnet_surgeon.arithmetic.formulas import (
    LARGEST,
    MOST_WEIGHTS,
    FoldedInputMean,
    FoldedInputWeight,
    Mean,
    Mix,
    Repeat,
    Scaled,
)
from resnet_surgeon.arithmetic.laws import conv2d_default
from resnet_surgeon.errors import OperationError, UsageError, listed
from resnet_surgeon.fields import Count, Seed, Text
from resnet_surgeon.formats.tensors import Computed, Initialised, LazyTensor
from resnet_surgeon.operations import channels as reading
from resnet_surgeon.operations import normalization, presets
from resnet_surgeon.operations.channels import Channel, Item
from resnet_surgeon.operations.checkpoint import Checkpoint, added_option, operation, option, settle
from resnet_surgeon.operations.normalization import Known, Numbers

Init = Literal["mean", "scaled", "repeat", "random"]

STEM_MEAN = "bn1.running_mean"
_LONGEST = 24  # list of channels in the name of a file


@operation
class Adapt:
    """Adapt the input channels of conv1, keeping its pretrained filters.

    `--in-ch N` with `--init`: `mean` gives every new channel the mean of the old ones. `scaled` does the same times
    old/new channels, which keeps the size of the responses: one channel then computes exactly what the original does on
    a gray image fed as R=G=B. `repeat` takes the old channels in turn, scaled likewise, and for one channel their sum,
    as timm does. `random` draws a new layer.

    `--channels R,G,B,N=R,T=mean,D=zero,X=random,Y=0.5*R+0.5*G` names every channel, and says from which of the old ones
    its filter is made: one by itself is kept to the bit. `--preset` and `--in-ch N --rgb 4,3,2` are short for such
    lists.
    """

    name: ClassVar[str] = "adapt"
    example: ClassVar[str] = "resnet-surgeon adapt resnet50 --channels R,G,B,N=R"
    keeps_packing: ClassVar[bool] = True

    in_channels: Channels | None = option(
        "Channels of the images that the network will take.", spelling="--in-ch", default=None
    )
    init: Init = option("How the new filters are made from the old ones.", default="mean")
    seed: Seed = option("Seed for whatever is drawn at random.", default=0)
    channels: Annotated[Sequence[Item], Count(1, LARGEST)] | Mapping[str, str] | None = added_option(
        "Every channel of the images, and what its filter is made from: R,G,B,N=R. Old channels have names, or numbers "
        "from 0 on.",
        default=None,
    )
    scale: Literal["keep", "response"] = added_option(
        "Whether filters are as written, or all times one factor, so that conv1 responds to a flat image as before.",
        default="keep",
    )
    preset: Annotated[str, Text(f"one of {', '.join(presets.NAMES)}", presets.PATTERN)] | None = added_option(
        f"A kind of images that is known by name: {', '.join(presets.NAMES)}.", default=None
    )
    rgb: Annotated[Sequence[Channels], Count(3, 3)] | None = added_option(
        "With --in-ch: which bands are red, green and blue, counted from 1: 4,3,2.", default=None
    )
    fill: Literal["mean", "zero", "copy", "random"] | None = added_option(
        "With --rgb: what the other bands are made from; copy takes red, green and blue in turn. Left out: mean.",
        default=None,
    )
    mean: Numbers | Mapping[str, float] | float | None = added_option(
        "Mean of every new channel in images from 0 to 1: 0.4,0.5; or of some: N=0.3.", default=None
    )
    std: Numbers | Mapping[str, float] | float | None = added_option("Standard deviation, likewise.", default=None)
    fold_normalization: bool = added_option(
        "Take mean and std into conv1 and bn1: the network then takes images from 0 to 1 as they are.", default=False
    )

    def __post_init__(self) -> None:
        if isinstance(self.channels, (str, Mapping)):
            object.__setattr__(self, "channels", reading.items_of(self.channels))
        for statistic in ("mean", "std"):
            object.__setattr__(self, statistic, normalization.settled(getattr(self, statistic), statistic))
        settle(self)
        self._check_choice()
        for item in self._items:
            reading.read(item)

    @property
    def _items(self) -> Sequence[str]:
        """The new channels, where they are listed."""
        return tuple(self.channels or ())

    def _check_choice(self) -> None:
        """Raises UsageError unless one option says which channels, and the others go with it."""
        listing = [name for name in ("channels", "preset", "rgb") if getattr(self, name) is not None]
        if len(listing) > 1:
            raise _wrong(f"`--{listing[0]}` and `--{listing[1]}` both say which channels", "leave one of them out")
        if not listing and self.in_channels is None:
            raise _wrong(
                "nothing says which channels the images have",
                "for instance `--in-ch 1`, `--channels R,G,B,N=R` or `--preset sentinel2`",
            )
        if self.channels is not None and self.in_channels not in (None, len(self._items)):
            raise _wrong(
                f"`--in-ch {self.in_channels}`, but `--channels` lists {len(self._items)}",
                "leave `--in-ch` out: the list says it all",
            )
        if self.in_channels is None and len(self._items) == 1 and self._items[0].strip().isdecimal():
            (number,) = self._items
            raise _wrong(
                f"`--channels {number}` may be how many channels there are, or which of the old ones is left",
                f"`--in-ch {number}` for so many, `--in-ch 1 --channels {number}` for that one",
            )
        if self.preset is not None and self.in_channels is not None:
            raise _wrong("`--preset` says how many channels there are", "leave `--in-ch` out")
        if self.init != "mean" and listing:
            raise _wrong(
                f"`--init` makes every filter alike, and `--{listing[0]}` each in its own way",
                f"leave `--init {self.init}` out; new channels are made as `--channels R,G,B,N=R` says",
            )
        if self.scale == "response" and not listing:
            raise _wrong(
                "`--scale` goes with `--channels`", f"`--in-ch {self.in_channels} --init scaled` does the same"
            )
        if self.fill is not None and self.rgb is None:
            raise _wrong("`--fill` goes with `--rgb`", "for instance `--in-ch 13 --rgb 4,3,2 --fill zero`")
        if self.rgb is not None:
            self._check_bands(tuple(self.rgb))

    def _check_bands(self, rgb: tuple[int, ...]) -> None:
        shown = ",".join(map(str, rgb))
        if self.in_channels is None:
            raise _wrong("`--rgb` does not say how many bands there are", f"`--in-ch 13 --rgb {shown}`")
        if len(set(rgb)) < len(rgb) or max(rgb) > self.in_channels:
            raise _wrong(
                f"`--rgb {shown}` are not three of {self.in_channels} bands", "count the bands from 1: `--rgb 4,3,2`"
            )

    @property
    def suffix(self) -> str:
        """`in1`; what is not made by the mean says how, and what is drawn from another seed says which."""
        is_drawn = self.init == "random" or any(reading.read(item).word == "random" for item in self._items)
        parts = [
            f"in{self.in_channels}",
            *([self.init] if self.init != "mean" else []),
            *self._called,
            *(["response"] if self.scale == "response" else []),
            *(["folded"] if self.fold_normalization else []),
            *([f"seed{self.seed}"] if is_drawn and self.seed else []),
        ]
        return "-".join(parts)

    @property
    def _called(self) -> Sequence[str]:
        """The channels in a file's name: what each is made from, or of a long list the preset."""
        items = [item.replace("=", "_") for item in self._items]
        return items if len("-".join(items)) <= _LONGEST else [presets.name_of(self._items) or "channels"]

    @classmethod
    def advice(cls, architecture: Architecture) -> str:
        by_name = "R,G,B,N=R" if architecture.in_channels == 3 else "0,N=0"
        return f"from {architecture.in_channels} channels to any number: --in-ch N; by name: --channels {by_name}"

    def resolved(self, checkpoint: Checkpoint) -> Adapt:
        if "conv1" not in checkpoint.architecture.stem:
            raise OperationError("the network has no conv1")
        if self.fold_normalization and STEM_MEAN not in checkpoint.tensors:
            hint = "fold before you `fuse`" if checkpoint.architecture.fused else "leave `--fold-normalization` out"
            raise OperationError("the network has no bn1, into which the mean could go", hint=hint)
        listed = self._listed(checkpoint)
        resolved = replace(
            self,
            in_channels=len(listed) if listed else self.in_channels,
            channels=tuple(map(str, listed)) or None,
            preset=None,
            rgb=None,
            fill=None,
        )
        names = resolved._names(listed)
        resolved = replace(
            resolved,
            mean=normalization.stated(_numbers(self.mean), names, "mean"),
            std=normalization.stated(_numbers(self.std), names, "std"),
        )
        if listed:
            _matrix(listed, checkpoint.channels, self.scale)
        resolved._check_normalization(checkpoint)
        return resolved

    def _listed(self, checkpoint: Checkpoint) -> tuple[Channel, ...]:
        """The new channels, where each is said by itself. Raises OperationError for what the network does not have."""
        names = checkpoint.channels
        items = self._items
        if self.preset is not None:
            items = presets.items(self.preset, names)
        elif self.rgb is not None:
            assert self.in_channels is not None
            items = reading.by_bands(self.in_channels, self.rgb, self.fill or "mean")
        if not 0 <= len(items) * len(names) <= MOST_WEIGHTS or len(items) > LARGEST:
            raise OperationError(f"a mix of {len(names)} channels into {len(items)} is too large to write down")
        listed = tuple(reading.bound(reading.read(item), names) for item in items)
        reading.names_of(listed)
        return listed

    def _check_normalization(self, checkpoint: Checkpoint) -> None:
        """Raises OperationError where mean and std are half known, or have to be and are not."""
        old, mean, std = self._statistics(checkpoint)
        names = self._names(self._bound)
        missing = normalization.unknown(mean, std, names)
        if missing and (self.fold_normalization or self.mean is not None or self.std is not None):
            shown = ", ".join(missing[:3]) + ", ..." * (len(missing) > 3)
            raise OperationError(
                f"mean or std of {shown} is not known",
                hint=f"state them: `{normalization.statement(missing)}`",
            )
        if self.fold_normalization and not any(_known(mean)) and {*_known(std)} == {1.0}:
            raise OperationError(
                "the network takes images from 0 to 1 as they are", hint="leave `--fold-normalization` out"
            )
        if self.fold_normalization and old:
            before = (self._derived(of_old, checkpoint) for of_old in (old.mean, old.std))
            numbers = zip(names, zip(*before, strict=True), zip(mean, std, strict=True), strict=True)
            again = [name for name, derived, stated in numbers if derived == (0.0, 1.0) != stated]
            if again:
                raise OperationError(
                    f"the network takes {listed(again, 3)} from 0 to 1 as they are: "
                    "this would fold mean and std a second time",
                    hint="leave `--fold-normalization` out; "
                    "if it takes others, state `--mean` and `--std` in an `adapt` before",
                )

    @property
    def _bound(self) -> tuple[Channel, ...]:
        return tuple(map(reading.read, self._items))

    def _names(self, listed: Sequence[Channel]) -> tuple[str, ...]:
        """What new channels are called; by their numbers where nothing is said of each."""
        assert self.in_channels is not None
        return reading.names_of(listed) if listed else tuple(map(str, range(self.in_channels)))

    def apply(self, checkpoint: Checkpoint) -> Checkpoint:
        """conv1.weight [64, C, 7, 7] becomes [64, in_channels, 7, 7]; every other tensor is kept, but for bn1's
        running_mean where the images' mean is folded into it.
        """
        assert self.in_channels is not None
        stream = checkpoint.stream(self.name, STEM_WEIGHT)
        old = checkpoint.tensors[STEM_WEIGHT]
        weight = self._mixed(old, checkpoint.channels, stream) if self._items else self._weight(old, stream)
        preprocessing = normalization.complete(*self._statistics(checkpoint))
        tensors = {**checkpoint.tensors, STEM_WEIGHT: weight}
        if self.fold_normalization:
            assert preprocessing
            tensors |= _folded(tensors, preprocessing)
            zeros, ones = (0.0,) * self.in_channels, (1.0,) * self.in_channels
            preprocessing = replace(preprocessing, mean=zeros, std=ones)
        return replace(
            checkpoint,
            architecture=replace(checkpoint.architecture, in_channels=self.in_channels),
            tensors=tensors,
            preprocessing=preprocessing,
            channel_names=self._names(self._bound) if self._items else (),
        )

    def _weight(self, weight: LazyTensor, stream: str) -> LazyTensor:
        """By `init`."""
        assert self.in_channels is not None
        out, channels, *kernel = weight.shape
        shape = (out, self.in_channels, *kernel)
        if self.init == "random":
            return Initialised(weight.dtype, shape, conv2d_default(shape), self.seed, stream)
        if self.init == "repeat" and self.in_channels == channels:
            return weight
        return Computed(weight.dtype, shape, (weight,), _FORMULAS[self.init](channels, self.in_channels))

    def _mixed(self, weight: LazyTensor, names: Sequence[str], stream: str) -> LazyTensor:
        """By `channels`: what is drawn is drawn as `torch.nn.Conv2d` draws it for so many channels, and stands behind
        the old channels.
        """
        out, old, *kernel = weight.shape
        channels = self._bound
        shape = (out, len(channels), *kernel)
        matrix = _matrix(channels, names, self.scale)
        drawn = [index for index, channel in enumerate(channels) if channel.word == "random"]
        law = conv2d_default(shape)
        if len(drawn) == len(channels):
            return Initialised(weight.dtype, shape, law, self.seed, stream)
        if not drawn and matrix == _identity(old):
            return weight
        if not drawn:
            return Computed(weight.dtype, shape, (weight,), Mix(matrix))
        fresh = Initialised(weight.dtype, (out, len(drawn), *kernel), law, self.seed, stream)
        wider = tuple((*row, *(float(index == place) for place in drawn)) for index, row in enumerate(matrix))
        return Computed(weight.dtype, shape, (weight, fresh), Mix(wider, parts=(old, len(drawn))))

    def _statistics(self, checkpoint: Checkpoint) -> tuple[Preprocessing | None, Known, Known]:
        """The old preprocessing, and of mean and std what is known for each new channel."""
        old, names = checkpoint.preprocessing, self._names(self._bound)
        nothing: Known = (None,) * len(names)
        mean, std = (self._derived(of_old, checkpoint) for of_old in (old.mean, old.std)) if old else (nothing, nothing)
        stated = [_numbers(self.mean), _numbers(self.std)]
        mean, std = (
            normalization.with_stated(known, numbers, names) for known, numbers in zip((mean, std), stated, strict=True)
        )
        return old, mean, std

    def _derived(self, old: Sequence[float], checkpoint: Checkpoint) -> Known:
        """Of `--init`, the old channels' numbers in turn for `repeat`, their average for every channel otherwise."""
        if self._items:
            return normalization.of_mix(old, self._bound, checkpoint.channels)
        assert self.in_channels is not None
        if self.init == "repeat":
            return tuple(old[channel % len(old)] for channel in range(self.in_channels))
        return (round(sum(old) / len(old), 6),) * self.in_channels


_FORMULAS: dict[Init, type[Mean | Scaled | Repeat]] = {"mean": Mean, "scaled": Scaled, "repeat": Repeat}


def _matrix(channels: Sequence[Channel], names: Sequence[str], scale: str) -> tuple[tuple[float, ...], ...]:
    """The weights of the old channels in each new one.

    `response` scales them so that their sum is the number of old channels: if these have equal shares in it, conv1
    gives for an image whose channels are alike what it gave before. Raises OperationError where no factor does that.
    """
    rows = tuple(reading.weights(channel, names) for channel in channels)
    if scale == "keep":
        return rows
    total = math.fsum(weight for row in rows for weight in row)
    if total <= len(names) / reading.LARGEST_WEIGHT:
        raise OperationError(
            f"`--scale response` needs weights with a positive sum, and these have {total:g}",
            hint="leave it out: the filters are then as written",
        )
    return tuple(tuple(weight * (len(names) / total) for weight in row) for row in rows)


def _identity(size: int) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(float(row == column) for column in range(size)) for row in range(size))


def _folded(tensors: Mapping[str, LazyTensor], preprocessing: Preprocessing) -> dict[str, LazyTensor]:
    """conv1 and bn1 that do to x what they did to (x - mean) / std, but for padding: conv1's zeros are then black.

    conv1 takes the std in; what it would have added, the sum of weight * mean / std, bn1 subtracts with its own mean.
    """
    weight, running_mean = tensors[STEM_WEIGHT], tensors[STEM_MEAN]
    folded = Computed(weight.dtype, weight.shape, (weight,), FoldedInputWeight(preprocessing.std))
    formula = FoldedInputMean(preprocessing.mean, weight.shape[2:], weight.dtype)
    mean = Computed(running_mean.dtype, running_mean.shape, (running_mean, folded), formula)
    return {STEM_WEIGHT: folded, STEM_MEAN: mean}


def _numbers(numbers: object) -> Sequence[float | str] | None:
    return numbers if isinstance(numbers, tuple) else None  # as settled


def _known(numbers: Known) -> list[float]:
    return [number for number in numbers if number is not None]


def _wrong(reason: str, hint: str) -> UsageError:
    return UsageError(reason, subject="adapt", hint=hint)
