"""`convert`: the network as it is, in another container or under other names."""

from __future__ import annotations

from resnet_surgeon.cli.ahead import begun
from resnet_surgeon.cli.options import Json, Opening, Quiet, Source, Writing
from resnet_surgeon.dataclass import dataclass
from resnet_surgeon.location import DEFAULT_NAME
from resnet_surgeon.operations.checkpoint import option
from resnet_surgeon.writing.names import Names


@dataclass(frozen=True)
class Spelling:
    """What the tensors are called."""

    names: Names = option("What the tensors are called.", default="torchvision")


def convert(
    source: Source = DEFAULT_NAME,
    *,
    spelling: Spelling,
    opening: Opening,
    writing: Writing,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write the network as it is, out of whatever it was packed in: as a safetensors file or one like torch.save's.

    Every tensor is the source's to the bit. With `--names transformers` a config.json is written beside it, and
    `from_pretrained` takes the folder. What a library could not rebuild from its names is refused.
    """
    location = begun(source, writing)
    from resnet_surgeon.cli.run import run

    run(location, None, opening, writing, names=spelling.names, json=json, quiet=quiet)
