"""What any source is: container, packing, network, dtypes, history, and what can be done with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from resnet_surgeon.architecture.facts import Assumed
from resnet_surgeon.architecture.parameters import trained
from resnet_surgeon.architecture.recognise import describe
from resnet_surgeon.architecture.spec import Architecture
from resnet_surgeon.architecture.variants import variant_name
from resnet_surgeon.dataclass import dataclass
from resnet_surgeon.errors import CheckpointError
from resnet_surgeon.formats.tensors import byte_size
from resnet_surgeon.history.facts import facts_now
from resnet_surgeon.history.opening import Opening, recognised
from resnet_surgeon.location import DEFAULT_NAME, Location
from resnet_surgeon.operations import OPERATIONS
from resnet_surgeon.plan import Layout
from resnet_surgeon.sources.origin import Origin
from resnet_surgeon.sources.progress import Progress, silent
from resnet_surgeon.sources.source import open_source

if TYPE_CHECKING:
    from typing_extensions import Unpack


@dataclass(frozen=True)
class Inspection:
    """What was found. `problem` says why there is no `architecture`, where there is none.

    `source` is the file itself; `operations`, `began_as` and `other_sources` are its manifest's word on where it is
    from. `facts` are what tensors do not show of the network, with who said so. `parameters` counts the numbers that
    training changes. `can` says for each operation how it applies.
    """

    source: Origin
    bytes: int
    tensors: Mapping[str, Layout]
    dtypes: Mapping[str, int]
    architecture: Architecture | None
    description: str | None
    torchvision: str | None
    parameters: int | None
    problem: str | None
    facts: tuple[Assumed, ...]
    operations: tuple[Mapping[str, Any], ...]
    began_as: Origin | None
    other_sources: tuple[Origin, ...]
    can: Mapping[str, str]


def inspect(
    source: Location = DEFAULT_NAME,
    *,
    progress: Progress = silent,
    **opening: Unpack[Opening],
) -> Inspection:
    """What `source` is, even if it holds no ResNet; `opening` is that of `open`.

    Raises the errors of `open` for what is no checkpoint at all.
    """
    opened = open_source(source, progress=progress, **opening)
    architecture = history = problem = None
    facts: tuple[Assumed, ...] = ()
    try:
        found = recognised(opened)
        architecture, history = found.architecture, found.history
        facts = facts_now(history) if history else found.facts
        opened = found.source
    except CheckpointError as error:
        hints = [*filter(None, [error.hint]), *(f"`--{answer.option} {answer.value}`" for answer in error.answers)]
        problem = error.reason + (f" ({', '.join(hints)})" if hints else "")
    layouts = {name: Layout(tensor.dtype, tensor.shape, byte_size(tensor)) for name, tensor in opened.tensors.items()}
    return Inspection(
        source=opened.identified(),
        bytes=sum(layout.bytes for layout in layouts.values()),
        tensors=layouts,
        dtypes=dict(Counter(layout.dtype for layout in layouts.values())),
        architecture=architecture,
        description=describe(architecture) if architecture else None,
        torchvision=variant_name(architecture) if architecture else None,
        parameters=trained(architecture) if architecture else None,
        problem=problem,
        facts=facts,
        operations=history.operations if history else (),
        began_as=history.source if history else None,
        other_sources=tuple(other.origin for other in history.other_sources) if history else (),
        can={name: operation.advice(architecture) for name, operation in OPERATIONS.items()} if architecture else {},
    )
