"""Which old classes a new one begins as, as people write it: `tabby,tiger cat->cat; 207->dog`. Knows no tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from resnet_surgeon.errors import OperationError, UsageError, printable


def groups(text: str) -> dict[str, tuple[str, ...]]:
    """By the new class's name the names, or numbers, of the old ones. Raises UsageError for what is not so written."""
    made: dict[str, tuple[str, ...]] = {}
    for group in filter(None, map(str.strip, text.split(";"))):
        olds, arrow, new = map(str.strip, group.rpartition("->"))
        old = tuple(filter(None, map(str.strip, olds.split(","))))
        if not (arrow and new and old):
            hint = "write old classes, an arrow and the new one: 'tabby,tiger cat->cat; 207->dog'"
            raise UsageError(f"{printable(group)} is no group of classes", subject="--reuse", hint=hint)
        if new in made:
            raise UsageError(f"{printable(new)} is made twice", subject="--reuse", hint="give it one group")
        made[new] = old
    if not made:
        raise UsageError("it has no group of classes", subject="--reuse", hint="write 'tabby,tiger cat->cat'")
    return made


def rows_of(sources: Mapping[str, Sequence[str]], names: Sequence[str], count: int) -> dict[str, tuple[int, ...]]:
    """The numbers, ascending, of the old classes in each group, of `count` that there are, called `names` if that is
    known. Raises OperationError for a class that is not there, or a name that two have.
    """
    return {new: tuple(sorted({_row(old, names, count) for old in olds})) for new, olds in sources.items()}


def _row(old: str, names: Sequence[str], count: int) -> int:
    found = [number for number, name in enumerate(names) if name == old]
    if len(found) == 1:
        return found[0]
    if found:
        hint = f"give the number instead: {', '.join(map(str, found))}"
        raise OperationError(f"{len(found)} classes are called {printable(old)}", hint=hint)
    if old.isascii() and old.isdigit() and len(old) < 9:
        if int(old) < count:
            return int(old)
        raise OperationError(f"the old classifier has no class {old}: it has {count}, counted from 0")
    if not names:
        hint = f"give numbers, from 0 to {count - 1}"
        raise OperationError(f"nobody has said what the old classes are called, such as {printable(old)}", hint=hint)
    near = [name for name in names if old.lower() in name.lower()][:5]
    hint = f"there is {', '.join(map(printable, near))}" if near else "its manifest has them; or give a number"
    raise OperationError(f"no old class is called {printable(old)}", hint=hint)
