"""Where a network comes from: a name, a path, standard input, bytes or a stream. Yields named tensors and where they
are from.
"""

from __future__ import annotations

import difflib
import functools
import itertools
import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Annotated, Union

from resnet_surgeon.architecture.parameters import parameters
from resnet_surgeon.architecture.recognise import FLOATS
from resnet_surgeon.architecture.variants import VARIANTS
from resnet_surgeon.arithmetic.numbers import decode
from resnet_surgeon.errors import AccessError, CheckpointError, UsageError, printable
from resnet_surgeon.fields import LINE, Digest, Line, Seed, Text, checked
from resnet_surgeon.formats import sniff
from resnet_surgeon.formats.container import Container, ContainerKind
from resnet_surgeon.formats.files import OpenFile
from resnet_surgeon.formats.tensors import Initialised, LazyTensor, Stored, byte_size, content
from resnet_surgeon.sources import catalog
from resnet_surgeon.sources.progress import Progress, silent
from resnet_surgeon.sources.wrappings import Unwrapped, Wrapping, unwrap

DEFAULT_NAME = "resnet50"
STANDARD_INPUT = "-"
_LARGEST_STEM = 1 << 22  # bytes of conv1.weight that are looked at
MANIFEST_KEY = "resnet_surgeon.manifest"  # in a safetensors file's metadata, where this tool wrote it
Location = Union[str, "os.PathLike[str]", bytes, IO[bytes]]


FileName = Annotated[str, Text("the name of a file, without a folder", r"(?!\.\.?$)[^/\x00\ud800-\udfff]*")]
Word = Annotated[str, Text("a name of letters, digits and `_`", r"[A-Za-z0-9_]+", 100)]
Address = Annotated[str, Text("an address", rf"(https?|hf)://(?!\s){LINE}")]


@dataclass(frozen=True)
class Origin:
    """Where a network is from: a file (name, container, SHA-256), published weights (more besides), or random ones.

    `url` never tells a user's name, a password, or what follows a `?`, which often is a key. `warnings` say what of the
    file is odd, and was taken all the same.
    """

    file: FileName | None = None
    container: ContainerKind | None = None
    sha256: Digest | None = None
    architecture: Word | None = None
    weights: Word | None = None
    url: Address | None = None
    seed: Seed | None = None
    wrapping: Wrapping | None = None
    warnings: tuple[Line, ...] = ()

    def __post_init__(self) -> None:
        if self.url is not None:
            object.__setattr__(self, "url", _public(self.url))


def _public(url: str) -> str:
    """The address without user, query and fragment; 0.1.0 wrote them down."""
    return re.sub(r"^(\w+://)[^/]*@", r"\1", re.split(r"[?#]", url, maxsplit=1)[0])


@dataclass(frozen=True)
class Source:
    """An opened source: its tensors, lazily; nothing of it has been read but names and shapes.

    Where the file's SHA-256 was promised, by a published name or an address, it has been read through and `origin` has
    the digest. `label` is how people call it, and what default file names begin with; streams and bytes are anonymous.
    `index` is the file to give in place of one that is a shard.
    """

    label: str
    tensors: Mapping[str, LazyTensor]
    origin: Origin
    container: Container | None = None
    entry: catalog.Entry | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    is_anonymous: bool = False
    names: Mapping[str, str] = field(default_factory=dict)  # torchvision's name -> the name in the file, if another
    dilated_stages: tuple[str, ...] = ()
    index: str | None = None

    @property
    def subject(self) -> str:
        """What messages about it begin with."""
        return self.container.file.name if self.container else self.label

    def identified(self) -> Origin:
        """The origin with its SHA-256, for which the whole file is read once. Raises CheckpointError if it is damaged
        or has changed.
        """
        if self.container is None or self.origin.sha256 is not None:
            return self.described
        return replace(self.described, sha256=self.container.sha256())

    @functools.cached_property
    def described(self) -> Origin:
        """The origin, with a warning for a stem whose numbers are not all finite: reads conv1."""
        return replace(self.origin, warnings=(*self.origin.warnings, *_stem_warnings(self.tensors)))


def open_source(
    location: Location = DEFAULT_NAME,
    weights: str | None = None,
    seed: int = 0,
    key: str | None = None,
    progress: Progress = silent,
) -> Source:
    """Opens a model name (with `weights`: DEFAULT, a published name, or random), a path, `-`, bytes, or a stream.

    `key` chooses one of several networks in a file. A digest that a published name or an address promises is checked
    here, before anything can be made of the file. Raises UsageError, AccessError, CheckpointError or WeightsError.
    """
    weights = checked(str | None, weights, "weights")
    seed = checked(Seed, seed, "seed")
    key = checked(str | None, key, "key")
    if isinstance(location, str) and location in VARIANTS:
        if weights == "random":
            return _random(location, seed)
        from resnet_surgeon.sources import published

        entry = catalog.entry(location, weights or "DEFAULT")
        return _from_file(OpenFile.at(published.fetch(entry, progress)), location, key)
    if weights is not None:
        hint = f"model names are {', '.join(VARIANTS)}"
        raise UsageError("weights are chosen for a model name, not for a file", subject="weights", hint=hint)
    if location == STANDARD_INPUT:
        return _anonymous(_standard_input(), key)
    if isinstance(location, str) and "://" in location:
        return _from_network(location, key, progress)
    if isinstance(location, bytes):
        return _anonymous(OpenFile.spooled(location, "bytes"), key)
    if isinstance(location, (str, os.PathLike)):
        return _from_file(_at(location), Path(os.fspath(location)).stem, key)
    if hasattr(location, "read"):
        return _anonymous(OpenFile.spooled(location, "stream"), key)
    kind = type(location).__name__
    raise UsageError(f"a source is a name, a path, bytes or a binary stream, not {kind}", subject="source")


def check_distinct(one: object, other: object) -> None:
    """Raises UsageError for two sources of which both are standard input, which can be read once."""
    if one == other == STANDARD_INPUT:
        raise UsageError("both are standard input, which can be read once", subject="sources", hint="name a file")


def _random(name: str, seed: int) -> Source:
    """Drawn by torchvision's own laws of initialisation."""
    tensors = {p.name: Initialised(p.dtype, p.shape, p.law, seed, p.name) for p in parameters(VARIANTS[name])}
    return Source(name, tensors, Origin(architecture=name, weights="random", seed=seed))


def _from_network(location: str, key: str | None, progress: Progress) -> Source:
    from resnet_surgeon.sources import address as addresses

    scheme = addresses.scheme_of(location)
    if scheme == "hf://":
        from resnet_surgeon.sources import hub

        file = hub.open_hub(location, progress)
        return _from_file(file, location.split("/")[3].partition("@")[0], key, url=location)
    if scheme in ("https://", "http://"):
        from resnet_surgeon.sources import download

        address = addresses.parse(location)
        file = download.open_url(address, progress)
        return _from_file(file, Path(address.name).stem, key, address.name, address.digest, address.shown)
    if scheme is None:
        return _from_file(_at(location), Path(location).stem, key)
    hint = "download the file, and give its path"
    raise UsageError("addresses begin with https://, http:// or hf://", subject=scheme, hint=hint)


def _anonymous(file: OpenFile, key: str | None) -> Source:
    return replace(_from_file(file, "resnet", key), is_anonymous=True)


def _from_file(
    file: OpenFile,
    label: str,
    key: str | None,
    name: str | None = None,
    promised: str | None = None,
    url: str | None = None,
) -> Source:
    """The network in a file that is called `name`, if not as its path says. Its SHA-256 begins as `promised`, and as
    the catalogue says of a published name.
    """
    if name is None:  # the manifest is UTF-8, whatever the file's name
        name = os.fsencode(Path(file.name).name).decode("utf-8", "replace")
    entry = catalog.entry_for_file(name)
    try:
        container = sniff.read(file)
    except CheckpointError as error:
        if entry is not None and file.size < entry.megabytes * 0.99 * 2**20:
            error.reason += f" ({file.size / 2**20:.1f} MiB of {entry.megabytes:.1f} MiB)"
        raise
    promises = tuple(filter(None, (promised, entry.digest if entry else None)))
    digest = _kept_promise(container, promises) if promises else None
    try:
        if MANIFEST_KEY in container.metadata and key is None:
            found = Unwrapped.bare(container.root)
        else:
            found = unwrap(container.root, key)
    except CheckpointError as error:
        raise error.about(file.name) from None
    warnings = (*container.warnings, *_shared_storage(found.tensors))
    origin = Origin(name, container.kind, digest, url=url, wrapping=found.wrapping, warnings=warnings)
    if entry is not None:
        origin = replace(origin, architecture=entry.architecture, weights=entry.weights, url=url or entry.url)
    return Source(
        label=label,
        tensors=found.tensors,
        origin=origin,
        container=container,
        entry=entry,
        metadata=container.metadata,
        names=found.names,
        dilated_stages=found.dilated_stages,
        index=_index_of(name),
    )


def _kept_promise(container: Container, promises: tuple[str, ...]) -> str:
    """The file's SHA-256. Raises CheckpointError unless it begins as every one of the promises."""
    digest = container.sha256()
    for promised in promises:
        if not digest.startswith(promised):
            raise CheckpointError(
                f"its SHA-256 begins {digest[: len(promised)]}, expected {promised}: it is not the published file",
                subject=container.file.name,
                hint="delete it to download it again, or rename it if it is another file",
            )
    return digest


def _index_of(name: str) -> str | None:
    """The name of the index beside a shard: `model.safetensors.index.json` for `model-00001-of-00004.safetensors`."""
    match = re.fullmatch(r"(.*)-\d{5}-of-(\d{5})(\.[a-z]+)", name)
    return f"{match[1]}{match[3]}.index.json" if match and int(match[2]) > 1 else None


def _shared_storage(tensors: Mapping[str, LazyTensor]) -> Iterator[str]:
    """Tensors that share bytes, which are then written apart."""
    places = sorted(
        (id(tensor.file), tensor.offset, tensor.offset + byte_size(tensor), name)
        for name, tensor in tensors.items()
        if isinstance(tensor, Stored) and byte_size(tensor)
    )
    for (file, _, end, one), (same, begin, _, other) in itertools.pairwise(places):
        if file == same and begin < end:
            yield f"tensors {printable(one)} and {printable(other)} share storage: each is written apart"
            break


def _stem_warnings(tensors: Mapping[str, LazyTensor]) -> Iterator[str]:
    stem = tensors.get("conv1.weight")
    if stem is None or isinstance(stem, Initialised) or stem.dtype not in FLOATS or byte_size(stem) > _LARGEST_STEM:
        return
    if not all(map(math.isfinite, decode(content(stem), stem.dtype))):
        yield "`conv1.weight` holds numbers that are not finite"


def _at(path: str | os.PathLike[str]) -> OpenFile:
    try:
        return OpenFile.at(path)
    except AccessError as error:
        name = os.fspath(path)
        if error.hint is None and "." not in name and os.sep not in name:
            near = difflib.get_close_matches(name, VARIANTS, n=1)
            error.hint = f"did you mean the model `{near[0]}`?" if near else f"model names are {', '.join(VARIANTS)}"
        raise


def _standard_input() -> OpenFile:
    """Standard input: read in place where it is a file, else spooled into a temporary one."""
    name = "standard input"
    try:
        is_terminal, at_start = os.isatty(0), _is_file_at_start(0)
        descriptor = os.dup(0)
    except OSError:
        raise AccessError("it is closed", subject=name) from None
    file = OpenFile(descriptor, name)
    if is_terminal:
        raise UsageError(
            "it is a terminal, not a stream", subject=name, hint="pipe a safetensors file into it, or name a file"
        )
    if not at_start:
        file = OpenFile.spooled(0, name)
    if file.size == 0:
        raise CheckpointError("it is empty", subject=name, hint="the command before it in the pipe may have failed")
    return file


def _is_file_at_start(descriptor: int) -> bool:
    import stat

    return stat.S_ISREG(os.fstat(descriptor).st_mode) and os.lseek(descriptor, 0, os.SEEK_CUR) == 0
