"""What a file holds beside the stem and the stages of a ResNet: its classifier, layers that the data passes through,
and other parts of a larger model.

Nothing that the data passes through is left out unless the user says so. Knows names and shapes, no values.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import field
from math import prod

from resnet_surgeon.architecture.classifiers import read_off
from resnet_surgeon.dataclass import dataclass
from resnet_surgeon.errors import Answer, ArchitectureError, CheckpointError, listed, printable
from resnet_surgeon.formats.unread import Unread
from resnet_surgeon.sources.networks import Leaf, Modules, Place

NO_CLASSIFIER = "none"  # as `--fc` spells it
# Patterns of names, compiled when they are first needed.
_CLASSIFIER = (
    r"(?i)(fc|last_?linear|linear|dense|logits?|classifier|classification_head|(cls_)?head|cls|output_layer|final_layer)"
    r"(_?\d+)?"
)
# Outside of the backbone, a head of several layers is a projection as often as a classifier.
_AMBIGUOUS = r"(?i)(cls_)?head(_?\d+)?"
_ANOTHER_PART = (
    r"(?i)(\w*_)?(decoder|decode_head|seg(mentation)?_head|auxiliary_head|aux_classifier|aux|up|upsample|deconv|projector"
    r"|proj(ection)?(_head)?|predictor|prediction_head|prototypes?|mlp|queue(_ptr|_ids?)?|neck|fpn|rpn(_head)?"
    r"|(roi|bbox|mask|keypoint)_heads?|transformer|query_embed|criterion|loss(_fn)?|ema|teacher|momentum_encoder)_?\d*"
)
_NORMALISES = r"(?i)(new_|image_|img_|input_)?(mean|std)"
_MOST_OF_IMAGES = 16  # channels that a convolution before the stem takes; the last one of a decoder takes more
_INSIDE = -1  # the distance of what stands inside a stage


@dataclass(frozen=True)
class Remainder:
    """The module that is the classifier, its layers by our names with their paths in the file (`fc`, or `fc.0`, `fc.2`,
    ...), and the tensors' names in the file: of `ignored` the user said that they may go, and `left_out` is the rest.
    """

    classifier: str | None
    ignored: tuple[str, ...]
    left_out: tuple[str, ...]
    members: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, eq=False)
class _Part:
    """A child of the network, or of one of the modules around it, with all modules in it; `name` is its own.

    `distance` is 0 for a child of the network, 1 for one of the module around that, and so on.
    """

    path: str
    name: str
    distance: int
    modules: dict[str, dict[str, Leaf]] = field(default_factory=dict)

    @property
    def leaves(self) -> Iterator[Leaf]:
        return (leaf for leaves in self.modules.values() for leaf in leaves.values())

    @property
    def linears(self) -> dict[str, int]:
        """Its linear layers, each with the number of features that it takes."""
        found = {path: _features(leaves) for path, leaves in self.modules.items()}
        return {path: features for path, features in found.items() if features is not None}

    @property
    def pattern(self) -> str:
        """What `--ignore` takes to leave it out; of one inside a block, in every block."""
        path = re.sub(r"([*?[])", r"[\1]", self.path)
        path = re.sub(r"\d+", "*", path) if self.distance == _INSIDE else path
        return path if any(leaf.name == self.path for leaf in self.leaves) else f"{path}.*"


def remainder(
    place: Place,
    beside: Modules,
    in_channels: int,
    channels: int,
    others: Sequence[Place],
    fc: str | None,
    ignore: Sequence[str],
) -> Remainder:
    """What the modules `beside` the network at `place` are: its stem takes `in_channels`, its last stage has
    `channels`, and in the same mapping are the `others`.

    `fc` names the classifier, or is `none`; `ignore` are patterns of names that may go. Raises ArchitectureError where
    the user must say which layer is the classifier, or that a layer may go; CheckpointError for an `fc` or a pattern
    that fits nothing.
    """
    ignored = _ignored(beside, ignore)
    every = _parts(place, beside, ignored)
    is_elsewhere = _elsewhere(place, others)
    parts = [part for part in every if not (_is_another_part(part) or is_elsewhere(part))]
    necks = [part for part in parts if _is_neck(part, channels) and not _is_unclear(part, ())]
    if necks:  # re-identification compares what comes before it
        parts, fc = [part for part in parts if part not in necks], fc or NO_CLASSIFIER
    if fc is None:
        _check_readable(place, beside, ignored)
    candidates = dict.fromkeys(part for part in parts if _is_candidate(part, channels))
    unclear = [part for part in parts if _is_unclear(part, candidates)]
    path = _stated(fc, place, every, channels) if fc else _only([*candidates], unclear, channels)
    chosen = next((part for part in every if path in (part.path, *part.modules)), None) if path else None
    members = _members(path, chosen, necks, channels) if path and chosen else ()
    obstacles = [*_obstacles(parts, {*candidates, *unclear}, chosen, path, in_channels)]
    if obstacles:
        raise _in_the_way(obstacles, ignore, chosen)
    left_out = (
        leaf.name
        for name, leaves in beside.items()
        if name not in {path for _, path in members}
        for leaf in leaves.values()
        if leaf.name not in ignored and not isinstance(leaf.node, Unread)
    )
    return Remainder(path, tuple(sorted(ignored)), tuple(left_out), members)


def _ignored(beside: Modules, patterns: Sequence[str]) -> set[str]:
    """The names that the patterns fit, as a shell's do. Raises CheckpointError for a pattern that fits none."""
    if not patterns:
        return set()
    from fnmatch import translate

    names = {leaf.name for leaves in beside.values() for leaf in leaves.values()}
    found = names.intersection(patterns)
    for pattern in {*patterns} - found:
        fits = re.compile(translate(pattern)).match
        fitting = [name for name in names if fits(name)]
        if not fitting:
            reason = f"--ignore {printable(pattern)} fits no tensor beside the network"
            raise CheckpointError(reason, hint="`inspect --tensors` lists the names in the file")
        found.update(fitting)
    return found


def _parts(place: Place, beside: Modules, ignored: Collection[str]) -> list[_Part]:
    around = _around(place.scope)
    parts: dict[str, _Part] = {}
    for path, leaves in beside.items():
        for leaf_name, leaf in leaves.items():
            if leaf.name in ignored or isinstance(leaf.node, Unread):
                continue
            full = f"{path}.{leaf_name}" if path else leaf_name
            stage = place.stage_of(path)
            if stage is not None:
                index, *within = full[len(stage) + 1 :].split(".", 2)
                child = ".".join([stage, index, *within[:1]])
                part = parts.setdefault(child, _Part(child, child.rpartition(".")[2], _INSIDE))
            else:
                distance, child = _child(around, full)
                part = parts.setdefault(child, _Part(child, child[len(around[distance]) :], distance))
            part.modules.setdefault(path, {})[leaf_name] = leaf
    return [*parts.values()]


def _around(scope: str) -> list[str]:
    """The scope of the network, and of every module around it, to the whole.

    >>> _around("model.encoder_q.")
    ['model.encoder_q.', 'model.', '']
    """
    scopes = [scope]
    while scopes[-1]:
        scopes.append(scopes[-1][: scopes[-1][:-1].rfind(".") + 1])
    return scopes


def _child(around: list[str], name: str) -> tuple[int, str]:
    """In which of the scopes around the network a name stands, and the path of the child there that it belongs to."""
    distance = bisect_left(around, True, key=name.startswith)
    scope = around[distance]
    return distance, scope + name[len(scope) :].partition(".")[0]


def _check_readable(place: Place, beside: Modules, ignored: Collection[str]) -> None:
    """Raises CheckpointError for a classifier of the network's whose weight or bias cannot be read."""
    for path, leaves in beside.items():
        own = path.removeprefix(place.scope).partition(".")[0]
        if path.startswith(place.scope) and re.fullmatch(_CLASSIFIER, own):
            for name, leaf in leaves.items():
                if name in ("weight", "bias") and leaf.name not in ignored:
                    leaf.check_readable()


def _elsewhere(place: Place, others: Sequence[Place]) -> Callable[[_Part], bool]:
    """Whether a part belongs to another network, beside this one or around it."""
    around = _around(place.scope)
    children = {_child(around, other.stem[0])[1] for other in others}
    distances = {scope: distance for distance, scope in enumerate(around) if distance}
    end = min((distances[other.scope] for other in others if other.scope in distances), default=len(around))
    return lambda part: part.path in children or part.distance >= end


def _is_another_part(part: _Part) -> bool:
    """Whether its name says that it is no layer between the image and the network's output."""
    return part.distance != _INSIDE and part.name != "fc" and bool(re.fullmatch(_ANOTHER_PART, part.name))


def _is_neck(part: _Part, channels: int) -> bool:
    """A batch norm of the network's features, with the classifiers of a re-identification network behind it."""
    return part.distance != _INSIDE and any(
        "running_mean" in leaves and leaves["running_mean"].shape == (channels,) for leaves in part.modules.values()
    )


def _is_candidate(part: _Part, channels: int) -> bool:
    """One linear layer on the network's features, and nothing else."""
    return part.distance != _INSIDE and len(part.modules) == 1 and [*part.linears.values()] == [channels]


def _is_unclear(part: _Part, candidates: Collection[_Part]) -> bool:
    """A classifier by its name, but not one linear layer on the network's features.

    Outside of the network it is another part of a larger model, unless the network would come out with a classifier.
    """
    if part in candidates or part.distance == _INSIDE or not part.linears or not re.fullmatch(_CLASSIFIER, part.name):
        return False
    return part.distance == 0 or (bool(candidates) and not re.fullmatch(_AMBIGUOUS, part.name))


def _features(leaves: Mapping[str, Leaf]) -> int | None:
    """The features that a linear layer takes; None for any other module."""
    for name in ("weight", "weight_orig", "weight_v", "parametrizations.weight.original1"):
        if name in leaves and len(leaves[name].shape) == 2:
            return leaves[name].shape[1]
    return None


def _stated(fc: str, place: Place, parts: Sequence[_Part], channels: int) -> str | None:
    """The path of the linear layer that the user calls `fc`. Raises CheckpointError if there is none."""
    if fc == NO_CLASSIFIER:
        return None
    linears = {path: features for part in parts for path, features in part.linears.items()}
    paths = [path for path in (fc, place.scope + fc) if path in linears]
    paths += [
        path for part in parts if fc in (part.path, part.name) and len(part.linears) == 1 for path in part.linears
    ]
    if not paths:
        several = [part.path for part in parts if fc in (part.path, part.name) and _layers(part, channels)]
        if several:
            return several[0]
        fitting = [path for path, features in linears.items() if features == channels]
        hint = f"those on its features are {listed([*map(printable, fitting)])}" if fitting else None
        raise CheckpointError(f"it has no linear layer {printable(fc)} beside the network", hint=hint)
    if linears[paths[0]] != channels:
        reason = f"{printable(paths[0])} takes {linears[paths[0]]} features, and the network has {channels}"
        raise CheckpointError(reason)
    return paths[0]


def _layers(part: _Part, channels: int) -> dict[int, str]:
    """The paths of the layers of a classifier of several, by their numbers; none if the part is no such."""
    numbers = {path[len(part.path) + 1 :]: path for path in part.modules}
    if not all(number.isascii() and number.isdigit() and len(number) < 4 for number in numbers):
        return {}
    members = {int(number): path for number, path in numbers.items()}
    shapes = {
        number: {name: leaf.shape for name, leaf in part.modules[path].items()} for number, path in members.items()
    }
    return members if read_off(shapes, channels) else {}


def _members(path: str, chosen: _Part, necks: Sequence[_Part], channels: int) -> tuple[tuple[str, str], ...]:
    """The layers of the classifier by our names: a batch norm of the features, if there is one, is its first."""
    if path == chosen.path and path not in chosen.modules:
        return tuple((f"fc.{number}", layer) for number, layer in sorted(_layers(chosen, channels).items()))
    modules = [(name, leaves) for neck in necks for name, leaves in neck.modules.items()]
    if len(modules) == 1 and {"weight", "bias", "running_mean", "running_var"} <= modules[0][1].keys():
        return ("fc.0", modules[0][0]), ("fc.1", path)
    return (("fc", path),)


def _only(candidates: Sequence[_Part], unclear: Sequence[_Part], channels: int) -> str | None:
    """The one classifier, if there is any. Raises ArchitectureError where the user must say which it is."""
    paths = [path for part in candidates for path in part.modules]
    if len(paths) <= 1 and not unclear:
        return paths[0] if paths else None
    if not paths and len(unclear) == 1 and _layers(unclear[0], channels):
        return unclear[0].path
    answers = [Answer("fc", path, f"{printable(path)} becomes fc, and the others are left out") for path in paths[:10]]
    answers.append(Answer("fc", NO_CLASSIFIER, "leave them out: the embedding comes out"))
    names = listed([printable(part.path) for part in (*candidates, *unclear)])
    if len(candidates) + len(unclear) > 1:
        raise ArchitectureError(f"which of {names} is its classifier cannot be told", answers=answers)
    linears = unclear[0].linears
    what = f"takes {next(iter(linears.values()))} features, which are not the network's"
    if len(linears) > 1 or len(unclear[0].modules) > 1:
        what = f"has several layers, {listed([printable(path) for path in unclear[0].modules])}"
    raise ArchitectureError(f"its classifier {names} {what}: fc is one linear layer on the features", answers=answers)


def _obstacles(
    parts: Sequence[_Part], classifiers: Collection[_Part], chosen: _Part | None, path: str | None, in_channels: int
) -> Iterator[_Part]:
    """The layers that the data passes through on its way to the output, and that no ResNet of torchvision's has."""
    classes = _classes(chosen.modules[path]) if chosen and path in chosen.modules else None
    for part in parts:
        if part is chosen:
            if len(part.modules) > 1 and path in part.modules:
                others = {name: leaves for name, leaves in part.modules.items() if name != path}
                yield from (_Part(name, name, part.distance, {name: leaves}) for name, leaves in others.items())
        elif part in classifiers:
            continue
        elif (
            part.distance <= (chosen.distance if chosen else 0)
            or _is_generalised_mean(part)
            or _is_before_stem(part, in_channels)
            or classes in part.linears.values()
        ):
            yield part


def _classes(leaves: Mapping[str, Leaf]) -> int | None:
    """The outputs of a linear layer."""
    shapes = (leaves[name].shape for name in ("weight", "bias", "weight_orig", "weight_v") if name in leaves)
    return next((shape[0] for shape in shapes), None)


def _is_before_stem(part: _Part, in_channels: int) -> bool:
    """What makes the image that the stem takes: a convolution, a batch norm, or a mean and standard deviation."""
    leaves = [(name, leaf.shape) for module in part.modules.values() for name, leaf in module.items() if leaf.shape]
    kernels = [shape for _, shape in leaves if len(shape) == 4]
    if kernels and (kernels[-1][0], kernels[-1][1]) != (1, in_channels):  # not a mean of [1, channels, 1, 1]
        return kernels[-1][0] == in_channels and all(shape[1] < _MOST_OF_IMAGES for shape in kernels)
    names = {name for name, _ in leaves}
    is_normalising = "running_var" in names or all(re.fullmatch(_NORMALISES, name) for name in names)
    return bool(names) and is_normalising and all(prod(shape) == in_channels for _, shape in leaves)


def _is_generalised_mean(part: _Part) -> bool:
    """GeM pooling, which has its exponent `p` in the place of avgpool's mean."""
    return any("p" in leaves and leaves["p"].shape in ((), (1,)) for leaves in part.modules.values())


def _in_the_way(obstacles: Sequence[_Part], ignored: Sequence[str], chosen: _Part | None) -> ArchitectureError:
    patterns = [*dict.fromkeys(part.pattern for part in obstacles)]
    shown = listed([printable(pattern.removesuffix(".*")) for pattern in patterns])
    answers = [
        Answer("ignore", ",".join([*ignored, *patterns]), "leave them out: the result computes something else"),
    ]
    if chosen is not None and any(0 < part.distance <= chosen.distance for part in obstacles):
        answers.append(Answer("fc", NO_CLASSIFIER, f"stop before them and {printable(chosen.path)}"))
    means = [printable(part.path) for part in obstacles if _is_generalised_mean(part)]
    pooling = f" ({listed(means)} is GeM pooling, by its exponent `p`)" if means else ""
    reason = f"the data passes through {shown}, which torchvision's ResNets do not have{pooling}"
    return ArchitectureError(reason, answers=answers)
