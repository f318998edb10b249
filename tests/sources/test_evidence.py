"""What a file says of the network that its tensors do not show is taken, and what contradicts it is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck

import resnet_surgeon as rs
from resnet_surgeon.errors import ArchitectureError
from tests.fixtures import images, small_network


def caffe_style(model: Any) -> Any:
    """The stride of each bottleneck in its first convolution."""
    for stage in (model.layer2, model.layer3, model.layer4):
        stage[0].conv1.stride, stage[0].conv2.stride = (2, 2), (1, 1)
    return model


def last_stride_1(model: Any) -> Any:
    model.layer4[0].conv2.stride = model.layer4[0].downsample[0].stride = (1, 1)
    return model


def dilated_throughout(model: Any) -> Any:
    """OpenMMLab's and segmentation_models_pytorch's dilation: of all of a stage's blocks."""
    last_stride_1(model)
    for block in model.layer4:
        block.conv2.dilation = block.conv2.padding = (2, 2)
    return model


def plain(model: Any) -> Any:
    return model


def bottlenecks() -> Any:
    return small_network(Bottleneck, (1, 1, 1, 2))


def same(path: Path, witness: Any, **opening: Any) -> bool:
    """Whether the network that comes out of a file computes what its author's did."""
    ours = rs.load(rs.open(path, **opening).save(path.with_name("out.safetensors"), force=True)).eval()
    with torch.no_grad():
        return torch.equal(ours(images()), witness(images()))


CONFIG = """
model = dict(
    type='FasterRCNN',
    backbone=dict(
        type='ResNet',
        depth=50,
        frozen_stages=1,
        norm_cfg=dict(type='BN', requires_grad=False{eps}),
        init_cfg=dict(type='Pretrained', style='other'),
        {options}
        norm_eval=True),
    neck=dict(type='FPN', strides=(9, 9, 9, 9)))
"""


@pytest.mark.parametrize("key", ["config", "cfg"])
@pytest.mark.parametrize(
    ("options", "change"),
    [
        ("style='caffe',", caffe_style),
        ('style="pytorch",', plain),
        ("strides=(1, 2, 2, 1), style='pytorch',", last_stride_1),
        ("strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2),", dilated_throughout),
    ],
    ids=["caffe", "pytorch", "strides", "dilations"],
)
def test_openmmlabs_config_is_taken_at_its_word(
    options: str, change: Callable[[Any], Any], key: str, tmp_path: Path
) -> None:
    model = change(bottlenecks())
    state = {f"backbone.{name}": tensor for name, tensor in model.state_dict().items() if not name.startswith("fc.")}
    meta = {key: CONFIG.format(options=options, eps="")}
    torch.save({"meta": meta, "state_dict": state}, tmp_path / "epoch_1.pth")
    model.fc = nn.Identity()
    assert same(tmp_path / "epoch_1.pth", model)


def test_openmmlabs_networks_for_cifar_have_its_stem(tmp_path: Path) -> None:
    model = bottlenecks()
    model.conv1, model.maxpool = nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.Identity()
    state = {f"backbone.{name}": tensor for name, tensor in model.state_dict().items() if not name.startswith("fc.")}
    config = CONFIG.format(options="", eps="").replace("'ResNet'", "'ResNet_CIFAR'")
    torch.save({"meta": {"config": config}, "state_dict": state}, tmp_path / "a.pth")
    model.fc = nn.Identity()
    assert same(tmp_path / "a.pth", model)


@pytest.mark.parametrize(
    ("options", "warnings"),
    [
        ("out_indices=(0, 1, 2, 3),", []),
        (
            "out_indices=(1,\n 2, ),",
            ["its OpenMMLab config takes outputs up to number 2: layer4 had no part in training"],
        ),
        ("num_stages=3,", ["its OpenMMLab config says num_stages=`3`, and it has 4"]),
        ("num_stages=4, out_indices=range(2),", []),
    ],
    ids=["all", "some", "other stages", "unreadable"],
)
def test_what_openmmlab_made_no_use_of_is_warned_of(options: str, warnings: list[str], tmp_path: Path) -> None:
    meta = {"config": CONFIG.format(options=options, eps="")}
    torch.save({"meta": meta, "state_dict": bottlenecks().state_dict()}, tmp_path / "a.pth")
    assert [*rs.open(tmp_path / "a.pth").opened.source.origin.warnings] == warnings


def test_openmmlabs_norms_may_have_another_epsilon(tmp_path: Path) -> None:
    state = {f"backbone.{name}": tensor for name, tensor in bottlenecks().state_dict().items()}
    torch.save({"meta": {"cfg": CONFIG.format(options="", eps=", eps=0.001")}, "state_dict": state}, tmp_path / "a.pth")
    assert rs.open(tmp_path / "a.pth").architecture.eps == 0.001


def test_contracted_dilation_is_torchvisions(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = small_network(Bottleneck, (1, 1, 2, 2))
    options = "strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4), contract_dilation=True,"
    state = {f"backbone.{name}": tensor for name, tensor in model.state_dict().items()}
    torch.save({"meta": {"config": CONFIG.format(options=options, eps="")}, "state_dict": state}, tmp_path / "a.pth")
    stages = rs.open(tmp_path / "a.pth").architecture.stages
    assert [(stage.stride, stage.first_dilation, stage.dilation) for stage in stages] == [
        (1, 1, 1), (2, 1, 1), (1, 1, 2), (1, 2, 4),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text",
    ["", "backbone=dict(", "backbone=dict(type='ResNet', style=", "backbone=dict(" + "(" * 99_999, "x" * 99_999],
    ids=["nothing", "open", "no value", "brackets", "long"],
)
def test_a_config_that_is_cut_off_is_no_config(text: str, tmp_path: Path) -> None:
    torch.save({"meta": {"config": text}, "state_dict": bottlenecks().state_dict()}, tmp_path / "a.pth")
    assert {fact.said_by for fact in rs.open(tmp_path / "a.pth").opened.facts} == {"default"}


def transformers_file(folder: Path, config: dict[str, Any]) -> Path:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    made = transformers.ResNetConfig(
        embedding_size=64, hidden_sizes=[256, 512], depths=[1, 1], layer_type="bottleneck", num_labels=3, **config
    )
    model = transformers.ResNetForImageClassification(made).eval()
    model.save_pretrained(folder)
    return folder / "model.safetensors"


def test_the_config_of_transformers_says_where_the_stride_is(tmp_path: Path) -> None:
    path = transformers_file(tmp_path, {"downsample_in_bottleneck": True, "downsample_in_first_stage": True})
    architecture = rs.open(path).architecture
    assert architecture.bottleneck_stride == "conv1"
    assert [stage.stride for stage in architecture.stages] == [2, 2]


def test_a_config_in_the_current_folder_says_nothing_of_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = transformers_file(tmp_path, {"downsample_in_bottleneck": True})
    monkeypatch.chdir(tmp_path)
    assert rs.open(path.read_bytes()).architecture.bottleneck_stride == "conv2"


def test_a_network_of_transformers_with_another_activation_is_refused(tmp_path: Path) -> None:
    path = transformers_file(tmp_path, {"hidden_act": "gelu"})
    with pytest.raises(ArchitectureError, match="hidden_act `gelu`"):
        rs.open(path)


def test_published_detectors_have_norms_without_epsilon(tmp_path: Path) -> None:
    state = {
        f"backbone.body.{name}": tensor
        for name, tensor in bottlenecks().state_dict().items()
        if "num_batches" not in name and not name.startswith("fc.")
    }
    torch.save(state, tmp_path / "fasterrcnn_resnet50_fpn_coco-258fb6c6.pth")
    torch.save(state, tmp_path / "mine.pth")
    published, mine = (rs.open(tmp_path / name) for name in ("fasterrcnn_resnet50_fpn_coco-258fb6c6.pth", "mine.pth"))
    assert (published.architecture.eps, published.source.origin.warnings) == (0.0, ())
    assert mine.architecture.eps == 1e-5
    assert "frozen" in mine.source.origin.warnings[0]
    stated = rs.open(tmp_path / "mine.pth", assume="eps=0")
    assert (stated.architecture.eps, stated.source.origin.warnings) == (0.0, ())


def test_what_contradicts_the_file_is_refused(tmp_path: Path) -> None:
    state = {f"backbone.{name}": tensor for name, tensor in bottlenecks().state_dict().items()}
    meta = {"config": CONFIG.format(options="style='caffe',", eps="")}
    torch.save({"meta": meta, "state_dict": state}, tmp_path / "a.pth")
    with pytest.raises(ArchitectureError, match="cannot be both conv1 and conv2: its OpenMMLab config says the first"):
        rs.open(tmp_path / "a.pth", assume="bottleneck_stride=conv2")


def test_what_contradicts_published_or_random_weights_is_refused() -> None:
    with pytest.raises(ArchitectureError, match="strides cannot be both 1-2-2-2 and 1-2-2-1"):
        rs.open("resnet50", weights="random", assume="reid")


def test_what_contradicts_the_tensors_is_refused(tmp_path: Path) -> None:
    torch.save(small_network(BasicBlock).state_dict(), tmp_path / "a.pth")
    with pytest.raises(ArchitectureError, match=r"`strides=2-2-2-2` contradicts its tensors: .*downsample"):
        rs.open(tmp_path / "a.pth", assume="strides=2-2-2-2")


def test_what_contradicts_the_manifest_is_refused(tmp_path: Path) -> None:
    torch.save(bottlenecks().state_dict(), tmp_path / "a.pth")
    made = rs.open(tmp_path / "a.pth", assume="reid").save(tmp_path / "a.safetensors")
    assert rs.open(made, assume="reid").architecture.stages[3].stride == 1
    with pytest.raises(ArchitectureError, match="strides cannot be 1-2-2-2: its manifest says 1-2-2-1"):
        rs.open(made, assume="strides=1-2-2-2")


@pytest.mark.parametrize(
    ("kind", "change"),
    [("detectron2", caffe_style), ("reid", last_stride_1), ("deeplab", dilated_throughout), ("torchvision", plain)],
)
def test_a_kind_is_the_network_that_people_mean(kind: str, change: Callable[[Any], Any], tmp_path: Path) -> None:
    model = change(bottlenecks())
    torch.save(model.state_dict(), tmp_path / "a.pth")
    assert same(tmp_path / "a.pth", model, assume=kind)


def test_stem_maxpool_and_epsilon_are_those_that_were_stated(tmp_path: Path) -> None:
    model: Any = bottlenecks()
    model.conv1.stride = (1, 1)
    model.maxpool = nn.MaxPool2d(3, 2, 0, ceil_mode=True)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 0.01
    torch.save(model.state_dict(), tmp_path / "a.pth")
    assert same(tmp_path / "a.pth", model, assume={"stem_stride": 1, "maxpool": "caffe", "eps": 0.01})
    model.maxpool = nn.Identity()
    assert same(tmp_path / "a.pth", model, assume="cifar,eps=0.01")


def test_a_config_beside_with_many_classes_is_read_and_one_without_end_refused(tmp_path: Path) -> None:
    path = transformers_file(tmp_path, {"downsample_in_bottleneck": True})
    config = json.loads((tmp_path / "config.json").read_text("utf-8"))
    (tmp_path / "config.json").write_text(json.dumps({**config, "long": "x" * (1 << 17)}), "utf-8")
    assert rs.open(path).architecture.bottleneck_stride == "conv1"
    (tmp_path / "config.json").write_text(json.dumps({**config, "long": "x" * (1 << 22)}), "utf-8")
    with pytest.raises(ArchitectureError, match=r"the config\.json beside it is longer than"):
        rs.open(path)


@pytest.mark.parametrize(
    ("options", "eps", "reason"),
    [
        ("", "eps=1.2.3", "of which eps cannot be read"),
        ("", "eps=" + "9" * 400, "of which eps cannot be read"),
        ("", "eps=99e-1", "eps is between 0 and 1"),
        ("strides=(1, 2),", "", r"strides=`\(1, 2\)`, which are not 4 numbers"),
        ("strides=(1, 0, 2, 2),", "", "strides=.*, which are not 4 numbers"),
        ("dilations=(1, 2), contract_dilation=True,", "", "dilations=.*, which are not 4 numbers"),
        ("dilations=(1, 1, 2, 2), contract_dilation=True,", "", "contracts dilations"),
        ("dilations=(1, 1, 1, 4), contract_dilation=True,", "", "contracts dilations"),
        ("strides=(99999, 2, 2, 2),", "", "every number of a stage is between"),
        ("conv_cfg=dict(type='ConvWS'),", "", "conv_cfg=.*ConvWS.*, which torchvision's ResNets have not"),
        ("act_cfg=dict(type='SiLU'),", "", "act_cfg=.*SiLU.*, which torchvision's ResNets have not"),
    ],
    ids=["no number", "a giant eps", "eps above 1", "two strides", "a stride of 0", "two dilations",
         "a dilation twice", "a dilation by leaps", "a giant stride", "standardised weights", "another activation"],
)  # fmt: skip
def test_a_config_of_which_no_network_comes_is_refused(options: str, eps: str, reason: str, tmp_path: Path) -> None:
    state = {f"backbone.{name}": tensor for name, tensor in bottlenecks().state_dict().items()}
    norm = f"dict(type='BN', {eps})"
    config = f"model = dict(backbone=dict(type='ResNet', {options} norm_cfg={norm}))"
    torch.save({"meta": {"config": config}, "state_dict": state}, tmp_path / "a.pth")
    with pytest.raises(ArchitectureError, match=reason):
        rs.open(tmp_path / "a.pth")
