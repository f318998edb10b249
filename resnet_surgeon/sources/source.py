"""An opened source: the network found at a location, its tensors lazily, and what is known of where it comes from."""

from __future__ import annotations

import functools
import itertools
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from resnet_surgeon.architecture.facts import UNKNOWN, Facts, stated
from resnet_surgeon.architecture.layers import Part
from resnet_surgeon.architecture.parameters import parameters
from resnet_surgeon.architecture.recognise import FLOATS
from resnet_surgeon.architecture.variants import VARIANTS
from resnet_surgeon.arithmetic.numbers import decode
from resnet_surgeon.dataclass import dataclass
from resnet_surgeon.errors import CheckpointError, UsageError, printable
from resnet_surgeon.fields import Seed, checked
from resnet_surgeon.formats import sniff
from resnet_surgeon.formats.arriving import ArrivingFile
from resnet_surgeon.formats.container import Container
from resnet_surgeon.formats.files import OpenFile
from resnet_surgeon.formats.tensors import Initialised, LazyTensor, Stored, byte_size, content
from resnet_surgeon.location import DEFAULT_NAME, Location
from resnet_surgeon.platform.background import Background
from resnet_surgeon.sources import catalog, files, sidecar
from resnet_surgeon.sources.digest import sha256
from resnet_surgeon.sources.files import NamedFile
from resnet_surgeon.sources.found import Found, at
from resnet_surgeon.sources.origin import Origin
from resnet_surgeon.sources.progress import Progress, silent
from resnet_surgeon.sources.promise import promise
from resnet_surgeon.sources.sidecar import MANIFEST_KEY, NAMES_KEY, Sidecar

if TYPE_CHECKING:  # files of ours and plain ones hold no modules
    from resnet_surgeon.formats.modules import ModuleNode
    from resnet_surgeon.sources.module_paths import Bare

_PLAIN = ("safetensors", "safetensors_index")  # containers that hold named tensors alone
_LARGEST_STEM = 1 << 22  # bytes of conv1.weight that are looked at


@dataclass(frozen=True)
class Source:
    """An opened source, of which nothing has been read but names and shapes.

    Where the file's SHA-256 was promised, by a published name or a URL, it has been read through and `origin` has the
    digest. `label` is how people call it, and what default file names begin with; streams and bytes are anonymous.
    Random weights have no `container`; published weights have an `entry`. `sidecar` is what was named as its manifest,
    or may be it since it lies beside the file. `stated` is what the user says of the network. `progress` shows how far
    the file has been read for its digest.
    """

    label: str
    origin: Origin
    found: Found
    container: Container | None = None
    entry: catalog.Entry | None = None
    is_anonymous: bool = False
    sidecar: Sidecar | None = None
    stated: Facts = UNKNOWN
    progress: Progress = silent

    @property
    def tensors(self) -> Mapping[str, LazyTensor]:
        """The network's tensors, by torchvision's names."""
        return self.found.tensors

    @property
    def metadata(self) -> Mapping[str, str]:
        """The text that a safetensors file carries beside its tensors."""
        return self.container.metadata if self.container else {}

    @property
    def subject(self) -> str:
        """What messages about it begin with."""
        return self.container.file.name if self.container else self.label

    def identified(self) -> Origin:
        """The origin with its SHA-256, for which the whole file is read once, however often this is called. Raises
        CheckpointError if it is damaged or has changed.
        """
        if self.container is None or self.origin.sha256 is not None:
            return self.described
        if self.known.sha256 is not None:
            self.container.check_unchanged()
        return replace(self.described, sha256=self._digest)

    @property
    def known(self) -> Origin:
        """The origin, with its SHA-256 if that was promised or has been worked out: reads nothing for it."""
        return replace(self.described, sha256=self.origin.sha256 or vars(self).get("_digest"))

    def read_ahead(self) -> None:
        """Begins to read the file for its SHA-256, in a second thread: that takes as long as all else."""
        if self.container is not None and self.origin.sha256 is None:
            _ = self._reading

    @functools.cached_property
    def _reading(self) -> Background[str | None]:
        return Background(lambda: sha256(self.container, self.progress) if self.container else None)

    @functools.cached_property
    def _digest(self) -> str | None:
        return self._reading.result()

    def with_digest(self) -> Source:
        """The source with its SHA-256 in its origin, for which the whole file is read once. Raises CheckpointError."""
        if self.container is None or self.origin.sha256 is not None:
            return self
        return replace(self, origin=replace(self.origin, sha256=self._digest))

    @functools.cached_property
    def layers(self) -> Sequence[Part] | None:
        """The network's layers where the file is a graph, which shows them. Raises ArchitectureError for a graph that
        is no ResNet's.
        """
        if self.container is None or self.container.kind != "onnx":
            return None
        from resnet_surgeon.sources import graphs

        return graphs.layers_of(self.container.root, self.found.wrapping)

    @property
    def module(self) -> ModuleNode | None:
        """The whole module that the network is in, if that was saved."""
        if self._node is None:
            return None
        from resnet_surgeon.formats.modules import ModuleNode

        return self._node if isinstance(self._node, ModuleNode) else None

    @property
    def _node(self) -> object:
        """What the network stands in, where that may tell more than names and tensors."""
        if self.container is None or self.container.kind in _PLAIN:
            return None
        return at(self.container.root, self.found.path)

    @functools.cached_property
    def bare_modules(self) -> Bare | None:
        """The network's modules without tensors, where the file has noted them."""
        if self._node is None:
            return None
        from resnet_surgeon.formats.modules import StateDictNode
        from resnet_surgeon.sources.module_paths import bare

        scope = self.found.wrapping.prefix if self.found.wrapping else ""
        return bare(self._node, self.found.names, scope) if isinstance(self._node, StateDictNode) else None

    @functools.cached_property
    def described(self) -> Origin:
        """The origin, with a warning for a stem whose numbers are not all finite: reads conv1."""
        return replace(self.origin, warnings=(*self.origin.warnings, *_stem_warnings(self.tensors)))


def open_source(
    location: Location | OpenFile = DEFAULT_NAME,
    weights: str | None = None,
    seed: int = 0,
    key: str | None = None,
    progress: Progress = silent,
    fc: str | None = None,
    ignore: Sequence[str] = (),
    manifest: str | os.PathLike[str] | None = None,
    assume: str | Mapping[str, object] | None = None,
) -> Source:
    """Opens a model name (with `weights`: DEFAULT, a published name, or random), a path, a URL, `-`, bytes, a stream,
    or a file that is open already.

    `key` chooses one of several networks in a file, `fc` names the module that is its classifier (or is `none`), and
    `ignore` are patterns of the names of layers that may be left out. `manifest` is the path of the file's manifest, if
    that is neither in the file nor beside it, and `assume` states facts that tensors do not show. A digest that a
    published name or a URL promises is checked here, before anything can be made of the file. Raises UsageError,
    AccessError, CheckpointError or WeightsError.
    """
    weights = checked(str | None, weights, "weights")
    seed = checked(Seed, seed, "seed")
    key = checked(str | None, key, "key")
    fc = checked(str | None, fc, "fc")
    ignore = checked(tuple[str, ...], ignore, "ignore")
    facts = stated(assume or {})
    if isinstance(location, str) and location in VARIANTS:
        if manifest is not None:
            raise UsageError("a model name has no manifest", subject="manifest", hint="name the file that it tells of")
        if weights == "random":
            if fc is not None or ignore:
                raise UsageError("random weights have nothing to choose or ignore", subject="fc, ignore")
            return replace(_random(location, seed), stated=facts)
        named = files.published(catalog.entry(location, weights or "DEFAULT"), progress)
        return replace(_in_file(named, key, fc, ignore, progress), stated=facts)
    if weights is not None:
        hint = f"model names are {', '.join(VARIANTS)}"
        raise UsageError("weights are chosen for a model name, not for a file", subject="weights", hint=hint)
    given = None if manifest is None else sidecar.named(manifest)
    source = _in_file(files.located(location, progress), key, fc, ignore, progress)
    if given is None and source.entry is None and source.container and _may_have_sidecar(source.container):
        given = sidecar.beside(source.container.file)
    return replace(source, sidecar=given, stated=facts)


def _may_have_sidecar(container: Container) -> bool:
    """Whether a document beside the file may be its manifest. An export lies beside what it was made of as often, and a
    graph says by itself what it computes.
    """
    return MANIFEST_KEY not in container.metadata and container.kind != "onnx"


def _random(name: str, seed: int) -> Source:
    """Drawn by torchvision's own laws of initialisation."""
    tensors = {p.name: Initialised(p.dtype, p.shape, p.law, seed, p.name) for p in parameters(VARIANTS[name])}
    return Source(name, Origin(architecture=name, weights="random", seed=seed), Found(tensors))


def _in_file(named: NamedFile, key: str | None, fc: str | None, ignore: Sequence[str], progress: Progress) -> Source:
    promised = promise(named.name, named.digest)
    entry = promised.entry
    try:
        container = _container(named.file, progress)
    except CheckpointError as error:
        error.reason += promised.shortfall(named.file)
        raise
    digest = promised.kept_by(container, progress)
    found = _found(container, key, fc, ignore)
    warnings = (*container.warnings, *_shared_storage(found.tensors))
    origin = Origin(named.name, container.kind, digest, url=named.url, wrapping=found.wrapping, warnings=warnings)
    origin = replace(origin, not_loaded=container.not_loaded)
    if entry is not None:
        url = named.url or entry.url
        origin = replace(origin, architecture=entry.architecture, weights=entry.weights, url=url)
    return Source(named.label, origin, found, container, entry, named.is_anonymous, progress=progress)


def _container(file: OpenFile, progress: Progress) -> Container:
    """What the file holds. A stream without a manifest is read to its end first: its digest goes out before its
    tensors.
    """
    if not isinstance(file, ArrivingFile):
        return sniff.read(file)
    if sniff.is_safetensors(file):
        container = sniff.read(file)
        if MANIFEST_KEY in container.metadata:
            return container
    return sniff.read(files.whole(file, progress))


def _found(container: Container, key: str | None, fc: str | None, ignore: Sequence[str]) -> Found:
    try:
        is_bare = MANIFEST_KEY in container.metadata and NAMES_KEY not in container.metadata
        if is_bare and key is fc is None and not ignore:
            return Found.bare(container.root)
        if container.kind == "onnx":
            from resnet_surgeon.sources import graphs

            return graphs.found(container.root, key, fc, ignore)
        from resnet_surgeon.sources.wrappings import unwrap

        return unwrap(container.root, key, fc, ignore)
    except CheckpointError as error:
        raise error.about(container.file.name) from None


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
