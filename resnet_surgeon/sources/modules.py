"""What a whole module says of the network in it: the classes of its layers, and the strides, dilations and the like
that its tensors do not show.

A class whose forward may be another than torchvision's is refused: by the line that differs where the module's file has
the text of its classes, else by its name. Knows names, attributes and text, executes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import cached_property

from resnet_surgeon.architecture.facts import TORCHVISION, Claim, Facts, spelled
from resnet_surgeon.architecture.layers import maxpool_with
from resnet_surgeon.architecture.spec import (
    HEAD_NAME,
    MAPPED,
    Architecture,
    FeatureMap,
    HiddenActivation,
    HiddenDropout,
    Stage,
)
from resnet_surgeon.dataclass import dataclass
from resnet_surgeon.errors import Answer, ArchitectureError, listed, printable
from resnet_surgeon.formats.modules import OUTPUTS, Layer, ModuleNode, common_path
from resnet_surgeon.sources.surroundings import (
    ACTIVATIONS,
    BEHIND_BLOCKS,
    IDENTITIES,
    MEANS,
    Surroundings,
    is_wrapper,
    own_name,
)

# Classes by their own names: libraries and courses copy torchvision's under the same ones.
_NETWORKS = {"ResNet", "QuantizableResNet", "ResNetEncoder", "IntermediateLayerGetter", "Sequential"}
_BLOCKS = {
    "basic": {"BasicBlock", "QuantizableBasicBlock"},
    "bottleneck": {"Bottleneck", "QuantizableBottleneck"},
}
_NORMS = {"BatchNorm2d", "SyncBatchNorm", "FrozenBatchNorm2d", "BatchNormAct2d"}
# Those whose forward calls their layers, one after the other, and nothing else.
_OF_LAYERS_ALONE = {"Sequential", "IntermediateLayerGetter"}
_OURS = "resnet_surgeon.module.ResNet"
# By torch's classes, with the values of their options that are torch's own.
_FUNCTIONS: dict[str, tuple[str, dict[str, object]]] = {
    "ReLU": ("relu", {}),
    "LeakyReLU": ("leaky_relu", {"negative_slope": 0.01}),
    "ELU": ("elu", {"alpha": 1.0}),
    "GELU": ("gelu", {"approximate": "none"}),
    "SiLU": ("silu", {}),
    "Tanh": ("tanh", {}),
    "Sigmoid": ("sigmoid", {}),
}
_AROUND_STAGES = IDENTITIES | ACTIVATIONS | MEANS | {"MaxPool2d"}
_PASSING = IDENTITIES | ACTIVATIONS  # of numbers that a ReLU has passed
AS_TORCHVISION = Answer("assume", "torchvision", "it computes as torchvision's ResNet does")
_ITS_MANIFEST = Answer("manifest", "FILE", "the manifest of the network that was trained")
_LIBRARIES = ("torch.", "torchvision.", "timm.")  # whose classes that hold layers change nothing in them
_NOTHING = Layer("", {}, has_hooks=False)
_CONVOLUTIONS = {"basic": ("conv1", "conv2"), "bottleneck": ("conv1", "conv2", "conv3")}
# transformers' own classes; what they are made of are torch's.
_TRANSFORMERS = "transformers.models.resnet.modeling_resnet."
_BACKBONE = f"{_TRANSFORMERS}ResNetBackbone"
_OF_TRANSFORMERS = {
    "ResNetModel", "ResNetForImageClassification", "ResNetBackbone", "ResNetEmbeddings", "ResNetEncoder", "ResNetStage",
    "ResNetBasicLayer", "ResNetBottleNeckLayer", "ResNetConvLayer", "ResNetShortCut",
}  # fmt: skip
_OF_TORCH = {
    "Conv2d", "BatchNorm2d", "Linear", "Sequential", "ModuleList", "Flatten", "MaxPool2d", "AdaptiveAvgPool2d",
}  # fmt: skip


def says(node: ModuleNode, names: Mapping[str, str], architecture: Architecture, settled: bool) -> Iterator[Claim]:
    """The facts about the network that the module's attributes show, and those that the text of its classes does.

    `names` are those of the tensors in the module, by torchvision's. With `settled` its user has stated all facts, and
    so answers for its classes. Raises ArchitectureError for a class or an attribute that torchvision's network has not.
    """
    module = _Module.of(node, names)
    module.check_readable(architecture)
    shown = module.facts(architecture)
    module = replace(module, answer=_answer(module, shown))
    text = _Text() if settled else module.text(architecture)
    if not settled:
        module.check_classes(architecture, text.proven)
        module.check_surroundings(text.proven)
    maxpool = module.maxpool() if text.maxpool is None else None
    try:
        activation = module.activation(architecture)
    except ArchitectureError:
        if not settled:
            raise
        activation = None
    found = replace(shown, maxpool=maxpool, activation=activation)  # type: ignore[arg-type]
    yield Claim(found, "file", "its module")
    if text.maxpool is not None:
        yield Claim(Facts(maxpool=text.maxpool), "file", "the source code in it")  # type: ignore[arg-type]


def _answer(module: _Module, shown: Facts) -> Answer:
    """Who states all facts answers for its classes; those that the module shows are as they are there."""
    with suppress(ArchitectureError):  # which the user is told, unless the text of its classes knows better
        shown = replace(shown, maxpool=module.maxpool())  # type: ignore[arg-type]
    facts = {**TORCHVISION.items(), **shown.items()}
    if module.layers.get("", _NOTHING).kind == _OURS:
        return _ITS_MANIFEST
    if facts == TORCHVISION.items():
        return AS_TORCHVISION
    said = ",".join(f"{name}={spelled(value)}" for name, value in facts.items())
    return Answer("assume", said, "it computes as torchvision's ResNet does, but for these")


def warnings(node: ModuleNode, names: Mapping[str, str], architecture: Architecture) -> Iterator[str]:
    """What stands around the network, and is left out without being read."""
    module = _Module.of(node, names)
    if left_out := [printable(path) for path in module.surroundings.left_out()]:
        yield f"layers without tensors beside the network are left out: {listed(left_out)}"
    text = module.text(architecture)
    has_means = any(own_name(layer) in MEANS for layer in node.layers.values())
    if architecture.output_kind == "embedding" and not (has_means or text.pools or module.is_part):
        yield (
            "no layer of the module pools its last map, which is taken to be done by a function; "
            "`remove --layers avgpool` leaves the map"
        )
    for path in module.surroundings.unread(text.proven):
        yield (
            f"the network is in {printable(path) if path else 'a module'} of the class "
            f"{printable(node.layers[path].kind)}, whose forward is not read: what it computes besides is left out"
        )


def leaves_maxpool_open(node: ModuleNode, names: Mapping[str, str]) -> bool:
    """Whether it has no layer for it, so that its forward may call a function or do without."""
    module = _Module.of(node, names)
    kinds = {name: own_name(layer) for name, layer in module.around_maxpool()}
    return not module.is_sequential and "maxpool" not in kinds and "MaxPool2d" not in kinds.values()


def pools(node: ModuleNode, names: Mapping[str, str], architecture: Architecture) -> bool | None:
    """Whether it pools what its last stage gives; None where the forward of a class may do that without a layer.

    Raises ArchitectureError for a text that computes something else, and for a Flatten that nothing pools for.
    """
    module = _Module.of(node, names)
    text = module.text(architecture)
    if not all(path in text.proven or _calls_alone(node.layers[path]) for path in module.surroundings.around):
        return None
    if text.pools is not None or not _calls_alone(node.layers.get(module.scope, _NOTHING)):
        return text.pools
    kinds = {own_name(layer): path for path, layer in node.layers.items()}
    if "Flatten" in kinds and not kinds.keys() & MEANS:
        if module.is_part:
            return None  # it may be of what is left out
        module._refuse(kinds["Flatten"], "flattens a feature map that nothing pools")
    return bool(kinds.keys() & MEANS)


def _calls_alone(layer: Layer) -> bool:
    """Whether it is of a class that calls the layers in it, and nothing else."""
    is_known = layer.kind in (_OURS, _BACKBONE)
    return is_known or own_name(layer) in _OF_LAYERS_ALONE or is_wrapper(layer)


def maps(node: ModuleNode, names: Mapping[str, str]) -> tuple[FeatureMap, ...]:
    """The feature maps that it returns by name; none where the last one comes out alone. Raises ArchitectureError for
    outputs that no network of ours has.
    """
    module = _Module.of(node, names)
    network = node.layers.get(module.scope, _NOTHING)
    stages = {block.partition(".")[0]: module._around(f"{block}.conv1", 2) for block in module.blocks}
    if network.kind == _BACKBONE:
        return _maps_of_backbone(network.attributes.get(OUTPUTS), len(stages))
    is_getter = own_name(network) == "IntermediateLayerGetter"
    said = network.attributes.get("return_layers" if is_getter else "maps" if network.kind == _OURS else "")
    found = {layer: name for layer, name in said.items() if name} if isinstance(said, dict) else {}
    if is_getter and [*found] in ([*stages][-1:], ["avgpool"]):
        return ()
    within = f"{module.scope}." if module.scope else ""
    are_ours = all(layer in MAPPED and stages.get(layer, within + layer) == within + layer for layer in found)
    if not are_ours or len({*found.values()}) < len(found) or not all(map(HEAD_NAME.fullmatch, found.values())):
        module._refuse(module.scope, f"returns what its {listed([*map(printable, found)])} give, by name")
    return tuple(FeatureMap(found[layer], layer) for layer in MAPPED if layer in found)


def _maps_of_backbone(said: object, stages: int) -> tuple[FeatureMap, ...]:
    """Those of transformers: `stem` is what torchvision's maxpool gives, `stage1` what layer1 does. Alone, and where
    nothing is said, the last one has no name.
    """
    if said is None or said == (f"stage{stages}",):
        return ()
    layers = {"stem": "maxpool"} | {f"stage{number}": f"layer{number}" for number in range(1, stages + 1)}
    if not isinstance(said, tuple) or not {f"stage{stages}"} <= {*said} <= layers.keys():
        raise ArchitectureError(
            f"it returns {printable(str(said))}, without what its last stage gives",
            hint="save its state_dict, and let `features --layers` cut it",
        )
    return tuple(FeatureMap(name, layer) for name, layer in layers.items() if name in said)


def strided_side(strided: Collection[str]) -> str | None:
    """The one convolution of bottlenecks that has a stride, of those that have. Raises ArchitectureError for two."""
    if len(strided) > 1:
        raise ArchitectureError("some of its bottlenecks have the stride in conv1, others in conv2")
    return next(iter(strided), None)


@dataclass(frozen=True)
class Convolutions:
    """Of a stage: the stride of its first block, and the dilations of its blocks."""

    name: str
    stride: int
    dilations: tuple[int, ...]


@dataclass(frozen=True)
class _Text:
    """What the text of classes says: the paths of modules that compute as torchvision's, the network's maxpool, and
    whether it pools its last map.
    """

    proven: frozenset[str] = frozenset()
    maxpool: str | None = None
    pools: bool | None = None


@dataclass(frozen=True)
class _Module:
    """The layers of a module by their paths in it, these paths by torchvision's, and those of layers with tensors;
    `answer` is what its user can say where it is not known what a layer computes.
    """

    layers: Mapping[str, Layer]
    paths: Mapping[str, str]
    filled: Collection[str]
    answer: Answer = AS_TORCHVISION

    def layer(self, path: str) -> Layer | None:
        """The layer with torchvision's path, if it has tensors."""
        return self.layers.get(self.paths.get(path, path)) if path in self.paths else None

    @classmethod
    def of(cls, node: ModuleNode, names: Mapping[str, str]) -> _Module:
        """`names` are those of the tensors, by torchvision's."""
        paths = {name.rpartition(".")[0]: own.rpartition(".")[0] for name, own in names.items()}
        return cls(node.layers, paths, {name.rpartition(".")[0] for name in node})

    @property
    def is_part(self) -> bool:
        """Whether it is in a larger model: one that has layers with tensors besides."""
        return not {"", *self.paths.values()}.issuperset(self.filled)

    @property
    def stem(self) -> str:
        """The path of the module that conv1 is a child of."""
        return self.paths["conv1"].rpartition(".")[0]

    @cached_property
    def scope(self) -> str:
        """The path of the network itself: of the module around its stem and all its stages."""
        return common_path([self.stem, *(self._around(f"{block}.conv1", 1) for block in self.blocks)])

    @cached_property
    def blocks(self) -> tuple[str, ...]:
        """Its blocks, by torchvision's paths."""
        found = (name.rpartition(".")[0] for name in self.paths if name.startswith("layer") and name.endswith(".conv1"))
        return tuple(sorted(found, key=lambda block: [*map(int, block.removeprefix("layer").split("."))]))

    @property
    def is_of_transformers(self) -> bool:
        return self.layers.get(self.stem, _NOTHING).kind == f"{_TRANSFORMERS}ResNetConvLayer"

    def around_maxpool(self) -> Iterator[tuple[str, Layer]]:
        """The modules of which one may be its maxpool, by their own names: those beside the stem, and in it."""
        yield from self.children(self.stem.rpartition(".")[0] if self.is_of_transformers else self.scope)
        if self.stem != self.scope and not self.is_of_transformers:
            yield from self.children(self.stem)

    @property
    def is_sequential(self) -> bool:
        return own_name(self.layers.get(self.scope, _NOTHING)) == "Sequential"

    def children(self, path: str) -> Iterator[tuple[str, Layer]]:
        """The modules in the one with this path in the file, by their own names."""
        prefix = f"{path}." if path else ""
        for name, layer in self.layers.items():
            if name.startswith(prefix) and name != path and "." not in name[len(prefix) :]:
                yield name[len(prefix) :], layer

    def _has_tensors(self, path: str) -> bool:
        """Whether the module with this path in the file, or one in it, has any."""
        return any(own == path or own.startswith(f"{path}.") for own in self.filled)

    def check_readable(self, architecture: Architecture) -> None:
        """Raises ArchitectureError for a quantised layer, and for a classifier of which no tensor was read."""
        within = f"{self.scope}." if self.scope else ""
        is_open = not architecture.heads and not self._has_tensors(f"{within}fc")
        for path, layer in self.layers.items():
            is_classifier = is_open and path == f"{within}fc" and not self._is_empty_row(path)
            if not path.startswith(within) or own_name(layer) in IDENTITIES:
                continue
            if ".quantized." in layer.kind or is_classifier:
                raise ArchitectureError(
                    f"its {printable(path)} is of the class {printable(layer.kind)}, whose tensors are not read",
                    hint="save its state_dict: what comes out then ends before it" if is_classifier else None,
                )

    def _is_empty_row(self, path: str) -> bool:
        return own_name(self.layers[path]) == "Sequential" and not [*self.children(path)]

    def check_classes(self, architecture: Architecture, proven: Collection[str]) -> None:
        """Raises ArchitectureError for a class of which it is not known that it computes as torchvision's.

        The text has `proven` it of the modules with these paths.
        """
        if self.scope not in self.layers:
            raise ArchitectureError(f"{printable(self.scope)}, which has its tensors, is no module")
        if self.is_of_transformers:
            self._check_transformers(architecture)
            return
        if self.scope not in proven:
            self._check_network(architecture)
        if self.paths.get("fc") not in proven:
            self._check_classifier()
        self._check_containers(proven)
        for module, own in self.paths.items():
            if module.startswith("fc."):  # its shapes tell which of the two it is
                self._check_class(own, {"Linear", "BatchNorm1d"})
                continue
            kind = "linear" if module == "fc" else "norm" if "bn" in module or module.endswith(".1") else "conv"
            self._check_class(own, {"linear": {"Linear"}, "norm": _NORMS, "conv": {"Conv2d"}}[kind])
            if kind == "norm":
                self._check_empty(own, IDENTITIES)  # timm's may have an activation
        for block in {*self.blocks} - {block for block in self.blocks if self._around(f"{block}.conv1", 1) in proven}:
            self._check_block(self._around(f"{block}.conv1", 1), architecture)
        for path, layer in self.layers.items():
            if layer.has_hooks and (not self.scope or path == self.scope or path.startswith(f"{self.scope}.")):
                self._refuse(path, "has hooks or a forward of its own, which may change what it computes")

    @cached_property
    def surroundings(self) -> Surroundings:
        """What stands around the network."""
        ends = (module for module in self.paths if module.partition(".")[0] == "fc")
        blocks = tuple(self._around(f"{block}.conv1", 1) for block in self.blocks)
        stem = tuple(self.paths[layer] for layer in ("conv1", "bn1") if layer in self.paths)
        classifier = tuple(self.paths[end] for end in sorted(ends, key=lambda end: int(end[3:] or 0)))
        return Surroundings(self.layers, self.filled, self.scope, stem, blocks, classifier)

    def check_surroundings(self, proven: Collection[str]) -> None:
        """Raises ArchitectureError for a layer without tensors around the network that may change what it computes."""
        is_ours = self.answer == _ITS_MANIFEST
        module = self if is_ours else replace(self, answer=self.answer._replace(why="take the network without it"))
        for path in self.surroundings.hooked:
            module._refuse(path, "has hooks or a forward of its own, which may change what it computes")
        for path, kinds in self.surroundings.passed(proven):
            module._check_child(path, self.layers[path], kinds)

    def _check_containers(self, proven: Collection[str]) -> None:
        """Checks the classes of what holds the classifier, and the layers of a shortcut."""
        held = [own for module, own in self.paths.items() if module.startswith("fc") or ".downsample." in module]
        blocks = {self._around(f"{block}.conv1", 1) for block in self.blocks}
        for own in held:
            around = own.rpartition(".")[0]
            while around not in blocks and not f"{self.scope}.".startswith(f"{around}.") and around:
                if around not in proven and not self.layers.get(around, _NOTHING).kind.startswith(_LIBRARIES):
                    self._check_class(around, {"Sequential"})
                around = around.rpartition(".")[0]

    def _check_network(self, architecture: Architecture) -> None:
        """Checks the classes around the blocks."""
        self._check_class(self.scope, _NETWORKS)
        if self.stem != self.scope:
            self._check_class(self.stem, {"Sequential"})
        stem = (*self.children(self.scope), *self.children(self.stem))
        if self.is_sequential and not any(own_name(layer) in ACTIVATIONS for _, layer in stem):
            self._refuse(self.scope, "has no ReLU behind its stem")
        for path in {self.scope, self.stem}:
            self._check_empty(path, _AROUND_STAGES)
        pools = [name for name, layer in self.children(self.scope) if own_name(layer) in MEANS]
        if len(pools) > 1:
            self._refuse(self.scope, f"averages in {printable(pools[0])} and {printable(pools[1])}")
        for stage in architecture.stages:
            own = self._around(f"{stage.name}.0.conv1", 2)
            self._check_class(own, {"Sequential"})
            self._check_empty(own, IDENTITIES)
            inner = own.removeprefix(self.scope).strip(".")
            while "." in inner:
                inner = inner.rpartition(".")[0]
                self._check_class(".".join(filter(None, (self.scope, inner))), {"Sequential", "ModuleList"})

    def _check_classifier(self) -> None:
        """Checks the classes beside a classifier that is in a module of its own: those before it in a Sequential take
        what the stages give, or its mean.
        """
        around = self._around("fc", 1) if "fc" in self.paths and "." in self.paths["fc"] else ""
        if around and not f"{self.scope}.".startswith(f"{around}."):
            is_row = own_name(self.layers.get(around, _NOTHING)) == "Sequential"
            kinds = BEHIND_BLOCKS if is_row else IDENTITIES
            for name, layer in self.children(around):
                if (path := f"{around}.{name}") == self.paths["fc"]:
                    kinds = IDENTITIES
                else:
                    self._check_child(path, layer, kinds)

    def _check_block(self, block: str, architecture: Architecture) -> None:
        """Checks the classes of a block, by its path in the file."""
        self._check_class(block, _BLOCKS[architecture.block])
        for name, layer in self.children(block):
            path = f"{block}.{name}"
            if name in ("downsample", "shortcut"):
                self._check_empty(path, IDENTITIES)
            elif path not in self.paths.values():
                self._check_child(path, layer, IDENTITIES | ACTIVATIONS)

    def _check_transformers(self, architecture: Architecture) -> None:
        """Checks a network of transformers, whose classes do what its config says, and keep that in their layers."""
        network = (
            self._around("conv1", 3) if self.paths["conv1"].count(".") > 2 else ""
        )  # embedder.embedder.convolution
        last = f".layer.{len(_CONVOLUTIONS[architecture.block]) - 1}.activation"
        for path, layer in self.layers.items():
            if not path.startswith(network):
                continue
            name = layer.kind.removeprefix(_TRANSFORMERS)
            if path.endswith(".activation"):
                self._check_class(path, IDENTITIES if path.endswith(last) else ACTIVATIONS)
            elif not (name in _OF_TRANSFORMERS or (own_name(layer) in _OF_TORCH | IDENTITIES and "torch.nn." in name)):
                self._refuse(path, f"is of the class {printable(layer.kind)}")
            if layer.has_hooks:
                self._refuse(path, "has hooks or a forward of its own, which may change what it computes")
        if "fc" in self.paths and "." in self.paths["fc"]:
            for name, layer in self.children(self._around("fc", 1)):
                path = f"{self._around('fc', 1)}.{name}"
                if path != self.paths["fc"] and not network.startswith(path):
                    self._check_child(path, layer, IDENTITIES)

    def activation(self, architecture: Architecture) -> str | None:
        """What stands between the layers of a classifier that has several. Raises ArchitectureError for what no head of
        ours has there.
        """
        head = architecture.classifier
        if head is None or not head.hidden or self.paths.get(head.last, "").rpartition(".")[0] not in self.layers:
            return None
        around, found = self._around(head.last, 1), set()
        members = dict(self.children(around))
        for number, layer in enumerate(head.hidden):
            member = members.pop(str(number), _NOTHING)
            if isinstance(layer, HiddenActivation):
                function = _FUNCTIONS.get(own_name(member))
                if function is None or any(member.attributes.get(key, own) != own for key, own in function[1].items()):
                    self._refuse(
                        f"{around}.{number}", f"is of the class {printable(member.kind)}, or has other options"
                    )
                else:
                    found.add(function[0])
            elif isinstance(layer, HiddenDropout):
                self._check_child(f"{around}.{number}", member, IDENTITIES)
        for name, member in members.items():
            if f"{around}.{name}" not in self.paths.values():
                self._check_child(f"{around}.{name}", member, IDENTITIES)
        if len(found) > 1:
            self._refuse(around, f"has several activations, {', '.join(sorted(found))}")
        return next(iter(found), None)

    def text(self, architecture: Architecture) -> _Text:
        """What the text of its classes says.

        Raises ArchitectureError, with the line, for what computes otherwise than torchvision's, or is not followed.
        """
        if self.is_of_transformers or not any(layer.source for layer in self.layers.values()):
            return _Text()
        from resnet_surgeon.sources import texts

        head = architecture.classifier
        classifier = self.paths.get(head.last) if head else None
        if head and head.hidden and classifier:
            classifier = classifier.rpartition(".")[0]
        strides = [stage.stride for one in architecture.stages if (stage := self.stage(one, architecture)) is not None]
        stem = self.number("conv1", "stride")
        reach = stem * math.prod(strides) if stem and len(strides) == len(architecture.stages) else None
        blocks = {block: self._around(f"{block}.conv1", 1) for block in self.blocks}
        outer = tuple(self.surroundings.alone)
        try:
            found = texts.compared(
                self.layers, texts.Parts(self.paths, blocks, self.scope, classifier, reach, outer), self._does
            )
        except texts.DiffersError as error:
            self._refuse(error.path, error.does)
        return _Text(*found)

    def _does(self, path: str) -> str:
        """What a layer does, by its class, as `forwards` calls it. Raises ArchitectureError for a pooling that no
        network of torchvision's has.
        """
        from resnet_surgeon.sources import functions

        layer = self.layers[path]
        kind = own_name(layer)
        if kind == "Flatten":
            return functions.FLATTEN
        if kind in IDENTITIES:
            return functions.IDENTITY
        if kind in ACTIVATIONS:
            return functions.RELU
        if kind == "MaxPool2d":
            return functions.MAXPOOL + (_maxpool(layer) or "torchvision")
        if kind == "AvgPool2d":
            self._check_average(path, layer)
        if kind == "AvgPool2d" and len({*_pair(layer.attributes.get("kernel_size"))}) == 1:
            return f"{functions.MEAN} of {_pair(layer.attributes.get('kernel_size'))[0]}"
        if kind in MEANS:
            self._check_child(path, layer, MEANS)
            return functions.MEAN
        return functions.SEQUENCE if kind == "Sequential" else f"the {kind} {path}"

    def _check_empty(self, path: str, kinds: Collection[str]) -> None:
        """Checks the children of a module that have no tensors."""
        for name, layer in self.children(path):
            child = f"{path}.{name}" if path else name
            if not self._has_tensors(child):
                self._check_child(child, layer, kinds)

    def _around(self, path: str, levels: int) -> str:
        """The path in the file of a module around the one with torchvision's path."""
        return self.paths[path].rsplit(".", levels)[0]

    def _check_child(self, path: str, layer: Layer, kinds: Collection[str]) -> None:
        """Raises ArchitectureError for a layer without tensors that no network of torchvision's has there."""
        kind = "Identity" if self._is_empty_row(path) else own_name(layer)
        if kind not in kinds:
            self._refuse(path, f"is of the class {printable(layer.kind)}")
        if kind == "SelectAdaptivePool2d" and (how := layer.attributes.get("pool_type")) != "avg":
            self._refuse(path, f"pools by {printable(str(how))}, not by the mean" if how else "doesn't pool")
        name = path.rpartition(".")[2]
        if name == "avgpool" and kind not in MEANS:
            self._refuse(path, f"is of the class {printable(layer.kind)}")
        if name == "relu" and kind not in ACTIVATIONS:
            self._refuse(path, f"is of the class {printable(layer.kind)}")
        if name == "maxpool" and kind in MEANS:
            self._refuse(path, f"is of the class {printable(layer.kind)}")
        if kind == "AvgPool2d":
            self._check_average(path, layer)
        sizes = {"AdaptiveAvgPool2d": ("output_size", (1, 1)), "AvgPool2d": ("kernel_size", (7, 7))}
        attribute, size = sizes.get(kind, ("", ()))
        if attribute in layer.attributes and _pair(layer.attributes[attribute]) != size:
            self._refuse(path, "pools to another size than 1x1, for images of 224x224")

    def _check_average(self, path: str, layer: Layer) -> None:
        """Raises ArchitectureError for an average that is not that of the numbers in its square."""
        if _pair(layer.attributes.get("padding", 0)) != (0, 0) or layer.attributes.get("divisor_override") is not None:
            self._refuse(path, "pads what it averages, or divides it by another number")

    def _check_class(self, path: str, allowed: set[str]) -> None:
        layer = self.layers.get(path)
        if layer is not None and own_name(layer) not in allowed:
            self._refuse(path, f"is of the class {printable(layer.kind)}")

    def _refuse(self, path: str, what: str) -> None:
        raise ArchitectureError(
            f"{printable(path) if path else 'the module'} {what}: whether it computes as torchvision's cannot be told",
            answers=[self.answer],
        )

    def facts(self, architecture: Architecture) -> Facts:
        """What its attributes show, but for the maxpool. Raises ArchitectureError for what no network of ours has."""
        stages = [self.stage(stage, architecture) for stage in architecture.stages]
        told = [stage for stage in stages if stage is not None]
        dilated_stages, strides = dilated(told)
        return Facts(
            stem_stride=self.number("conv1", "stride"),
            eps=self.eps(),
            bottleneck_stride=self.bottleneck_stride(architecture),  # type: ignore[arg-type]
            strides=strides if told == stages else None,
            dilated=dilated_stages if told == stages else None,
        )

    def number(self, path: str, attribute: str) -> int | None:
        """An attribute of a convolution that is the same along both axes; None where it is not told."""
        layer = self.layer(path)
        if layer is None or attribute not in layer.attributes:
            return None
        value = layer.attributes[attribute]
        first, second = _pair(value)
        if type(first) is not int or first != second or first < (attribute != "padding"):
            shown = printable(str(value))
            raise ArchitectureError(f"{printable(self.paths[path])} has {attribute} {shown}, which no ResNet has")
        return first

    def stage(self, stage: Stage, architecture: Architecture) -> Convolutions | None:
        """The strides and dilations of its convolutions. Raises ArchitectureError for those that no stage has."""
        dilations = []
        stride = 1
        for index in range(stage.blocks):
            block = f"{stage.name}.{index}"
            strides = {name: self.number(f"{block}.{name}", "stride") for name in _CONVOLUTIONS[architecture.block]}
            inner = "conv1" if architecture.block == "basic" else "conv2"
            dilation = self.number(f"{block}.{inner}", "dilation")
            if dilation is None or None in strides.values():
                return None
            dilations.append(dilation)
            total = 1
            for one in strides.values():
                total *= one or 1
            short = self.number(f"{block}.downsample.0", "stride")
            if (index and total != 1) or short not in (None, total) or strides.get("conv3", 1) != 1:
                raise ArchitectureError(f"{block} has strides that no block of torchvision's has")
            if architecture.block == "basic" and strides["conv2"] != 1:
                raise ArchitectureError(f"{block} has its stride in its second convolution")
            if architecture.block == "basic" and self.number(f"{block}.conv2", "dilation") != dilation:
                raise ArchitectureError(
                    f"the convolutions of {block} have different dilations, which no block of torchvision's has"
                )
            stride = total if index == 0 else stride
            for name in _CONVOLUTIONS[architecture.block]:
                self._check_padding(f"{block}.{name}")
        return Convolutions(stage.name, stride, tuple(dilations))

    def _check_padding(self, path: str) -> None:
        """Raises ArchitectureError for a convolution that is not padded so that only its stride changes the size."""
        layer = self.layer(path)
        if layer is None or "kernel_size" not in layer.attributes:
            return
        kernel, padding, dilation = (self.number(path, name) for name in ("kernel_size", "padding", "dilation"))
        mode = layer.attributes.get("padding_mode", "zeros")
        if None in (kernel, padding, dilation) or (kernel - 1) * dilation != 2 * padding or mode != "zeros":  # type: ignore[operator]
            raise ArchitectureError(f"{printable(self.paths[path])} is padded otherwise than torchvision's")

    def bottleneck_stride(self, architecture: Architecture) -> str | None:
        """Which convolution of the bottlenecks has the stride."""
        if architecture.block != "bottleneck":
            return None
        return strided_side(
            {
                name
                for stage in architecture.stages
                for name in ("conv1", "conv2")
                if (self.number(f"{stage.name}.0.{name}", "stride") or 1) > 1
            }
        )

    def maxpool(self) -> str | None:
        """What stands between the stem and the stages: torchvision's maxpool, Caffe's, or none."""
        self._check_padding("conv1")
        children = dict(self.around_maxpool())
        pools = [(name, layer) for name, layer in children.items() if own_name(layer) == "MaxPool2d"]
        if not pools:
            return "none" if self.is_sequential or own_name(children.get("maxpool", _NOTHING)) in _PASSING else None
        if len(pools) > 1:
            raise ArchitectureError("its maxpool is neither torchvision's nor Caffe's")
        return _maxpool(pools[0][1])

    def eps(self) -> float | None:
        """That of every batch norm."""
        told = {
            layer.attributes["eps"]
            for path in self.paths
            if (layer := self.layer(path)) is not None and type(layer.attributes.get("eps")) in (int, float)
        }
        if len(told) > 1:
            raise ArchitectureError("its batch norms have different eps")
        if any(not 0 <= eps <= 1 for eps in told):  # type: ignore[operator]
            raise ArchitectureError("its batch norms have an eps that is not between 0 and 1")
        return float(told.pop()) if told else None  # type: ignore[arg-type]


def _maxpool(layer: Layer) -> str | None:
    """Whose a maxpool is; None where its attributes are not told."""
    told = [layer.attributes.get(name) for name in ("kernel_size", "stride", "padding", "dilation", "ceil_mode")]
    if told == [None] * 5:
        return None
    kernel, stride, padding, dilation = map(_pair, told[:4])
    found = maxpool_with(kernel, stride, padding, dilation, told[4])
    if found is None:
        raise ArchitectureError("its maxpool is neither torchvision's nor Caffe's")
    return found[0]


def _pair(value: object) -> tuple[object, object]:
    if type(value) is tuple:
        return (value[0], value[1]) if len(value) == 2 else (None, value)
    return value, value


def dilated(stages: list[Convolutions]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Which stages are dilated, and the strides that they have, or had before torchvision replaced them by dilation.

    Raises ArchitectureError for what neither is.
    """
    strides = tuple(stage.stride for stage in stages)
    if all(len({*stage.dilations}) == 1 for stage in stages):
        dilations = [stage.dilations[0] for stage in stages]
        return (() if {*dilations} <= {1} else tuple(map(str, dilations))), strides
    before, names, replaced = 1, [], []
    for stage in stages:
        after = stage.dilations[-1] if len(stage.dilations) > 1 else before
        if stage.dilations[0] != before or {*stage.dilations[1:]} > {after} or after % before:
            raise ArchitectureError(f"{stage.name} has dilations {stage.dilations}, which torchvision cannot")
        names += [stage.name] * (after > before)
        replaced.append(stage.stride * (after // before))
        before = after
    return tuple(names), tuple(replaced)
