"""What an operation takes and gives: a Checkpoint. Knows nothing of files, commands or manifests."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field, fields, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Protocol, TypeVar

from resnet_surgeon.architecture.preprocessing import Preprocessing
from resnet_surgeon.architecture.spec import Architecture
from resnet_surgeon.dataclass import dataclass
from resnet_surgeon.fields import MisfitError, checked, hints_of, unsaid
from resnet_surgeon.formats.tensors import LazyTensor
from resnet_surgeon.location import Location
from resnet_surgeon.operations.channels import RGB

if TYPE_CHECKING:
    from typing_extensions import dataclass_transform
else:  # what type checkers alone need to know

    def dataclass_transform(**_: Any) -> Any:
        return lambda decorator: decorator


@dataclass(frozen=True)
class Checkpoint:
    """An architecture, the lazy tensor of each of its parameters by name, and how images are prepared for it, where
    that is known. `operations` counts those that led to it, through all files and pipes since the first source;
    `channel_names` are those of its input channels, once somebody named them.

    `categories` are the names of the rows of a classifier's weight, as far as they are known: they are those of that
    very tensor, and of none that takes its place.
    """

    architecture: Architecture
    tensors: Mapping[str, LazyTensor]
    preprocessing: Preprocessing | None = None
    operations: int = 0
    channel_names: tuple[str, ...] = ()
    categories: tuple[tuple[LazyTensor, tuple[str, ...]], ...] = ()
    others: Mapping[int, Checkpoint] = field(default_factory=dict)

    @property
    def channels(self) -> tuple[str, ...]:
        """What the input channels are called: three without names are R, G, B, others without have their numbers."""
        count = self.architecture.in_channels
        return self.channel_names or (RGB if count == len(RGB) else tuple(map(str, range(count))))

    def categories_of(self, weight: LazyTensor) -> tuple[str, ...] | None:
        """What the rows of a classifier's weight are called, if that is known."""
        return next((names for known, names in self.categories if known is weight), None)

    def stream(self, operation: str, tensor: str) -> str:
        """The stream of random numbers from which the next operation draws a tensor: `heads 2/fc.weight`.

        Nothing else of the same history draws from it: no other operation has that place, no operation draws a name
        twice, and random weights have streams without a place.
        """
        return f"{operation} {self.operations + 1}/{tensor}"


Self = TypeVar("Self", bound="Operation")


class Operation(Protocol):
    """A pure function from checkpoint to checkpoint. Its dataclass fields are its options, in Python and on the command
    line.

    The constructor raises UsageError for options that are wrong whatever the network. `keeps_packing` says that what
    stands around the network in a file, such as a detector, still fits it afterwards.
    """

    name: ClassVar[str]
    example: ClassVar[str]
    keeps_packing: ClassVar[bool]

    @property
    def suffix(self) -> str:
        """What the operation adds to the name of a file."""
        ...

    @classmethod
    def advice(cls, architecture: Architecture) -> str:
        """How the operation applies to a network, or why it does not, in a line."""
        ...

    def resolved(self: Self, checkpoint: Checkpoint) -> Self:
        """The same operation with every option that was left out filled in, so that it needs no numbers to be applied
        again. Raises OperationError if the checkpoint cannot take it.
        """
        ...

    def apply(self, checkpoint: Checkpoint) -> Checkpoint:
        """The new checkpoint, of a resolved operation."""
        ...


def option(description: str, *, spelling: str | None = None, default: Any = ...) -> Any:
    """A dataclass field that is an option: its help, and a short spelling of `--field-name` where people want one."""
    metadata = {"help": description, "spelling": spelling}
    return field(metadata=metadata) if default is ... else field(default=default, metadata=metadata)


def added_option(description: str, *, spelling: str | None = None, default: Any) -> Any:
    """An option that came to its operation after files were written without it: a manifest names it only where it is
    not at its default, so that these keep their bytes.
    """
    return unsaid(default, help=description, spelling=spelling)


def found(description: str, *, default: None) -> Any:
    """What a resolved operation found out by the numbers that it was given. It is recorded, and nobody is asked for it:
    `resolved` finds it out anew, unless these numbers are nowhere to be had.
    """
    return field(default=default, metadata={"help": description, "found": True})


MOST_SOURCES = 1000  # that a manifest can name


class HasCheckpoint(Protocol):
    """An opened network."""

    @property
    def checkpoint(self) -> Checkpoint: ...


@dataclass(frozen=True)
class Unopened:
    """Another network that nobody has opened yet: where it is, and the keywords of `resnet_surgeon.open` for it."""

    location: Location
    opening: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Elsewhere:
    """The rule of an option that is another network: where it is, itself once it is open, or its number."""

    def check(self, value: Any) -> None:
        is_number = type(value) is int and 1 <= value <= MOST_SOURCES
        is_location = isinstance(value, (str, os.PathLike, bytes, Unopened)) or hasattr(value, "read")
        if not (is_number or is_location or hasattr(value, "checkpoint")):
            raise MisfitError("a path, a model's name, or an opened network", value)

    def __get_pydantic_json_schema__(self, core_schema: Any, handler: Callable[[Any], dict[str, Any]]) -> Any:
        return {**handler(core_schema), "type": "integer", "minimum": 1, "maximum": MOST_SOURCES}


# Another network than the one that is operated on, as a user says it. A resolved operation has its number, as the
# manifest does: the first source is 0, those that operations took besides are numbered as they came.
if TYPE_CHECKING:
    Other = Location | Unopened | HasCheckpoint | int
else:
    Other = Annotated[Any, _Elsewhere()]


def other_option(description: str, *, spelling: str) -> Any:
    """An option that is one other network, or a list of several: see `others_of`. Where the spelling is a word without
    dashes, they are arguments of the command.
    """
    return field(metadata={"help": description, "spelling": spelling, "is_other": True})


def takes_one_other(kind: type[Operation]) -> bool:
    """Whether one of its options is one other network, which then is opened in its own way."""
    options: Any = kind
    others = [field for field in fields(options) if field.metadata.get("is_other")]
    return any(field.metadata["spelling"].startswith("-") for field in others)


def others_of(operation: Operation) -> tuple[Other, ...]:
    """The other networks that the operation takes, as they are named in its options."""
    return tuple(other for _, others in _others(operation) for other in others)


def with_others(operation: Self, others: Sequence[Other]) -> Self:
    """The operation with its other networks named otherwise."""
    rest = iter(others)
    kind: Any = operation
    named = {
        name: tuple(next(rest) for _ in old) if isinstance(getattr(kind, name), tuple) else next(rest)
        for name, old in _others(operation)
    }
    changed: Self = replace(kind, **named) if named else operation
    return changed


def _others(operation: Operation) -> list[tuple[str, tuple[Other, ...]]]:
    """The options that are other networks."""
    kind: Any = operation
    names = [field.name for field in fields(kind) if field.metadata.get("is_other")]
    values = [getattr(operation, name) for name in names]
    return [(name, value if isinstance(value, tuple) else (value,)) for name, value in zip(names, values, strict=True)]


T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(option, added_option, found, other_option))
def operation(kind: type[T]) -> type[T]:
    """A frozen dataclass whose fields are options: those without a default are required."""
    return dataclass(frozen=True)(kind)


def settle(options: Any) -> None:
    """Makes every option what its field holds: lists become tuples, an item by itself a tuple of one.

    Raises UsageError for an option that is of another type, or breaks the rule of its field.
    """
    kind: Any = type(options)
    for name, hint in hints_of(kind).items():
        object.__setattr__(options, name, checked(hint, getattr(options, name), name, options.name))
