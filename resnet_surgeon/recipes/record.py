"""The recipe that made a file, from its manifest: running it gives the same bytes. Opens nothing."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import Any

from resnet_surgeon.errors import OperationError
from resnet_surgeon.fields import plain
from resnet_surgeon.manifest import Manifest, OtherSource, operation_from_record
from resnet_surgeon.operations import OPERATIONS
from resnet_surgeon.operations.checkpoint import Operation, others_of, with_others
from resnet_surgeon.recipes.reading import options as options_of
from resnet_surgeon.recipes.reading import spellings
from resnet_surgeon.sources import catalog
from resnet_surgeon.sources.origin import Origin
from resnet_surgeon.sources.remainder import NO_CLASSIFIER
from resnet_surgeon.writing.names import Names


def recipes_of(manifest: Manifest, output: str, names: Names) -> Iterator[str]:
    """The YAML text of the recipe that makes `output` again where the source lies; where the file holds several
    networks, a manifest does not say whether one had to be chosen, and so a text for every way to choose it.

    Raises OperationError for a history that no recipe repeats, such as training.
    """
    operations = [operation_from_record(record) for record in manifest.operations]
    for source in manifest.other_sources:
        _check_place_is_all(source)
    places = [_place(source.origin) for source in manifest.other_sources]
    for operation in operations:
        if operation.name not in OPERATIONS:
            reason = "no recipe repeats what happened outside this tool"
            raise OperationError(reason, subject=operation.name, hint="keep the file itself")
    for key in _keys(manifest):
        yield _yaml(
            {
                **dict(_source(manifest)),
                **({"key": _literal(key)} if key else {}),
                **({"names": names} if names != "torchvision" else {}),
                "operations": [_written(_relocated(operation, places)) for operation in operations],
                "output": _literal(output),
                **({"share_blocks": True} if manifest.share_blocks else {}),
            }
        )


def _keys(manifest: Manifest) -> list[str | None]:
    """What `--key` may have said: nothing, or what leads to the network."""
    wrapping = manifest.source.wrapping
    if wrapping is None:
        return [None]
    key, prefix = wrapping.key or "", wrapping.prefix.rstrip(".")
    return [*dict.fromkeys([None, key or None, prefix or None, f"{key}.{prefix}" if key and prefix else None])]


def _literal(text: str) -> str:
    """Text in which nothing is a variable."""
    return text.replace("$", "$$")


def _source(manifest: Manifest) -> Iterator[tuple[str, Any]]:
    """Where the network came from, and what was stated of it."""
    source, wrapping = manifest.source, manifest.source.wrapping
    if source.container is None or (source.architecture and source.weights):
        yield "source", source.architecture
        yield "weights", source.weights
        if source.seed:
            yield "seed", source.seed
        return
    yield "source", _literal(_place(source))
    if wrapping and wrapping.classifier:
        yield "fc", "none" if wrapping.classifier == NO_CLASSIFIER else _literal(wrapping.classifier)
    stated = [str(fact) for fact in manifest.facts if fact.said_by == "user"]
    if stated:
        yield "assume", ",".join(stated)
    if wrapping and wrapping.ignored:
        yield "ignore", [_literal(name) for name in wrapping.ignored]


def _place(source: Origin) -> str:
    """Where the source is, as a user says it."""
    if source.container is None or (source.architecture and source.weights):
        return source.architecture or ""
    return source.url or source.file or ""


def _check_place_is_all(other: OtherSource) -> None:
    """Raises OperationError for another source that was opened with options, which no operation of a recipe states."""
    origin, wrapping = other.origin, other.origin.wrapping
    is_plain = origin.container is not None and (
        origin.architecture is None
        or origin.weights is None
        or origin.weights == catalog.entry(origin.architecture, "DEFAULT").weights
    )
    is_stated = any(fact.said_by == "user" for fact in other.facts)
    is_chosen = wrapping is not None and bool(wrapping.classifier or wrapping.ignored)
    if not is_plain or is_stated or is_chosen:
        reason = f"it cannot say with which options another source, {_place(origin)}, was opened"
        raise OperationError(reason, subject="recipe", hint="write that with `convert`, and take the file in its place")


def _relocated(operation: Operation, places: Sequence[str]) -> Operation:
    """The operation with its other networks named by their places, not by their numbers."""
    numbers = [number for number in others_of(operation) if isinstance(number, int)]
    return with_others(operation, [_literal(places[number - 1]) for number in numbers])


def _written(operation: Operation) -> Any:
    """The operation as a recipe has it: the options that are not at their defaults, as people spell them."""
    kind: Any = type(operation)
    known = spellings(kind)
    names = {field: name for name, field in reversed(known.items())}
    options = {
        names[field.name]: plain(value)
        for field in options_of(kind)
        if (value := getattr(operation, field.name)) != field.default
    }
    return {operation.name: options} if options else operation.name


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
