"""What each operation does to those properties of a network that its tensors do not show: restated here from the
operations' docs, and worked out from the manifest's records alone. One function for each operation; an operation
without one changes none of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field, replace
from typing import Any

from resnet_surgeon.architecture.preprocessing import Preprocessing
from resnet_surgeon.architecture.spec import STAGE_NAMES, FeatureMap
from resnet_surgeon.dataclass import dataclass
from resnet_surgeon.verification.case import MOST_CHANNELS


@dataclass(frozen=True)
class ExpectedHead:
    """What a head has that was made by an operation: its hidden layers as a manifest has them, and how its last layer
    began.
    """

    pool: str = "avg"
    hidden: tuple[Mapping[str, Any], ...] = ()
    bias: bool = True
    labels: tuple[str, ...] = ()
    init: str = "default"


@dataclass(frozen=True)
class Expected:
    """What the manifest has to say of the network: some fields of its architecture, and of each stage by its name,
    wherever that stands; what its input channels are called, and its preprocessing, unless an operation has led beyond
    what is judged; the heads that operations have made; how a network without heads pools, None if that is as in the
    source; and the heads that are other sources', of which the records tell nothing.
    """

    fields: Mapping[str, object]
    stages: Mapping[str, Mapping[str, float]]
    preprocessing: Preprocessing | None
    channel_names: tuple[str, ...] = ()
    is_beyond: bool = False
    heads: Mapping[str, ExpectedHead] = field(default_factory=dict)
    pool: str | None = None
    grafted: frozenset[str] = frozenset()


def after(before: Expected, record: Mapping[str, Any]) -> Expected:
    """What is to be expected after the operation that the record tells of."""
    ((name, options),) = record.items()
    effect = _EFFECTS.get(name)
    return effect(before, options) if effect else before


def _adapt(before: Expected, options: Mapping[str, Any]) -> Expected:
    """Channels that are listed have names; mean and std are those of what each is made from, unless they are stated."""
    made = [_made(item) for item in options.get("channels") or ()]
    names = tuple(str(index) if name.isdecimal() else name for index, (name, _) in enumerate(made))
    count = options["in_channels"]
    after = replace(before, fields={**before.fields, "in_channels": count}, channel_names=names)
    known = before.preprocessing
    if count is None or count > MOST_CHANNELS or before.is_beyond:
        return replace(after, is_beyond=True)
    own = before.channel_names or (("R", "G", "B") if known and len(known.mean) == 3 else ())
    numbers = [
        _stated(_derived(old, own, made, options) if old else [None] * count, names, options.get(statistic))
        for statistic, old in (("mean", known and known.mean), ("std", known and known.std))
    ]
    mean, std = (tuple(number for number in of_each if number is not None) for of_each in numbers)
    if len(mean) < count or len(std) < count:
        return replace(after, preprocessing=None)
    if options.get("fold_normalization"):
        mean, std = (0.0,) * count, (1.0,) * count
    if known:
        return replace(after, preprocessing=replace(known, mean=mean, std=std))
    return replace(after, preprocessing=Preprocessing(mean, std, None, None, None))


def _made(item: str) -> tuple[str, str]:
    """The name of a new channel, and what it is made from: `N=R`; one by itself keeps its name."""
    name, _, made = item.partition("=")
    return name, made or name


def _derived(
    old: Sequence[float], names: Sequence[str], made: Sequence[tuple[str, str]], options: Mapping[str, Any]
) -> list[float | None]:
    """The old channels' number in turn for `repeat`, their average for every channel of the other `init`; of a channel
    that is listed the average of those that it is the sum of, by weight; none where it begins as nothing.
    """
    if made:
        return [_average(old, names, text) for _, text in made]
    if options["init"] == "repeat":
        return [old[index % len(old)] for index in range(options["in_channels"])]
    return [round(sum(old) / len(old), 6)] * options["in_channels"]


def _average(old: Sequence[float], names: Sequence[str], text: str) -> float | None:
    if text in ("zero", "random"):
        return None
    shares = {name: 1 / len(old) for name in map(str, range(len(old)))} if text == "mean" else {}
    for sign, weight, name in re.findall(r"([+-]?)(?:([0-9.]+(?:e[+-]?[0-9]+)?)\*)?([A-Za-z0-9_]+)", text) * (
        not shares
    ):
        shares[name] = (-1 if sign == "-" else 1) * float(weight or 1)
    by_index = {_index(name, names): share for name, share in shares.items()}
    if not all(0 <= index < len(old) for index in by_index) or min(by_index.values()) < 0 or not any(by_index.values()):
        return None
    used = [index for index in sorted(by_index) if by_index[index]]
    if len(used) == 1:
        return old[used[0]]
    return round(sum(old[index] * by_index[index] for index in used) / sum(by_index[index] for index in used), 6)


def _stated(
    known: Sequence[float | None], names: Sequence[str], stated: Sequence[float | str] | None
) -> list[float | None]:
    """Numbers for all channels, or of some, `N=0.3`, by name or number."""
    numbers = dict(enumerate(known))
    for index, number in enumerate(stated or ()):
        if isinstance(number, str):
            name, _, digits = number.partition("=")
            numbers[_index(name, names)] = float(digits)
        else:
            numbers[index] = number
    return [numbers.get(index) for index in range(len(known))]


def _index(name: str, names: Sequence[str]) -> int:
    """The number of the channel of this name; -1 of none."""
    if name in names:
        return names.index(name)
    return int(name) if name.isdecimal() else -1


def _remove(before: Expected, options: Mapping[str, Any]) -> Expected:
    """Of all layers maxpool alone leaves something in its place; heads go with what they were."""
    layers = options.get("layers") or ()
    gone = {name.removeprefix("heads.") for name in layers if name.startswith("heads.")}
    gone |= {*before.heads} if "heads" in layers or "fc" in layers else set()
    left = {name: head for name, head in before.heads.items() if name not in gone}
    fields = {**before.fields, "maxpool_is_identity": True} if "maxpool" in layers else before.fields
    return replace(before, fields=fields, heads=left)


def _heads(before: Expected, options: Mapping[str, Any]) -> Expected:
    """The new heads as they were asked for, `--add` beside the old ones. Of a single one the trunk pools."""
    made = {name: ExpectedHead() for name in options["names"] or ()}
    for head in options.get("head") or ():
        made[head["name"]] = _new_head(head)
    is_only = not options.get("add") and len(made) == 1
    pool = next(iter(made.values())).pool if is_only else "avg"
    fields = {**before.fields, "maps": ()}
    heads = {**(before.heads if options.get("add") else {}), **made}
    return replace(before, fields=fields, heads=heads, pool=pool, grafted=before.grafted - {*made})


def _new_head(head: Mapping[str, Any]) -> ExpectedHead:
    layers: list[Mapping[str, Any]] = []
    dropout = [{"kind": "dropout", "probability": head["dropout"]}] if head["dropout"] else []
    for features in head["hidden"]:
        layers.append({"kind": "linear", "features": features, "bias": True})
        layers += [{"kind": "activation", "function": head["activation"]}, *dropout]
    return ExpectedHead(head["pool"], tuple(layers or dropout), head["bias"], tuple(head["labels"]), head["init"])


def _graft(before: Expected, options: Mapping[str, Any]) -> Expected:
    """A stage that the network lacked is torchvision's, every other has the strides that it had. Classifiers come out
    in the place of maps.
    """
    new = {
        name: {"stride": 1 if name == STAGE_NAMES[0] else 2, "first_dilation": 1, "dilation": 1}
        for name in STAGE_NAMES
        if name not in before.stages
    }
    before = replace(before, stages={**before.stages, **new})
    name, own = options["head"], options["own_as"]
    if name is None and "fc" not in options["layers"]:
        return before
    heads = {} if name is None else {own or old: head for old, head in before.heads.items() if old != name}
    others = frozenset(own if own and old == "fc" else old for old in before.grafted)
    grafted = others - {*heads} | {name or "fc"}
    return replace(before, fields={**before.fields, "maps": ()}, heads=heads, grafted=grafted)


def _stem(before: Expected, options: Mapping[str, Any]) -> Expected:
    """conv1's stride, and what stands behind it; the kernel shows in its weight."""
    maxpool = options["maxpool"]
    fields = {**before.fields, "stem_stride": options["stride"]}
    if maxpool is not None:
        fields["maxpool_is_identity"] = maxpool == "none"
    if maxpool not in (None, "none"):
        fields["maxpool"] = maxpool
    return replace(before, fields=fields)


def _dilate(before: Expected, options: Mapping[str, Any]) -> Expected:
    """A stage's stride is what it was before any dilation, up to the size that is asked for; from there on it is 1, and
    the blocks after the stage's first one are dilated by what the strides would have been.
    """
    size = _float(before.fields["stem_stride"]) * (1 if before.fields["maxpool_is_identity"] else 2)
    dilation, stages = 1.0, {}
    for name, stage in before.stages.items():
        first, stride = dilation, stage["stride"] * stage["dilation"] / (stage["first_dilation"] or 1)
        if size >= options["output_stride"]:
            dilation, stride = dilation * stride, 1.0
        size *= stride
        stages[name] = {"stride": stride, "first_dilation": first, "dilation": dilation}
    return replace(before, stages=stages)


def _features(before: Expected, options: Mapping[str, Any]) -> Expected:
    """The maps come out by their names; a layer that a head owned is one of the trunk's."""
    pairs = zip(options["names"] or (), options["layers"], strict=False)
    maps = tuple(FeatureMap(name, layer.rpartition(".")[2]) for name, layer in pairs)
    return replace(before, fields={**before.fields, "maps": maps}, heads={}, pool=None)


def _float(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else -1.0


_EFFECTS: dict[str, Callable[[Expected, Mapping[str, Any]], Expected]] = {
    "adapt": _adapt,
    "graft": _graft,
    "remove": _remove,
    "stem": _stem,
    "dilate": _dilate,
    "features": _features,
    "heads": _heads,
}
