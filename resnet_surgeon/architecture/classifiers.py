"""Classifiers of several layers, an nn.Sequential, told by the shapes of their tensors. Knows no files.

Layers without tensors show as gaps in the numbers: of them it is told that they are an activation or a dropout, and not
which activation.
"""

from __future__ import annotations

from collections.abc import Mapping

from resnet_surgeon.architecture.spec import (
    LARGEST,
    MOST_HEAD_LAYERS,
    Head,
    HiddenActivation,
    HiddenDropout,
    HiddenLayer,
    HiddenLinear,
    HiddenNorm,
)

_DROPOUT = 0.5  # torch's default: it acts in training alone
_NORM = {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}
Shape = tuple[int, ...]


def read_off(members: Mapping[int, Mapping[str, Shape]], features: int) -> Head | None:
    """The head `fc` that takes so many features, by the tensors of its numbered members: linear layers and batch norms.

    Between two linear layers the first gap is an activation (called relu, whatever it is) and a second one a dropout;
    before the first one they are dropouts. None where that does not tell all of it.
    """
    numbers = sorted(members)
    if not numbers or numbers[-1] >= MOST_HEAD_LAYERS or len(numbers) < 2:
        return None
    layers: list[HiddenLayer] = []
    gaps, is_first, has_norm = 0, True, False
    for number in range(numbers[-1]):
        if number not in members:
            gaps += 1
            if gaps > 2 or (is_first and has_norm):
                return None
            is_activation = gaps == 1 and not is_first
            layers.append(HiddenActivation("relu") if is_activation else HiddenDropout(_DROPOUT))
        elif (width := _linear(members[number], features)) is not None:
            layers.append(HiddenLinear(width, "bias" in members[number]))
            features, gaps, is_first, has_norm = width, 0, False, False
        elif _is_norm(members[number], features):
            layers.append(HiddenNorm())
            has_norm = True
        else:
            return None
    last = members[numbers[-1]]
    classes = _linear(last, features)
    return Head("fc", classes, hidden=tuple(layers), bias="bias" in last) if classes else None


def _linear(shapes: Mapping[str, Shape], features: int) -> int | None:
    """The outputs of a linear layer on so many features; None for any other module."""
    weight = shapes.get("weight", ())
    if len(weight) != 2 or weight[1] != features or not 0 < weight[0] <= LARGEST:
        return None
    return weight[0] if shapes == {"weight": weight, "bias": weight[:1]} or shapes == {"weight": weight} else None


def _is_norm(shapes: Mapping[str, Shape], features: int) -> bool:
    vectors = {name: shape for name, shape in shapes.items() if name != "num_batches_tracked"}
    return vectors.keys() == _NORM - {"num_batches_tracked"} and {*vectors.values()} == {(features,)}
