"""What a file, or what lies beside it, says of the network that its tensors do not show.

Documents are read as text, bounded, and never executed. Knows how they are written; decides nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from resnet_surgeon.architecture.facts import TORCHVISION, Claim, Facts
from resnet_surgeon.architecture.spec import STAGE_NAMES, Architecture, FeatureMap
from resnet_surgeon.errors import AccessError, ArchitectureError, CheckpointError, listed, printable
from resnet_surgeon.formats.files import OpenFile
from resnet_surgeon.formats.json_text import parsed
from resnet_surgeon.sources.source import Source

_LARGEST = 1 << 22  # characters or bytes of a document that are looked at: LVIS's config has its 1203 classes


def claims(source: Source, architecture: Architecture) -> tuple[Claim, ...]:
    """All that is said, by whatever says it. Raises ArchitectureError for what no network of ours can be."""
    readers = (_published, _packing, _module, _graph, _module_paths, _openmmlab, _transformers, _detector)
    return tuple(claim for read in readers for claim in read(source, architecture))


def _published(source: Source, architecture: Architecture) -> Iterator[Claim]:
    if source.entry is not None or source.container is None:
        yield Claim(TORCHVISION, "file", "torchvision")


def pools(source: Source, architecture: Architecture) -> bool | None:
    """Whether a network without a classifier pools what its last stage gives, by a whole module, or by the modules that
    are noted beside a state_dict; None where nothing shows it.
    """
    if _is_settled(source):
        return None
    if source.module is None:
        return False if source.bare_modules is not None and source.bare_modules.has_no_pooling else None
    from resnet_surgeon.sources import modules

    return modules.pools(source.module, source.found.names, architecture)


def maps(source: Source) -> tuple[FeatureMap, ...]:
    """The feature maps that a whole module returns by name."""
    if source.module is None:
        return ()
    from resnet_surgeon.sources import modules

    return modules.maps(source.module, source.found.names)


def _packing(source: Source, architecture: Architecture) -> Iterator[Claim]:
    """Basic blocks cannot be dilated in torchvision."""
    if not source.found.maxpool:
        yield Claim(Facts(maxpool="none"), "file", "its modules in a row")
    if source.found.dilated_stages and architecture.block == "bottleneck" and source.found.wrapping:
        yield Claim(Facts(dilated=source.found.dilated_stages), "file", source.found.wrapping.kind)


def _module(source: Source, architecture: Architecture) -> Iterator[Claim]:
    """A whole module's attributes and the text of its classes; for these answers whoever has stated every fact."""
    if source.module is not None:
        from resnet_surgeon.sources import modules

        yield from modules.says(source.module, source.found.names, architecture, _is_settled(source))


def _graph(source: Source, architecture: Architecture) -> Iterator[Claim]:
    if source.layers is not None:
        from resnet_surgeon.sources import graphs

        yield Claim(graphs.facts(source.layers), "file", "its ONNX graph")


def _module_paths(source: Source, architecture: Architecture) -> Iterator[Claim]:
    """The modules that torch notes beside a state_dict: they tell what stands in the data's way, and claim nothing."""
    if source.bare_modules is not None and not _is_settled(source):
        source.bare_modules.check()
    return iter(())


def _is_settled(source: Source) -> bool:
    """Whether its user has stated every fact, and so answers for its layers."""
    return source.stated.items().keys() >= TORCHVISION.items().keys()


# torchvision's published detectors with frozen norms, whose eps it sets to 0 when it loads them.
_DETECTORS = r"(fasterrcnn|maskrcnn|keypointrcnn|retinanet)_resnet50_fpn_coco-[0-9a-f]{8}\.pth"


def _detector(source: Source, architecture: Architecture) -> Iterator[Claim]:
    if re.fullmatch(_DETECTORS, source.origin.file or ""):
        yield Claim(Facts(eps=0.0), "file", "torchvision's published detector")


def _transformers(source: Source, architecture: Architecture) -> Iterator[Claim]:
    """`config.json` beside a checkpoint of transformers."""
    if source.found.wrapping is None or source.found.wrapping.kind != "transformers":
        return
    config = _beside(source, "config.json")
    if config is None:
        return
    act = config.get("hidden_act", "relu")
    if act != "relu":
        raise ArchitectureError(f"its config.json says hidden_act {printable(str(act))}, torchvision has relu")
    early = "conv1" if config.get("downsample_in_bottleneck") is True else "conv2"
    first = 2 if config.get("downsample_in_first_stage") is True else 1
    strides = (first, *[2] * (len(architecture.stages) - 1))
    is_bottleneck = architecture.block == "bottleneck"
    facts = Facts(bottleneck_stride=early if is_bottleneck else None, strides=strides)  # type: ignore[arg-type]
    yield Claim(facts, "file", "config.json of transformers")


def _beside(source: Source, name: str) -> Mapping[str, Any] | None:
    """The JSON object in the file of this name, in the folder of a source that was given by path."""
    if source.container is None or source.is_anonymous or source.origin.url is not None:
        return None
    path = Path(source.container.file.name).with_name(name)
    try:
        file = OpenFile.at(path)
    except AccessError:
        return None
    if file.size > _LARGEST:
        raise ArchitectureError(f"the {name} beside it is longer than {_LARGEST} bytes", hint="move it away")
    try:
        document = parsed(file.read(0, file.size).decode("utf-8", "replace"), name)
    except CheckpointError:
        return None
    return document if isinstance(document, dict) else None


def _openmmlab(source: Source, architecture: Architecture) -> Iterator[Claim]:
    for options in _openmmlab_backbones(source):
        yield Claim(_of_backbone(options, architecture), "file", "its OpenMMLab config")


def _openmmlab_backbones(source: Source) -> Iterator[Mapping[str, str]]:
    """The config that OpenMMLab writes into `meta`: Python, of which the backbone's plain values are read."""
    root = source.container.root if source.container else None
    meta = root.get("meta") if isinstance(root, Mapping) else None
    if not isinstance(meta, Mapping):
        return
    for key in ("config", "cfg"):
        text = meta.get(key)
        if isinstance(text, str) and len(text) > _LARGEST:
            raise ArchitectureError(f"its OpenMMLab config is longer than {_LARGEST} characters")
        options = _backbone(text) if isinstance(text, str) else {}
        if re.fullmatch("'(ResNet|ResNet_CIFAR|ResNeXt|ResNetV1[bcd])'", options.get("type", "").replace('"', "'")):
            yield options


def warnings(source: Source, architecture: Architecture) -> Iterator[str]:
    """What the file says of the network that changes none of its numbers, but what they are good for."""
    if source.module is not None and not _is_settled(source):
        from resnet_surgeon.sources import modules

        yield from modules.warnings(source.module, source.found.names, architecture)
    bare = source.bare_modules
    ends_in_map = architecture.output_kind == "feature_map" and not _is_settled(source)
    if bare is not None and ends_in_map and bare.has_no_pooling and not bare.is_row:
        yield (
            "its state_dict has the names of all layers, and none of them pools: its last feature map comes out, which "
            "its forward may pool by a function; `--assume torchvision` pools it"
        )
    for options in _openmmlab_backbones(source):
        names = [stage.name for stage in architecture.stages]
        said = options.get("num_stages", str(len(names)))
        if said != str(len(names)):
            yield f"its OpenMMLab config says num_stages={printable(said)}, and it has {len(names)}"
        taken = options.get("out_indices", "")
        indices = re.fullmatch(r"[(\[]\s*([0-9](\s*,\s*[0-9]){0,9})\s*,?\s*[)\]]", taken)
        last = max(indices[1]) if indices else "3"
        if unused := names[int(last) + 1 :]:
            yield f"its OpenMMLab config takes outputs up to number {last}: {listed(unused)} had no part in training"


def _of_backbone(options: Mapping[str, str], architecture: Architecture) -> Facts:
    """OpenMMLab dilates all blocks of a stage alike, the first one by half as much with `contract_dilation`."""
    for name, usual in _USUAL.items():
        if not re.fullmatch(usual, value := options.get(name, "None")):
            raise ArchitectureError(f"its config says {name}={printable(value)}, which torchvision's ResNets have not")
    count = len(architecture.stages)
    strides = _numbers(options, "strides", (1, 2, 2, 2), count)
    dilations = _numbers(options, "dilations", (1, 1, 1, 1), count)
    dilated = tuple(map(str, dilations)) if max(dilations) > 1 else ()
    if dilated and options.get("contract_dilation") == "True":
        pairs = [*zip((1, *dilations), dilations, strict=False)]
        if any(before not in (after, after // 2) or (before == after > 1) for before, after in pairs):
            raise ArchitectureError(f"its config contracts dilations {dilations}, which no network of ours can have")
        strides = tuple(stride * (after // before) for stride, (before, after) in zip(strides, pairs, strict=True))
        dilated = tuple(name for name, (before, after) in zip(STAGE_NAMES, pairs, strict=False) if after > before)
    norm = options.get("norm_cfg", "")
    eps = re.search(r"\beps\s*=\s*([0-9]{0,9}(\.[0-9]{0,30})?(e-[0-9]{1,3})?)\s*[,)]", norm)
    if "eps" in norm and not (eps and re.match(r"\.?[0-9]", eps[1])):
        raise ArchitectureError(f"its config says norm_cfg={printable(norm)}, of which eps cannot be read")
    is_caffe = options.get("style", "").strip("'\"") == "caffe"
    is_cifar = "ResNet_CIFAR" in options["type"]
    return Facts(
        stem_stride=1 if is_cifar else None,
        maxpool="none" if is_cifar else None,
        bottleneck_stride=None if architecture.block == "basic" else "conv1" if is_caffe else "conv2",
        strides=strides,
        dilated=dilated,
        eps=float(eps[1]) if eps else None,
    )


# What a ResNet of torchvision's is built with, where a config says something of it.
_TYPE = r"None|dict\(\s*type\s*=\s*['\"]({})['\"][^()]*\)"
_USUAL = {"conv_cfg": _TYPE.format("Conv2d|Conv"), "act_cfg": _TYPE.format("ReLU")}


def _numbers(options: Mapping[str, str], name: str, default: tuple[int, ...], count: int) -> tuple[int, ...]:
    """The first `count` of `(1, 2, 2, 1)` or `[1, 2, 2, 1]`. Raises ArchitectureError for what is not so many."""
    text = options.get(name)
    number = "[1-9][0-9]{0,4}"
    if text is not None and not re.fullmatch(rf"[(\[]\s*{number}(\s*,\s*{number}){{{count - 1},9}}\s*,?\s*[)\]]", text):
        raise ArchitectureError(f"its config says {name}={printable(text)}, which are not {count} numbers")
    return (default if text is None else tuple(map(int, re.findall("[0-9]+", text))))[:count]


def _backbone(text: str) -> dict[str, str]:
    """The arguments of `backbone=dict(...)`, each as the text of its value."""
    found = re.search(r"\bbackbone\s*=\s*dict\(", text)
    arguments = _arguments(text, found.end()) if found else []
    return {name.strip(): value.strip() for argument in arguments for name, _, value in [argument.partition("=")]}


def _arguments(text: str, start: int) -> list[str]:
    """What stands between the commas from `start` on, up to the bracket that closes there; nothing if none does."""
    arguments: list[str] = []
    depth, begin, quote = 0, start, ""
    for index in range(start, len(text)):
        letter = text[index]
        if quote or letter in "'\"":
            quote = "" if letter == quote else quote or letter
        elif letter in "([{":
            depth += 1
        elif letter in ")]}" and depth:
            depth -= 1
        elif letter in ",)]}" and not depth:
            arguments.append(text[begin:index])
            begin = index + 1
            if letter != ",":
                return arguments
    return []
