"""Whether the text of a whole module's classes computes what torchvision's ResNet does: what data passes in its blocks,
and in the network around them, step by step.

Knows the order of a ResNet's layers. Follows no text itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from resnet_surgeon.dataclass import dataclass
from resnet_surgeon.errors import printable
from resnet_surgeon.formats.modules import Layer, common_path
from resnet_surgeon.sources.forwards import LIBRARIES, Reader, UnfollowedError
from resnet_surgeon.sources.functions import MAXPOOL, MEAN, RELU, Data

_NORMS = {"FrozenBatchNorm2d", "SyncBatchNorm", "BatchNormAct2d"}  # whose forward is their own
_SIZES = (224, 32)  # of the images for which a mean over so many places is one over all of them


@dataclass(frozen=True)
class Parts:
    """Where the parts of a network are in a file: its layers with tensors by torchvision's paths, its blocks likewise,
    the module around all of these but the classifier, and the classifier. `reach` is the stride of all stages together,
    with the stem's, but for a maxpool; None where it is not told. `outer` are the modules that it is in, and no other
    layers with tensors.
    """

    layers: Mapping[str, str]
    blocks: Mapping[str, str]
    scope: str
    classifier: str | None
    reach: int | None
    outer: tuple[str, ...] = ()


class DiffersError(Exception):
    """Whether the module with this path computes as torchvision's cannot be told: its forward `does` something else."""

    def __init__(self, path: str, does: str) -> None:
        super().__init__(does)
        self.path = path
        self.does = does


def compared(
    modules: Mapping[str, Layer], parts: Parts, known: Callable[[str], str]
) -> tuple[frozenset[str], str | None, bool | None]:
    """The paths of modules that compute as torchvision's by the text of their classes, the maxpool that it says, and
    whether it pools what the last stage gives; None where there is no text for that.

    `known` says what a layer does by its class, as `Reader` takes it. Raises DiffersError, with the line, for text that
    computes something else, or is not followed.
    """
    stops = {own: re.sub(r"^layer\d\.\d+\.", "", layer) for layer, own in parts.layers.items()}
    stops |= {own: block for block, own in parts.blocks.items()}
    stops |= {parts.classifier: "fc"} if parts.classifier is not None else {}
    reader = Reader(modules, stops, known)
    _check_leaves(reader, modules, parts)
    proven = {own for block, own in parts.blocks.items() if _is_proven_block(reader, own, block, parts)}
    scopes = [parts.scope] if parts.classifier is None else [parts.scope, parts.classifier.rpartition(".")[0]]
    around = common_path(scopes)
    outputs = _outputs(reader, around)
    if outputs is None:
        around, outputs = parts.scope, _outputs(reader, parts.scope)
    if outputs is None:
        _check_containers(reader, parts)
        is_pooled = _check_outer(reader, around, parts)
        return frozenset({*proven, *reader.followed}), None, is_pooled or None
    has_classifier = parts.classifier is not None and _holds(around, parts.classifier)
    maxpool, is_pooled = _check_network(reader, around, outputs, parts, has_classifier)
    _check_containers(reader, parts)
    is_pooled |= _check_outer(reader, around, parts)
    ends = {parts.classifier} if parts.classifier is not None and has_classifier else set()
    return frozenset({*proven, *reader.followed, around, parts.scope, *ends}), maxpool, is_pooled


def _check_leaves(reader: Reader, modules: Mapping[str, Layer], parts: Parts) -> None:
    """Raises DiffersError for a convolution, norm or linear layer with a forward of its own."""
    for own in parts.layers.values():
        line = reader.forward_line(own)
        if line is not None and modules[own].kind.rpartition(".")[2] not in _NORMS:
            raise _differs(reader, own, f"of its own ({printable(line)})")


def _check_containers(reader: Reader, parts: Parts) -> None:
    """Raises DiffersError for a forward of its own of what holds layers in the network, unless data went through it."""
    paths = {own[: match.start()] for own in parts.layers.values() for match in re.finditer(r"\.", own)}
    for path in sorted(paths - reader.followed - {*parts.blocks.values()}):
        line = reader.forward_line(path) if _holds(parts.scope, path) else None
        if line is not None and not reader.layers[path].kind.startswith(LIBRARIES):
            raise _differs(reader, path, f"of its own ({printable(line)})")


def _check_outer(reader: Reader, network: str, parts: Parts) -> bool:
    """Whether a module around the network pools what that gives, which it may where there is no classifier. Raises
    DiffersError for one whose forward does more than to call the network.
    """
    reader.stops = {**reader.stops, network: "network"}
    is_pooled = False
    for path in parts.outer:
        if _holds(path, network) and path != network and (outputs := _outputs(reader, path)) is not None:
            is_pooling = parts.classifier is None and any(data.names == ("network", MEAN) for data in outputs)
            _check(reader, path, outputs, ["network", *[MEAN] * is_pooling], is_all=True)
            is_pooled |= is_pooling
    return is_pooled


def _is_proven_block(reader: Reader, own: str, block: str, parts: Parts) -> bool:
    """Whether its text shows that it is torchvision's; not, if there is none."""
    outputs = _outputs(reader, own)
    if outputs is None:
        return False
    inner = {layer.removeprefix(f"{block}.") for layer in parts.layers if layer.startswith(f"{block}.")}
    last = "3" if "conv3" in inner else "2"
    wanted: list[str] = []
    for number in ("1", "2", "3"):
        wanted += [name for name in (f"conv{number}", f"bn{number}") if name in inner]
        wanted += [RELU] if number < last else []
    shortcut = [name for name in ("downsample.0", "downsample.1") if name in inner]
    _check(reader, own, outputs, [*wanted, " + ".join(["add", *shortcut]), RELU], is_all=True)
    return True


def _check_network(
    reader: Reader, around: str, outputs: Sequence[Data], parts: Parts, has_classifier: bool
) -> tuple[str, bool]:
    """The maxpool of a network whose forward is torchvision's, and whether it pools. Raises DiffersError else."""
    stem = [*(name for name in ("conv1", "bn1") if name in parts.layers), RELU]
    if not any(data.names[: len(stem)] == (*stem,) for data in outputs):
        _check(reader, around, outputs, stem, is_all=False)
    data = max(outputs, key=lambda data: _common(data.names, [*stem, *data.names[len(stem) :]]))
    following = next(iter(data.names[len(stem) :]), "")
    maxpool = following if following.startswith(MAXPOOL) else None
    trunk = [*stem, *([maxpool] if maxpool else []), *parts.blocks]
    pooled = [*trunk, _mean(data.names, parts, maxpool)]
    following = next(iter(data.names[len(pooled) :]), "")
    if has_classifier:
        _check(reader, around, outputs, [*pooled, "fc"], is_all=True)
    elif parts.classifier is None and data.names[: len(pooled)] == (*pooled,) and following.startswith("the Linear "):
        pass  # that its tensors are left out is told, and stated, elsewhere
    elif not any(data.names == (*trunk,) for data in outputs):
        _check(reader, around, outputs, pooled, is_all=True)
    is_pooled = any(data.names[: len(pooled)] == (*pooled,) for data in outputs)
    return maxpool.removeprefix(MAXPOOL) if maxpool else "none", is_pooled


def _mean(names: Sequence[str], parts: Parts, maxpool: str | None) -> str:
    """The step that is a mean over all places: also one over so many as images of a usual size have."""
    reach = (parts.reach or 0) * (2 if maxpool else 1)
    sizes = [f"{MEAN} of {size // reach}" for size in _SIZES if reach and size % reach == 0]
    return next((name for name in sizes if name in names), MEAN)


def _check(reader: Reader, path: str, outputs: Sequence[Data], wanted: Sequence[str], is_all: bool) -> None:
    """Raises DiffersError, with the first line that differs, unless an output has passed the wanted steps; and with
    `is_all`, nothing else.
    """
    count = len(wanted)
    if any(data.names[:count] == (*wanted,) and (not is_all or len(data.steps) == count) for data in outputs):
        return
    best = max(outputs, key=lambda data: _common(data.names, wanted), default=Data())
    common = _common(best.names, wanted)
    if common < len(best.steps):
        raise _differs(reader, path, f"that has {printable(best.steps[common].line)}")
    raise _differs(reader, path, f"that does without {printable(wanted[common])}")


def _common(names: Sequence[str], wanted: Sequence[str]) -> int:
    """How many steps are the same."""
    return next(
        (n for n, (one, other) in enumerate(zip(names, wanted, strict=False)) if one != other),
        min(len(names), len(wanted)),
    )


def _outputs(reader: Reader, path: str) -> list[Data] | None:
    try:
        return reader.outputs(path)
    except UnfollowedError as error:
        if all(reader.layers[told].kind.startswith(LIBRARIES) for told in (path, error.path)):
            return None  # its name says what it is
        raise _differs(reader, error.path, f"that has {printable(error.line)}, which is not followed") from None


def _differs(reader: Reader, path: str, does: str) -> DiffersError:
    return DiffersError(path, f"is of the class {printable(reader.layers[path].kind)}, with a forward {does}")


def _holds(around: str, path: str) -> bool:
    return not around or path.startswith(f"{around}.")
