"""What happens to each tensor between two states of a network: the one plan that the dry run, the summary and the
manifest tell.

A tensor is known again by identity: an operation that keeps a tensor hands the very same object on. Reads no data,
touches no disk.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from resnet_surgeon.dataclass import dataclass
from resnet_surgeon.formats.tensors import Computed, Initialised, LazyTensor, Trained, byte_size

Action = Literal["kept", "renamed", "copied", "grafted", "computed", "trained", "initialised", "dropped"]


@dataclass(frozen=True)
class Layout:
    """A tensor as it stands in a file."""

    dtype: str
    shape: tuple[int, ...]
    bytes: int


@dataclass(frozen=True)
class Step:
    """What happens to one tensor. `sources` names what it is made from.

    `kept` and `renamed` are the source's bytes, under the same name or another; `copied` are they under several.
    `grafted` are those of another source, which `note` names.
    """

    action: Action
    name: str
    sources: tuple[str, ...]
    before: Layout | None
    after: Layout | None
    note: str = ""


@dataclass(frozen=True)
class Elsewhere:
    """The tensors of another source, and what people call that."""

    label: str
    tensors: Mapping[str, LazyTensor]


def plan(
    before: Mapping[str, LazyTensor], after: Mapping[str, LazyTensor], others: Sequence[Elsewhere] = ()
) -> tuple[Step, ...]:
    """One step for each tensor of `after` in its order, then one for each of `before` that is dropped.

    >>> {step.action for step in plan(tensors, tensors)}
    {'kept'}
    """
    return (*_made(before, after, others), *_dropped(before, after))


def source_names(tensor: LazyTensor, names: Mapping[int, str]) -> tuple[str, ...]:
    """The names, by identity in `names`, of the tensors that `tensor` is or is computed from."""
    if id(tensor) in names:
        return (names[id(tensor)],)
    if isinstance(tensor, Computed):
        return tuple(name for source in tensor.inputs for name in source_names(source, names))
    return source_names(tensor.began, names) if isinstance(tensor, Trained) else ()


def by_identity(tensors: Mapping[str, LazyTensor]) -> dict[int, str]:
    return {id(tensor): name for name, tensor in tensors.items()}


def _made(
    before: Mapping[str, LazyTensor], after: Mapping[str, LazyTensor], others: Sequence[Elsewhere]
) -> Iterator[Step]:
    names = by_identity(before)
    theirs = {id(tensor): (name, other) for other in others for name, tensor in other.tensors.items()}
    uses = Counter(id(tensor) for tensor in after.values())
    for name, tensor in after.items():
        sources = source_names(tensor, names)
        old = _layout(before[sources[0]]) if sources else None
        if id(tensor) in names:
            moved: Action = "copied" if uses[id(tensor)] > 1 else "renamed"
            yield Step("kept" if sources == (name,) else moved, name, sources, old, _layout(tensor))
        elif id(tensor) in theirs:
            there, other = theirs[id(tensor)]
            old = _layout(before[name]) if name in before else None
            yield Step("grafted", name, (there,), old, _layout(tensor), f"from {other.label}")
        elif isinstance(tensor, Computed):
            yield Step("computed", name, sources, old, _layout(tensor), str(tensor.formula))
        elif isinstance(tensor, Trained):
            yield Step("trained", name, sources, old, _layout(tensor), "trained since")
        else:
            assert isinstance(tensor, Initialised), "operations hand stored tensors on"
            yield Step("initialised", name, sources, old, _layout(tensor), f"{tensor.law}, seed {tensor.seed}")


def _dropped(before: Mapping[str, LazyTensor], after: Mapping[str, LazyTensor]) -> Iterator[Step]:
    names = by_identity(before)
    used = {source for tensor in after.values() for source in source_names(tensor, names)}
    for name, tensor in before.items():
        if name not in used:
            yield Step("dropped", name, (name,), _layout(tensor), None)


def _layout(tensor: LazyTensor) -> Layout:
    return Layout(tensor.dtype, tensor.shape, byte_size(tensor))
