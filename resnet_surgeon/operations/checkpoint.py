"""What an operation takes and gives: a Checkpoint. Knows nothing of files, commands or manifests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

from resnet_surgeon.architecture.preprocessing import Preprocessing
from resnet_surgeon.architecture.spec import Architecture
from resnet_surgeon.fields import checked, hints_of, unsaid
from resnet_surgeon.formats.tensors import LazyTensor
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


T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(option, added_option, found))
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
