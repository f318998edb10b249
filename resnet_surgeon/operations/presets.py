"""Kinds of images by name, each as the channels that it has. A table; docs/surgery.md shows it."""

from __future__ import annotations

from collections.abc import Sequence

from resnet_surgeon.dataclass import dataclass

_STACK = "stack:"


@dataclass(frozen=True)
class Preset:
    """The channels as `adapt --channels` takes them, and whose order and weights they are."""

    channels: str
    source: str


PRESETS = {
    "sentinel2": Preset(
        "B01=mean,B02=B,B03=G,B04=R,B05=mean,B06=mean,B07=mean,B08=mean,B8A=mean,B09=mean,B10=mean,B11=mean,B12=mean",
        "ESA, Sentinel-2 MSI Level-1C, 13 bands: B02, B03 and B04 are blue, green and red",
    ),
    "sentinel2-l2a": Preset(
        "B01=mean,B02=B,B03=G,B04=R,B05=mean,B06=mean,B07=mean,B08=mean,B8A=mean,B09=mean,B11=mean,B12=mean",
        "ESA, Sentinel-2 MSI Level-2A: the same without B10, cirrus, which has no surface reflectance",
    ),
    "landsat8": Preset(
        "B1=mean,B2=B,B3=G,B4=R,B5=mean,B6=mean,B7=mean",
        "USGS, Landsat 8 Collection 2 Level-2, SR_B1 to SR_B7: B2, B3 and B4 are blue, green and red",
    ),
    "naip": Preset("R,G,B,N=R", "USDA, NAIP four-band images: red, green, blue, near infrared (which begins as red)"),
    "rgbd": Preset("R,G,B,D=mean", "colour and depth, which begins as the mean of the colours"),
    "rgba": Preset("R,G,B,A=zero", "colour and opacity, which changes nothing until it is trained"),
    "bgr": Preset("B,G,R", "OpenCV's order"),
    "luma": Preset("Y=0.299*R+0.587*G+0.114*B", "ITU-R Rec. BT.601, section 2.5.1: the gray that Pillow's mode L is"),
}
NAMES = (*PRESETS, f"{_STACK}K")
PATTERN = "|".join([*PRESETS, rf"{_STACK}[1-9][0-9]{{0,4}}"])


def items(preset: str, names: Sequence[str]) -> tuple[str, ...]:
    """The channels of a preset for a network whose own are called so.

    `stack:K` is K frames one after the other, each with the network's channels and every filter over K: what an image
    that stands still gives stays the same, as in networks inflated over time (Carreira & Zisserman 2017,
    arXiv:1705.07750, section 2.3).
    """
    if preset in PRESETS:
        return tuple(PRESETS[preset].channels.split(","))
    frames = int(preset.removeprefix(_STACK))
    called = [f"c{name}" if name.isdecimal() else name for name in names]
    return tuple(
        f"{name}_{frame}={1 / frames!r}*{number}"
        for frame in range(1, frames + 1)
        for number, name in enumerate(called)
    )


def name_of(channels: Sequence[str]) -> str | None:
    """The preset that has these very channels."""
    return next((name for name, preset in PRESETS.items() if preset.channels == ",".join(channels)), None)
