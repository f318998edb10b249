"""The recipe that made a file, tried: what is printed makes the same manifest, or says that it was not tried.

Opens the file and, where it is there, its source; writes nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from resnet_surgeon.architecture.facts import Assumed
from resnet_surgeon.errors import AccessError, CheckpointError, SurgeonError, WeightsError
from resnet_surgeon.location import Location
from resnet_surgeon.network import open as open_network
from resnet_surgeon.recipes.build import planned
from resnet_surgeon.recipes.reading import parsed
from resnet_surgeon.recipes.record import Place, places_of, recipe_of
from resnet_surgeon.sources.origin import Origin
from resnet_surgeon.sources.progress import silent
from resnet_surgeon.sources.sidecar import NAMES_KEY

# What shares blocks with a file on the way from the source has its tensors where that had them.
_ELSEWHERE = "# The same tensors, but perhaps at other places of the file: it was made by way of another file.\n"


def recipe_text(output: Location) -> str:
    """The YAML text of the recipe that makes the file again: running it where the source lies gives the same bytes;
    or the same tensors, as a comment in it says, where the bytes depend on a file between the two.

    Raises the errors of `open`, CheckpointError for a file that this tool did not write, or whose source is there and
    gives something else, OperationError for a history that no recipe repeats.
    """
    network = open_network(output)
    if network.history is None:
        hint = "recipes are made of files that this tool wrote"
        raise CheckpointError("it has no manifest, which says how it was made", subject=network.label, hint=hint)
    container: Any = network.source.container
    name = network.default_name if network.source.is_anonymous else container.file.name
    names: Any = network.source.metadata.get(NAMES_KEY, "torchvision")
    sources = [(network.history.source, network.history.facts)]
    sources += [(other.origin, other.facts) for other in network.history.other_sources]
    text = recipe_of(network.history, name, names, [_place(origin, facts) for origin, facts in sources])
    try:
        (made,) = planned(name, parsed(text, name, {}), None, silent)
        if made.network.manifest() == replace(network.history, share_blocks=False):
            is_repeated = not network.history.share_blocks or (
                not network.source.is_anonymous and made.network.is_written(name, names=names, share_blocks=True)
            )
            return text if is_repeated else _ELSEWHERE + text
    except (AccessError, WeightsError):
        missing = "its source is not here" if len(sources) == 1 else "not all of its sources are here"
        return f"# Not tried: {missing}.\n{text}"
    except SurgeonError:
        pass
    reason = "what lies there under the name of its source does not make it"
    raise CheckpointError(reason, subject=network.label, hint="put back what it was made from")


def _place(origin: Origin, facts: Sequence[Assumed]) -> Place:
    """The place of a source, with the key that leads to the network in it that was taken."""
    first, *more = places_of(origin, facts)
    for place in (first, *more) if more else ():
        with contextlib.suppress(SurgeonError):
            if open_network(**place).source.origin.wrapping == origin.wrapping:
                return place
    return first
