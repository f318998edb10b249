"""Mean and std of new channels: stated, or those of the channels that they are made from. Knows no tensor."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated

from resnet_surgeon.architecture.preprocessing import Preprocessing
from resnet_surgeon.architecture.spec import LARGEST
from resnet_surgeon.errors import OperationError, UsageError, listed, printable
from resnet_surgeon.fields import Count, Text
from resnet_surgeon.operations.channels import Channel, place, weights

_LARGEST = 1e6
_Pair = Annotated[str, Text("a number, or a channel's such as N=0.3", r"[^\x00-\x1f\x7f]*", 200)]
# A number for each channel, or those of some by name: N=0.3.
Numbers = Annotated[Sequence[float | _Pair], Count(1, LARGEST)]
# Of a channel each, where they are known.
Known = Sequence[float | None]


def settled(numbers: object, option: str) -> object:
    """The option's numbers as it holds them: each a float, or each `NAME=number`, spelled in one way.

    Raises UsageError for what is neither, or out of bounds: a std is positive.
    """
    if numbers is None:
        return None
    if isinstance(numbers, Mapping):
        numbers = [f"{name}={number}" for name, number in numbers.items()]
    items = [*numbers] if isinstance(numbers, (list, tuple)) else str(numbers).split(",")
    made = [_item(item, option) for item in items]
    if len({type(item) for item in made}) > 1:
        raise _wrong(
            option, "give a number for each channel, or all by name", f"`--{option} 0.5,0.4` or `--{option} N=0.4`"
        )
    return tuple(made)


def stated(numbers: Sequence[float | str] | None, names: Sequence[str], option: str) -> tuple[float | str, ...] | None:
    """The same with every name one of the channels. Raises OperationError for another, or another count."""
    if numbers is None:
        return None
    if isinstance(numbers[0], str):
        pairs = (str(number).partition("=") for number in numbers)
        return tuple(f"{names[place(name, names)]}={number}" for name, _, number in pairs)
    if len(numbers) != len(names):
        raise OperationError(
            f"{len(numbers)} numbers for `--{option}`, and {len(names)} channels",
            hint=f"give one for each of {listed(names)}, or some by name: `--{option} {names[-1]}={numbers[-1]!r}`",
        )
    return tuple(numbers)


def with_stated(known: Known, numbers: Sequence[float | str] | None, names: Sequence[str]) -> Known:
    """What is known of each channel, once `stated` numbers are."""
    if numbers is None:
        return known
    made = dict(enumerate(known))
    for index, number in enumerate(numbers):
        if isinstance(number, str):
            name, _, digits = number.partition("=")
            made[names.index(name)] = float(digits)
        else:
            made[index] = number
    return tuple(made[index] for index in range(len(names)))


def of_mix(old: Sequence[float], channels: Sequence[Channel], names: Sequence[str]) -> Known:
    """Of each new channel the average of the old numbers, weighted as its filter is made.

    So the mean of a mix is that of the images mixed alike; its std is so where the channels vary together, and less
    else. Of a channel that is made of nothing, drawn, or a difference it is not known.
    """

    def one(channel: Channel) -> float | None:
        if channel.word in ("zero", "random"):
            return None
        shares = weights(channel, names)
        if min(shares) < 0 or not any(shares):
            return None
        alone = [number for number, share in zip(old, shares, strict=True) if share]
        if len(alone) == 1:
            return alone[0]
        return round(sum(number * share for number, share in zip(old, shares, strict=True)) / sum(shares), 6)

    return tuple(map(one, channels))


def complete(old: Preprocessing | None, mean: Known, std: Known) -> Preprocessing | None:
    """The preprocessing, unless it is not known of some channel."""
    if None in mean or None in std:
        return None
    means, stds = (tuple(number for number in known if number is not None) for known in (mean, std))
    return replace(old, mean=means, std=stds) if old else Preprocessing(means, stds, None, None, None)


def unknown(mean: Known, std: Known, names: Sequence[str]) -> list[str]:
    """The channels of which it is not."""
    return [name for name, *numbers in zip(names, mean, std, strict=True) if None in numbers]


def statement(names: Sequence[str]) -> str:
    """How mean and std of these channels are stated."""
    shown = names[:3]
    both = (",".join(f"{name}={number}" for name in shown) for number in ("0.5", "0.25"))
    return "--mean {} --std {}".format(*both) + (", and so on" if len(names) > len(shown) else "")


def _item(item: object, option: str) -> float | str:
    name, equals, digits = item.partition("=") if isinstance(item, str) else ("", "", item)
    text = digits if equals else item
    try:
        if isinstance(text, bool) or not isinstance(text, (int, float, str)) or len(str(text)) > 100:
            raise ValueError
        number = float(text)
    except (ValueError, OverflowError):
        raise _wrong(option, f"{printable(str(item)[:100])} is no number", f"`--{option} 0.5`") from None
    if not (math.isfinite(number) and abs(number) <= _LARGEST) or (option == "std" and number <= 0):
        kind = "a positive number" if option == "std" else "a number"
        raise _wrong(option, f"{number!r} is not {kind} of at most {_LARGEST:,.0f}", f"`--{option} 0.5`")
    return f"{name.strip()}={number!r}" if equals else number


def _wrong(option: str, reason: str, example: str) -> UsageError:
    return UsageError(reason, subject=f"--{option}", hint=f"write {example}")
