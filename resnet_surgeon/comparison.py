"""diff: what sets two networks apart: tensors by content, architectures in words, documents by field.

Reads both sides piece by piece. Knows nothing of how either was made.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import math
import os
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from resnet_surgeon import manifest as documents
from resnet_surgeon.architecture.differences import differences
from resnet_surgeon.architecture.parameters import parameters
from resnet_surgeon.architecture.recognise import describe
from resnet_surgeon.architecture.spec import Architecture
from resnet_surgeon.architecture.variants import VARIANTS
from resnet_surgeon.dataclass import dataclass
from resnet_surgeon.errors import CheckpointError
from resnet_surgeon.formats.files import OpenFile
from resnet_surgeon.formats.tensors import BITS, LazyTensor, byte_size, chunks, pieces
from resnet_surgeon.history.opening import Opening, recognised
from resnet_surgeon.location import Location, check_distinct
from resnet_surgeon.manifest import Manifest
from resnet_surgeon.plan import Layout
from resnet_surgeon.sources.progress import Progress, silent
from resnet_surgeon.sources.sidecar import MANIFEST_KEY, MANIFEST_LIMIT
from resnet_surgeon.sources.source import Source, open_source

if TYPE_CHECKING:
    import numpy as np
    from typing_extensions import Unpack

Kind = Literal["added", "removed", "renamed", "copied", "reshaped", "changed"]
Basis = Literal["content", "provenance", "layout"]
_PIECE = 1 << 17  # elements
_COMPARED = 8  # parts of names, from their ends: no ResNet of torchvision has more


@dataclass(frozen=True)
class Change:
    """How far the numbers of a tensor went from `a` to `b`: max |b - a|, |b - a| / |a| by Euclidean norms, and the
    cosine of the angle between them. What is not a number makes all of them not a number.
    """

    max_abs: float
    relative: float
    cosine: float


@dataclass(frozen=True)
class TensorDifference:
    """One tensor that is not the same on both sides. `name` is the second side's, but for one that was removed.

    `renamed` and `copied` have the content of the first side's `was`, which has gone or has another content now.
    """

    kind: Kind
    name: str
    was: str | None
    before: Layout | None
    after: Layout | None
    change: Change | None = None


@dataclass(frozen=True)
class Difference:
    """All that sets two networks apart; nothing does if `is_same`.

    `basis` says by what tensors were compared: their content; or, for a manifest, their provenance if both sides have
    one, else only name, shape and dtype. `document` names the fields of the manifests that differ: how the network is
    used, and for two manifests also how it was made.
    """

    one: str
    other: str
    architecture: tuple[str, ...]
    document: tuple[str, ...]
    tensors: tuple[TensorDifference, ...]
    same: int
    basis: Basis

    @property
    def is_same(self) -> bool:
        return not (self.architecture or self.document or self.tensors)


@dataclass(frozen=True)
class _Side:
    label: str
    layouts: Mapping[str, Layout]
    architecture: Architecture | None
    manifest: Manifest | None
    source: Source | None = None
    tensors: Mapping[str, LazyTensor] | None = None


def diff(
    one: Location,
    other: Location,
    *,
    progress: Progress = silent,
    **opening: Unpack[Opening],
) -> Difference:
    """What sets `other` apart from `one`: each is all that `open` takes, or the path of a manifest.

    `opening` is that of `open`, for whichever side it concerns: `weights` a model's name, `key` a file that holds
    several networks. Raises the errors of `open`, and CheckpointError for a file that is damaged or changes meanwhile.

    >>> diff("resnet50.pth", "resnet50-in1.safetensors").architecture
    ('input channels: 3 -> 1',)
    """
    check_distinct(one, other)
    first, second = (_side(side, opening, progress) for side in (one, other))
    basis = _basis(first, second)
    tensors = tuple(_tensors(first, second, basis))
    for side in (first, second):
        _check_content(side)
    named = {tensor.name for tensor in tensors if tensor.kind != "removed"}
    return Difference(
        one=first.label,
        other=second.label,
        architecture=_architectures(first.architecture, second.architecture),
        document=_documents(first, second),
        tensors=tensors,
        same=len(second.layouts.keys() - named),
        basis=basis,
    )


def _side(location: Location, opening: Opening, progress: Progress) -> _Side:
    manifest = _manifest_at(location)
    if manifest is not None:
        layouts = _recorded_layouts(manifest, str(location))
        return _Side(str(location), layouts, manifest.architecture, manifest)
    if not (isinstance(location, str) and location in VARIANTS):
        opening = {**opening, "weights": None}
    source = open_source(location, progress=progress, **_concerning(location, opening))
    try:
        found = recognised(source)
        tensors, architecture, history = found.tensors, found.architecture, found.history
    except CheckpointError:
        tensors, architecture, history = source.tensors, None, None
    layouts = {name: Layout(tensor.dtype, tensor.shape, byte_size(tensor)) for name, tensor in tensors.items()}
    return _Side(source.subject, layouts, architecture, history, source, tensors)


def _concerning(location: Location, opening: Opening) -> Opening:
    """What of the opening concerns this side: of a file with a manifest nothing is left to choose, ignore or name."""
    if not isinstance(location, (str, os.PathLike)) or not any(map(opening.get, ("fc", "ignore", "manifest"))):
        return opening
    bare: Opening = {**opening, "fc": None, "ignore": (), "manifest": None}
    if location in VARIANTS:
        return {**opening, "manifest": None}
    return bare if MANIFEST_KEY in open_source(location, **bare).metadata else opening


def _check_content(side: _Side) -> None:
    """Raises CheckpointError unless what was read is what the side's file says of itself, and did not change."""
    if side.source and side.source.container:
        side.source.container.check()


def _recorded_layouts(manifest: Manifest, name: str) -> dict[str, Layout]:
    """The tensors that a manifest records, as its architecture shapes them. Raises CheckpointError if it does not."""
    records = manifest.tensors
    layouts = {}
    for parameter in itertools.islice(parameters(manifest.architecture), len(records) + 1):
        dtype = records[parameter.name].dtype if parameter.name in records else ""
        size = math.prod(parameter.shape) * BITS.get(dtype, 0) // 8
        layouts[parameter.name] = Layout(dtype, parameter.shape, size)
    if layouts.keys() != records.keys() or any(layout.dtype not in BITS for layout in layouts.values()):
        raise CheckpointError("its records are not those of its architecture", subject=name)
    return layouts


def _manifest_at(location: Location) -> Manifest | None:
    """The manifest in a JSON file; None for what is another file, or no path."""
    if not isinstance(location, (str, os.PathLike)) or Path(location).suffix != ".json":
        return None
    file = OpenFile.at(location)
    if file.size > MANIFEST_LIMIT:
        return None
    text = file.read(0, file.size).decode("utf-8", "replace")
    if '"weight_map"' in text and '"format_version"' not in text:
        return None  # the index of a sharded checkpoint
    try:
        return documents.from_json(text)
    except CheckpointError as error:
        raise error.about(file.name) from None


def _basis(one: _Side, other: _Side) -> Basis:
    if one.tensors is not None and other.tensors is not None:
        return "content"
    return "provenance" if one.manifest and other.manifest else "layout"


def _architectures(one: Architecture | None, other: Architecture | None) -> tuple[str, ...]:
    if one and other:
        return differences(one, other)
    if one is other:
        return ()
    described = (describe(architecture) if architecture else "no ResNet" for architecture in (one, other))
    return (f"network: {' -> '.join(described)}",)


_USE, _MAKING = ("inputs.preprocessing", "inputs.channel_names", "outputs"), ("operations", "source", "versions")


def _documents(one: _Side, other: _Side) -> tuple[str, ...]:
    """Fields that differ, but for those on architecture and tensors, which are compared themselves."""
    if not one.manifest or not other.manifest:
        return ()
    compared = _USE if one.tensors or other.tensors else _USE + _MAKING
    fields = documents.differing_fields(one.manifest, other.manifest)
    return tuple(field for field in fields if field.startswith(compared))


def _tensors(one: _Side, other: _Side, basis: Basis) -> Iterator[TensorDifference]:
    """The second side's in its order, then those of the first side that are no more."""
    before, after = _fingerprints(one, basis), _fingerprints(other, basis)
    same = {
        name
        for name, layout in other.layouts.items()
        if one.layouts.get(name) == layout and before(name) == after(name)
    }
    gone = {name: layout for name, layout in one.layouts.items() if name not in same}
    come = {name: layout for name, layout in other.layouts.items() if name not in same}
    origins = _origins(gone, come, before, after) if basis != "layout" else {}
    uses = Counter(origins.values())
    for name, layout in come.items():
        if name in origins:
            was = origins[name]
            yield TensorDifference("copied" if uses[was] > 1 else "renamed", name, was, gone[was], layout)
        elif name not in gone:
            yield TensorDifference("added", name, None, None, layout)
        elif gone[name].shape != layout.shape:
            yield TensorDifference("reshaped", name, name, gone[name], layout)
        else:
            yield TensorDifference("changed", name, name, gone[name], layout, _change(one, other, name))
    for name, layout in gone.items():
        if name not in uses and (name not in come or name in origins):
            yield TensorDifference("removed", name, name, layout, None)


@dataclass(frozen=True)
class _Fingerprint:
    """Two tensors of one layout are the same if and only if their `content` is equal. A plain one has one number
    throughout, as many others may.
    """

    content: Hashable
    is_plain: bool = False


def _fingerprints(side: _Side, basis: Basis) -> Callable[[str], _Fingerprint]:
    def of_content(name: str) -> _Fingerprint:
        assert side.tensors is not None
        tensor, bits = side.tensors[name], BITS[side.tensors[name].dtype]
        size = math.lcm(bits, 8) // 8  # of the fewest whole numbers that fill whole bytes
        digest, is_plain, first = hashlib.sha256(), True, b""
        for chunk in chunks(tensor) if bits % 8 == 0 else pieces(tensor, _PIECE * bits // 8):
            first = first or bytes(chunk[:size])
            is_plain = is_plain and chunk == first * (len(chunk) // size)
            digest.update(chunk)
        return _Fingerprint(digest.digest(), is_plain)

    def of_provenance(name: str) -> _Fingerprint:
        assert side.manifest is not None
        source, record = side.manifest.source, side.manifest.tensors[name].provenance
        origin = () if record.how == "initialised" else (source.sha256, source.architecture, source.seed)
        return _Fingerprint((*origin, record))

    def of_nothing(name: str) -> _Fingerprint:
        return _Fingerprint(None)

    return functools.cache({"content": of_content, "provenance": of_provenance, "layout": of_nothing}[basis])


def _origins(
    gone: Mapping[str, Layout],
    come: Mapping[str, Layout],
    before: Callable[[str], _Fingerprint],
    after: Callable[[str], _Fingerprint],
) -> dict[str, str]:
    """For each tensor that has come, the one of the same content that has gone: of several, that whose name ends most
    alike. Content without information (a fresh batch norm's) counts only where others moved in the same way.
    """
    layouts = set(come.values()) & set(gone.values())  # only these are read
    candidates: dict[Hashable, dict[str, str]] = {}  # by content, the first name of each ending
    for name, layout in gone.items():
        if layout in layouts:
            same = candidates.setdefault((layout, before(name).content), {})
            for ending in _endings(name):
                same.setdefault(ending, name)
    found: dict[str, str] = {}
    plain: list[str] = []
    for name, layout in come.items():
        same = candidates.get((layout, after(name).content), {}) if layout in layouts else {}
        if same and after(name).is_plain:
            plain.append(name)
        elif same:
            found[name] = next(same[ending] for ending in _endings(name) if ending in same)
    moves = dict(_move(name, was) for name, was in found.items())
    for name in plain:
        layout, content = come[name], after(name).content
        for ending in _endings(name):
            beginning = name.removesuffix(ending)
            was = f"{moves[beginning]}{ending}" if beginning in moves else ""
            if gone.get(was) == layout and before(was).content == content:
                found[name] = was
                break
    return found


def _endings(name: str) -> list[str]:
    """What the name ends with, from its last eight dotted parts, if it has so many, to nothing: `a.b`, `b`, ``."""
    parts = name.rsplit(".", _COMPARED)[-_COMPARED:]
    return [".".join(parts[start:]) for start in range(len(parts) + 1)]


def _move(name: str, was: str) -> tuple[str, str]:
    """What is left of two names without their common ending: (`layer3.4.`, `layer3.5.`)."""
    endings = {*_endings(was)}
    common = next(ending for ending in _endings(name) if ending in endings)
    return name.removesuffix(common), was.removesuffix(common)


def _change(one: _Side, other: _Side, name: str) -> Change | None:
    """Measured in float64, piece by piece; None for what has no numbers to measure."""
    if one.tensors is None or other.tensors is None:
        return None
    a, b = one.tensors[name], other.tensors[name]
    if a.dtype not in _NUMBERS or b.dtype not in _NUMBERS:
        return None
    import numpy as np

    largest = square_a = square_b = square = product = 0.0
    pairs = zip(*(pieces(tensor, _PIECE * BITS[tensor.dtype] // 8) for tensor in (a, b)), strict=True)
    with np.errstate(invalid="ignore", over="ignore"):
        for left, right in pairs:
            x, y = _numbers(left, a.dtype), _numbers(right, b.dtype)
            d = y - x
            largest = float(np.maximum(largest, np.abs(d).max()))
            square_a, square_b = square_a + float(x @ x), square_b + float(y @ y)
            square, product = square + float(d @ d), product + float(x @ y)
    norms = math.sqrt(square_a) * math.sqrt(square_b)
    return Change(
        max_abs=largest,
        relative=math.sqrt(square / square_a) if square_a else math.inf if square else 0.0,
        cosine=product / norms if norms else math.nan,
    )


_NUMBERS = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "u1",
}  # fmt: skip


def _numbers(data: bytes, dtype: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    import numpy as np

    elements = np.frombuffer(data, _NUMBERS[dtype])
    if dtype == "BF16":  # the upper half of a float32
        elements = (elements.astype("<u4") << 16).view("<f4")
    return elements.astype(np.float64)
