"""Packings that are known to come in several kinds which no tensor tells apart: what is asked of whoever opens one.

Each is an entry of a table: its sign, the facts that settle it, and the possible answers. Reads no file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from resnet_surgeon.architecture import facts
from resnet_surgeon.architecture.facts import ContradictionError, Facts, merged, spelled
from resnet_surgeon.architecture.spec import Architecture, HiddenActivation, HiddenDropout
from resnet_surgeon.dataclass import dataclass
from resnet_surgeon.errors import Answer, ArchitectureError
from resnet_surgeon.formats.tensors import Computed
from resnet_surgeon.sources.source import Source


@dataclass(frozen=True)
class Doubt:
    """What is open about a network, and each answer with what it means."""

    what: str
    fits: Callable[[Source, Architecture], bool]
    settled_by: tuple[str, ...]
    answers: tuple[tuple[str, str], ...]


def _beside(pattern: str) -> Callable[[Source, Architecture], bool]:
    """Whether a tensor of this name, after any prefix, lies beside the network."""
    compiled = re.compile(rf"(.*\.)?({pattern})")

    def fits(source: Source, architecture: Architecture) -> bool:
        wrapping = source.found.wrapping
        return wrapping is not None and any(compiled.fullmatch(name) for name in wrapping.left_out)

    return fits


def _is_detectron2(source: Source, architecture: Architecture) -> bool:
    return architecture.block == "bottleneck" and bool(
        source.found.wrapping and source.found.wrapping.kind == "detectron2"
    )


def _is_called_caffe(source: Source, architecture: Architecture) -> bool:
    return architecture.block == "bottleneck" and "caffe" in (source.origin.file or "").lower()


def _has_biased_downsamples(source: Source, architecture: Architecture) -> bool:
    """Whether biases of its downsamples went into their norms' means."""
    means = (source.tensors.get(f"{stage.name}.0.downsample.1.running_mean") for stage in architecture.stages)
    return any(isinstance(mean, Computed) for mean in means)


def _has_no_maxpool(source: Source, architecture: Architecture) -> bool:
    if source.module is None:
        return False
    from resnet_surgeon.sources import modules

    return modules.leaves_maxpool_open(source.module, source.found.names)


def _names_no_maxpool(source: Source, architecture: Architecture) -> bool:
    """Whether all modules are noted, and none can be it; detectron2 calls a function for it in every network."""
    bare = source.bare_modules
    return bare is not None and bare.has_no_maxpool and not _is_detectron2(source, architecture)


_NO_MAXPOOL = (
    ("maxpool=none", "its forward does without"),
    ("maxpool=torchvision", "its forward calls a function for it"),
)


def _has_activations(source: Source, architecture: Architecture) -> bool:
    return any(isinstance(layer, HiddenActivation) for head in architecture.heads for layer in head.hidden)


_DOUBTS = (
    Doubt(
        "its classifier has several layers, and an activation between them, which has no tensors",
        _has_activations,
        ("activation",),
        (
            ("activation=relu", "nn.ReLU, as most have it"),
            ("activation=gelu", "nn.GELU"),
            ("activation=silu", "nn.SiLU"),
            ("activation=leaky_relu", "nn.LeakyReLU with torch's slope, 0.01"),
            ("activation=elu", "nn.ELU"),
            ("activation=tanh", "nn.Tanh"),
            ("activation=sigmoid", "nn.Sigmoid"),
        ),
    ),
    Doubt(
        "a stem with another kernel than 7x7 mostly has another stride too, and no maxpool",
        lambda source, architecture: architecture.stem_kernel != 7,
        ("stem_stride", "maxpool"),
        (
            ("cifar", "stride 1 and no maxpool: networks for CIFAR's images of 32x32, SimCLR's too"),
            ("stem_stride=1,maxpool=torchvision", "stride 1, with maxpool"),
            ("stem_stride=2,maxpool=torchvision", "stride 2, with maxpool: as torchvision's, but for the kernel"),
            ("stem_stride=2,maxpool=none", "stride 2, no maxpool"),
        ),
    ),
    Doubt(
        "the module has no layer for its maxpool, and its forward, which is not read, may do without",
        _has_no_maxpool,
        ("maxpool",),
        _NO_MAXPOOL,
    ),
    Doubt(
        "the state_dict comes with the names of all layers, and none is a maxpool, which its forward may do without",
        _names_no_maxpool,
        ("maxpool",),
        _NO_MAXPOOL,
    ),
    Doubt(
        "detectron2 has the stride of a bottleneck in its first or its second convolution",
        _is_detectron2,
        ("bottleneck_stride",),
        (
            ("detectron2", "in conv1: STRIDE_IN_1X1, detectron2's default, for weights that began as MSRA's"),
            ("bottleneck_stride=conv2", "in conv2: for weights that began as torchvision's"),
        ),
    ),
    Doubt(
        "a network from Caffe has the stride of a bottleneck in its first convolution, and often another maxpool",
        _is_called_caffe,
        ("bottleneck_stride", "maxpool"),
        (
            ("caffe", "as Caffe has it: stride in conv1, maxpool without padding and with ceil_mode"),
            ("detectron2,maxpool=torchvision", "stride in conv1, torchvision's maxpool: OpenMMLab and detectron2"),
            ("bottleneck_stride=conv2,maxpool=torchvision", "as torchvision has it"),
        ),
    ),
    Doubt(
        "a network with a batch norm neck is of re-identification, where layer4 mostly has stride 1",
        _beside(r"(bottleneck|bnneck|bottleneck\.0|bn_neck|neck)\.running_mean"),
        ("strides",),
        (("reid", "layer4 with stride 1"), ("strides=1-2-2-2", "layer4 with stride 2, as torchvision has it")),
    ),
    Doubt(
        "DETR comes with and without a dilated layer4",
        _beside(r"query_embed\.weight|query_position_embeddings\.weight"),
        ("dilated",),
        (("dilated=none", "DETR"), ("dc5", "DETR-DC5: layer4 dilated")),
    ),
    Doubt(
        "an encoder of DeepLab or PAN is dilated, in one of several ways",
        _beside(r"(aspp|fpa|classifier\.aspp|decoder\.0\.convs)\..*"),
        ("dilated",),
        (
            ("deeplab", "segmentation_models_pytorch with output stride 16: layer4 dilated by 2 throughout"),
            ("deeplab8", "the same with output stride 8: layer3 by 2, layer4 by 4"),
            ("dilated=layer4", "as torchvision dilates, output stride 16"),
            ("dilated=layer3-layer4", "the same with output stride 8"),
            ("dilated=none", "not dilated"),
        ),
    ),
    Doubt(
        "a network with biases in its downsamples is MONAI's, whose conv1 has stride 1 by default",
        _has_biased_downsamples,
        ("stem_stride",),
        (("monai", "conv1 with stride 1"), ("stem_stride=2", "conv1 with stride 2, as torchvision has it")),
    ),
)


def ask(source: Source, architecture: Architecture, known: Facts, stated: Facts) -> None:
    """Raises ArchitectureError, with the answers that there are, if something about the network is open that `known`
    does not settle. `stated` is what the user said already, which an answer then repeats.
    """
    for doubt in _open(source, architecture, known):
        said = "".join(f"{name}={spelled(value)}," for name, value in stated.items().items())
        raise ArchitectureError(
            f"{doubt.what}: its tensors do not tell which, and the wrong one computes something else",
            hint="state it",
            answers=[Answer("assume", said + value, why) for value, why in doubt.answers if _agrees(value, known)],
        )


def _agrees(answer: str, known: Facts) -> bool:
    """Whether the answer can be given beside what is known already."""
    try:
        merged(known, facts.stated(answer))
    except ContradictionError:
        return False
    return True


def _open(source: Source, architecture: Architecture, known: Facts) -> Iterator[Doubt]:
    settled = known.items().keys()
    return (doubt for doubt in _DOUBTS if not settled >= {*doubt.settled_by} and doubt.fits(source, architecture))


def warnings(source: Source, known: Facts, architecture: Architecture) -> Iterator[str]:
    """What is open too, but makes a small difference: it is taken as torchvision, or torch, has it."""
    for head in architecture.heads:
        for number, layer in enumerate(head.hidden):
            if isinstance(layer, HiddenDropout):
                yield (
                    f"fc.{number} has no tensors: it is taken for a dropout of {layer.probability:g}, which acts in "
                    "training alone"
                )
    wrapping = source.found.wrapping
    if wrapping and wrapping.kind == "torchvision detection" and wrapping.filled and known.eps is None:
        yield (
            "its batch norms are frozen: those of torchvision's published detectors have eps 0, here it is 1e-05; "
            "`--assume eps=0` states it"
        )
    elif known.eps is None and not architecture.fused and source.module is not None:
        yield "its batch norms do not say their eps, which is taken for 1e-05; `--assume eps=0` states another"
