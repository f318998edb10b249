"""`list`: the catalogue of published weights."""

from __future__ import annotations

import dataclasses
import json as json_format

from resnet_surgeon.cli.options import Json
from resnet_surgeon.cli.output import to_standard_output


def list_weights(json: Json = False) -> None:
    """List torchvision's published ResNet weights: accuracy on ImageNet-1K, size, and which are on this machine."""
    from resnet_surgeon.sources import catalog
    from resnet_surgeon.sources.cache import cache_folder

    folder = cache_folder()
    entries = catalog.entries()
    cached = {entry.url: (folder / entry.file_name).exists() for entry in entries}
    if json:
        document = [{**dataclasses.asdict(entry), "cached": cached[entry.url]} for entry in entries]
        to_standard_output(json_format.dumps(document, indent=1))
        return
    to_standard_output(
        f"{'architecture':<17} {'weights':<14} {'top-1':>6} {'top-5':>6} {'parameters':>11} {'size':>9}  here"
    )
    for entry in entries:
        name = entry.weights + (" *" if entry.is_default else "")
        figures = f"{entry.top1:6.2f} {entry.top5:6.2f} {entry.parameters:>11,} {entry.megabytes:5.1f} MiB"
        to_standard_output(f"{entry.architecture:<17} {name:<15}{figures}  {'yes' if cached[entry.url] else '-'}")
    to_standard_output(f"\n* DEFAULT. Accuracies in percent, as torchvision gives them. The cache is {folder}")
