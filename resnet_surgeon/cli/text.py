"""The plan in words, for people: which layers are kept, computed, new and gone, with shapes and sizes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

from resnet_surgeon.architecture.recognise import describe
from resnet_surgeon.network import Network
from resnet_surgeon.plan import Step


@dataclass(frozen=True)
class Row:
    """Neighbouring tensors that meet the same fate."""

    action: str
    what: str
    tensors: str
    size: str
    note: str


def summary(network: Network, target: str) -> str:
    """What was opened, what happens to its tensors, and what comes of it."""
    steps = network.plan()
    rows = [*_rows(steps)]
    widths = [max(len(getattr(row, column)) for row in rows) for column in ("action", "what", "tensors", "size")]
    lines = [f"{network.source.label}: {describe(network.opened.architecture)}, {size(_total(steps, 'before', network))}"]
    for row in rows:
        action, what, tensors, bytes_ = (text.ljust(width) for text, width in zip((row.action, row.what, row.tensors, row.size), widths, strict=True))
        lines.append(f"  {action}  {what}  {tensors}  {bytes_}  {row.note}".rstrip())
    lines.append(f"{target}: {describe(network.architecture)}, {size(_total(steps, 'after', network))}")
    return "\n".join(lines)


def size(count: int) -> str:
    """Bytes in binary units, as `ls -h` gives them.

    >>> size(102540000)
    '97.8 MiB'
    """
    amount, unit = float(count), "B"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024 or unit == "GiB":
            break
        amount /= 1024
    return f"{count} B" if unit == "B" else f"{amount:.1f} {unit}"


def _total(steps: Iterable[Step], side: str, network: Network) -> int:
    from resnet_surgeon.formats.tensors import byte_size

    tensors = network.opened.tensors if side == "before" else network.tensors
    return sum(byte_size(tensor) for tensor in tensors.values())


def _rows(steps: Iterable[Step]) -> Iterator[Row]:
    for (action, _, note), group in groupby(steps, key=_fate):
        members = [*group]
        first, last = members[0], members[-1]
        layout = first.after or first.before
        assert layout is not None
        bytes_ = size(sum((step.after or step.before).bytes for step in members))  # type: ignore[union-attr]
        count = f"{len(members)} tensor{'s' * (len(members) > 1)}"
        if action == "computed":
            assert first.before is not None
            yield Row(action, first.name, count, bytes_, f"{list(first.before.shape)} -> {list(layout.shape)}: {note}")
        elif action == "copied":
            yield Row(action, _layer(first), count, bytes_, f"from {_layer_name(first.sources[0])}")
        elif action == "initialised":
            yield Row("new", _layer(first), count, bytes_, f"{list(layout.shape)}: {note}")
        else:
            names = dict.fromkeys((_child(first), _child(last)))
            yield Row(action, " ... ".join(names), count, bytes_, "")


def _fate(step: Step) -> tuple[str, str, str]:
    """Steps of one fate stand in one row: what is kept or dropped at a stretch, what is copied or new by layer."""
    if step.action in ("kept", "dropped"):
        return step.action, "", ""
    if step.action == "computed":
        return step.action, step.name, step.note
    return step.action, _layer(step), step.note


def _layer(step: Step) -> str:
    return _layer_name(step.name)


def _layer_name(name: str) -> str:
    """`heads.head1.layer4` of `heads.head1.layer4.0.conv1.weight`, `layer4` of `layer4.0.conv1.weight`."""
    parts = name.split(".")
    return ".".join(parts[:3] if parts[0] == "heads" else parts[:1])


def _child(step: Step) -> str:
    return _layer_name(step.name)
