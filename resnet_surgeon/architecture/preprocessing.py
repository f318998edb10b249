"""How images are prepared for a network."""

from __future__ import annotations

from typing import Literal

from resnet_surgeon.dataclass import dataclass
from resnet_surgeon.fields import Size

# As `torchvision.transforms.InterpolationMode` calls them.
Interpolation = Literal["nearest", "nearest-exact", "bilinear", "bicubic", "box", "hamming", "lanczos"]


@dataclass(frozen=True)
class Preprocessing:
    """How images are prepared: resized so that the short side is `resize_size`, cropped to `crop_size`, scaled to [0,
    1], then normalised.

    `mean` and `std` have one number a channel; of size and interpolation None is not known. As in
    `torchvision.transforms._presets.ImageClassification`.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize_size: Size | None
    crop_size: Size | None
    interpolation: Interpolation | None
