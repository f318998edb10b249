"""Variables of a recipe: `${name}` in any text becomes the variable's value. Knows nodes, not what they say."""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

from resnet_surgeon.recipes.mistakes import Mistakes
from resnet_surgeon.recipes.nodes import Node

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_USE = re.compile(r"\$(\$|\{([^{}]*)\}|)")
_SHOWN = 100  # variables that a mistake is compared with

Values = Mapping[str, Node]


def combinations(matrix: Mapping[str, tuple[Node, ...]]) -> Iterator[dict[str, Node]]:
    """Every choice of one value for each variable of the matrix, the last one changing first."""
    for values in itertools.product(*matrix.values()):
        yield dict(zip(matrix, values, strict=True))


def used(node: Node) -> set[str]:
    """The names of the variables that stand in the node."""
    texts = [part.value for part in node.walk() if isinstance(part.value, str)]
    return {match[2] for text in texts for match in _USE.finditer(text) if match[2]}


def filled_size(node: Node, sizes: Mapping[str, int]) -> int:
    """The size of the node once each variable is replaced, of which `sizes` gives the values' own."""
    texts = [part.value for part in node.walk() if isinstance(part.value, str)]
    return node.size + sum(sizes.get(match[2], 0) for text in texts for match in _USE.finditer(text))


def filled_in(node: Node, values: Values, mistakes: Mistakes) -> Node:
    """The node with each variable replaced: by the value itself where it is all of a text, else by the value as text.
    `$$` is a dollar sign.
    """
    if isinstance(node.value, dict):
        return replace(node, value={key: filled_in(item, values, mistakes) for key, item in node.value.items()})
    if isinstance(node.value, tuple):
        return replace(node, value=tuple(filled_in(item, values, mistakes) for item in node.value))
    if not isinstance(node.value, str):
        return node
    whole = re.fullmatch(r"\$\{([^{}]*)\}", node.value)
    if whole:
        found = _value(whole[1], node, values, mistakes)
        return node if found is None else Node(found.value, node.place, found.keys)

    def text(match: re.Match[str]) -> str:
        if match[1] == "$":
            return "$"
        if match[2] is None:
            mistakes.add(node.place, "a single `$`", "write `$$` for a dollar sign, `${name}` for a variable")
            return ""
        found = _value(match[2], node, values, mistakes)
        if found is not None and isinstance(found.value, (tuple, dict)):
            mistakes.add(node.place, f"`${{{match[2]}}}` is a list, which cannot be part of a text")
        return "" if found is None else _as_text(found.value)

    return replace(node, value=_USE.sub(text, node.value))


def _as_text(value: object) -> str:
    """As YAML writes it."""
    words = {True: "true", False: "false", None: "null"}
    return words[value] if value is None or isinstance(value, bool) else str(value)


def _value(name: str, node: Node, values: Values, mistakes: Mistakes) -> Node | None:
    if name in values:
        return values[name]
    near = difflib.get_close_matches(name[:40], itertools.islice(values, _SHOWN), n=1)
    known = (
        f"the variables are {', '.join(itertools.islice(values, _SHOWN))}"
        if values
        else "give it under `variables:`, or by `--set`"
    )
    mistakes.add(node.place, f"there is no variable `{name}`", f"did you mean `{near[0]}`?" if near else known)
    return None
