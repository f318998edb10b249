"""Other libraries take the file under their names and compute the same; what their names cannot say is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torchvision.models import ResNet, resnet18, resnet50, resnext50_32x4d
from torchvision.models.resnet import Bottleneck

import resnet_surgeon as rs
from resnet_surgeon.errors import AccessError, OperationError, UsageError
from tests.fixtures import Run, images, small_network


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("plain") / "resnet18.pth"
    torch.save(resnet18().state_dict(), path)
    return path


def computed(model: nn.Module, channels: int = 3) -> torch.Tensor:
    with torch.no_grad():
        result = model.eval()(images(channels))
    return result if isinstance(result, torch.Tensor) else result[0]


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("block", ["basic", "bottleneck"])
def test_transformers_takes_the_folder(
    block: str, name: str, checkpoints: Path, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    rs.open(checkpoints / f"{block}.pth").save(tmp_path / name, names="transformers")
    model, info = transformers.AutoModelForImageClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert torch.equal(computed(model), computed(request.getfixturevalue(block)))


def test_transformers_takes_what_was_edited(checkpoints: Path, tmp_path: Path) -> None:
    """One channel, no classifier, and the last stage gone."""
    transformers = pytest.importorskip("transformers")
    network = rs.open(checkpoints / "bottleneck.pth").adapt(1).remove(layers=["fc", "avgpool", "layer4"])
    network.save(tmp_path / "model.safetensors", names="transformers")
    model, info = transformers.AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    network.save(tmp_path / "ours.safetensors")
    with torch.no_grad():
        found = model.eval()(images(1)).last_hidden_state
    assert torch.equal(found, computed(rs.load(tmp_path / "ours.safetensors"), 1))


def test_transformers_is_told_where_a_bottleneck_has_its_stride(checkpoints: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    network = caffe(rs.open(checkpoints / "bottleneck.pth"))
    network.save(tmp_path / "model.safetensors", names="transformers")
    model = transformers.AutoModelForImageClassification.from_pretrained(tmp_path)
    module = small_network(Bottleneck, (1, 2, 3, 1))
    for block in (module.layer2[0], module.layer3[0], module.layer4[0]):
        block.conv1.stride, block.conv2.stride = (2, 2), (1, 1)
    assert torch.equal(computed(model), computed(module))


def test_transformers_knows_the_classes_by_their_names(
    publish: Callable[[Path, str], Path], plain: Path, tmp_path: Path
) -> None:
    rs.open(publish(plain, "resnet18")).save(tmp_path / "model.safetensors", names="transformers")
    assert json.loads((tmp_path / "config.json").read_text("utf-8"))["id2label"]["0"] in ("tench", "LABEL_0")


@pytest.mark.parametrize(
    ("name", "build"), [("resnet18", resnet18), ("resnet50", resnet50), ("resnext50_32x4d", resnext50_32x4d)]
)
def test_timm_takes_the_file(name: str, build: Callable[[], ResNet], tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    save_file(build().state_dict(), tmp_path / "in.safetensors")
    path = rs.open(tmp_path / "in.safetensors").adapt(1).save(tmp_path / "out.safetensors", names="timm")
    model = timm.create_model(name, in_chans=1)
    model.load_state_dict(load_file(path), strict=True)
    assert torch.allclose(computed(model, 1), computed(rs.load(path), 1), atol=1e-5)


def test_a_sequential_of_the_children_takes_the_file(checkpoints: Path, basic: ResNet, tmp_path: Path) -> None:
    path = rs.open(checkpoints / "basic.pth").save(tmp_path / "out.pth", names="sequential")
    children = [*small_network(depths=(2, 1, 2, 1), seed=7).children()]
    model = nn.Sequential(*children)
    model.load_state_dict(torch.load(path, weights_only=True), strict=True)
    assert torch.equal(computed(nn.Sequential(*children[:-1], nn.Flatten(), children[-1])), computed(basic))


def test_detectron2_has_its_own_names(checkpoints: Path, tmp_path: Path) -> None:
    path = rs.open(checkpoints / "bottleneck.pth").save(tmp_path / "out.pth", names="detectron2")
    names = torch.load(path, weights_only=True).keys()
    assert {
        "stem.conv1.weight", "stem.conv1.norm.running_var", "res2.0.shortcut.weight", "res2.0.shortcut.norm.bias",
        "res5.0.conv3.norm.weight", "linear.weight",
    } <= names  # fmt: skip


@pytest.mark.parametrize("names", ["transformers", "detectron2", "sequential"])
def test_what_has_other_names_reads_back(names: Any, checkpoints: Path, basic: ResNet, tmp_path: Path) -> None:
    path = rs.open(checkpoints / "basic.pth").save(tmp_path / "model.safetensors", names=names)
    found = rs.open(path)
    assert found.history is not None
    assert rs.verify(path, against=checkpoints / "basic.pth").holds
    assert [*found.tensors] == [*basic.state_dict()]
    back = load_file(found.save(tmp_path / "back.safetensors"))
    assert all(torch.equal(back[name], tensor) for name, tensor in basic.state_dict().items())


def test_the_names_of_the_source_come_back_through_an_edit(basic: ResNet, tmp_path: Path) -> None:
    state = {f"model.encoder.{name}": tensor for name, tensor in basic.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "in.ckpt")
    edited = rs.open(tmp_path / "in.ckpt").adapt(1).save(tmp_path / "edited.safetensors")
    path = rs.open(edited).save(tmp_path / "out.pth", names="original")
    found = torch.load(path, weights_only=True)
    assert found.keys() == state.keys()
    assert found["model.encoder.conv1.weight"].shape[1] == 1
    assert torch.equal(found["model.encoder.fc.weight"], state["model.encoder.fc.weight"])


def test_counters_that_the_source_lacked_are_not_in_its_names(basic: ResNet, tmp_path: Path) -> None:
    state = {name: tensor for name, tensor in basic.state_dict().items() if "num_batches" not in name}
    torch.save(state, tmp_path / "in.pth")
    path = rs.open(tmp_path / "in.pth").save(tmp_path / "out.pth", names="original")
    assert torch.load(path, weights_only=True).keys() == state.keys()


def caffe(network: rs.Network) -> rs.Network:
    return with_architecture(network, bottleneck_stride="conv1")


def with_architecture(network: rs.Network, **changes: Any) -> rs.Network:
    checkpoint = replace(network.checkpoint, architecture=replace(network.architecture, **changes))
    return replace(network, opened=replace(network.opened, checkpoint=checkpoint), checkpoint=checkpoint)


def dilated(network: rs.Network) -> rs.Network:
    *others, last = network.architecture.stages
    return with_architecture(network, stages=(*others, replace(last, stride=1, dilation=2)))


def last_stride_1(network: rs.Network) -> rs.Network:
    *others, last = network.architecture.stages
    return with_architecture(network, stages=(*others, replace(last, stride=1)))


ALL = {"timm", "transformers", "detectron2", "sequential"}
FIXED = ALL - {"sequential"}  # whose layers the user builds
UNSAID: dict[str, tuple[Callable[[rs.Network], rs.Network], set[str]]] = {
    "heads beside each other": (lambda network: network.heads([2, 3]), ALL),
    "without its last stages": (lambda network: network.remove(layers=["fc", "avgpool", "layer4"]), {"timm"}),
    "in the first convolution of a bottleneck": (caffe, {"timm"}),
    "dilation": (dilated, FIXED),
    "other strides": (last_stride_1, FIXED),
    "in the place of maxpool": (lambda network: network.remove(layers=["maxpool"]), FIXED),
    "eps": (lambda network: with_architecture(network, eps=0.0), FIXED),
    "without batch norms": (lambda network: network.fuse(), ALL),  # by which a stem is found
}


@pytest.mark.parametrize("names", ["torchvision", "timm", "transformers", "detectron2", "sequential"])
@pytest.mark.parametrize("fact", [*UNSAID])
def test_what_names_cannot_say_is_refused(fact: str, names: Any, checkpoints: Path, tmp_path: Path) -> None:
    edit, refusing = UNSAID[fact]
    network = edit(rs.open(checkpoints / "bottleneck.pth"))
    if names not in refusing:
        assert network.save(tmp_path / "model.safetensors", names=names)
        return
    with pytest.raises(OperationError, match=fact) as caught:
        network.save(tmp_path / "model.safetensors", names=names)
    assert "--names torchvision" in str(caught.value.hint)
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("width", [{"groups": 2, "width_per_group": 32}, {"width_per_group": 128}])
def test_transformers_has_no_groups_and_no_wide_networks(width: dict[str, int], tmp_path: Path) -> None:
    model = small_network(Bottleneck, (1, 1, 1, 1), **width)
    torch.save(model.state_dict(), tmp_path / "in.pth")
    with pytest.raises(OperationError, match="groups or other widths"):
        rs.open(tmp_path / "in.pth").save(tmp_path / "model.safetensors", names="transformers")


@pytest.mark.parametrize("own", ["none", "layer4"])
def test_what_the_source_has_no_name_for_is_refused(own: Any, checkpoints: Path, tmp_path: Path) -> None:
    with pytest.raises(OperationError, match=r"has no name there"):
        rs.open(checkpoints / "basic.pth").heads([10, 10], own=own).save(tmp_path / "out.pth", names="original")


def test_names_of_no_library_are_refused(checkpoints: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not one of torchvision, original, packed, timm"):
        rs.open(checkpoints / "basic.pth").save(tmp_path / "out.pth", names="keras")  # type: ignore[arg-type]


def test_a_configuration_replaces_only_a_resnet_s(checkpoints: Path, tmp_path: Path) -> None:
    network, config = rs.open(checkpoints / "basic.pth"), tmp_path / "config.json"
    config.write_text('{"model_type": "bert"}')
    for force, reason in ((False, "it exists already"), (True, "not a ResNet's configuration")):
        with pytest.raises(AccessError, match=reason):
            network.save(tmp_path / "model.safetensors", names="transformers", force=force)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
    config.write_text('{"model_type": "resnet", "depths": [1]}')
    network.save(tmp_path / "model.safetensors", names="transformers", force=True)
    assert json.loads(config.read_text())["depths"] == [2, 1, 2, 1]


def test_a_name_under_which_transformers_looks_for_nothing_is_refused(checkpoints: Path, run: Run) -> None:
    done = run("convert", checkpoints / "basic.pth", "--names", "transformers", "-o", "basic.safetensors")
    assert done.returncode == 2
    assert b"hint: use `-o model.safetensors`" in done.stderr
    assert run("convert", checkpoints / "basic.pth", "--names", "transformers", "-o", "-").stdout == b""


def test_the_command_keeps_every_bit_and_the_history(checkpoints: Path, run: Run, tmp_path: Path) -> None:
    assert run("adapt", checkpoints / "basic.pth", "--in-ch", "1", "-q", "-o", "a.safetensors").returncode == 0
    done = run("convert", "a.safetensors", "-q", "-o", "b.pth")
    assert (done.returncode, done.stdout) == (0, b"b.pth\n")
    assert (tmp_path / "b.json").read_bytes() == (tmp_path / "a.json").read_bytes()
    before, after = load_file(tmp_path / "a.safetensors"), torch.load(tmp_path / "b.pth", weights_only=True)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
