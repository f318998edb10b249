"""The plan for people: a picture of the network, and in words what is computed, moved, new and gone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from resnet_surgeon.architecture.facts import in_words
from resnet_surgeon.architecture.parameters import layer_of
from resnet_surgeon.architecture.recognise import describe
from resnet_surgeon.cli.units import size
from resnet_surgeon.dataclass import dataclass
from resnet_surgeon.errors import listed, message, printable
from resnet_surgeon.formats.tensors import LazyTensor, byte_size
from resnet_surgeon.history.opening import Opened
from resnet_surgeon.network import Network
from resnet_surgeon.plan import Layout, Step
from resnet_surgeon.sources.found import Wrapping
from resnet_surgeon.sources.packing import Packing
from resnet_surgeon.sources.remainder import NO_CLASSIFIER

_SHOWN = 6
WIDEST = 100  # characters of a column: one endless name must not make every row endless


@dataclass(frozen=True)
class Row:
    """Tensors of a layer or block that meet the same fate."""

    action: str
    what: str
    tensors: str
    size: str
    note: str


def summary(network: Network, target: str, around: Packing | None = None) -> str:
    """What was opened, the plan as a picture and, of what is not simply kept, in words, and what comes of it; `around`
    is what is kept around the network.
    """
    from resnet_surgeon.cli.picture import picture
    from resnet_surgeon.overview import overview

    steps = network.plan()
    rows = [(row.action, row.what, row.tensors, row.size, row.note) for row in _rows(steps)]
    lines = [f"{network.label}: {describe(network.opened.architecture)}, {_total(network.opened.tensors)}"]
    wrapping = network.source.origin.wrapping
    if wrapping and around:
        wrapping = replace(wrapping, left_out=())
    lines += (f"  {line}" for line in (*wrapping_lines(wrapping), *_around_lines(around, network.opened.tensors)))
    lines += (f"  {line}" for line in not_loaded_lines(network.source.origin.not_loaded))
    lines += (f"  assumed: {line}" for line in in_words(fact for fact in network.opened.facts if not fact.is_plain))
    lines += (f"  warning: {warning}" for warning in network.source.described.warnings)
    lines += (line for other in network.others for line in _other_lines(other))
    drawn = picture(overview(steps, network.opened.architecture, network.architecture))
    details = [f"  {line}" for line in table(rows)]
    result = f"{target}: {describe(network.architecture)}, {_total(network.tensors)}"
    noted = [message(f"  note: {note}") for note in network.notes]
    return "\n".join([*map(message, lines), drawn, *details, *noted, message(result)])


def _other_lines(other: Opened) -> Iterator[str]:
    """Another source, as the first one is told of."""
    origin = other.source.known
    digest = f", SHA-256 {origin.sha256[:16]}..." if origin.sha256 else ""
    yield f"{other.source.label}: {describe(other.architecture)}, {_total(other.tensors)}{digest}"
    yield from (f"  {line}" for line in (*wrapping_lines(origin.wrapping), *not_loaded_lines(origin.not_loaded)))
    yield from (f"  assumed: {line}" for line in in_words(fact for fact in other.facts if not fact.is_plain))
    yield from (f"  warning: {warning}" for warning in origin.warnings)


def _around_lines(around: Packing | None, own: Mapping[str, LazyTensor]) -> Iterator[str]:
    """What is kept around the network, and what cannot be."""
    if around is None:
        return
    inside = {*map(id, own.values())}
    yield f"kept around it: {sum(id(tensor) not in inside for tensor in around.tensors.values())} tensors"
    if around.dropped:
        yield f"dropped, as not part of its state_dict: {listed([*map(printable, around.dropped)], _SHOWN)}"


def wrapping_lines(wrapping: Wrapping | None) -> Iterator[str]:
    """How the network was packed in its file: what is taken, filled in, and left out."""
    if wrapping is None:
        return
    places = [f"under {printable(wrapping.key)}"] if wrapping.key else []
    places += [f"behind {printable(wrapping.prefix)}"] if wrapping.prefix else []
    yield f"packed as {wrapping.kind}{': ' * bool(places)}{', '.join(places)}"
    if wrapping.classifier == NO_CLASSIFIER:
        yield "fc: none, as you stated"
    elif wrapping.classifier:
        yield f"fc is its {printable(wrapping.classifier)}"
    if counters := sum(name.endswith("num_batches_tracked") for name in wrapping.filled):
        yield f"filled with zeros: {counters} num_batches_tracked"
    if others := [name for name in wrapping.filled if not name.endswith("num_batches_tracked")]:
        yield f"filled with zeros: {listed(others)}"
    if wrapping.ignored:
        yield f"left out, as you stated: {_groups(wrapping, wrapping.ignored)}"
    if wrapping.left_out:
        yield f"left out: {_groups(wrapping, wrapping.left_out)}"


def _groups(wrapping: Wrapping, names: Sequence[str]) -> str:
    """How many tensors, or nodes of a graph, these are, and of which layers."""
    groups = dict.fromkeys(layer_of(name.removeprefix(wrapping.prefix)) for name in names)
    shown = ", ".join(map(message, list(groups)[:_SHOWN])) + ", ..." * (len(groups) > _SHOWN)
    thing = "node" if wrapping.kind == "ONNX" else "tensor"
    return f"{len(names)} {thing}{'s' * (len(names) > 1)} ({shown})"


def not_loaded_lines(names: Sequence[str]) -> Iterator[str]:
    """What else the file holds, of which nothing was read: no reason to distrust it here, and one elsewhere."""
    if names:
        yield f"not loaded: {listed(list(names), _SHOWN)}"


def table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """The rows with aligned columns, safe on a terminal; a text that is longer than any of ours sticks out."""
    shown = [[message(text) for text in row] for row in rows]
    widths = [min(WIDEST, max(map(len, column))) for column in zip(*shown, strict=True)]
    return ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in shown]


def _total(tensors: Mapping[str, LazyTensor]) -> str:
    return size(sum(byte_size(tensor) for tensor in tensors.values()))


def _rows(steps: tuple[Step, ...]) -> Iterator[Row]:
    """What is not simply kept."""
    left = {layer_of(step.name) for step in steps if step.after}
    in_place = {_block_of(step.name) for step in steps if step.after and step.action != "renamed"}

    def part(name: str) -> str:
        """The layer of a tensor; the single block, if that goes or moves while other blocks of its stage stay."""
        layer, block, *_ = name.split(".")
        return f"{layer}.{block}" if layer in left and block.isdigit() else layer_of(name)

    def fate(step: Step) -> tuple[str, str, str]:
        """Steps of one fate make one row, by layer or block; a stage that is computed or drawn is one row."""
        if step.action in ("computed", "initialised") and _blocks([step]):
            return step.action, layer_of(step.name), ""
        if step.action == "dropped" and _block_of(step.name) in in_place:
            return step.action, layer_of(step.name), ""
        if step.action in ("renamed", "dropped"):
            return step.action, part(step.name), ""
        return step.action, layer_of(step.name), step.note

    rows: dict[tuple[str, str, str], list[Step]] = {}
    for step in steps:
        if step.action != "kept":
            rows.setdefault(fate(step), []).append(step)
    for (action, name, note), members in rows.items():
        first = members[0]
        count = f"{len(members)} tensor{'s' * (len(members) > 1)}"
        bytes_ = size(sum(layout.bytes for step in members if (layout := step.after or step.before)))
        if action == "computed" and first.before and first.after:
            before, after = (sum(layout.bytes for layout in layouts if layout) for layouts in _layouts(members))
            bytes_, note = f"{size(before)} -> {size(after)}", listed([*dict.fromkeys(step.note for step in members)])
            if len(members) == 1:
                name, note = first.name, f"{list(first.before.shape)} -> {list(first.after.shape)}: {note}"
        elif action == "grafted":
            note = f"{note}: {layer_of(first.sources[0])}"
        elif action == "initialised" and (blocks := _blocks(members)):
            note = f"{blocks}: the laws of its layers, {first.note.rpartition(', ')[2]}"
        elif action == "initialised" and first.after:
            note = f"{list(first.after.shape)}: {note}"
        elif action == "copied":
            note = f"from {layer_of(first.sources[0])}"
        elif action == "renamed":
            note = f"was {part(first.sources[0])}"
        yield Row("new" if action == "initialised" else action, name, count, bytes_, note)


def _layouts(steps: Sequence[Step]) -> tuple[list[Layout | None], list[Layout | None]]:
    return [step.before for step in steps], [step.after for step in steps]


def _block_of(name: str) -> str:
    """`layer3.4` of `layer3.4.conv1.weight`; `fc.weight` of `fc.weight`."""
    layer = layer_of(name)
    return f"{layer}.{name.removeprefix(layer)[1:].partition('.')[0]}"


def _blocks(steps: Sequence[Step]) -> str:
    """`block 2`, `blocks 2 to 5`: those of a stage that the tensors belong to; nothing if they belong to none."""
    numbers = [_block_of(step.name).rpartition(".")[2] for step in steps]
    if not all(map(str.isdigit, numbers)) or not layer_of(steps[0].name).rpartition(".")[2].startswith("layer"):
        return ""
    first, last = min(map(int, numbers)), max(map(int, numbers))
    return f"block {first}" if first == last else f"blocks {first} to {last}"
