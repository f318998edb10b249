"""Channels by name: what each new one is made from, read from text such as `Y=0.5*R+0.5*G`, and written in one way.

Knows names and weights; no network and no tensor.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Literal

from resnet_surgeon.architecture.spec import LARGEST
from resnet_surgeon.dataclass import dataclass
from resnet_surgeon.errors import OperationError, UsageError, listed, printable
from resnet_surgeon.fields import Count, Text

RGB = ("R", "G", "B")
LARGEST_WEIGHT = 1 << 16

NAME = r"[A-Za-z_][A-Za-z0-9_]{0,63}"
_NUMBER = r"(?:[0-9]{1,20}(?:\.[0-9]{0,30})?|\.[0-9]{1,30})(?:[eE][+-]?[0-9]{1,3})?"
_OLD = rf"{NAME}|[0-9]{{1,5}}"
_TERM = re.compile(rf"(?P<sign>[+-]?)(?:(?P<weight>{_NUMBER})\*)?(?P<old>{_OLD})")

# A name, or, of a channel that has none, its number.
ChannelName = Annotated[str, Text("the name of a channel, or its number", _OLD, 64)]
ChannelNames = Annotated[tuple[ChannelName, ...], Count(0, LARGEST)]
Item = Annotated[str, Text("a channel, such as R, N=R or Y=0.5*R+0.5*G", r"[A-Za-z0-9_.=*+\- ]*", 1 << 20)]
Word = Literal["mean", "zero", "random"]
_WORDS: tuple[Word, ...] = ("mean", "zero", "random")


@dataclass(frozen=True)
class Channel:
    """A new channel: the sum of old ones, each times its weight, or what `word` says of it.

    Old ones are named as they were typed, or by their numbers. One without a `name` is an old one as it is, and takes
    over its name.
    """

    name: str | None
    terms: tuple[tuple[str, float], ...] = ()
    word: Word | None = None

    def __str__(self) -> str:
        made = self.word or "".join(_spelled(self.terms))
        return made if self.name is None else f"{self.name}={made}"


def items_of(channels: str | Sequence[str] | Mapping[str, str]) -> Sequence[str]:
    """The items of a list of channels, however it was given: `R,N=R`, a list, or a mapping such as {"N": "R"}."""
    if isinstance(channels, str):
        return channels.split(",")
    if isinstance(channels, Mapping):
        return [f"{name}={made}" for name, made in channels.items()]
    return channels


def read(item: str) -> Channel:
    """The channel that an item names. Raises UsageError for what none can be."""
    text = item.replace(" ", "")
    name, equals, made = text.partition("=")
    if not equals:
        if text in _WORDS:
            raise _wrong(item, "a new channel has a name", f"`{text[0].upper()}={text}`")
        if not re.fullmatch(_OLD, text):
            raise _wrong(item, "it is neither a channel nor `NAME=...`", "`R`, `N=R` or `Y=0.5*R+0.5*G`")
        return Channel(None, ((text, 1.0),))
    if not re.fullmatch(NAME, name) or name in _WORDS:
        raise _wrong(item, "a name has letters, digits and `_`, and begins with no digit", f"`band_{name[:8]}={made}`")
    word = next((word for word in _WORDS if word == made), None)
    return Channel(name, () if word else tuple(_terms(made, item)), word)


def bound(channel: Channel, names: Sequence[str]) -> Channel:
    """The channel as it is written down: every old one by its name in `names`, once, in their order.

    Raises OperationError for one that is not there.
    """
    weights: dict[int, float] = {}
    for old, weight in channel.terms:
        index = place(old, names)
        weights[index] = weights.get(index, 0.0) + weight
    terms = tuple((names[index], weights[index]) for index in sorted(weights))
    is_itself = terms == ((channel.name, 1.0),)
    return replace(channel, name=None if is_itself else channel.name, terms=terms)


def place(old: str, names: Sequence[str]) -> int:
    """The number of the channel of this name; numbers count from 0. Raises OperationError for one that is not there."""
    if old in names:
        return names.index(old)
    if old.isdecimal() and int(old) < len(names):
        return int(old)
    near = [name for name in names if name.lower() == old.lower()] or difflib.get_close_matches(old, names, 1)
    hint = f"did you mean `{near[0]}`? " if near else ""
    named = [name for name in names if not name.isdecimal()]
    has = f"it has {listed(named)}" if named else "its channels have no names"
    raise OperationError(
        f"the network has no channel {printable(old)}",
        hint=f"{hint}{has}; by number they are 0 to {len(names) - 1}" if len(names) > 1 else f"{hint}{has}, number 0",
    )


def names_of(channels: Sequence[Channel]) -> tuple[str, ...]:
    """The names of new channels that are `bound`: of one without any, its number. Raises OperationError if two have
    the same.
    """
    names: dict[str, None] = {}
    for number, channel in enumerate(channels):
        name = channel.terms[0][0] if channel.name is None else channel.name
        name = str(number) if name.isdecimal() else name
        if name in names:
            raise OperationError(
                f"two channels are called {printable(name)}",
                hint=f"give one another name: `{name}_2={channel.terms[0][0]}`"
                if channel.terms
                else "give one another name",
            )
        names[name] = None
    return tuple(names)


def weights(channel: Channel, names: Sequence[str]) -> tuple[float, ...]:
    """The weight of each old channel in a new one that is `bound`: none where it is drawn."""
    if channel.word == "mean":
        return (1 / len(names),) * len(names)
    of_each = {names.index(old): weight for old, weight in channel.terms}
    return tuple(of_each.get(index, 0.0) for index in range(len(names)))


def by_bands(count: int, rgb: Sequence[int], fill: str) -> tuple[str, ...]:
    """The items for images of so many bands, of which `rgb` are the numbers of red, green and blue, from 1 on; the
    others are `band1`, `band2`, ..., each made as `fill` says: `copy` takes red, green and blue in turn.
    """
    colours = dict(zip(rgb, RGB, strict=True))

    def items() -> Iterator[str]:
        others = 0
        for band in range(1, count + 1):
            if band in colours:
                yield colours[band]
            else:
                yield f"band{band}={RGB[others % 3] if fill == 'copy' else fill}"
                others += 1

    return tuple(items())


def _terms(made: str, item: str) -> Iterator[tuple[str, float]]:
    position = 0
    while position < len(made) or not position:
        match = _TERM.match(made, position)
        if not match or (position and not match["sign"]):
            raise _wrong(item, f"{printable(made[position:])} is no sum of channels", "`Y=0.5*R+0.5*G`")
        weight = float(f"{match['sign']}{match['weight'] or 1}")
        if abs(weight) > LARGEST_WEIGHT:
            raise _wrong(item, f"a weight lies between -{LARGEST_WEIGHT} and {LARGEST_WEIGHT}", "`Y=0.5*R`")
        yield match["old"], weight
        position = match.end()


def _spelled(terms: Sequence[tuple[str, float]]) -> Iterator[str]:
    for index, (old, weight) in enumerate(terms):
        size = repr(abs(weight)).removesuffix(".0")
        sign = "-" if weight < 0 else "+" * (index > 0)
        yield f"{sign}{'' if abs(weight) == 1 else f'{size}*'}{old}"


def _wrong(item: str, reason: str, example: str) -> UsageError:
    return UsageError(f"{printable(item)}: {reason}", subject="adapt", hint=f"write {example}")
