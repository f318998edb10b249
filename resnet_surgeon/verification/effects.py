"""What each operation does to those properties of a network that its tensors do not show: restated here from the
operations' docs, and worked out from the manifest's records alone. One function for each operation; an operation
without one changes none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from resnet_surgeon.architecture.preprocessing import Preprocessing
from resnet_surgeon.architecture.spec import FeatureMap
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
    wherever that stands; its preprocessing, unless an operation has led beyond what is judged; the heads that
    operations have made; and how a network without heads pools, None if that is as in the source.
    """

    fields: Mapping[str, object]
    stages: Mapping[str, Mapping[str, float]]
    preprocessing: Preprocessing | None
    is_beyond: bool = False
    heads: Mapping[str, ExpectedHead] = field(default_factory=dict)
    pool: str | None = None


def after(before: Expected, record: Mapping[str, Any]) -> Expected:
    """What is to be expected after the operation that the record tells of."""
    ((name, options),) = record.items()
    effect = _EFFECTS.get(name)
    return effect(before, options) if effect else before


def _adapt(before: Expected, options: Mapping[str, Any]) -> Expected:
    """The old channels' mean and std in turn for `repeat`, their average for every channel otherwise."""
    known, channels = before.preprocessing, range(options["in_channels"])
    if known is None:
        return before
    if len(channels) > MOST_CHANNELS or before.is_beyond:
        return replace(before, is_beyond=True)
    if options["init"] == "repeat":
        mean, std = (tuple(old[index % len(old)] for index in channels) for old in (known.mean, known.std))
    else:
        mean, std = (tuple(round(sum(old) / len(old), 6) for _ in channels) for old in (known.mean, known.std))
    return replace(before, preprocessing=replace(known, mean=mean, std=std))


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
    return replace(before, fields=fields, heads={**(before.heads if options.get("add") else {}), **made}, pool=pool)


def _new_head(head: Mapping[str, Any]) -> ExpectedHead:
    layers: list[Mapping[str, Any]] = []
    dropout = [{"kind": "dropout", "probability": head["dropout"]}] if head["dropout"] else []
    for features in head["hidden"]:
        layers.append({"kind": "linear", "features": features, "bias": True})
        layers += [{"kind": "activation", "function": head["activation"]}, *dropout]
    return ExpectedHead(head["pool"], tuple(layers or dropout), head["bias"], tuple(head["labels"]), head["init"])


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
    "remove": _remove,
    "stem": _stem,
    "dilate": _dilate,
    "features": _features,
    "heads": _heads,
}
