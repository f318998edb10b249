"""torchvision's ten ResNets by name."""

from __future__ import annotations

from resnet_surgeon.architecture.spec import Architecture, Block, Head, standard_stages


def resnet(
    block: Block, depths: tuple[int, ...], groups: int = 1, width_per_group: int = 64, classes: int = 1000
) -> Architecture:
    """The network that `torchvision.models.ResNet` builds from the same arguments."""
    return Architecture(
        block=block,
        in_channels=3,
        stages=standard_stages(block, depths, groups, width_per_group),
        heads=(Head("fc", classes),),
        groups=groups,
    )


VARIANTS: dict[str, Architecture] = {
    "resnet18": resnet("basic", (2, 2, 2, 2)),
    "resnet34": resnet("basic", (3, 4, 6, 3)),
    "resnet50": resnet("bottleneck", (3, 4, 6, 3)),
    "resnet101": resnet("bottleneck", (3, 4, 23, 3)),
    "resnet152": resnet("bottleneck", (3, 8, 36, 3)),
    "resnext50_32x4d": resnet("bottleneck", (3, 4, 6, 3), groups=32, width_per_group=4),
    "resnext101_32x8d": resnet("bottleneck", (3, 4, 23, 3), groups=32, width_per_group=8),
    "resnext101_64x4d": resnet("bottleneck", (3, 4, 23, 3), groups=64, width_per_group=4),
    "wide_resnet50_2": resnet("bottleneck", (3, 4, 6, 3), width_per_group=128),
    "wide_resnet101_2": resnet("bottleneck", (3, 4, 23, 3), width_per_group=128),
}


def variant_name(architecture: Architecture) -> str | None:
    """The torchvision network with these very stages, or None.

    >>> variant_name(resnet("bottleneck", (3, 4, 6, 3), classes=7))
    'resnet50'
    """
    for name, variant in VARIANTS.items():
        if (variant.block, variant.groups, variant.stages) == (
            architecture.block,
            architecture.groups,
            architecture.depth,
        ):
            return name
    return None
