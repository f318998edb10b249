"""Writes the catalogue of published weights from the installed torchvision: `make catalog`. A test compares the two."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from resnet_surgeon.architecture.variants import VARIANTS

CATALOG = Path(__file__).resolve().parents[1] / "resnet_surgeon" / "sources" / "catalog.json"


def catalog() -> dict[str, Any]:
    """What torchvision says of the weights of the ten ResNets."""
    from torchvision.models import get_model_weights

    weights: list[dict[str, Any]] = []
    categories: list[str] = []
    for architecture in VARIANTS:
        published = get_model_weights(architecture)
        for entry in published:
            meta, transforms = entry.meta, entry.transforms()
            categories = meta["categories"]
            weights.append(
                {
                    "architecture": architecture,
                    "weights": entry.name,
                    "is_default": entry is published.DEFAULT,
                    "url": entry.url,
                    # The same pattern as torch.hub's HASH_REGEX.
                    "digest": re.search(r"-([a-f0-9]*)\.", entry.url)[1],  # type: ignore[index]
                    "parameters": meta["num_params"],
                    "megabytes": meta["_file_size"],
                    "top1": meta["_metrics"]["ImageNet-1K"]["acc@1"],
                    "top5": meta["_metrics"]["ImageNet-1K"]["acc@5"],
                    "preprocessing": {
                        "mean": transforms.mean,
                        "std": transforms.std,
                        "resize_size": transforms.resize_size[0],
                        "crop_size": transforms.crop_size[0],
                        "interpolation": transforms.interpolation.value,
                    },
                }
            )
    return {"categories": categories, "weights": weights}


if __name__ == "__main__":
    CATALOG.write_text(json.dumps(catalog(), indent=1) + "\n", "utf-8")
