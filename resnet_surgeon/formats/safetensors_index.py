"""A sharded checkpoint: an index, `model.safetensors.index.json`, that says which file beside it holds each tensor."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from resnet_surgeon.errors import CheckpointError, printable
from resnet_surgeon.formats import safetensors
from resnet_surgeon.formats.container import Container
from resnet_surgeon.formats.files import OpenFile
from resnet_surgeon.formats.json_text import parsed
from resnet_surgeon.formats.tensors import Stored

_LIMIT = 25_000_000
_MOST_SHARDS = 1000


def read(file: OpenFile) -> Container:
    """The tensors of all shards. Raises CheckpointError if they do not fit the index, or if the index stands alone and
    has no folder to look in; AccessError if a shard is missing.
    """
    weight_map = _weight_map(file)
    names = _shards(weight_map)
    if file.folder is None:
        raise CheckpointError(
            f"it is the index of {len(names)} shards, which are looked for beside it, and it came alone",
            hint="put the index and its shards into one folder, and give the path of the index",
        )
    files: list[OpenFile] = []
    shards: dict[str, dict[str, Stored]] = {}
    for name in names:
        files.append(OpenFile.at(file.folder / name))
        shards[name], _ = safetensors.tensors_and_metadata(files[-1])
    for tensor, name in weight_map.items():
        if tensor not in shards[name]:
            raise CheckpointError(f"tensor {printable(tensor)} is not in its shard {printable(name)}")
    extra = [tensor for name in names for tensor in shards[name] if weight_map.get(tensor) != name]
    if extra:
        raise CheckpointError(f"a shard holds the tensor {printable(extra[0])}, which the index does not list there")
    tensors = {tensor: shards[name][tensor] for tensor, name in weight_map.items()}
    return Container("safetensors_index", file, tensors, others=tuple(files))


def shards(file: OpenFile) -> tuple[str, ...]:
    """The names of the files that an index says are beside it. Raises CheckpointError for one that lies elsewhere."""
    return _shards(_weight_map(file))


def _weight_map(file: OpenFile) -> Mapping[str, str]:
    if file.size > _LIMIT:
        raise CheckpointError("it is too long for an index")
    try:
        document = parsed(file.read(0, file.size).decode(), "it")
        if "format_version" in document:
            raise CheckpointError("it is a manifest", hint="give the safetensors file that it stands beside")
        weight_map: Mapping[str, str] = document["weight_map"]
        weight_map.items()
    except (ValueError, TypeError, KeyError, AttributeError):
        raise CheckpointError("it is JSON, but not the index of a sharded checkpoint") from None
    return weight_map


def _shards(weight_map: Mapping[str, str]) -> tuple[str, ...]:
    """Each name once. A shard lies beside its index: a name that leads elsewhere is never followed."""
    names = set()
    for name in weight_map.values():
        if not isinstance(name, str) or Path(name).name != name or name in ("", "..") or re.search(r"[\\\0]", name):
            raise CheckpointError(f"its shard {printable(str(name))} is not a file beside it")
        names.add(name)
    if len(names) > _MOST_SHARDS:
        raise CheckpointError(f"it has {len(names)} shards")
    return tuple(sorted(names))


def index_of(name: str) -> str | None:
    """The name of the index beside a shard; None for the name of a file that stands alone.

    >>> index_of("model-00001-of-00004.safetensors")
    'model.safetensors.index.json'
    """
    match = re.fullmatch(r"(.*)-\d{5}-of-(\d{5})(\.[a-z]+)", name)
    return f"{match[1]}{match[3]}.index.json" if match and int(match[2]) > 1 else None
