"""JSON from strangers, read exactly: no key occurs twice, a number is a number, text is Unicode, and reading takes no
more memory than the text itself and a constant. Knows nothing of what it says.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, NoReturn

from resnet_surgeon.errors import CheckpointError, printable

# Of all that is not inside of quotes. `[[],[],...]` takes twenty times its text in memory, text in quotes only its own.
_MOST_STRUCTURE = 1 << 21
_HALF_A_PAIR = re.compile("[\ud800-\udfff]")
_ESCAPED_HALF = re.compile(r"\\u[dD][89a-fA-F]")


def parsed(text: str, what: str) -> Any:
    """The value that JSON text describes. Raises CheckpointError, about `what`, for text that is no JSON, or more than
    strict JSON needs.
    """
    _check_structure(text, what)

    def without_duplicates(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key, value in pairs:
            if key in result:
                raise CheckpointError(f"{what} holds the key {printable(key)} twice")
            result[key] = value
        return result

    def refuse_constant(word: str) -> NoReturn:
        raise CheckpointError(f"{what} holds {word}, which is not JSON")

    try:
        value = json.loads(text, object_pairs_hook=without_duplicates, parse_constant=refuse_constant)
    except RecursionError:
        raise CheckpointError(f"{what} is nested too deeply") from None
    except ValueError as error:
        raise CheckpointError(f"{what} is not JSON: {error}") from None
    # A pair of escapes is a character; half of one is nothing that could be written anywhere.
    if _ESCAPED_HALF.search(text) and any(map(_HALF_A_PAIR.search, _texts(value))):
        raise CheckpointError(f"{what} holds text that is not Unicode")
    return value


def _check_structure(text: str, what: str) -> None:
    if len(text) <= _MOST_STRUCTURE:
        return
    # Without escapes, of which a quote may be part, every quote begins or ends text.
    text = text.replace("\\\\", "").replace('\\"', "")
    structure, position = 0, 0
    while structure <= _MOST_STRUCTURE:
        begin = text.find('"', position)
        end = text.find('"', begin + 1) if begin >= 0 else -1
        if end < 0:
            structure += len(text) - position
            break
        structure, position = structure + begin - position + 2, end + 1
    if structure > _MOST_STRUCTURE:
        raise CheckpointError(f"{what} describes more than any checkpoint holds")


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
