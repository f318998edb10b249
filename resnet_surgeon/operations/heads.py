"""heads: new classifiers, each with its own copy of the last stages; in the place of the old ones, or beside them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, cast

from resnet_surgeon.architecture.parameters import Parameter, parameters
from resnet_surgeon.architecture.spec import (
    HEAD_NAME,
    MOST_HEAD_LAYERS,
    MOST_HEADS,
    STEM_WEIGHT,
    Architecture,
    Classes,
    Function,
    Head,
    HiddenActivation,
    HiddenDropout,
    HiddenLayer,
    HiddenLinear,
    Pool,
    Stage,
)
from resnet_surgeon.arithmetic.formulas import LARGEST, RowMeans
from resnet_surgeon.arithmetic.laws import Constant, Law, Normal
from resnet_surgeon.dataclass import dataclass
from resnet_surgeon.errors import OperationError, UsageError, listed, printable
from resnet_surgeon.fields import ANY, Count, Line, Range, Seed, Text
from resnet_surgeon.formats.tensors import Computed, Initialised, LazyTensor
from resnet_surgeon.operations.checkpoint import Checkpoint, added_option, operation, option, settle
from resnet_surgeon.operations.reuse import groups, rows_of

Own = Literal["none", "layer1", "layer2", "layer3", "layer4"]
Start = Literal["default", "zero", "small"]

_MOST_HIDDEN = MOST_HEAD_LAYERS // 3  # each has an activation and a dropout behind it
_ALONE = "a single head has no layers of its own: it is a new `fc`, and nobody shares the layers before it"
_SMALL = 0.01  # Ren et al. 2015 (arXiv:1506.01497), and detectors since: the deviation of a new classifier's weights


@dataclass(frozen=True)
class NewHead:
    """A head to make: every field but `name` and `classes` can be left out.

    `own` is the first layer of which it owns a copy; `like` names a head that is there, of whose own layers it gets a
    copy. After pooling come its `hidden` linear layers of so many features, each followed by `activation`; `dropout`
    stands before every linear layer that is not the first, and before a single one. `init` is how the last linear
    layer begins: by torch's law, with zeros, or `small`, as detectors have it (normal with deviation 0.01, bias zero).
    `labels` are the names of its classes. `rows` has for each class the rows of the old classifier of whose mean it
    begins; none: it is drawn.
    """

    name: str | None = None
    classes: Classes | None = None
    own: Own | None = None
    like: str | None = None
    pool: Pool = "avg"
    hidden: Annotated[tuple[Annotated[int, Range(1, LARGEST)], ...], Count(0, _MOST_HIDDEN)] = ()
    activation: Function = "relu"
    dropout: Annotated[float, Range(0, 1, "a number from 0 to 1")] = 0.0
    bias: bool = True
    init: Start = "default"
    labels: tuple[Line, ...] = ()
    rows: tuple[tuple[int, ...], ...] = ()

    @property
    def is_plain(self) -> bool:
        """Whether name, classes and `own` say all of it."""
        return self == NewHead(self.name, self.classes, self.own)

    def layers(self) -> Iterator[HiddenLayer]:
        """What stands before its last linear layer."""
        for features in self.hidden:
            yield HiddenLinear(features)
            yield HiddenActivation(self.activation)
            if self.dropout:
                yield HiddenDropout(self.dropout)
        if self.dropout and not self.hidden:
            yield HiddenDropout(self.dropout)


if TYPE_CHECKING:
    HeadLike = NewHead | Mapping[str, Any]
else:  # a mapping of its fields becomes one
    HeadLike = NewHead


@operation
class Heads:
    """Replace the classifier by one or several new ones, or add some.

    Each of several heads owns a private copy of the layers from `--own` on (layer4 if left out), then pooling, flatten
    and a new linear layer; the module returns a list, one output a head. A single head is a new `fc` and returns its
    tensor. `--head`, once for each head, says more: name=grade,classes=5,own=layer3,pool=gem,hidden=512,dropout=0.2
    """

    name: ClassVar[str] = "heads"
    example: ClassVar[str] = "resnet-surgeon heads resnet50 --classes 3,5"
    keeps_packing: ClassVar[bool] = False

    classes: Annotated[Sequence[Classes], Count(1, MOST_HEADS)] | Mapping[str, Classes] | None = option(
        "Classes of each head: 3,5; or with their names: lesion=3,grade=5.", default=None
    )
    names: Sequence[str] | None = option("Names of the heads: a,b. Left out: head1, head2, ...", default=None)
    own: Own | None = option("First layer that each head owns a copy of; none: heads share all layers.", default=None)
    seed: Seed = option("Seed for whatever is drawn at random.", default=0)
    head: Annotated[Sequence[HeadLike], Count(0, MOST_HEADS)] = added_option(
        "A head, once for each: name, classes, own, like (a head whose own layers it gets a copy of), pool (avg, max, "
        "avgmax, gem), hidden (512, or 512+256), activation, dropout, bias (true, false), init (default, zero, small), "
        "labels (a+b+c, or a file with one a line).",
        default=(),
    )
    add: bool = added_option(
        "Keep the heads that are there, by their names, and put the new ones beside them.", default=False
    )
    labels: Sequence[Line] | None = added_option(
        "Names of a single new head's classes: a,b,c, or a file with one a line.", default=None
    )
    reuse: Annotated[str, Text("text", ANY, 1 << 20)] | None = added_option(
        "Begin classes of a single new head as means of old ones, by name or number: 'tabby,tiger cat->cat; 207->dog'.",
        default=None,
    )

    def __post_init__(self) -> None:
        settle(self)
        if self.head and any(given is not None for given in (self.classes, self.names, self.own)):
            raise _usage(
                "`--head` says all of a head", "put classes, names and own into it: name=a,classes=3,own=layer4"
            )
        if not self.head and self.classes is None and self.labels is self.reuse is None:
            raise _usage("how many classes?", "give `--classes 5`, or `--head name=grade,classes=5`")
        if isinstance(self.classes, Mapping) and self.names is not None:
            raise _usage("the names stand beside the classes already", "leave `--names` out")
        asked = self._asked()
        if not self.add and len(asked) == 1 and asked[0].own not in (None, "none"):
            raise _usage(_ALONE, "leave `--own` out: the network computes the same")
        if self.names is not None and len(self.names) != len(asked):
            raise _usage(f"{len(self.names)} names for {len(asked)} heads", "give one name for each number of classes")
        if len(asked) > 1 and not (self.labels is self.reuse is None):
            raise _usage("labels and reuse are of a single head", "put labels into each `--head`")
        for head in asked:
            _check(head)
        names = [head.name for head in asked if head.name is not None]
        if len(set(names)) != len(names):
            raise _usage("two heads have the same name")

    def _asked(self) -> tuple[NewHead, ...]:
        """The heads, however they are spelled."""
        if self.head:
            return cast("tuple[NewHead, ...]", self.head)
        if isinstance(self.classes, Mapping):
            return tuple(NewHead(name, classes, self.own) for name, classes in self.classes.items())
        if self.classes is None:
            return (NewHead(self.names[0] if self.names else None, own=self.own),)
        if self.names is None or len(self.names) != len(self.classes):
            return tuple(NewHead(classes=classes, own=self.own) for classes in self.classes)
        return tuple(NewHead(name, count, self.own) for name, count in zip(self.names, self.classes, strict=True))

    @property
    def suffix(self) -> str:
        counts = "-".join(str(head.classes) for head in self._asked())
        return f"{'add-' * self.add}heads-{counts}" + (f"-seed{self.seed}" if self.seed else "")

    @classmethod
    def advice(cls, architecture: Architecture) -> str:
        if architecture.branches:
            return "--add --classes A,B: more of them; other ones after `remove --layers heads`"
        features = architecture.depth[-1].out_channels if architecture.depth else architecture.trunk_channels
        return f"--classes A,B: new classifiers on {features} features"

    def resolved(self, checkpoint: Checkpoint) -> Heads:
        architecture = checkpoint.architecture
        if architecture.branches and not self.add:
            there = "several heads" if len(architecture.branches) > 1 else "a head"
            raise OperationError(
                f"the network has {there} already ({listed([head.name for head in architecture.branches])})",
                hint="keep what is there with `--add`, or remove it first: `remove --layers heads`",
            )
        kept = architecture.heads if self.add else ()
        asked = self._with_names(kept)
        if len(asked) == 1:
            asked = (self._with_classes(asked[0], checkpoint),)
        asked = tuple(_with_own(head, architecture, kept, len(asked)) for head in asked)
        for head in asked:
            _check_rows(head, architecture)
        if len(asked) + len(kept) > MOST_HEADS:
            raise OperationError(f"a network has at most {MOST_HEADS} heads")
        _cut(asked, kept, architecture)
        if all(head.is_plain and head.own == asked[0].own for head in asked):
            counts = tuple(head.classes for head in asked if head.classes)
            names = tuple(head.name for head in asked if head.name)
            return Heads(counts, names, asked[0].own, self.seed, add=self.add)
        return Heads(seed=self.seed, head=asked, add=self.add)

    def _with_names(self, kept: Sequence[Head]) -> tuple[NewHead, ...]:
        """Each with a name: `fc` if it is the only one of the network, else `head` and its number."""
        asked = self._asked()
        taken = {head.name for head in kept}
        if again := [head.name for head in asked if head.name in taken]:
            raise OperationError(f"the network has a head `{again[0]}` already", hint="give the new one another name")
        taken |= {head.name for head in asked if head.name is not None}
        if len(asked) + len(kept) == 1:
            return (replace(asked[0], name=asked[0].name or "fc"),)
        made: list[NewHead] = []
        for number, head in enumerate(asked, start=len(kept) + 1):
            while head.name is None and f"head{number}" in taken:
                number += 1
            made.append(head if head.name else replace(head, name=f"head{number}"))
            taken.add(made[-1].name or "")
        return tuple(made)

    def _with_classes(self, head: NewHead, checkpoint: Checkpoint) -> NewHead:
        """The single head with its labels, its rows and, where these tell it, the number of its classes."""
        labels = self.labels or head.labels
        if self.reuse is not None:
            old = _reused(checkpoint.architecture)
            weight = checkpoint.tensors[f"{old.last}.weight"]
            sources = groups(self.reuse)
            rows = rows_of(sources, old.labels or checkpoint.categories_of(weight) or (), old.classes)
            count = head.classes or len(labels or rows)
            if labels:
                if missing := [name for name in rows if name not in labels]:
                    raise OperationError(f"{printable(missing[0])} is not among the labels")
                made = tuple(rows.get(label, ()) for label in labels)
            else:
                made = (*rows.values(), *[()] * (count - len(rows)))
                labels = tuple(rows) if count == len(rows) else ()
            head = replace(head, classes=count, rows=made)
        count = head.classes or len(labels)
        head = replace(head, classes=count, labels=tuple(labels))
        _check(head)
        return head

    def apply(self, checkpoint: Checkpoint) -> Checkpoint:
        """What is kept is handed on, the owned stages' tensors are given to every head, each classifier is drawn anew
        or made of the old one's rows.
        """
        old, asked = checkpoint.architecture, self._asked()
        kept = old.heads if self.add else ()
        cut = _cut(asked, kept, old)
        owned = old.stages[cut:]
        new = [_head(head, owned, kept) for head in asked]
        moved = [_moved(head, owned, old) for head in kept]
        architecture = _with_heads(replace(old, stages=old.stages[:cut], heads=(), maps=()), (*moved, *new))
        fresh = {head.name: head for head in asked}

        def made(parameter: Parameter) -> LazyTensor:
            prefix = re.match(r"heads\.([^.]+)\.", parameter.name)
            name = prefix[1] if prefix else new[0].name if len(architecture.heads) == 1 else ""
            inner = parameter.name[prefix.end() :] if prefix else parameter.name
            if name in fresh and inner.startswith(("fc.", "avgpool.")):
                return self._fresh(fresh[name], parameter, inner, checkpoint)
            source = fresh[name].like if name in fresh else name
            before = next((old.prefix(head) for head in kept if head.name == source), "")
            return checkpoint.tensors[before + inner if before + inner in checkpoint.tensors else inner]

        tensors = {parameter.name: made(parameter) for parameter in parameters(architecture)}
        return replace(checkpoint, architecture=architecture, tensors=tensors)

    def _fresh(self, head: NewHead, parameter: Parameter, inner: str, checkpoint: Checkpoint) -> LazyTensor:
        """A tensor of a new classifier, or of its pooling."""
        dtype = checkpoint.tensors[STEM_WEIGHT].dtype
        last = f"fc.{len([*head.layers()])}" if [*head.layers()] else "fc"
        law = _law(head, parameter) if inner.startswith(f"{last}.") else parameter.law
        stream = checkpoint.stream(self.name, parameter.name)
        drawn = Initialised(dtype, parameter.shape, law, self.seed, stream)
        if not head.rows:
            return drawn
        rows = checkpoint.tensors[inner]
        formula = RowMeans(rows.shape[0], head.rows)
        inputs = (rows,) if all(head.rows) else (rows, drawn)
        return Computed(dtype, parameter.shape, inputs, formula)


def _usage(reason: str, hint: str | None = None) -> UsageError:
    return UsageError(reason, subject="heads", hint=hint)


def _check(head: NewHead) -> None:
    """Raises UsageError for a head that no network can have."""
    for name in (head.name, head.like):
        if name is not None and not HEAD_NAME.fullmatch(name):
            raise _usage(
                f"a head cannot be called {printable(name)}", "use letters, digits and `_`, 64 of them at most"
            )
    if head.labels and head.classes not in (None, len(head.labels)):
        raise _usage(f"{len(head.labels)} labels for {head.classes} classes", "give one label for each class")
    if head.rows and head.classes not in (None, len(head.rows)):
        raise _usage(f"{len(head.rows)} groups of old classes for {head.classes} new ones")
    if head.activation != "relu" and not head.hidden:
        raise _usage("an activation stands behind a hidden layer", "give `hidden=512`, or leave it out")
    if head.own is not None and head.like is not None:
        raise _usage("a head owns a copy of the trunk's layers, or of another head's", "give either own or like")
    if head.rows and head.init != "default":
        raise _usage("init and reuse both say how the classes begin", "give one of them")


def _with_own(head: NewHead, architecture: Architecture, kept: Sequence[Head], count: int) -> NewHead:
    """The head with its classes, and what it owns, filled in. Raises OperationError for what the network has not."""
    if head.classes is None and not head.labels:
        raise _usage(f"how many classes has {head.name}?", f"give `--head name={head.name},classes=5`")
    head = replace(head, classes=head.classes or len(head.labels))
    if head.like is not None:
        if head.like not in {other.name for other in kept}:
            others = listed([other.name for other in kept]) or "none that is kept: give `--add`"
            raise OperationError(f"the network has no head `{head.like}`", hint=f"its heads are {others}")
        return head
    stages = [stage.name for stage in architecture.stages]
    if head.own is None and any(other.stages for other in kept):
        owner = next(other for other in kept if other.stages)
        raise OperationError(
            f"`{owner.name}` owns {owner.stages[0].name}, where the trunk ends: which layers has `{head.name}`?",
            hint=f"`--head name={head.name},classes={head.classes},like={owner.name}` copies those of {owner.name}; "
            f"own=none takes the trunk's {architecture.trunk_channels} features",
        )
    has_siblings = count + len(kept) > 1
    default: Own = "layer4" if has_siblings and not architecture.branches and "layer4" in stages else "none"
    own = head.own or default
    if own != "none" and own not in stages:
        raise OperationError(
            f"the network has no `{own}` that heads could own",
            hint=f"it has {', '.join(stages) or 'no stages'}; or use `--own none`",
        )
    if own != "none" and not has_siblings:
        raise OperationError(_ALONE, hint="leave `own` out: the network computes the same")
    return replace(head, own=own)


def _reused(architecture: Architecture) -> Head:
    """The classifier whose rows can be used again. Raises OperationError if there is none."""
    if architecture.classifier is None:
        raise OperationError("the network has no single classifier whose classes could be used again")
    return architecture.classifier


def _check_rows(head: NewHead, architecture: Architecture) -> None:
    """Raises OperationError for rows of a classifier that computes something else of its features."""
    if not head.rows:
        return
    old = _reused(architecture)
    if old.hidden:
        raise OperationError("the old classifier has hidden layers, so its classes cannot be used again")
    if [*head.layers()] or head.pool != architecture.pool or not architecture.avgpool:
        raise OperationError(
            "the old classes are used again in one linear layer on the same pooled features alone",
            hint=f"say `pool={architecture.pool}` in `--head`, and neither hidden nor dropout",
        )
    if head.bias != old.bias:
        raise OperationError(
            f"the old classifier has {'a' if old.bias else 'no'} bias",
            hint=f"say `bias={str(old.bias).lower()}` in `--head`",
        )
    if any(not 0 <= row < old.classes for group in head.rows for row in group):
        raise OperationError(f"the old classifier has {old.classes} classes, counted from 0")


def _cut(asked: Sequence[NewHead], kept: Sequence[Head], architecture: Architecture) -> int:
    """How many stages stay in the trunk. Raises OperationError where heads would no longer share what they are to
    share.
    """
    stages = [stage.name for stage in architecture.stages]

    def begin(head: NewHead) -> int:
        return stages.index(head.own) if head.own in stages else len(stages)

    begins = [*((head.name or "", begin(head)) for head in asked), *((head.name, len(stages)) for head in kept)]
    cut = min(number for _, number in begins)
    # One alone has the layers in between to itself, and owns them.
    later = [name for name, number in begins if number > cut]
    if len(later) > 1:
        raise OperationError(
            f"{listed(later)} would no longer share `{stages[cut]}`, of which another head is to own a copy",
            hint="give all heads the same `own`",
        )
    return cut


def _head(asked: NewHead, owned: tuple[Stage, ...], kept: Sequence[Head]) -> Head:
    assert asked.name is not None
    assert asked.classes is not None
    more = next((head.stages for head in kept if head.name == asked.like), ())
    return Head(
        asked.name,
        asked.classes,
        owned + more,
        pool=asked.pool,
        hidden=tuple(asked.layers()),
        bias=asked.bias,
        labels=asked.labels,
    )


def _moved(head: Head, owned: tuple[Stage, ...], old: Architecture) -> Head:
    """A head that was there, with the layers and the pooling that it had in the trunk."""
    pool = old.pool if old.avgpool else head.pool
    return replace(head, stages=owned + head.stages, keeps_name=False, pool=pool)


def _with_heads(trunk: Architecture, heads: tuple[Head, ...]) -> Architecture:
    """Heads with layers of their own, or another pooling than the mean, pool their own features; otherwise the trunk
    pools once for all.
    """
    if len(heads) == 1 and not heads[0].stages:
        return replace(trunk, avgpool=True, pool=heads[0].pool, heads=(replace(heads[0], pool="avg"),))
    is_shared = not any(head.stages or head.pool != "avg" for head in heads)
    return replace(trunk, avgpool=is_shared, pool="avg", heads=heads)


def _law(head: NewHead, parameter: Parameter) -> Law:
    """That of a tensor of its last linear layer."""
    if head.init == "default":
        return parameter.law
    is_weight = parameter.name.endswith("weight")
    return Normal(_SMALL) if head.init == "small" and is_weight else Constant(0.0)
