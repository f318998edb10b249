"""The signs of ResNets that are not torchvision's kind: names that no torchvision ResNet has, and shapes that none can
have.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from resnet_surgeon.architecture.spec import STEM_CHANNELS, STEM_WEIGHT
from resnet_surgeon.errors import ArchitectureError

_USUAL = re.compile(
    r"(conv1|bn1|fc|layer[1-4]\.\d+\.(conv[123]|bn[123]|downsample\.[01]))"
    r"\.(weight|bias|running_mean|running_var|num_batches_tracked)"
)
_IN_BLOCK = r"layer\d\.\d+\."
# (A sign in a name, what it is a sign of), the more telling before the more common.
_NAMES = (
    (r"(^|\.)attnpool\.", "CLIP's ResNet (three convolutions in its stem, attention in the place of pooling)"),
    (r"(zero_point|_packed_params\w*)$", "a quantised ResNet (its tensors are scaled whole numbers)"),
    (r"^(transition\d|stage\d\.\d+\.fuse_layers)\.", "an HRNet (branches of several resolutions side by side)"),
    (
        r"^((conv1|stem|layer0)\.[3-9]\.weight|stem\.conv[2-9](\.|_)|stem\.conv\d\d|conv[23]\.weight)",
        "a ResNet with a deep stem of several 3x3 convolutions (as in ResNet-D)",
    ),
    (
        rf"^{_IN_BLOCK}(se|se_module|se_layer|attn)\.",
        "a ResNet with squeeze-and-excitation or attention in its blocks",
    ),
    (rf"^{_IN_BLOCK}conv\d\.(paths|attn)\.", "a selective-kernel network (SK-ResNet)"),
    (rf"^{_IN_BLOCK}conv2\.(conv|bn0|fc1)\.", "a split-attention network (ResNeSt)"),
    (rf"^{_IN_BLOCK}convs\.\d", "a Res2Net (several 3x3 convolutions in a block)"),
    (rf"^{_IN_BLOCK}bn1\.(IN|BN)\.", "an IBN-Net (instance norms beside its batch norms)"),
    (rf"^{_IN_BLOCK}downsample\.2\.", "a ResNet with pooling in its downsample (as in ResNet-D)"),
    (r"^(stages|layer\d?)\.\d+(\.blocks\.\d+)?\.(norm1|preact)\.", "a pre-activation ResNet (ResNet v2)"),
    (rf"^{_IN_BLOCK}shortcut\.\d\.", "a CIFAR ResNet (shortcuts named `shortcut`)"),
)


def refuse_other_kinds(shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raises ArchitectureError, with its name, for a kind of ResNet that torchvision does not have.

    `shapes` are those of the tensors by torchvision's names, and of others beside them by their own.
    """
    kind = _kind(shapes)
    if kind is not None:
        raise ArchitectureError(f"this is {kind}, which torchvision does not have and this tool does not take")


def _kind(shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    names = [name for name in shapes if not _USUAL.fullmatch(name)]
    return _by_dimensions(shapes) or (_by_name(names) if names else None) or _by_shape(shapes)


def _by_name(names: Iterable[str]) -> str | None:
    any_sign = re.compile("|".join(f"(?:{sign})" for sign, _ in _NAMES))
    telling = [*filter(any_sign.search, names)]
    return next((kind for sign, kind in _NAMES if any(map(re.compile(sign).search, telling))), None)


def _by_dimensions(shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    if any(len(shape) == 5 for shape in shapes.values()):
        return "a 3D ResNet (its convolutions go along three axes)"
    if len(shapes.get(STEM_WEIGHT, ())) == len(shapes.get("layer1.0.conv1.weight", ())) == 3:
        return "a 1D ResNet (its convolutions go along one axis)"
    return None


def _by_shape(shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    stem = shapes.get(STEM_WEIGHT, ())
    if "bn1.weight" in shapes and not any(name.endswith("running_mean") for name in shapes):
        return "a ResNet without batch norms (they have no running means: group norms, or frozen in another way)"
    if len(stem) == 4 and stem[2:] == (3, 3) and stem[0] != STEM_CHANNELS:
        return f"a CIFAR ResNet ({stem[0]} channels from a 3x3 stem)"
    norm, convolution = shapes.get("layer2.0.bn1.weight", ()), shapes.get("layer2.0.conv1.weight", ())
    if len(norm) == 1 and len(convolution) == 4 and norm[0] == convolution[1] != convolution[0]:
        return "a pre-activation ResNet (ResNet v2)"
    if len(stem) == 4 and stem[0] > STEM_CHANNELS and stem[0] % STEM_CHANNELS == 0 and stem[2:] == (7, 7):
        times = stem[0] // STEM_CHANNELS
        return f"a ResNet {times} times as wide from the stem on ({stem[0]} channels; torchvision widens blocks alone)"
    return None
