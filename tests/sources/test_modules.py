"""A whole module says what its tensors do not show; one that may compute otherwise than torchvision's is refused by the
class or attribute that says so.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
from timm.layers.adaptive_avgmax_pool import SelectAdaptivePool2d
from timm.layers.norm_act import BatchNormAct2d
from torch import nn
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

import resnet_surgeon as rs
from resnet_surgeon.architecture.recognise import recognise
from resnet_surgeon.errors import ArchitectureError
from resnet_surgeon.formats.modules import ModuleNode
from resnet_surgeon.sources import modules
from resnet_surgeon.sources.found import at
from resnet_surgeon.sources.source import open_source
from tests.fixtures import images, small_network
from tests.formats.test_torch_zip import saved


@pytest.mark.parametrize(
    ("between", "is_read"),
    [(nn.GELU(), True), (nn.Tanh(), True), (nn.LeakyReLU(0.2), False), (nn.Dropout(), False), (nn.Softplus(), False)],
    ids=["gelu", "tanh", "another slope", "dropout", "softplus"],
)
def test_a_module_tells_the_activation_of_its_classifier(between: nn.Module, is_read: bool, tmp_path: Path) -> None:
    model = small_network()
    model.fc = nn.Sequential(nn.Linear(512, 8), between, nn.Linear(8, 3))
    torch.save(model, tmp_path / "model.pth")
    if not is_read:
        with pytest.raises(rs.ArchitectureError, match=r"`fc\.1` is of the class"):
            rs.open(tmp_path / "model.pth")
        return
    with torch.no_grad():
        assert torch.equal(rs.load(tmp_path / "model.pth").eval()(images()), model(images()))


def in_a_row(*ends: nn.Module, children: int = 8) -> nn.Module:
    return nn.Sequential(*list(small_network().children())[:children], *ends)


def backbone(*outputs: str) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_sizes": [64, 128, 256, 512], "layer_type": "basic", "depths": [1, 1, 1, 1]}
    config = transformers.ResNetConfig(**sizes, out_features=[*outputs] or None)
    return transformers.ResNetBackbone(config).eval()  # type: ignore[no-any-return]


def ours() -> nn.Module:
    small = small_network()
    return rs.load(rs.open(saved(small.state_dict())).remove(last=2))


OUTPUTS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "stages in a row": (in_a_row, "feature_map"),
    "pooled stages in a row": (partial(in_a_row, nn.AdaptiveAvgPool2d(1), nn.Flatten()), "embedding"),
    "three that are pooled": (partial(in_a_row, nn.AdaptiveAvgPool2d(1), children=7), "embedding"),
    "maps by name": (partial(IntermediateLayerGetter, small_network(), {"layer4": "out"}), "feature_map"),
    "our own class": (ours, "feature_map"),
    "transformers' backbone": (backbone, "feature_map"),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_a_module_without_a_classifier_tells_whether_it_pools(name: str) -> None:
    make, output = OUTPUTS[name]
    assert rs.open(saved(make())).architecture.output_kind == output


@pytest.mark.parametrize("outputs", [("stage4",), ("stage2", "stage4"), ("stem", "stage1", "stage4")], ids=",".join)
def test_a_backbone_of_transformers_returns_its_own_maps(outputs: tuple[str, ...], tmp_path: Path) -> None:
    theirs, images = backbone(*outputs), torch.rand(2, 3, 64, 64)
    made = rs.load(rs.open(saved(theirs)).save(tmp_path / "backbone.safetensors")).eval()
    with torch.no_grad():
        maps, expected = made(images), theirs(images).feature_maps
    assert [*maps] == [*outputs] if len(outputs) > 1 else isinstance(maps, torch.Tensor)
    maps = maps.values() if len(outputs) > 1 else [maps]
    for one, other in zip(maps, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_a_backbone_whose_last_stage_is_not_wanted_is_refused() -> None:
    with pytest.raises(ArchitectureError, match="stage2.*, without what its last stage gives"):
        rs.open(saved(backbone("stage2")))


def test_our_own_module_with_another_pooling_asks_for_its_manifest(tmp_path: Path) -> None:
    path = (
        rs.open(saved(small_network().state_dict()))
        .heads(head=[{"classes": 2, "pool": "max"}])
        .save(tmp_path / "model.safetensors")
    )
    torch.save(rs.load(path), tmp_path / "whole.pth")
    with pytest.raises(ArchitectureError) as caught:
        rs.open(tmp_path / "whole.pth")
    assert [answer.option for answer in caught.value.answers] == ["manifest"]
    assert rs.open(tmp_path / "whole.pth", manifest=tmp_path / "model.json").architecture.pool == "max"


def said(model: nn.Module, *, settled: bool = False) -> dict[str, Any]:
    """The facts that a module says of the ResNet in it."""
    source = open_source(saved(model))
    assert source.container
    node = at(source.container.root, source.found.path)
    assert isinstance(node, ModuleNode)
    claims = modules.says(node, source.found.names, recognise(source.tensors), settled)
    return {name: value for claim in claims for name, value in claim.facts.items().items()}


PLAIN = {
    "stem_stride": 2,
    "maxpool": "torchvision",
    "eps": 1e-5,
    "strides": (1, 2, 2, 2),
    "dilated": (),
}


def network(change: Callable[[ResNet], object] = lambda model: None, block: Any = BasicBlock, **options: Any) -> ResNet:
    is_plain = block is BasicBlock and not options
    model = copy.deepcopy(plain()) if is_plain else ResNet(block, [2, 2, 2, 2], num_classes=4, **options).eval()
    change(model)
    return model


@cache
def plain() -> ResNet:
    return ResNet(BasicBlock, [2, 2, 2, 2], num_classes=4).eval()


def set_eps(model: ResNet, eps: float) -> None:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = eps


def set_stride(model: ResNet, stride: int) -> None:
    first: Any = model.layer4[0]
    first.conv1.stride = first.downsample[0].stride = (stride, stride)


def caffe(model: ResNet) -> None:
    for stage in (model.layer2, model.layer3, model.layer4):
        first: Any = stage[0]
        first.conv1.stride, first.conv2.stride = (2, 2), (1, 1)
    model.maxpool = nn.MaxPool2d(3, 2, 0, ceil_mode=True)


def dilate(model: ResNet) -> None:
    for module in model.layer4.modules():
        if isinstance(module, nn.Conv2d):
            module.stride = (1, 1)
            if module.kernel_size == (3, 3):
                module.dilation = module.padding = (2, 2)


TOLD: dict[str, tuple[Callable[[], nn.Module], dict[str, Any]]] = {
    "torchvision's": (network, {}),
    "bottlenecks": (lambda: network(block=Bottleneck), {"bottleneck_stride": "conv2"}),
    "another eps": (lambda: network(norm_layer=partial(nn.BatchNorm2d, eps=0.25)), {"eps": 0.25}),
    "a last stride of 1": (lambda: network(partial(set_stride, stride=1)), {"strides": (1, 2, 2, 1)}),
    "Caffe's": (lambda: network(caffe, Bottleneck), {"bottleneck_stride": "conv1", "maxpool": "caffe"}),
    "no maxpool": (lambda: network(lambda model: setattr(model, "maxpool", nn.Identity())), {"maxpool": "none"}),
    "a maxpool that was replaced": (
        lambda: network(lambda model: setattr(model, "maxpool", nn.ReLU())),
        {"maxpool": "none"},
    ),
    "a stem of stride 1": (lambda: network(lambda model: setattr(model.conv1, "stride", (1, 1))), {"stem_stride": 1}),
    "dilated by torchvision": (
        lambda: network(block=Bottleneck, replace_stride_with_dilation=[False, True, True]),
        {"dilated": ("layer3", "layer4"), "bottleneck_stride": "conv2"},
    ),
    "dilated throughout": (lambda: network(dilate), {"dilated": ("1", "1", "1", "2"), "strides": (1, 2, 2, 1)}),
    "in DataParallel": (lambda: nn.DataParallel(network()), {}),
    "a Sequential": (
        lambda: nn.Sequential(*[*network().children()][:-1], nn.Flatten(), nn.Linear(512, 4)),
        {},
    ),
}


@pytest.mark.parametrize(("make", "facts"), TOLD.values(), ids=TOLD.keys())
def test_it_tells_what_tensors_do_not_show(make: Callable[[], nn.Module], facts: dict[str, Any]) -> None:
    assert said(make()) == PLAIN | facts


@pytest.mark.parametrize("kind", ["ResNetModel", "ResNetForImageClassification"])
@pytest.mark.parametrize("early", [False, True], ids=["as torchvision", "stride in conv1"])
def test_a_module_of_transformers_tells_the_same(kind: str, early: bool) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.ResNetConfig(depths=[1, 1, 1, 1], num_labels=3, downsample_in_bottleneck=early)
    assert said(getattr(transformers, kind)(config)) == PLAIN | {"bottleneck_stride": "conv1" if early else "conv2"}


def test_a_module_of_transformers_with_another_activation_is_refused() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.ResNetConfig(depths=[1, 1, 1, 1], hidden_act="gelu")
    with pytest.raises(ArchitectureError, match="is of the class `.*GELUActivation`"):
        said(transformers.ResNetModel(config))


def test_a_graph_of_torch_fx_is_refused_until_it_is_stated_to_be_a_resnet(tmp_path: Path) -> None:
    torch.save(torch.fx.symbolic_trace(network()), tmp_path / "graph.pt")
    with pytest.raises(ArchitectureError, match="of the class `torch.fx.graph_module.GraphModule`"):
        rs.open(tmp_path / "graph.pt")
    assert rs.open(tmp_path / "graph.pt", assume="torchvision").architecture.heads


@pytest.mark.parametrize("acts", [False, True])
def test_norms_of_timm_are_taken_without_an_activation_in_them(acts: bool) -> None:
    model = network(norm_layer=partial(BatchNormAct2d, apply_act=acts))
    if not acts:
        assert said(model) == PLAIN
        return
    with pytest.raises(ArchitectureError, match=r"`bn1\.act` is of the class `.*ReLU`"):
        said(model)


class MyResNet(ResNet):  # type: ignore[misc]
    pass


class MyConvolution(nn.Conv2d):
    pass


class MyBlock(BasicBlock):  # type: ignore[misc]
    pass


class MyLinear(nn.Linear):
    pass


class Mean(nn.Module):
    p = 3.0


def hook(*_: object) -> None:
    pass


class Doubled(nn.Sequential):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)  # type: ignore[no-any-return, no-untyped-call]


REFUSED: dict[str, tuple[Callable[[ResNet], object], str]] = {
    "another pooling": (lambda model: setattr(model, "avgpool", Mean()), r"`avgpool` is of the class `.*\.Mean`"),
    "no pooling": (lambda model: setattr(model, "avgpool", nn.Identity()), "`avgpool` is of the class"),
    "pooling to 2x2": (lambda model: setattr(model, "avgpool", nn.AdaptiveAvgPool2d(2)), "another size than 1x1"),
    "another activation": (lambda model: setattr(model, "relu", nn.SiLU()), "`relu` is of the class `.*SiLU`"),
    "another activation in a block": (
        lambda model: setattr(model.layer2[0], "relu", nn.SiLU()),
        r"`layer2\.0\.relu` is of the class `.*SiLU`",
    ),
    "a layer without tensors": (
        lambda model: setattr(model, "blur", nn.AvgPool2d(2)),
        "`blur` pools to another size",
    ),
    "pooling of 2x2": (lambda model: setattr(model, "avgpool", nn.AvgPool2d(2)), "pools to another size"),
    "one in a block": (
        lambda model: setattr(model.layer2[0], "blur", nn.AvgPool2d(2)),
        r"`layer2\.0\.blur` is of the class",
    ),
    "another convolution": (
        lambda model: setattr(model.layer1[0], "conv1", MyConvolution(64, 64, 3, padding=1, bias=False)),
        r"`layer1\.0\.conv1` is of the class `.*\.MyConvolution`",
    ),
    "a mean for the maxpool": (
        lambda model: setattr(model, "maxpool", nn.AvgPool2d(2)),
        "`maxpool` is of the class `.*AvgPool2d`",
    ),
    "dilations of two kinds in a block": (
        lambda model: model.layer4[0].conv2.__dict__.update(dilation=(2, 2), padding=(2, 2)),
        r"the convolutions of layer4\.0 have different dilations",
    ),
    "timm's pooling by the maximum": (
        lambda model: setattr(model, "avgpool", SelectAdaptivePool2d(pool_type="max", flatten=True)),
        "`avgpool` pools by `max`, not by the mean",
    ),
    "an average with another divisor": (
        lambda model: setattr(model, "avgpool", nn.AvgPool2d(7, divisor_override=1)),
        "`avgpool` pads what it averages, or divides it",
    ),
    "an average that is padded": (
        lambda model: setattr(model, "avgpool", nn.AvgPool2d(7, padding=3)),
        "`avgpool` pads what it averages",
    ),
    "a classifier in a class of its own": (
        lambda model: setattr(model, "fc", Doubled(nn.Linear(512, 4))),
        r"`fc` is of the class `.*\.Doubled`",
    ),
    "several layers in a class of its own": (
        lambda model: setattr(model, "fc", Doubled(nn.Linear(512, 8), nn.ReLU(), nn.Linear(8, 4))),
        r"`fc` is of the class `.*\.Doubled`",
    ),
    "a downsample of a class of its own": (
        lambda model: setattr(model.layer2[0], "downsample", Doubled(*model.layer2[0].downsample)),
        r"`layer2\.0\.downsample` is of the class `.*\.Doubled`",
    ),
    "another padding": (lambda model: setattr(model.conv1, "padding", (0, 0)), "padded otherwise"),
    "mirrored padding": (lambda model: setattr(model.conv1, "padding_mode", "reflect"), "padded otherwise"),
    "strides of two kinds": (lambda model: setattr(model.conv1, "stride", (2, 1)), "which no ResNet has"),
    "a stride inside a stage": (
        lambda model: setattr(model.layer1[1].conv1, "stride", (2, 2)),
        "strides that no block",
    ),
    "different eps": (lambda model: setattr(model.bn1, "eps", 0.5), "different eps"),
    "another maxpool": (lambda model: setattr(model, "maxpool", nn.MaxPool2d(2)), "neither torchvision's nor Caffe's"),
    "a pooling in a stage": (
        lambda model: model.layer2.append(nn.MaxPool2d(2)),
        r"`layer2\.2` is of the class `.*MaxPool2d`",
    ),
    "an activation behind a downsample": (
        lambda model: model.layer2[0].downsample.append(nn.ReLU()),
        r"`layer2\.0\.downsample\.2` is of the class `.*ReLU`",
    ),
    "a forward of its own": (lambda model: setattr(model, "forward", partial(hook, model)), "a forward of its own"),
    "a forward of a layer's own": (lambda model: setattr(model.fc, "forward", partial(hook)), "`fc` has .* a forward"),
    "a dilation of 0": (lambda model: setattr(model.layer1[0].conv1, "dilation", (0, 0)), "which no ResNet has"),
    "a giant eps": (lambda model: set_eps(model, 10**400), "eps that is not between 0 and 1"),
    "a negative eps": (lambda model: set_eps(model, -1), "eps that is not between 0 and 1"),
    "another padding in a block": (lambda model: setattr(model.layer1[0].conv2, "padding", (0, 0)), "padded otherwise"),
    "mirrored padding in a block": (
        lambda model: setattr(model.layer1[0].conv2, "padding_mode", "circular"),
        "padded otherwise",
    ),
    "two means": (lambda model: setattr(model, "mean", nn.AdaptiveAvgPool2d(1)), "averages in `avgpool` and `mean`"),
    "two maxpools": (lambda model: setattr(model, "more", nn.MaxPool2d(3, 2, 1)), "neither torchvision's nor Caffe's"),
    "a first block that is dilated more than the others": (
        lambda model: [
            conv.__dict__.update(dilation=(2, 2), padding=(2, 2))
            for conv in (model.layer4[0].conv1, model.layer4[0].conv2)
        ],
        r"layer4 has dilations \(2, 1\)",
    ),
    "a stage in a class of its own": (
        lambda model: setattr(model, "layer1", Doubled(*model.layer1)),
        r"`layer1` is of the class `.*\.Doubled`",
    ),
    "a block of a class of its own": (
        lambda model: setattr(model.layer1[1], "__class__", MyBlock),
        r"`layer1\.1` is of the class `.*\.MyBlock`",
    ),
    "another norm": (
        lambda model: setattr(model, "bn1", nn.InstanceNorm2d(64, affine=True, track_running_stats=True)),
        "`bn1` is of the class `.*InstanceNorm2d`",
    ),
    "another norm in a downsample": (
        lambda model: model.layer2[0].downsample.__setitem__(
            1, nn.InstanceNorm2d(128, affine=True, track_running_stats=True)
        ),
        r"`layer2\.0\.downsample\.1` is of the class `.*InstanceNorm2d`",
    ),
    "a linear layer of a class of its own": (
        lambda model: setattr(model, "fc", MyLinear(512, 4)),
        r"`fc` is of the class `.*\.MyLinear`",
    ),
    "a hook in a block": (
        lambda model: model.layer1[0].conv1.register_forward_pre_hook(hook),
        r"`layer1\.0\.conv1` has hooks",
    ),
    "hooks": (lambda model: model.layer1.register_forward_hook(hook), "`layer1` has hooks"),
    "a classifier of another class": (
        lambda model: setattr(model, "fc", Mean()),
        r"its `fc` is of the class `.*\.Mean`, whose tensors are not read",
    ),
}


@pytest.mark.parametrize(("change", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_what_may_compute_otherwise_is_refused_by_what_says_so(change: Callable[[ResNet], object], reason: str) -> None:
    with pytest.raises(ArchitectureError, match=reason):
        said(network(change))


def test_a_sequential_without_an_activation_behind_its_stem_is_refused() -> None:
    layers = [layer for name, layer in network().named_children() if name not in ("relu", "fc")]
    with pytest.raises(ArchitectureError, match="has no ReLU behind its stem"):
        said(nn.Sequential(*layers, nn.Flatten(), nn.Linear(512, 4)))


def test_another_class_is_refused_until_its_user_answers_for_it() -> None:
    model = MyResNet(BasicBlock, [1, 1, 1, 1])
    with pytest.raises(ArchitectureError, match=r"the module is of the class `.*\.MyResNet`") as caught:
        said(model)
    (answer,) = caught.value.answers
    assert (answer.option, answer.value) == ("assume", "torchvision")
    assert said(model, settled=True) == PLAIN


def test_a_whole_module_comes_out_as_the_network_that_it_is(tmp_path: Path) -> None:
    model = small_network()
    (tmp_path / "whole.pth").write_bytes(saved({"epoch": 1, "net": model}))
    images = torch.randn(2, 3, 64, 64)
    copy = rs.load(rs.open(tmp_path / "whole.pth").save(tmp_path / "plain.safetensors")).eval()
    assert torch.equal(copy(images), model(images))


@pytest.mark.parametrize(
    "classifier", [nn.Linear(512, 4), nn.Sequential(nn.Dropout(), nn.Linear(512, 4))], ids=["plain", "in a Sequential"]
)
def test_a_whole_module_s_classifier_can_be_left_out(classifier: nn.Module, tmp_path: Path) -> None:
    model = small_network()
    model.fc = classifier
    torch.save(model, tmp_path / "model.pth")
    made = rs.load(rs.open(tmp_path / "model.pth", fc="none")).eval()
    model.fc = nn.Identity()
    with torch.no_grad():
        assert torch.equal(made(images()), model.eval()(images()))


def test_a_module_without_a_layer_for_its_maxpool_is_asked_about(tmp_path: Path) -> None:
    model = small_network()
    del model.maxpool
    torch.save(model, tmp_path / "a.pth")
    with pytest.raises(ArchitectureError, match="no layer for its maxpool"):
        rs.open(tmp_path / "a.pth")
    assert rs.open(tmp_path / "a.pth", assume="maxpool=none").architecture.maxpool_is_identity


def test_norms_that_do_not_say_their_eps_are_warned_of(tmp_path: Path) -> None:
    """As frozen ones of several libraries, which add none."""
    model = small_network()
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            del layer.eps
    torch.save(model, tmp_path / "model.pth")
    (warning,) = rs.open(tmp_path / "model.pth").manifest().source.warnings
    assert "do not say their eps" in warning
    assert rs.open(tmp_path / "model.pth", assume="eps=0").manifest().source.warnings == ()


def test_tensors_of_no_module_are_refused(tmp_path: Path) -> None:
    model = nn.Module()
    model._buffers.update({f"net.{name}": tensor for name, tensor in small_network().state_dict().items()})
    torch.save(model, tmp_path / "a.pth")
    with pytest.raises(ArchitectureError, match="`net`, which has its tensors, is no module"):
        rs.open(tmp_path / "a.pth")
