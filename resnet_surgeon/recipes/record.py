"""The recipe that made a file, from its manifest: running it gives the same bytes. Opens nothing."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from resnet_surgeon.architecture.facts import Assumed
from resnet_surgeon.errors import OperationError
from resnet_surgeon.fields import plain
from resnet_surgeon.manifest import Manifest, operation_from_record
from resnet_surgeon.operations import OPERATIONS
from resnet_surgeon.operations.checkpoint import Operation
from resnet_surgeon.recipes.reading import options as options_of
from resnet_surgeon.recipes.reading import others, spellings
from resnet_surgeon.sources.origin import Origin
from resnet_surgeon.sources.remainder import NO_CLASSIFIER
from resnet_surgeon.writing.names import Names

Place = Mapping[str, Any]  # a source as a recipe has it: `source`, and the keywords of `resnet_surgeon.open`


def places_of(origin: Origin, facts: Sequence[Assumed]) -> tuple[Place, ...]:
    """Where a source is and how it was opened. Where the file holds several networks, a manifest does not say whether
    one had to be chosen: then every way to choose the one that was taken.
    """
    return tuple({**dict(_place(origin, facts)), **({"key": key} if key else {})} for key in _keys(origin))


def recipe_of(manifest: Manifest, output: str, names: Names, places: Sequence[Place]) -> str:
    """The YAML text of the recipe that makes `output` again, of sources at these places.

    Raises OperationError for a history that no recipe repeats, such as training.
    """
    first, *rest = places
    operations = [operation_from_record(record) for record in manifest.operations]
    for operation in operations:
        if operation.name not in OPERATIONS:
            reason = "no recipe repeats what happened outside this tool"
            raise OperationError(reason, subject=operation.name, hint="keep the file itself")
    document = {
        **first,
        **({"names": names} if names != "torchvision" else {}),
        "operations": [_written(operation, rest) for operation in operations],
        "output": output,
        **({"share_blocks": True} if manifest.share_blocks else {}),
    }
    return _yaml(_literal(document))


def _keys(origin: Origin) -> list[str | None]:
    """What `--key` may have said: nothing, or what leads to the network."""
    wrapping = origin.wrapping
    if wrapping is None:
        return [None]
    key, prefix = wrapping.key or "", wrapping.prefix.rstrip(".")
    return [*dict.fromkeys([None, key or None, prefix or None, f"{key}.{prefix}" if key and prefix else None])]


def _literal(value: Any) -> Any:
    """The value with no text in it that would be a variable."""
    if isinstance(value, dict):
        return {key: _literal(item) for key, item in value.items()}
    if isinstance(value, list):
        return [*map(_literal, value)]
    return value.replace("$", "$$") if isinstance(value, str) else value


def _place(origin: Origin, facts: Sequence[Assumed]) -> Iterator[tuple[str, Any]]:
    """Where the network came from, and what was stated of it."""
    wrapping = origin.wrapping
    if origin.container is None or (origin.architecture and origin.weights):
        yield "source", origin.architecture or ""
        yield "weights", origin.weights
        if origin.seed:
            yield "seed", origin.seed
    else:
        yield "source", origin.url or origin.file or ""
    if wrapping and wrapping.classifier:
        yield "fc", "none" if wrapping.classifier == NO_CLASSIFIER else wrapping.classifier
    stated = [str(fact) for fact in facts if fact.said_by == "user"]
    if stated:
        yield "assume", ",".join(stated)
    if wrapping and wrapping.ignored:
        yield "ignore", [*wrapping.ignored]


def _written(operation: Operation, places: Sequence[Place]) -> Any:
    """The operation as a recipe has it: the options that are not at their defaults, as people spell them, and other
    networks by their places, not by their numbers.
    """
    kind: Any = type(operation)
    known = spellings(kind)
    names = {field: name for name, field in reversed(known.items())}
    options = {
        names[field.name]: _placed(value, places) if field.name in others(kind) else plain(value)
        for field in options_of(kind)
        if (value := getattr(operation, field.name)) != field.default
    }
    return {operation.name: options} if options else operation.name


def _placed(number: int | tuple[int, ...], places: Sequence[Place]) -> Any:
    if isinstance(number, tuple):
        return [_placed(one, places) for one in number]
    place = dict(places[number - 1])
    return place["source"] if place.keys() == {"source"} else place


def _yaml(document: dict[str, Any]) -> str:
    from ruamel.yaml import YAML
    from ruamel.yaml.comments import CommentedMap, CommentedSeq

    def flowing(value: Any) -> Any:
        """Lists and options on one line each."""
        if isinstance(value, dict):
            made = CommentedMap({key: flowing(item) for key, item in value.items()})
            made.fa.set_flow_style()
            return made
        if isinstance(value, list):
            items = CommentedSeq([flowing(item) for item in value])
            items.fa.set_flow_style()
            return items
        return value

    operations = CommentedSeq()
    for operation in document["operations"]:
        if isinstance(operation, dict):
            ((name, options),) = operation.items()
            operation = CommentedMap({name: flowing(options)})
        operations.append(operation)
    top = {key: flowing(value) for key, value in document.items()}
    yaml = YAML()
    yaml.width = 1 << 16
    yaml.indent(sequence=4, offset=2)
    text = io.StringIO()
    yaml.dump(CommentedMap({**top, "operations": operations if operations else flowing([])}), text)
    return text.getvalue()
