"""What a recipe says: which outputs to build, each from what source by which operations. Opens no network.

Every mistake of a file is found before any of it is built.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from resnet_surgeon.dataclass import dataclass
from resnet_surgeon.errors import AccessError, UsageError
from resnet_surgeon.fields import checked, hints_of
from resnet_surgeon.formats.files import OpenFile
from resnet_surgeon.history.opening import Opening
from resnet_surgeon.location import DEFAULT_NAME
from resnet_surgeon.operations import OPERATIONS
from resnet_surgeon.operations.checkpoint import Operation, Unopened
from resnet_surgeon.recipes import nodes
from resnet_surgeon.recipes.mistakes import Mistakes
from resnet_surgeon.recipes.nodes import Node, Place, UnreadableError
from resnet_surgeon.recipes.variables import NAME, combinations, filled_in, filled_size, used
from resnet_surgeon.writing.names import Names

_LONGEST = 1 << 20  # bytes of a recipe
_MOST_TARGETS = 10_000
_LARGEST = 1 << 18  # of all outputs together, each with its variables replaced: see `Node.size`
_MOST_WITH_MISTAKES = 20  # outputs that are judged where mistakes were found
# How a source is opened, as `resnet_surgeon.open` has it; a recipe writes every path as text.
OPENING = {**typing.get_type_hints(Opening, include_extras=True), "manifest": str}
NAMES = typing.get_args(Names)
KEYS = ("source", *OPENING, "names", "variables", "matrix", "operations", "output", "share_blocks")


@dataclass(frozen=True)
class Target:
    """One output: the source and how it is opened, the operations in their order, under which names it is written,
    where (None: a name from source and operations), and whether placed to share blocks. `place` is where the recipe
    begins.
    """

    source: str
    opening: Mapping[str, Any]
    operations: tuple[Operation, ...]
    names: Names
    output: str | None
    share_blocks: bool
    place: Place


def read(path: str | os.PathLike[str], variables: Mapping[str, object]) -> tuple[Target, ...]:
    """What the recipe in a file says to build, with `variables` in place of the values that it gives them itself.

    Raises AccessError for a file that cannot be read, RecipeError with all that is wrong with its text, UsageError for
    a variable that it has not.
    """
    file = OpenFile.at(path)
    if file.size > _LONGEST:
        raise AccessError(f"it is longer than any recipe ({_LONGEST} bytes)", subject=file.name)
    try:
        text = file.read(0, file.size).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise AccessError("it is not text in UTF-8", subject=file.name) from None
    return parsed(text, file.name, variables)


def parsed(text: str, name: str, variables: Mapping[str, object]) -> tuple[Target, ...]:
    """What the text of a recipe says to build. Raises RecipeError, UsageError."""
    mistakes = Mistakes(name)
    given = {key: _node_of(value, Place(1, 1)) for key, value in variables.items()}
    targets: list[Target] = []
    declared: set[str] = set()
    try:
        for document in nodes.documents(text):
            declared |= _declared(document)
            for target in _targets(document, given, mistakes):
                targets.append(target)
                if len(targets) > _MOST_TARGETS:
                    raise UnreadableError(f"it makes more than {_MOST_TARGETS} outputs", document.place)
    except UnreadableError as error:
        mistakes.add(error.place, error.reason)
    mistakes.check()
    _check_known(given, declared)
    if not targets:
        mistakes.add(Place(1, 1), "there is nothing to build", "a recipe has `operations:`")
    mistakes.check()
    return tuple(targets)


def stated_variables(texts: Iterable[str]) -> dict[str, object]:
    """Variables as a command line gives them: `channels=4`, the value as YAML reads it. Raises UsageError."""
    made: dict[str, object] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not NAME.fullmatch(name):
            raise UsageError(f"{text!r} sets no variable", subject="--set", hint="write --set name=value")
        try:
            made[name] = nodes.value(value).plain
        except UnreadableError as error:
            raise UsageError(f"{text!r}: {error.reason}", subject="--set") from None
    return made


def options(kind: Any) -> tuple[dataclasses.Field[Any], ...]:
    """The fields of an operation that a person can state: not what it finds out by itself."""
    return tuple(field for field in dataclasses.fields(kind) if not field.metadata.get("found"))


def others(kind: Any) -> frozenset[str]:
    """The options of an operation that are other networks."""
    return frozenset(field.name for field in options(kind) if field.metadata.get("is_other"))


def spellings(kind: Any) -> dict[str, str]:
    """The names of an operation's options in a recipe, those of the command line without dashes, with the field of
    each; the one that people know best comes first.
    """
    made: dict[str, str] = {}
    for field in options(kind):
        spelled = field.metadata.get("spelling") or ""
        short = spelled.lstrip("-") if spelled.startswith("-") else ""  # else it is an argument of the command
        for spelling in (short, field.name.replace("_", "-"), field.name):
            if len(spelling) > 1:
                made[spelling] = field.name
    return made


def _check_known(given: Mapping[str, Node], wanted: set[str]) -> None:
    for name in given:
        if name not in wanted:
            near = difflib.get_close_matches(name, wanted, n=1)
            known = f"its variables are {', '.join(sorted(wanted))}" if wanted else "it has no variables"
            hint = f"did you mean `{near[0]}`?" if near else known
            raise UsageError(f"the recipe has no variable `{name}`", subject="--set", hint=hint)


def _declared(document: Node) -> set[str]:
    """The variables that a document declares or uses."""
    declared: set[str] = used(document)
    for key in ("variables", "matrix"):
        found = document.value.get(key) if isinstance(document.value, dict) else None
        if found is not None and isinstance(found.value, dict):
            declared |= found.value.keys()
    return declared


def _node_of(value: object, place: Place) -> Node:
    if isinstance(value, (list, tuple)):
        return Node(tuple(_node_of(item, place) for item in value), place)
    return Node(value, place)


def _targets(document: Node, given: Mapping[str, Node], mistakes: Mistakes) -> Iterator[Target]:
    """One for each combination of the document's matrix."""
    fields = _mapping(document, KEYS, "a recipe", mistakes)
    if fields is None:
        return
    variables = _variables(fields.get("variables"), mistakes)
    matrix = _matrix(fields.get("matrix"), given, mistakes)
    if "operations" not in fields:
        hint = "a list, such as `- adapt: {in-ch: 1}`; `[]` for none"
        mistakes.add(document.place, "a recipe lacks `operations:`", hint)
        return
    rest = Node({key: item for key, item in fields.items() if key not in ("variables", "matrix")}, document.place)
    fixed = {name: item.size for name, item in {**variables, **given}.items()}
    size = 0
    for number, chosen in enumerate(combinations(matrix)):
        sizes = {**fixed, **{name: item.size for name, item in chosen.items()}}
        size += len(sizes) + filled_size(rest, sizes)
        if size > _LARGEST:
            raise UnreadableError("it makes more of its variables than any recipe does", document.place)
        if mistakes.found and number >= _MOST_WITH_MISTAKES:
            return
        filled = filled_in(rest, {**variables, **chosen, **given}, mistakes)
        yield _target(filled.value, document, mistakes)


def _target(fields: Mapping[str, Node], document: Node, mistakes: Mistakes) -> Target:
    texts = {key: _text(fields[key], key, mistakes) for key in ("source", "output", "names") if key in fields}
    names: Any = texts.get("names") or "torchvision"
    if names not in NAMES:
        mistakes.add(fields["names"].place, f"`names` must be one of {', '.join(NAMES)}, not {names}")
    opening = {key: _checked(OPENING[key], fields[key], key, mistakes) for key in OPENING if key in fields}
    operations = tuple(_operations(fields["operations"], mistakes))
    source = texts.get("source") or DEFAULT_NAME
    shared = _checked(bool, fields["share_blocks"], "share_blocks", mistakes) if "share_blocks" in fields else False
    return Target(source, opening, operations, names, texts.get("output"), shared, document.place)


def _variables(node: Node | None, mistakes: Mistakes) -> dict[str, Node]:
    if node is None:
        return {}
    made = _mapping(node, None, "`variables`", mistakes) or {}
    for name in made:
        if not NAME.fullmatch(name):
            mistakes.add(node.keys[name], f"a variable cannot be called `{name}`", "use letters, digits and `_`")
    return made


def _matrix(node: Node | None, given: Mapping[str, Node], mistakes: Mistakes) -> dict[str, tuple[Node, ...]]:
    """The values of each variable; what was given on the command line is one value."""
    made: dict[str, tuple[Node, ...]] = {}
    for name, values in _variables(node, mistakes).items():
        if not isinstance(values.value, tuple) or not values.value:
            mistakes.add(values.place, f"`{name}` in the matrix must be a list of values", f"{name}: [1, 2]")
        elif name not in given:
            made[name] = values.value
    return made


def _operations(node: Node, mistakes: Mistakes) -> Iterator[Operation]:
    if not isinstance(node.value, tuple):
        mistakes.add(node.place, "`operations` must be a list", "begin each with a dash: `- adapt: {in-ch: 1}`")
        return
    for item in node.value:
        is_word = isinstance(item.value, str)
        if not is_word and not (isinstance(item.value, dict) and len(item.value) == 1):
            mistakes.add(item.place, "an operation must be a name with options", "for instance `adapt: {in-ch: 1}`")
            continue
        name = item.value if is_word else next(iter(item.value))
        written = Node({}, item.place) if is_word else item.value[name]
        if name not in OPERATIONS:
            mistakes.add(item.place, f"there is no operation `{name}`", _nearest(name, OPERATIONS))
        elif operation := _operation(OPERATIONS[name], written, item.place, mistakes):
            yield operation


def _operation(kind: Any, written: Node, place: Place, mistakes: Mistakes) -> Operation | None:
    """The operation with these options; None for one with mistakes."""
    known, hints = spellings(kind), hints_of(kind)
    empty = Node({}, written.place) if written.value is None else written
    given = _mapping(empty, tuple(known), kind.name, mistakes, "option")
    if given is None:
        return None
    values: dict[str, Any] = {}
    lacking = [field for field in options(kind) if field.default is dataclasses.MISSING]
    for spelling, node in given.items():
        if known[spelling] in values:
            mistakes.add(written.keys[spelling], f"{kind.name}: `{spelling}` is given under another name too")
        value = _places(node, spelling, mistakes) if known[spelling] in others(kind) else node.plain
        values[known[spelling]] = _checked(hints[known[spelling]], node, spelling, mistakes, value)
    lacking = [field for field in lacking if field.name not in values]
    for field in lacking:
        spelling = next(name for name, of in known.items() if of == field.name)
        mistakes.add(place, f"{kind.name} lacks `{spelling}`", field.metadata["help"])
    if lacking or any(value is _WRONG for value in values.values()) or len(given) < len(empty.value):
        return None
    try:
        operation: Operation = kind(**values)
    except UsageError as error:
        mistakes.add(place, error.what, error.hint)
        return None
    return operation


_WRONG = object()  # in the place of a value that has a mistake


def _places(node: Node, name: str, mistakes: Mistakes) -> Any:
    """Where another network is, as a text, or as a mapping that says too how it is opened; or a list of them."""
    if isinstance(node.value, tuple):
        places = [_places(item, name, mistakes) for item in node.value]
        return _WRONG if any(place is _WRONG for place in places) else places
    if not isinstance(node.value, dict):
        return _text(node, name, mistakes) or _WRONG
    fields = _mapping(node, ("source", *OPENING), f"`{name}`", mistakes) or {}
    if "source" not in fields:
        mistakes.add(node.place, f"`{name}` lacks `source`", "a model's name, a path or a URL")
        return _WRONG
    source = _text(fields["source"], "source", mistakes)
    opening = {key: _checked(OPENING[key], fields[key], key, mistakes) for key in OPENING if key in fields}
    if source is None or len(fields) < len(node.value) or any(value is _WRONG for value in opening.values()):
        return _WRONG
    return Unopened(source, opening)


def _checked(hint: Any, node: Node, name: str, mistakes: Mistakes, value: Any = ...) -> Any:
    """The value of a node, or what was made of it, if it is of this type."""
    value = node.plain if value is ... else value
    if value is _WRONG or used(node):  # a variable that there is not, as was said
        return _WRONG
    try:
        return checked(hint, value, name)
    except UsageError as error:
        mistakes.add(node.place, error.reason)
        return _WRONG


def _text(node: Node, name: str, mistakes: Mistakes) -> str | None:
    if isinstance(node.value, str) and node.value:
        return node.value
    mistakes.add(node.place, f"`{name}` must be text")
    return None


def _mapping(
    node: Node, known: Sequence[str] | None, what: str, mistakes: Mistakes, word: str = "key"
) -> dict[str, Node] | None:
    """The fields of a mapping without those that are not known; None for what is not one."""
    if not isinstance(node.value, dict):
        mistakes.add(
            node.place, f"{what} must have {word}s with values", f"such as `{known[0]}: ...`" if known else None
        )
        return None
    for key in node.value:
        if known is not None and key not in known:
            mistakes.add(node.keys.get(key, node.place), f"{what} has no {word} `{key}`", _nearest(key, known))
    return {key: item for key, item in node.value.items() if known is None or key in known}


def _nearest(word: str, known: Iterable[str]) -> str:
    names = [*dict.fromkeys(known)]
    near = difflib.get_close_matches(word[:40], names, n=1)
    return f"did you mean `{near[0]}`?" if near else f"choose from {', '.join(names)}"
