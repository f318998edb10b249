"""The same network, spelled otherwise: each author's own module computes what comes out."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune
from torchvision.models import ResNet

import resnet_surgeon as rs
from resnet_surgeon.errors import CheckpointError, SurgeonError
from tests.fixtures import images

pytestmark = pytest.mark.filterwarnings("ignore")  # torch's old weight norm is deprecated


def saved(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def convolutions(model: ResNet) -> list[tuple[str, nn.Conv2d]]:
    return [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Conv2d)]


def pruned(model: ResNet) -> None:
    for _, module in convolutions(model):
        prune.l1_unstructured(module, "weight", 0.3)  # type: ignore[no-untyped-call]
    prune.random_unstructured(model.fc, "weight", 0.5)  # type: ignore[no-untyped-call]


def old_weight_norm(model: ResNet) -> None:
    for _, module in convolutions(model):
        nn.utils.weight_norm(module)
    nn.utils.weight_norm(model.fc)


def new_weight_norm(model: ResNet) -> None:
    for _, module in convolutions(model):
        parametrizations.weight_norm(module)
    parametrizations.weight_norm(model.fc)


def biased(model: ResNet) -> None:
    for _, module in convolutions(model):
        module.bias = nn.Parameter(torch.randn(module.out_channels))


def headless_bias(model: ResNet) -> None:
    model.fc = nn.Linear(512, 10, bias=False)


# Biases in the shortcuts are MONAI's habit, whose conv1 has another stride unless somebody says so.
STATED = "stem_stride=2"
SPELLINGS = [pruned, old_weight_norm, new_weight_norm, biased, headless_bias]


@pytest.mark.parametrize("spell", SPELLINGS, ids=lambda spell: spell.__name__)
@pytest.mark.parametrize("prefix", ["", "module."])
def test_it_computes_the_same(spell: Callable[[ResNet], None], prefix: str, basic: ResNet) -> None:
    model = copy.deepcopy(basic)
    spell(model)
    data = saved({prefix + name: tensor for name, tensor in model.state_dict().items()})
    with torch.no_grad():
        torch.testing.assert_close(rs.load(data, assume=STATED).eval()(images()), model(images()), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("spell", SPELLINGS, ids=lambda spell: spell.__name__)
def test_what_was_computed_is_recorded_and_proven(
    spell: Callable[[ResNet], None], basic: ResNet, tmp_path: Path
) -> None:
    model = copy.deepcopy(basic)
    spell(model)
    (tmp_path / "source.pth").write_bytes(saved(model.state_dict()))
    made = rs.open(tmp_path / "source.pth", assume=STATED).adapt(1).save(tmp_path / "out.safetensors")
    proof = rs.verify(made, against=tmp_path / "source.pth")
    assert [check for check in proof.checks if check.outcome != "proven"] == []


def test_the_manifest_names_the_tensors_in_the_file(basic: ResNet) -> None:
    model = copy.deepcopy(basic)
    biased(model)
    manifest = rs.open(
        saved({f"net.{name}": tensor for name, tensor in model.state_dict().items()}), assume=STATED
    ).manifest()
    provenance: Any = manifest.tensors["layer1.0.bn2.running_mean"].provenance
    assert [part.tensor for part in provenance.inputs] == [
        "net.layer1.0.bn2.running_mean",
        "net.layer1.0.conv2.bias",
    ]


def test_a_missing_bias_is_said_to_be_filled(basic: ResNet) -> None:
    model = copy.deepcopy(basic)
    headless_bias(model)
    wrapping = rs.open(saved(model.state_dict())).source.origin.wrapping
    assert wrapping
    assert wrapping.filled == ("fc.bias",)


@pytest.mark.parametrize(
    "change",
    [
        {"conv1.bias": torch.zeros(3)},
        {"conv1.bias": torch.zeros(64, dtype=torch.float64)},
        {"conv1.weight_orig": torch.zeros(64, 3, 7, 7), "conv1.weight_mask": torch.zeros(64, 3, 7, 1)},
        {"conv1.weight_orig": torch.zeros(64, 3, 7, 7), "conv1.weight_mask": torch.zeros(64, 3, 7, 7).double()},
        {"conv1.weight_g": torch.zeros(64), "conv1.weight_v": torch.zeros(64, 3, 7, 7)},
    ],
    ids=["a short bias", "a bias of another dtype", "a small mask", "a mask of another dtype", "norms of no shape"],
)
def test_parts_that_do_not_fit_each_other_are_refused(change: dict[str, torch.Tensor], basic: ResNet) -> None:
    state = {name: tensor for name, tensor in basic.state_dict().items() if name != "conv1.weight" or len(change) == 1}
    with pytest.raises(CheckpointError, match="do not fit each other"):
        rs.open(saved({**state, **change}))


def test_an_unknown_parametrization_is_refused(basic: ResNet) -> None:
    model = copy.deepcopy(basic)
    parametrizations.spectral_norm(model.conv1)
    with pytest.raises(SurgeonError, match="conv1"):
        rs.open(saved(model.state_dict()))
