"""What libraries call the parts of a ResNet: tables of modules' paths that read their names and write them.

Knows no tensors and no prefixes.
"""

from __future__ import annotations

import re

from resnet_surgeon.dataclass import dataclass

# The modules of a block, as torchvision calls them, in its order.
BLOCK = ("conv1", "bn1", "conv2", "bn2", "conv3", "bn3", "downsample.0", "downsample.1")
_STAGE = re.compile(r"layer(\d)\.(\d+)\.(.+)")


@dataclass(frozen=True)
class Naming:
    """A library's names for the modules of a ResNet.

    `stem` are its convolution and batch norm. A stage's number stands between `stage` and `within`, and layer1's is
    `first`. `block` are the modules of `BLOCK`, and all but the classifier begin with `trunk`.
    """

    name: str
    stem: tuple[str, str] = ("conv1", "bn1")
    stage: str = "layer"
    first: int = 1
    within: str = ""
    block: tuple[str, ...] = BLOCK
    classifier: str = "fc"
    trunk: str = ""

    def written(self, name: str) -> str:
        """The library's name for a tensor of torchvision's. Raises ValueError for one that it has no name for.

        >>> NAMINGS["detectron2"].written("layer1.0.bn1.weight")
        'res2.0.conv1.norm.weight'
        """
        module, _, leaf = name.rpartition(".")
        if module == "fc":
            return f"{self.classifier}.{leaf}"
        if module in ("conv1", "bn1"):
            return f"{self.trunk}{self.stem[module == 'bn1']}.{leaf}"
        match = _STAGE.fullmatch(module)
        if match is None or match[3] not in BLOCK:
            raise ValueError(f"{self.name} has no name for {name}")
        stage = f"{self.stage}{int(match[1]) - 1 + self.first}{self.within}"
        return f"{self.trunk}{stage}.{match[2]}.{self.block[BLOCK.index(match[3])]}.{leaf}"


def _pairs(convolution: str, norm: str, shortcut: tuple[str, str], first: int) -> tuple[str, ...]:
    """The modules of a block whose convolutions are numbered from `first`."""
    numbers = range(first, first + 3)
    return (*(pattern.format(number) for number in numbers for pattern in (convolution, norm)), *shortcut)


NAMINGS = {
    naming.name: naming
    for naming in (
        Naming("torchvision"),
        Naming("timm"),
        Naming(
            "transformers",
            stem=("embedder.embedder.convolution", "embedder.embedder.normalization"),
            stage="encoder.stages.",
            first=0,
            within=".layers",
            block=_pairs(
                "layer.{}.convolution",
                "layer.{}.normalization",
                ("shortcut.convolution", "shortcut.normalization"),
                first=0,
            ),
            classifier="classifier.1",
            trunk="resnet.",
        ),
        Naming(
            "detectron2",
            stem=("stem.conv1", "stem.conv1.norm"),
            stage="res",
            first=2,
            block=_pairs("conv{}", "conv{}.norm", ("shortcut", "shortcut.norm"), first=1),
            classifier="linear",
        ),
        Naming("sequential", stem=("0", "1"), stage="", first=4, classifier="9"),
    )
}

# Every pair of a stem's convolution and batch norm that is read, and every module of a block with torchvision's name
# for it: no two libraries mean different modules by one name.
STEMS = (
    *dict.fromkeys(naming.stem for naming in NAMINGS.values()),
    ("conv1.0", "conv1.1"),
    ("layer0.0", "layer0.1"),
    ("layer0.conv1", "layer0.bn1"),
    ("firstconv", "firstbn"),
    ("stem.conv1", "stem.bn1"),
    ("stem.0", "stem.1"),
    ("conv1.conv", "conv1.bn"),
    ("conv", "bn"),
    ("0.0", "0.1"),
)
BLOCK_MODULES = {
    theirs: ours
    for block in (
        *(naming.block for naming in NAMINGS.values()),
        _pairs("conv{}", "bn{}", ("shortcut.0", "shortcut.1"), first=1),
    )
    for theirs, ours in zip(block, BLOCK, strict=True)
}
# What the first convolution of a block is called: a block is found by it.
FIRST_CONVOLUTIONS = tuple(theirs for theirs, ours in BLOCK_MODULES.items() if ours == "conv1")
