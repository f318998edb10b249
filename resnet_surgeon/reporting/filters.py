"""The 64 filters of conv1 as pictures: 8 by 8 tiles, in colour where the image has red, green and blue."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image
from torch import Tensor

from resnet_surgeon.dataclass import dataclass

_COLUMNS = 8
_MOST = 4  # channels drawn one by one
_GRID = 128  # between the tiles: what zero looks like


@dataclass(frozen=True)
class Picture:
    """A PNG as a data URI, `size` pixels wide and high, and what it shows."""

    uri: str
    size: int
    caption: str


def pictures(weight: Tensor) -> tuple[Picture, ...]:
    """conv1.weight [64, channels, 7, 7] -> one picture in colour for three channels that differ, else a gray one for
    each channel. Middle gray is zero; the largest magnitude of all is black or white.
    """
    filters = weight.float().numpy()
    channels = filters.shape[1]
    scale = float(np.abs(filters).max()) or 1.0
    levels = np.nan_to_num(127.5 + 127.5 * filters / scale).clip(0, 255).astype(np.uint8)
    alike = bool((filters == filters[:, :1]).all())
    if channels == 3 and not alike:
        return (_picture(levels, "64 filters; red, green and blue as they are"),)
    if alike:
        count = "the one channel" if channels == 1 else f"all {channels} channels, which are alike"
        return (_picture(levels[:, :1], f"64 filters of {count}"),)
    return tuple(
        _picture(levels[:, index : index + 1], f"64 filters of channel {index + 1} of {channels}")
        for index in range(min(channels, _MOST))
    )


def _picture(levels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], caption: str) -> Picture:
    """[64, 1 or 3, kh, kw] -> tiles with a line of one pixel between them."""
    count, channels, height, width = levels.shape
    rows = -(-count // _COLUMNS)
    canvas = np.full((rows * (height + 1) + 1, _COLUMNS * (width + 1) + 1, channels), _GRID, np.uint8)
    for index in range(count):
        y, x = (index // _COLUMNS) * (height + 1) + 1, (index % _COLUMNS) * (width + 1) + 1
        canvas[y : y + height, x : x + width] = levels[index].transpose(1, 2, 0)
    data = io.BytesIO()
    Image.fromarray(canvas if channels == 3 else canvas[:, :, 0]).save(data, "PNG", optimize=True)
    uri = f"data:image/png;base64,{base64.b64encode(data.getvalue()).decode('ascii')}"
    return Picture(uri, canvas.shape[1], caption)
