"""What was trained is saved with a history that says so, and nothing more; whatever wraps the module."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn.utils import prune
from torch.optim.swa_utils import AveragedModel

import resnet_surgeon as rs
from resnet_surgeon.errors import CheckpointError, UsageError
from resnet_surgeon.manifest import Computed, Initialised, Kept, Trained
from tests.fixtures import images

CHANGED = {"conv1.weight", "layer1.0.bn1.running_mean", "heads.head2.fc.bias"}


@pytest.fixture
def file(checkpoints: Path, tmp_path: Path) -> Path:
    return rs.open(checkpoints / "basic.pth").adapt(1).heads([3, 5]).save(tmp_path / "model.safetensors")


def train(model: nn.Module) -> nn.Module:
    """Changes three of its tensors."""
    for name, tensor in model.state_dict().items():
        if name in CHANGED:
            tensor.add_(0.25)
    return model


def test_what_was_trained_is_known_from_what_was_not(file: Path, tmp_path: Path) -> None:
    model = train(rs.load(file))
    out = rs.save(model, tmp_path / "trained.safetensors")
    state = model.state_dict()
    saved = load_file(out)
    assert saved.keys() == state.keys()
    assert all(torch.equal(saved[name], state[name]) for name in state)
    before, after = rs.open(file).manifest(), rs.open(out).manifest()
    assert after.operations == (*before.operations, {"trained": {"tensors": sorted(CHANGED)}})
    for name, record in after.tensors.items():
        began = before.tensors[name].provenance
        assert record.provenance == (Trained(began) if name in CHANGED else began)  # type: ignore[arg-type]
    kinds = {name: type(record.provenance.began) for name, record in after.tensors.items() if name in CHANGED}  # type: ignore[union-attr]
    assert [kinds[name] for name in sorted(CHANGED)] == [Computed, Initialised, Kept]


def test_a_trained_file_proves_but_for_the_training(file: Path, checkpoints: Path, tmp_path: Path) -> None:
    out = rs.save(train(rs.load(file)), tmp_path / "trained.safetensors")
    proof = rs.verify(out, against=checkpoints / "basic.pth")
    assert proof.failed == ()
    (trained,) = proof.unproven
    assert trained.name == "trained"
    assert trained.finding.startswith("3 of ")
    assert "0 of them are to the bit" in trained.finding


def test_a_file_that_was_not_trained_is_the_same_file(file: Path, tmp_path: Path) -> None:
    assert rs.save(rs.load(file), tmp_path / "same.safetensors").read_bytes() == file.read_bytes()


WRAPPED: dict[str, Callable[[Any], Any]] = {
    "as it is": lambda model: model,
    "DataParallel": nn.DataParallel,
    "averaged": AveragedModel,
    "compiled": torch.compile,
    "compiled, in parallel": lambda model: nn.DataParallel(torch.compile(model)),
    "channels last": lambda model: model.to(memory_format=torch.channels_last),
    "copied": copy.deepcopy,
    "frozen, in eval": lambda model: model.eval().requires_grad_(False),
}


@pytest.mark.parametrize("wrapping", WRAPPED)
def test_a_module_is_found_in_what_wraps_it(wrapping: str, file: Path, tmp_path: Path) -> None:
    expected = rs.save(train(rs.load(file)), tmp_path / "expected.safetensors")
    out = rs.save(WRAPPED[wrapping](train(rs.load(file))), tmp_path / "wrapped.safetensors")
    assert out.read_bytes() == expected.read_bytes()


def test_a_child_that_was_compiled_has_its_names(file: Path, tmp_path: Path) -> None:
    model: Any = train(rs.load(file))
    expected = rs.save(model, tmp_path / "expected.safetensors").read_bytes()
    model.layer1 = torch.compile(model.layer1)
    assert rs.save(model, tmp_path / "compiled.safetensors").read_bytes() == expected


def test_of_a_pickled_module_everything_may_have_been_trained(file: Path, checkpoints: Path, tmp_path: Path) -> None:
    model = pickle.loads(pickle.dumps(train(rs.load(file))))
    out = rs.save(model, tmp_path / "trained.safetensors")
    manifest = rs.open(out).manifest()
    assert all(isinstance(record.provenance, Trained) for record in manifest.tensors.values())
    proof = rs.verify(out, against=checkpoints / "basic.pth")
    assert proof.failed == ()
    total = len(manifest.tensors)
    (finding,) = [check.finding for check in proof.checks if check.name == "trained"]
    assert finding == (
        f"{total} of {total} tensors were trained since, which cannot be proven; "
        f"{total - len(CHANGED)} of them are to the bit what they were before"
    )


def test_training_again_is_told_once(file: Path, tmp_path: Path) -> None:
    once = rs.save(train(rs.load(file)), tmp_path / "once.safetensors")
    model = rs.load(once)
    with torch.no_grad():
        model.state_dict()["bn1.bias"].add_(1)
    twice = rs.save(model, tmp_path / "twice.safetensors")
    manifest = rs.open(twice).manifest()
    assert [next(iter(record)) for record in manifest.operations] == ["adapt", "heads", "trained"]
    assert manifest.operations[-1]["trained"]["tensors"] == sorted({*CHANGED, "bn1.bias"})
    assert isinstance(manifest.tensors["bn1.bias"].provenance, Trained)
    assert rs.verify(twice, against=once).failed == ()


def test_what_was_trained_can_be_edited_further(file: Path, checkpoints: Path, tmp_path: Path) -> None:
    trained = rs.save(train(rs.load(file)), tmp_path / "trained.safetensors")
    edited = rs.open(trained).adapt(2).remove(layers=["heads"]).heads([4]).save(tmp_path / "edited.safetensors")
    assert rs.verify(edited, against=trained).failed == ()
    assert rs.verify(edited, against=checkpoints / "basic.pth").failed == ()


def test_a_module_of_random_weights_and_of_a_network(tmp_path: Path) -> None:
    network = rs.open("resnet18", weights="random").remove(last=7)
    model = rs.load(network)
    assert model.manifest == network.manifest()
    with torch.no_grad():
        model.state_dict()["bn1.bias"].add_(1)
    out = rs.save(model, tmp_path / "trained.safetensors")
    assert rs.open(out).manifest().operations[-1] == {"trained": {"tensors": ["bn1.bias"]}}
    assert rs.verify(out).failed == ()


def test_other_dtypes_are_saved_as_they_are(file: Path, tmp_path: Path) -> None:
    out = rs.save(rs.load(file, dtype=torch.bfloat16), tmp_path / "half.safetensors")
    assert {tensor.dtype for tensor in load_file(out).values()} == {torch.bfloat16, torch.int64}
    assert rs.verify(out).failed == ()


def test_a_file_that_has_changed_since_it_was_loaded_says_nothing(file: Path, tmp_path: Path) -> None:
    model = rs.load(file)
    with file.open("r+b") as stream:
        stream.seek(-1, 2)
        stream.write(b"x")
    manifest = rs.open(rs.save(model, tmp_path / "trained.safetensors")).manifest()
    assert all(isinstance(record.provenance, Trained) for record in manifest.tensors.values())


def test_a_module_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a Linear is not a module that resnet_surgeon.load gave"):
        rs.save(nn.Linear(1, 1), tmp_path / "out.safetensors")
    with pytest.raises(UsageError, match="was not loaded from anything"):
        rs.save(rs.ResNet(rs.open("resnet18", weights="random").architecture), tmp_path / "out.safetensors")
    assert not [*tmp_path.iterdir()]


def test_a_module_with_other_tensors_is_refused(file: Path, tmp_path: Path) -> None:
    pruned, extended = rs.load(file), rs.load(file)
    prune.random_unstructured(pruned.conv1, "weight", 0.5)  # type: ignore[no-untyped-call]
    with pytest.raises(CheckpointError, match=r"conv1.weight_(orig|mask)") as caught:
        rs.save(pruned, tmp_path / "out.safetensors")
    assert "pruning" in str(caught.value.hint)
    extended.projector = nn.Linear(3, 3)
    with pytest.raises(CheckpointError, match="projector.weight"):
        rs.save(extended, tmp_path / "out.safetensors")


def test_saving_refuses_what_network_save_refuses(file: Path, tmp_path: Path) -> None:
    model = train(rs.load(file))
    rs.save(model, tmp_path / "trained.safetensors")
    with pytest.raises(rs.AccessError, match="exists"):
        rs.save(model, tmp_path / "trained.safetensors")
    assert rs.save(model, tmp_path / "trained.safetensors", force=True).exists()


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning", "ignore:.*torch.jit:FutureWarning")
@pytest.mark.parametrize("kind", ["whole", "heads", "shared heads", "embedding", "feature map", "stem"])
def test_the_module_can_be_scripted(kind: str, checkpoints: Path) -> None:
    network = rs.open(checkpoints / "basic.pth")
    made = {
        "whole": lambda: network,
        "heads": lambda: network.heads([3, 5]),
        "shared heads": lambda: network.heads([3, 5], own="none"),
        "embedding": lambda: network.remove(last=1),
        "feature map": lambda: network.remove(last=4),
        "stem": lambda: network.remove(last=8),
    }[kind]()
    model = rs.load(made).eval()
    with torch.no_grad():
        expected, found = model(images()), torch.jit.script(model)(images())
    torch.testing.assert_close(found, expected)


def test_torchvisions_utilities_take_the_module(checkpoints: Path) -> None:
    from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor

    model = rs.load(rs.open(checkpoints / "bottleneck.pth").remove(last=2))
    assert model.inplanes == 2048
    features = _resnet_fpn_extractor(model, trainable_layers=3)(images())
    assert [*features] == ["0", "1", "2", "3", "pool"]
