"""The recipe that made a file, tried: what is printed makes the same manifest, or says that it was not tried.

Opens the file and, where it is there, its source; writes nothing.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from resnet_surgeon.errors import AccessError, CheckpointError, SurgeonError
from resnet_surgeon.network import open as open_network
from resnet_surgeon.recipes.build import plan
from resnet_surgeon.recipes.reading import parsed
from resnet_surgeon.recipes.record import recipes_of
from resnet_surgeon.sources.location import Location
from resnet_surgeon.sources.progress import silent
from resnet_surgeon.sources.sidecar import NAMES_KEY

_UNTRIED = "# Not tried: its source is not here.\n"


def recipe_text(output: Location) -> str:
    """The YAML text of the recipe that makes the file again: running it where the source lies gives the same bytes.

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
    texts = [*recipes_of(network.history, name, names)]
    missing: SurgeonError | None = None
    for text in texts:
        try:
            (made,) = plan(name, parsed(text, name, {}), None, silent)
        except AccessError as error:
            missing = error
        except SurgeonError:
            continue
        else:
            if made.network.manifest() == replace(network.history, share_blocks=False):
                return text
    if missing is not None:
        return _UNTRIED + texts[0]
    hint = "put back what it was made from"
    raise CheckpointError("what lies there under its source's name does not make it", subject=network.label, hint=hint)
