"""Facts about a network that names and shapes of tensors do not show: how people spell them, and what they set.

Knows torchvision's values, and kinds of network by the names that people have for them. Reads no file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields, replace
from typing import Annotated, Any, Literal, get_args

from resnet_surgeon.architecture import dilation
from resnet_surgeon.architecture.spec import (
    STAGE_NAMES,
    Architecture,
    Function,
    Head,
    HiddenActivation,
    Stage,
    standard_stages,
)
from resnet_surgeon.dataclass import dataclass
from resnet_surgeon.errors import ArchitectureError, SurgeonError, UsageError, listed, printable
from resnet_surgeon.fields import Line, Text

SaidBy = Literal["default", "file", "user"]


@dataclass(frozen=True)
class Facts:
    """What somebody says of a network; None where nothing is said.

    `bottleneck_stride` is the convolution of a bottleneck that carries the stride, `strides` has one for each stage,
    `stem_stride` is conv1's, `eps` that of every batch norm, `activation` stands between the layers of a classifier
    that has several. `dilated` are either the stages whose stride is replaced
    by dilation as torchvision does it (`layer3`, `layer4`), after `strides`; or a dilation for each stage, of all of
    its blocks (`1`, `1`, `1`, `2`).
    """

    bottleneck_stride: Literal["conv1", "conv2"] | None = None
    strides: tuple[int, ...] | None = None
    stem_stride: int | None = None
    maxpool: Literal["torchvision", "none", "caffe"] | None = None
    dilated: tuple[str, ...] | None = None
    eps: float | None = None
    activation: Function | None = None

    def items(self) -> Mapping[str, Any]:
        """What is said, by the name of each fact."""
        return {field.name: value for field in fields(self) if (value := getattr(self, field.name)) is not None}


@dataclass(frozen=True)
class Claim:
    """Facts, and who says so: a user, or the file, there where `place` says."""

    facts: Facts
    said_by: SaidBy
    place: str = ""


@dataclass(frozen=True)
class Assumed:
    """A fact as it was taken, spelled as people spell it, with who said so and where."""

    name: Literal["bottleneck_stride", "strides", "stem_stride", "maxpool", "dilated", "eps", "activation"]
    value: Annotated[str, Text("the value of a fact", r"[a-z0-9._-]+", 100)]
    said_by: SaidBy
    place: Line = ""

    @property
    def is_plain(self) -> bool:
        """Whether it is what a plain file of torchvision's leaves open."""
        plain = spelled(getattr(TORCHVISION, self.name))
        return self.said_by != "user" and (self.value == plain or (self.name == "strides" and self.value in plain))

    def __str__(self) -> str:
        return f"{self.name}={self.value}"


UNKNOWN = Facts()
TORCHVISION = Facts("conv2", (1, 2, 2, 2), 2, "torchvision", (), 1e-5)

# Kinds of network, by the names that people have for them.
KINDS: dict[str, Facts] = {
    "torchvision": TORCHVISION,
    "caffe": Facts(bottleneck_stride="conv1", maxpool="caffe"),
    "detectron2": Facts(bottleneck_stride="conv1"),
    "reid": Facts(strides=(1, 2, 2, 1)),
    "dc5": Facts(dilated=("layer4",)),
    "deeplab": Facts(strides=(1, 2, 2, 1), dilated=("1", "1", "1", "2")),
    "deeplab8": Facts(strides=(1, 2, 1, 1), dilated=("1", "1", "2", "4")),
    "monai": Facts(stem_stride=1),
    "cifar": Facts(stem_stride=1, maxpool="none"),
    "frozen": Facts(eps=0.0),
}


@dataclass(frozen=True)
class _Spelling:
    """How a fact is written: the pattern of its value, what that becomes, and an example for people."""

    pattern: str
    read: Callable[[str], Any]
    example: str


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split("-")))


def _stages(text: str) -> tuple[str, ...]:
    return () if text == "none" else tuple(text.split("-"))


_NUMBER = r"[1-9][0-9]{0,4}"
_SPELLINGS = {
    "bottleneck_stride": _Spelling("conv1|conv2", str, "conv1"),
    "strides": _Spelling(rf"{_NUMBER}(-{_NUMBER}){{0,3}}", _numbers, "1-2-2-1"),
    "stem_stride": _Spelling(_NUMBER, int, "1"),
    "maxpool": _Spelling("torchvision|none|caffe", str, "none"),
    "dilated": _Spelling(rf"none|layer[1-4](-layer[1-4]){{0,3}}|{_NUMBER}(-{_NUMBER}){{0,3}}", _stages, "layer4"),
    "activation": _Spelling("|".join(get_args(Function)), str, "gelu"),
    "eps": _Spelling(r"0|1|(0?\.[0-9]{1,20}|[0-9](\.[0-9]{1,10})?e-[0-9]{1,2})", float, "0"),
}
HELP = (
    "What the tensors do not show, where it is not torchvision's: "
    f"{', '.join(f'{name}={spelling.example}' for name, spelling in _SPELLINGS.items())}; or a kind that has a name: "
    f"{', '.join(KINDS)}."
)


def stated(what: str | Mapping[str, Any]) -> Facts:
    """The facts that a user states: text such as `caffe,eps=0`, or values by name. Raises UsageError."""
    pairs = (
        (item.partition("=") for item in what.split(","))
        if isinstance(what, str)
        else ((str(name), "=", value if isinstance(value, str) else spelled(value)) for name, value in what.items())
    )
    facts = UNKNOWN
    for name, equals, value in pairs:
        name, value = name.strip(), value.strip()
        if not equals and name not in KINDS:
            hint = f"kinds are {', '.join(KINDS)}; facts are {', '.join(_SPELLINGS)}"
            raise UsageError(f"no kind of network is called {printable(name)}", subject="assume", hint=hint)
        try:
            facts = merged(facts, Facts(**{name: _read(name, value)}) if equals else KINDS[name])
        except ContradictionError as error:
            raise UsageError(str(error), subject="assume", hint="state it once") from None
    return facts


def _read(name: str, text: str) -> Any:
    spelling = _SPELLINGS.get(name)
    if spelling is None:
        hint = f"facts are {', '.join(_SPELLINGS)}"
        raise UsageError(f"there is no fact {printable(name)}", subject="assume", hint=hint)
    if not re.fullmatch(spelling.pattern, text):
        hint = f"it is written like `{name}={spelling.example}`"
        raise UsageError(f"{name} cannot be {printable(text)}", subject="assume", hint=hint)
    return spelling.read(text)


def spelled(value: Any) -> str:
    """A fact's value as people write it: `1-2-2-1`, `layer4`, `none`, `1e-05`."""
    if isinstance(value, (tuple, list)):
        return "-".join(map(str, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


class ContradictionError(SurgeonError):
    """Two that speak of one network say different things of one fact."""

    def __init__(self, name: str, one: Any, other: Any) -> None:
        super().__init__(f"{name} cannot be both {spelled(one)} and {spelled(other)}")
        self.name = name


def merged(one: Facts, other: Facts) -> Facts:
    """What both say. Raises ContradictionError."""
    for name in one.items().keys() & other.items().keys():
        if getattr(one, name) != getattr(other, name):
            raise ContradictionError(name, getattr(one, name), getattr(other, name))
    return replace(one, **other.items())


def facts_of(architecture: Architecture) -> Facts:
    """What is true of the network, with strides as they are before stages are dilated as torchvision does it."""
    depth = architecture.depth
    try:
        plain, dilated = dilation.undilated(depth)
    except ValueError:
        plain, dilated = depth, tuple(str(stage.dilation) for stage in depth)
    return Facts(
        bottleneck_stride=architecture.bottleneck_stride if architecture.block == "bottleneck" else None,
        strides=tuple(stage.stride for stage in plain),
        stem_stride=architecture.stem_stride,
        maxpool="none" if architecture.maxpool_is_identity else architecture.maxpool,
        dilated=dilated,
        eps=architecture.eps,
        activation=next(_activations(architecture), None),
    )


def _activations(architecture: Architecture) -> Iterator[Function]:
    """Those between the layers of a head."""
    for head in architecture.heads:
        yield from (layer.function for layer in head.hidden if isinstance(layer, HiddenActivation))


def _with_activation(head: Head, function: Function) -> Head:
    hidden = (HiddenActivation(function) if isinstance(layer, HiddenActivation) else layer for layer in head.hidden)
    return replace(head, hidden=tuple(hidden))


def defaults(architecture: Architecture) -> Facts:
    """What torchvision's network of these blocks has."""
    depths = tuple(stage.blocks for stage in architecture.depth)
    return facts_of(replace(Architecture(architecture.block, 3, standard_stages(architecture.block, depths), ())))


def applied(facts: Facts, architecture: Architecture) -> Architecture:
    """The network, of which these facts hold. Raises ArchitectureError for those that cannot be true of it."""
    said = facts.items()
    if facts.bottleneck_stride == "conv1" and architecture.block != "bottleneck":
        raise ArchitectureError("bottleneck_stride=conv1 is about bottlenecks, but the network has basic blocks")
    names = [stage.name for stage in architecture.stages]
    for name in ("strides", "dilated"):
        value = said.get(name, ())
        if (
            value and not str(value[0]).startswith("layer") and len(value) < len(names)
        ):  # of more, the last are of stages that were cut off
            raise ArchitectureError(f"{name}={spelled(value)} has {len(value)} numbers for {len(names)} stages")
    if missing := [name for name in facts.dilated or () if name in STAGE_NAMES and name not in names]:
        raise ArchitectureError(f"dilated={spelled(facts.dilated)}: the network has no {listed(missing)}")
    try:
        stages = _with_strides(architecture.stages, facts.strides or [stage.stride for stage in architecture.stages])
        for stage in stages:
            if stage.name in (facts.dilated or ()) and stage.stride == 1:
                raise ArchitectureError(f"dilated={spelled(facts.dilated)}: {stage.name} has no stride to replace")
        direct = {name: said[name] for name in ("bottleneck_stride", "stem_stride", "eps") if name in said}
        if facts.maxpool is not None:
            kind = {"maxpool": facts.maxpool} if facts.maxpool != "none" else {}
            direct |= {"maxpool_is_identity": facts.maxpool == "none", **kind}
        if facts.activation is not None:
            if next(_activations(architecture), None) is None:
                raise ArchitectureError("activation speaks of a classifier of several layers, and the network has none")
            direct["heads"] = tuple(_with_activation(head, facts.activation) for head in architecture.heads)
        return replace(architecture, stages=_with_dilation(stages, facts.dilated or ()), **direct)
    except ValueError as error:
        raise ArchitectureError(f"{error}, which is not so with {_shown(facts)}") from None


def _shown(facts: Facts) -> str:
    return printable(",".join(f"{name}={spelled(value)}" for name, value in facts.items().items()))


def assumed(architecture: Architecture, claims: tuple[Claim, ...]) -> tuple[Assumed, ...]:
    """Each fact as it is in the network, with the claim that it goes back to: the first that says it, else nobody's."""
    plain = defaults(architecture).items()

    def one(name: Any, value: Any) -> Assumed:
        claim = next((claim for claim in claims if name in claim.facts.items()), None)
        by_packing = plain.get(name) != value and claim is None
        return Assumed(
            name,
            spelled(value),
            claim.said_by if claim else "file" if by_packing else "default",
            claim.place if claim else "",
        )

    return tuple(one(name, value) for name, value in facts_of(architecture).items().items())


def in_words(facts: Iterable[Assumed]) -> Iterator[str]:
    """Those that one and the same said, together: `strides=1-2-2-1, eps=0 (user)`."""
    groups: dict[str, list[str]] = {}
    for fact in facts:
        groups.setdefault(fact.place or fact.said_by, []).append(str(fact))
    return (f"{', '.join(said)} ({by})" for by, said in groups.items())


def _with_strides(stages: tuple[Stage, ...], strides: Any) -> tuple[Stage, ...]:
    return tuple(replace(stage, stride=stride) for stage, stride in zip(stages, strides, strict=False))


def _with_dilation(stages: tuple[Stage, ...], dilated: tuple[str, ...]) -> tuple[Stage, ...]:
    """By names as torchvision's `replace_stride_with_dilation`; by numbers, these for all blocks."""
    if dilated and dilated[0] not in STAGE_NAMES:
        pairs = zip(stages, map(int, dilated), strict=False)
        return tuple(replace(stage, first_dilation=number, dilation=number) for stage, number in pairs)
    return dilation.dilated(stages, dilated)
