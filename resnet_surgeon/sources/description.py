"""The network as the file and the user together describe it, where its tensors leave something open."""

from __future__ import annotations

from dataclasses import replace

from resnet_surgeon.architecture.facts import (
    Assumed,
    Claim,
    ContradictionError,
    Facts,
    applied,
    assumed,
    merged,
    spelled,
)
from resnet_surgeon.architecture.layers import GlobalPool
from resnet_surgeon.architecture.recognise import check_fit
from resnet_surgeon.architecture.spec import Architecture
from resnet_surgeon.errors import ArchitectureError
from resnet_surgeon.sources import doubts, evidence
from resnet_surgeon.sources.source import Source


def described(source: Source, architecture: Architecture) -> tuple[Source, Architecture, tuple[Assumed, ...]]:
    """The network as the file and the user describe it, and the source with the warnings that come of it.

    Raises ArchitectureError for facts that contradict each other or the tensors, and where the packing leaves open what
    nobody has said.
    """
    if source.layers is not None:
        architecture = replace(architecture, avgpool=any(isinstance(layer, GlobalPool) for layer in source.layers))
    elif architecture.classifier is None and (pools := evidence.pools(source, architecture)) is not None:
        maps = evidence.maps(source)
        architecture = replace(architecture, avgpool=pools and not maps, maps=maps)
    claims = (*evidence.claims(source, architecture), Claim(source.stated, "user"))
    known = Facts()
    for claim in claims:
        try:
            known = merged(known, claim.facts)
        except ContradictionError as error:
            by = next(other.place for other in claims if error.name in other.facts.items())
            raise ArchitectureError(f"{error.reason}: {by} says the first", hint="leave it out of `--assume`") from None
    doubts.ask(source, architecture, known, source.stated)
    network = applied(known, architecture)
    try:
        if network.stages != architecture.stages:  # whether a block has a downsample depends on its stride
            check_fit(network, source.tensors)
    except ArchitectureError as error:
        said = ",".join(f"{name}={spelled(value)}" for name, value in source.stated.items().items())
        what = f"`{said}`" if said else "what the file says of its strides"
        raise ArchitectureError(f"{what} contradicts its tensors: {error.reason}") from None
    more = (*evidence.warnings(source, architecture), *doubts.warnings(source, known, network))
    warnings = tuple(dict.fromkeys((*source.origin.warnings, *more)))
    return replace(source, origin=replace(source.origin, warnings=warnings)), network, assumed(network, claims)
