"""The module is torchvision's, can be used in all the ways that modules are, and always fits its file."""

from __future__ import annotations

import copy
import io
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models import ResNet
from torchvision.models.resnet import Bottleneck

import resnet_surgeon as rs
from resnet_surgeon.architecture.variants import VARIANTS
from resnet_surgeon.errors import AccessError, CheckpointError
from resnet_surgeon.module import ResNet as OurResNet
from resnet_surgeon.module import without_numbers
from tests.fixtures import images


@pytest.fixture
def heads(checkpoints: Path, tmp_path: Path) -> Path:
    return rs.open(checkpoints / "basic.pth").adapt(1).heads([3, 5]).save(tmp_path / "heads.safetensors")


@pytest.mark.parametrize("name", VARIANTS)
def test_each_variant_computes_what_torchvision_computes(name: str) -> None:
    with without_numbers():
        witness = torchvision.models.get_model(name).eval()
        ours = OurResNet(VARIANTS[name]).eval()
    assert [key for key, _ in ours.named_modules()] == [key for key, _ in witness.named_modules()]
    for (key, our), (_, their) in zip(ours.named_modules(), witness.named_modules(), strict=True):
        if not list(their.children()):
            assert repr(our) == repr(their), key
    few = torch.rand(1 << 16, generator=torch.Generator().manual_seed(0))  # drawing a hundred million takes seconds
    numbers = {}
    for key, tensor in witness.state_dict().items():
        drawn = few.repeat(-(-tensor.numel() // len(few)))[: tensor.numel()].reshape(tensor.shape)
        numbers[key] = drawn.sub_(0.5).div_(tensor[0].numel() ** 0.5) if tensor.dim() > 1 else drawn.to(tensor.dtype)
    for module in (witness, ours):
        module.load_state_dict(numbers, assign=True)
    with torch.no_grad():
        expected = witness(images(size=32, batch=1))
        assert torch.isfinite(expected).all()
        assert torch.equal(ours(images(size=32, batch=1)), expected)


@pytest.mark.parametrize("name", ["basic", "bottleneck"])
@pytest.mark.parametrize("extension", ["pth", "safetensors"])
def test_a_loaded_network_is_the_original_to_the_bit(
    name: str, extension: str, checkpoints: Path, request: pytest.FixtureRequest
) -> None:
    original: ResNet = request.getfixturevalue(name)
    ours = rs.load(checkpoints / f"{name}.{extension}").eval()
    with torch.no_grad():
        assert torch.equal(ours(images()), original(images()))


@pytest.mark.parametrize("dilate", [(False, False, True), (False, True, True), (True, True, True)])
def test_dilation_is_torchvisions_when_the_architecture_says_so(dilate: tuple[bool, ...]) -> None:
    from dataclasses import replace

    torch.manual_seed(0)
    witness = ResNet(Bottleneck, [1, 2, 2, 2], replace_stride_with_dilation=list(dilate)).eval()
    base = rs.open(_bytes(witness)).architecture
    stages, dilation = [base.stages[0]], 1
    for stage, dilated in zip(base.stages[1:], dilate, strict=True):
        first, dilation = dilation, dilation * (2 if dilated else 1)
        stages.append(replace(stage, stride=1 if dilated else 2, first_dilation=first, dilation=dilation))
    ours = OurResNet(replace(base, stages=tuple(stages)))
    ours.load_state_dict(witness.state_dict(), strict=True)
    with torch.no_grad():
        assert torch.equal(ours.eval()(images()), witness(images()))


def test_the_stride_sits_where_the_architecture_says() -> None:
    from dataclasses import replace

    early: Any = OurResNet(replace(VARIANTS["resnet50"], bottleneck_stride="conv1"))
    assert (early.layer2[0].conv1.stride, early.layer2[0].conv2.stride) == ((2, 2), (1, 1))
    assert early.eval()(images(size=64)).shape == (2, 1000)


def _bytes(model: nn.Module) -> bytes:
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    return buffer.getvalue()


def test_bytes_streams_and_paths_load_the_same(heads: Path) -> None:
    data = heads.read_bytes()
    with heads.open("rb") as stream:
        models = [rs.load(source).eval() for source in (heads, str(heads), data, io.BytesIO(data), stream)]
    with torch.no_grad():
        outputs = [model(images(1))[1] for model in models]
    assert all(torch.equal(output, outputs[0]) for output in outputs)


def test_it_tells_its_architecture_and_manifest(heads: Path) -> None:
    model = rs.load(heads)
    assert [head.name for head in model.architecture.heads] == ["head1", "head2"]
    assert model.manifest
    assert model.manifest.to_json() == heads.with_suffix(".json").read_text("utf-8")
    assert model.training


def test_a_file_without_a_manifest_gets_one(checkpoints: Path) -> None:
    manifest = rs.load(checkpoints / "basic.pth").manifest
    assert manifest
    assert (manifest.operations, manifest.source.file) == ((), "basic.pth")
    assert manifest.source.sha256


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_dtype_can_be_chosen(dtype: torch.dtype, heads: Path) -> None:
    model: Any = rs.load(heads, dtype=dtype)
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    assert model.bn1.num_batches_tracked.dtype == torch.int64


def test_the_device_can_be_chosen(heads: Path) -> None:
    assert {tensor.device.type for tensor in rs.load(heads, device="meta").state_dict().values()} == {"meta"}


def test_layers_can_be_frozen_and_hooked_by_their_names(heads: Path) -> None:
    model: Any = rs.load(heads)
    model.layer1.requires_grad_(False)
    seen: list[torch.Size] = []
    model.layer3.register_forward_hook(lambda module, args, output: seen.append(output.shape))
    model(images(1))[0].sum().backward()
    assert seen == [torch.Size([2, 256, 4, 4])]
    assert model.layer1[0].conv1.weight.grad is None
    groups = [{"params": model.heads.parameters(), "lr": 0.1}, {"params": model.layer3.parameters(), "lr": 0.01}]
    assert len(torch.optim.SGD(groups).param_groups) == 2


def test_modules_that_people_attach_or_replace_are_respected(checkpoints: Path) -> None:
    model = rs.load(checkpoints / "basic.pth").eval()
    model.criterion = nn.CrossEntropyLoss()
    model.fc = nn.Linear(512, 2)
    assert model(images()).shape == (2, 2)


def test_it_can_be_pickled_and_copied(heads: Path) -> None:
    model = rs.load(heads).eval()
    with torch.no_grad():
        expected = model(images(1))
        for twin in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
            assert all(torch.equal(*pair) for pair in zip(twin(images(1)), expected, strict=True))
            assert twin.manifest == model.manifest


def test_it_can_be_exported(heads: Path) -> None:
    model = rs.load(heads).eval()
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(model, (images(1),), dynamic_shapes=({0: batch},))
    with torch.no_grad():
        for ours, exported in zip(model(images(1, batch=3)), program.module()(images(1, batch=3)), strict=True):
            torch.testing.assert_close(ours, exported)


def test_it_can_be_compiled(heads: Path) -> None:
    model = rs.load(heads).eval()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        for ours, theirs in zip(model(images(1)), compiled(images(1)), strict=True):
            torch.testing.assert_close(ours, theirs)


def test_parameters_train_in_place(heads: Path) -> None:
    model = rs.load(heads)
    assert all(parameter.is_leaf and parameter.requires_grad for parameter in model.parameters())
    assert all(parameter.is_contiguous() for parameter in model.parameters())


def test_errors_are_those_of_open(tmp_path: Path) -> None:
    with pytest.raises(AccessError, match="no such file"):
        rs.load(tmp_path / "missing.safetensors")
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        rs.load(b"hello")


def test_a_damaged_zip_is_never_loaded(checkpoints: Path) -> None:
    data = bytearray((checkpoints / "basic.pth").read_bytes())
    data[len(data) // 2] ^= 1
    with pytest.raises(CheckpointError, match="checksum"):
        rs.load(bytes(data))


def test_random_weights_train_like_torchvisions(tmp_path: Path) -> None:
    """Activations of a fresh network have the size that torchvision's initialisation gives them."""
    rs.open("resnet18", weights="random").save(tmp_path / "fresh.safetensors")
    torch.manual_seed(0)
    ours, witness = rs.load(tmp_path / "fresh.safetensors").train(), torchvision.models.resnet18().train()
    with torch.no_grad():
        ratio = float(ours(images(batch=16)).std() / witness(images(batch=16)).std())
    assert 0.8 < ratio < 1.25


@pytest.mark.parametrize("extension", ["pth", "safetensors"])
def test_no_two_networks_share_tensors(extension: str, checkpoints: Path, basic: ResNet) -> None:
    data = (checkpoints / f"basic.{extension}").read_bytes()
    first, second = rs.load(data), rs.load(data)
    for tensor in first.state_dict().values():
        tensor.zero_()
    for loaded in (second, rs.load(data)):
        state = loaded.state_dict()
        assert all(torch.equal(tensor, state[name]) for name, tensor in basic.state_dict().items())


def test_no_two_heads_share_tensors(heads: Path) -> None:
    first, second = rs.load(heads).heads.values()
    before = {name: tensor.clone() for name, tensor in second.state_dict().items()}
    assert all(torch.equal(tensor, before[name]) for name, tensor in first.state_dict().items() if "layer4" in name)
    for tensor in first.state_dict().values():
        tensor.zero_()
    assert all(torch.equal(tensor, before[name]) for name, tensor in second.state_dict().items())
