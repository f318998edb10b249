"""A network layer by layer, and which of the source's layers each is said to be. Reads descriptions; runs nothing."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import replace

from resnet_surgeon.architecture import layers
from resnet_surgeon.architecture.parameters import parameters
from resnet_surgeon.architecture.spec import Architecture
from resnet_surgeon.arithmetic.formulas import Cast
from resnet_surgeon.dataclass import dataclass
from resnet_surgeon.manifest import Computed, Manifest, Provenance, TensorRecord

# Operations after which layers compute something else with the same tensors.
_REBUILDING = ("stem", "dilate")
# The source's name of a tensor, by its provenance and its own name.
Naming = Callable[[Provenance, str], "str | None"]


@dataclass(frozen=True)
class Unit:
    """A layer or residual block that is compared by itself, and the one whose output it takes."""

    name: str
    before: str | None


def units(architecture: Architecture) -> tuple[Unit, ...]:
    """The network layer by layer: the stem's, each residual block, avgpool, fc; then those of each of several heads."""
    trunk = [part.name for part in layers.trunk(architecture)]
    chains = [trunk]
    for head in architecture.branches:
        chains.append([trunk[-1], *(part.name for part in layers.branch(architecture, head))])
    first = Unit(trunk[0], None)
    return (first, *(Unit(name, before) for chain in chains for before, name in itertools.pairwise(chain)))


@dataclass(frozen=True)
class Correspondence:
    """The units of both networks; `origins` tells for each unit which of the source's it is said to be, when the
    source's tensors are cast to the dtypes of `casts`, one after the other.
    """

    units: tuple[Unit, ...]
    source_units: Mapping[str, Unit]
    origins: Mapping[str, str]
    casts: Mapping[str, tuple[str, ...]]

    @property
    def connected(self) -> frozenset[str]:
        """The units that, from conv1 on, follow each other in the output as they do in the source."""
        found = {"conv1"}
        for unit in self.units:
            origin = self.source_units.get(self.origins.get(unit.name, ""))
            if origin and unit.before in found and origin.before == self.origins.get(unit.before, unit.before):
                found.add(unit.name)
        return frozenset(found)


def correspondence(manifest: Manifest, source: Architecture, naming: Naming) -> Correspondence:
    own_units = units(manifest.architecture)
    source_units = {unit.name: unit for unit in units(source)}
    own_shapes, shapes = ({p.name: p.shape for p in parameters(network)} for network in (manifest.architecture, source))

    def same(provenance: Provenance, name: str) -> str | None:
        # Of 0.1.0, a new `fc` can have law, seed and stream of the old one, which had another number of classes.
        found = naming(provenance, name)
        return found if found is not None and shapes.get(found) == own_shapes[name] else None

    uncast = {name: _uncast(name, record, same) for name, record in manifest.tensors.items()}
    casts = {found: dtypes for found, dtypes in reversed(uncast.values()) if found is not None}
    names = {name: found if found and casts[found] == dtypes else None for name, (found, dtypes) in uncast.items()}
    ours, theirs = ({part.name: part for part in layers.parts(network)} for network in (manifest.architecture, source))
    origins = {unit.name: _origin(unit.name, ours, theirs, names) for unit in own_units}
    is_rebuilt = any(name in _REBUILDING for record in manifest.operations for name in record)
    known = {
        name: origin
        for name, origin in origins.items()
        if origin is not None
        and origin in source_units
        and not (is_rebuilt and replace(ours[name], name="") != replace(theirs[origin], name=""))
    }
    return Correspondence(own_units, source_units, known, {name: dtypes for name, dtypes in casts.items() if dtypes})


def _uncast(name: str, record: TensorRecord, naming: Naming) -> tuple[str | None, tuple[str, ...]]:
    """The source's name of the tensor before it was cast, and the dtypes that it was cast to."""
    provenance, dtype = record.provenance, record.dtype
    dtypes: tuple[str, ...] = ()
    while (
        naming(provenance, name) is None and isinstance(provenance, Computed) and isinstance(provenance.formula, Cast)
    ):
        dtypes, dtype = (dtype, *dtypes), provenance.formula.old
        provenance = provenance.inputs[0]
    return naming(provenance, name), dtypes


def _origin(
    unit: str,
    ours: Mapping[str, layers.Part],
    theirs: Mapping[str, layers.Part],
    names: Mapping[str, str | None],
) -> str | None:
    """The source's unit that all tensors of this one are from, by the `names` that these have there. A layer without
    tensors is that of its own name, if that does the same.
    """
    members = [name for name in names if name.startswith(f"{unit}.")]
    if members:
        sources = {_unit_of(names[name], name.removeprefix(unit)) for name in members}
        return sources.pop() if len(sources) == 1 else None
    origin = unit if unit in theirs else _within_head(unit)
    same = origin in theirs and replace(theirs[origin], name=unit) == ours[unit]
    return origin if same else None


def _within_head(unit: str) -> str:
    """The path of a head's layer within the head.

    >>> _within_head("heads.grade.fc.1")
    'fc.1'
    """
    return unit.split(".", 2)[2] if unit.startswith("heads.") else unit


def _unit_of(tensor: str | None, member: str) -> str | None:
    """The source's unit that has the tensor as its `member`."""
    return tensor.removesuffix(member) if tensor is not None and tensor.endswith(member) else None
