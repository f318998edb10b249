"""cast rounds as torch does, says what that cost, and gives networks that torch runs as it runs its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torchvision.models.resnet import BasicBlock, Bottleneck

import resnet_surgeon as rs
from resnet_surgeon.arithmetic import elements
from resnet_surgeon.arithmetic.evaluation import evaluate
from resnet_surgeon.arithmetic.formulas import Cast as Formula
from resnet_surgeon.arithmetic.operand import Operand
from resnet_surgeon.errors import OperationError, UsageError
from resnet_surgeon.operations.cast import DTYPES, Cast, Rounding
from tests.fixtures import images, small_network

TORCH = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64}


def of_any_bits(dtype: torch.dtype) -> torch.Tensor:
    """Numbers of random bits: subnormal, enormous, infinite and none."""
    size = torch.finfo(dtype).bits // 8
    data = np.random.default_rng(0).integers(0, 256, 20_000 * size, np.uint8)
    return torch.frombuffer(bytearray(data), dtype=dtype)


def as_operand(tensor: torch.Tensor, dtype: str) -> Operand:
    data = tensor.view(torch.uint8).numpy().tobytes()
    return Operand(dtype, tuple(tensor.shape), lambda size: (data[n : n + size] for n in range(0, len(data), size)))


@pytest.mark.parametrize("new", [*DTYPES.values()])
@pytest.mark.parametrize("old", [*DTYPES.values()])
def test_numbers_are_rounded_as_torch_rounds_them(old: str, new: str) -> None:
    numbers = of_any_bits(TORCH[old])
    numbers = numbers[numbers.to(TORCH[new]).isfinite() | ~numbers.isfinite()]
    made = b"".join(evaluate(Formula(old), new, tuple(numbers.shape), [as_operand(numbers, old)]))
    ours = torch.frombuffer(bytearray(made), dtype=TORCH[new])
    theirs = numbers.to(TORCH[new])
    assert torch.equal(ours.isnan(), theirs.isnan())
    integers = {2: torch.int16, 4: torch.int32, 8: torch.int64}[theirs.element_size()]
    assert torch.equal(ours[~ours.isnan()].view(integers), theirs[~theirs.isnan()].view(integers))


def test_rounding_is_measured_by_the_largest_number() -> None:
    numbers = torch.tensor([0.0, 1.0, -8.0, 8.0 - 2.0**-20, 1e-10, 7e4, torch.inf, torch.nan])
    found = elements.rounding(as_operand(numbers, "F32"), "F16")
    assert found == elements.Rounding(2.0**-20 / float(torch.tensor(7e4)), zeros=1, overflows=1)


@pytest.mark.parametrize("dtype", [*DTYPES])
@pytest.mark.parametrize("keep_norm", [False, True])
def test_every_number_is_torchs_and_norms_are_kept(
    dtype: Any, keep_norm: bool, checkpoints: Path, bottleneck: torch.nn.Module, tmp_path: Path
) -> None:
    path = rs.open(checkpoints / "bottleneck.pth").cast(dtype, keep_norm).save(tmp_path / "cast.safetensors")
    expected = bottleneck.state_dict()
    written = load_file(path)
    assert written.keys() == expected.keys()
    for name, tensor in written.items():
        is_norm = "bn" in name or "downsample.1" in name
        kind = expected[name].dtype if (is_norm and keep_norm) or "tracked" in name else TORCH[DTYPES[dtype]]
        assert tensor.dtype == kind
        assert torch.equal(tensor, expected[name].to(kind))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_torch_runs_float_norms_in_a_half_network(dtype: Any, tmp_path: Path) -> None:
    model = small_network(BasicBlock)
    torch.save(model.state_dict(), tmp_path / "model.pth")
    ours = rs.load(rs.open(tmp_path / "model.pth").cast(dtype, keep_norm=True)).eval()
    theirs = model.to(TORCH[DTYPES[dtype]])
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.float()
    theirs.load_state_dict(ours.state_dict())
    image = images(size=32, batch=1).to(TORCH[DTYPES[dtype]])
    with torch.no_grad():
        assert torch.equal(ours(image), theirs(image))


def test_the_manifest_says_what_rounding_did(checkpoints: Path) -> None:
    network = rs.open(checkpoints / "basic.pth").cast("float16")
    (operation,) = network.operations
    assert isinstance(operation, Cast)
    assert isinstance(operation.rounding, Rounding)
    assert 1e-4 < operation.rounding.error < 2.0**-11
    (note,) = network.notes
    assert f"`{operation.rounding.tensor}` most, by {operation.rounding.error:.1e} of its largest number" in note
    assert network.manifest().notes == (note,)
    back = network.cast("float32")
    assert back.operations[-1] == Cast("float32")  # to a wider type nothing is rounded
    assert back.notes == (note,)


def test_what_has_the_type_already_is_kept(checkpoints: Path) -> None:
    network = rs.open(checkpoints / "basic.pth")
    assert {step.action for step in network.cast("float32").plan()} == {"kept"}


def test_numbers_that_would_become_infinite_are_refused_by_name(tmp_path: Path) -> None:
    state = small_network(Bottleneck).state_dict()
    state["bn1.running_var"][:3] = 1e5
    state["fc.weight"][0, 0] = -7e4
    state["fc.bias"][0] = torch.inf
    torch.save(state, tmp_path / "large.pth")
    with pytest.raises(OperationError, match=r"4 numbers are .*: 3 of `bn1.running_var`, 1 of `fc.weight`\n") as caught:
        rs.open(tmp_path / "large.pth").cast("float16")
    assert "bfloat16" in (caught.value.hint or "")
    rs.open(tmp_path / "large.pth").cast("bfloat16")


def test_a_type_that_there_is_not_is_wrong_usage() -> None:
    with pytest.raises(UsageError, match="dtype must be one of float16, bfloat16"):
        rs.open("resnet18", weights="random").cast("int8")  # type: ignore[arg-type]


def test_verify_compares_with_torchvisions_network_cast_by_torch(checkpoints: Path, tmp_path: Path) -> None:
    source = checkpoints / "basic.pth"
    path = rs.open(source).cast("float16", keep_norm=True).heads([2, 3]).save(tmp_path / "cast.safetensors")
    proof = rs.verify(path, against=source)
    assert not proof.failed + proof.unproven, str(proof)
    (layers,) = [check for check in proof.checks if check.name == "layers"]
    assert "torchvision's ResNet, cast by torch, to the bit" in layers.finding


def test_an_error_of_rounding_that_was_made_up_is_found(checkpoints: Path, tmp_path: Path) -> None:
    from tests.verification.draws import rewrite

    path = rs.open(checkpoints / "basic.pth").cast("float16").save(tmp_path / "cast.safetensors")
    rewrite(path, lambda manifest: manifest["operations"][0]["cast"]["rounding"].update(error=1e-9))
    failed = rs.verify(path, against=checkpoints / "basic.pth").failed
    assert any("operations[0].cast.rounding.error" in check.finding for check in failed)
