"""What the network was packed in stays as it was but for the edited tensors, and loads strictly where it came from."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torchvision.models import ResNet
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

import resnet_surgeon as rs
from resnet_surgeon.errors import CheckpointError, OperationError
from tests.fixtures import Run, small_network


def kept(path: Path, output: Path, **opening: Any) -> dict[str, torch.Tensor]:
    """The state_dict that comes of one input channel, without being told what is in it."""
    written = rs.open(path, **opening).adapt(1).save(output, names="packed")
    return load_file(written) if output.suffix == ".safetensors" else torch.load(written, weights_only=True)


def assert_only_stems_differ(found: dict[str, torch.Tensor], before: dict[str, torch.Tensor], *stems: str) -> None:
    assert [*found] == [*before] or found.keys() == before.keys()
    for name, tensor in before.items():
        if name in stems:
            assert torch.equal(found[name], tensor.mean(1, keepdim=True))
        else:
            assert found[name].dtype == tensor.dtype
            assert torch.equal(found[name], tensor)


@pytest.mark.parametrize("name", ["out.pth", "out.safetensors"])
def test_a_detector_loads_strictly_with_its_new_conv1(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    detector = FasterRCNN(resnet_fpn_backbone(backbone_name="resnet18", weights=None), num_classes=3)
    before = detector.state_dict()
    torch.save(before, tmp_path / "detector.pth")
    found = kept(tmp_path / "detector.pth", tmp_path / name)
    assert_only_stems_differ(found, before, "backbone.body.conv1.weight")
    detector.backbone.body.conv1 = nn.Conv2d(1, 64, 7, 2, 3, bias=False)
    detector.load_state_dict(found, strict=True)


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = small_network()
        self.decoder = nn.Sequential(nn.Conv2d(512, 8, 3), nn.BatchNorm2d(8))
        self.segmentation_head = nn.Conv2d(8, 2, 1)
        self.register_buffer("weights", torch.arange(5, dtype=torch.uint8))


def test_a_lightning_checkpoint_keeps_its_state_dict_and_says_what_it_drops(run: Run, tmp_path: Path) -> None:
    model = UNet()
    before = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    optimizer = torch.optim.Adam(model.parameters()).state_dict()
    saved = {"epoch": 3, "pytorch-lightning_version": "2.5", "state_dict": before, "optimizer_states": [optimizer]}
    torch.save(saved, tmp_path / "last.ckpt")
    done = run("adapt", "last.ckpt", "--in-ch", "1", "--keep-packing", "-o", "out.ckpt")
    assert done.returncode == 0, done.stderr
    summary = done.stderr.decode()
    around = len(before) - len(model.encoder.state_dict())
    assert f"kept around it: {around} tensors" in summary
    assert "dropped, as not part of its state_dict: `epoch`, `pytorch-lightning_version`, `optimizer_states`" in summary
    assert "left out" not in summary
    assert_only_stems_differ(torch.load(tmp_path / "out.ckpt", weights_only=True), before, "model.encoder.conv1.weight")


@pytest.mark.parametrize("one", ["encoder_q", "encoder_k"])
def test_of_two_encoders_the_one_that_is_named_is_edited(one: str, tmp_path: Path) -> None:
    before: dict[str, torch.Tensor] = OrderedDict()
    for seed, encoder in enumerate(("encoder_q", "encoder_k")):
        state = small_network(seed=seed).state_dict()
        before |= {f"module.{encoder}.{name}": tensor for name, tensor in state.items()}
    before["module.queue"] = torch.randn(128, 64)
    torch.save({"state_dict": before, "arch": "resnet18"}, tmp_path / "moco.pth")
    found = kept(tmp_path / "moco.pth", tmp_path / "out.pth", key=f"module.{one}")
    assert_only_stems_differ(found, before, f"module.{one}.conv1.weight")


def test_a_tensor_under_two_names_is_edited_under_both(basic: ResNet, tmp_path: Path) -> None:
    state = basic.state_dict()
    before = {f"{prefix}.{name}": tensor for prefix in ("backbone", "model.backbone") for name, tensor in state.items()}
    torch.save(before, tmp_path / "in.pth")
    found = kept(tmp_path / "in.pth", tmp_path / "out.pth")
    assert_only_stems_differ(found, before, "backbone.conv1.weight", "model.backbone.conv1.weight")


def test_frozen_batch_norms_get_no_counters(basic: ResNet, tmp_path: Path) -> None:
    before = {f"body.{name}": tensor for name, tensor in basic.state_dict().items() if "num_batches" not in name}
    before["rpn.weight"] = torch.ones(2, 2)
    torch.save(before, tmp_path / "in.pth")
    assert_only_stems_differ(kept(tmp_path / "in.pth", tmp_path / "out.pth"), before, "body.conv1.weight")


def test_a_plain_file_is_what_it_would_be_without(checkpoints: Path, tmp_path: Path) -> None:
    network = rs.open(checkpoints / "basic.pth").adapt(1)
    witness = network.save(tmp_path / "witness.safetensors")
    assert network.save(tmp_path / "out.safetensors", names="packed").read_bytes() == witness.read_bytes()
    random = rs.open("resnet18", weights="random").adapt(1)
    assert random.save(tmp_path / "random.safetensors", names="packed")


def test_a_tensor_that_cannot_be_read_is_never_lost(basic: ResNet, tmp_path: Path) -> None:
    sparse = torch.eye(2).to_sparse()
    torch.save({**{f"a.{name}": t for name, t in basic.state_dict().items()}, "b.weight": sparse}, tmp_path / "in.pth")
    network = rs.open(tmp_path / "in.pth").adapt(1)
    assert network.save(tmp_path / "alone.pth")
    with pytest.raises(CheckpointError, match="`b.weight`, which would have to be kept, is a sparse tensor"):
        network.save(tmp_path / "out.pth", names="packed")
    assert not (tmp_path / "out.pth").exists()


def test_a_safetensors_file_has_no_tensor_of_its_metadata_s_name(basic: ResNet, tmp_path: Path) -> None:
    before = {**{f"a.{name}": tensor for name, tensor in basic.state_dict().items()}, "__metadata__": torch.ones(1)}
    torch.save(before, tmp_path / "in.pth")
    assert_only_stems_differ(kept(tmp_path / "in.pth", tmp_path / "out.pth"), before, "a.conv1.weight")
    with pytest.raises(CheckpointError, match="no place for a tensor called `__metadata__`"):
        kept(tmp_path / "in.pth", tmp_path / "other.safetensors")


def test_operations_after_which_nothing_fits_are_refused(checkpoints: Path, tmp_path: Path) -> None:
    with pytest.raises(OperationError, match="heads: a network that it has changed no longer fits"):
        rs.open(checkpoints / "basic.pth").adapt(1).heads([2]).save(tmp_path / "out.pth", names="packed")


def test_only_adapt_has_the_option(run: Run) -> None:
    assert b"--keep-packing" in run("adapt", "--help").stdout
    assert b"--keep-packing" not in run("heads", "--help").stdout


def test_a_packed_file_is_opened_and_edited_again(basic: ResNet, tmp_path: Path) -> None:
    before = {f"net.{name}": tensor for name, tensor in basic.state_dict().items()} | {"neck.weight": torch.ones(3)}
    save_file(before, tmp_path / "in.safetensors")
    kept(tmp_path / "in.safetensors", tmp_path / "mid.safetensors")
    assert rs.verify(tmp_path / "mid.safetensors", against=tmp_path / "in.safetensors").holds
    again = rs.open(tmp_path / "mid.safetensors").adapt(4).save(tmp_path / "out.safetensors", names="packed")
    found = load_file(again)
    assert found.keys() == before.keys()
    assert found["net.conv1.weight"].shape == (64, 4, 7, 7)
    assert torch.equal(found["neck.weight"], before["neck.weight"])
