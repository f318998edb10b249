"""A network keeps its history: one process, a pipe, and files in between come to the same bytes."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import resnet_surgeon as rs
from resnet_surgeon.errors import ArchitectureError, CheckpointError, SurgeonError
from resnet_surgeon.operations.adapt import Adapt
from resnet_surgeon.operations.checkpoint import Operation
from resnet_surgeon.operations.heads import Heads
from resnet_surgeon.operations.remove import Remove
from resnet_surgeon.sources import catalog
from tests.conftest import small_network

OPERATIONS = st.one_of(
    st.builds(Adapt, st.integers(1, 4), st.sampled_from(["mean", "scaled", "repeat", "random"]), st.integers(0, 1)),
    st.builds(lambda last: Remove(last=last), st.integers(1, 4)),
    st.builds(
        lambda layers: Remove(layers=layers),
        st.lists(
            st.sampled_from(["maxpool", "layer3.1", "layer2.1", "fc", "heads", "layer3.2"]), min_size=1, max_size=2
        ),
    ),
    st.builds(
        lambda classes, own: Heads(classes, own=own),
        st.lists(st.integers(1, 3), min_size=1, max_size=2),
        st.sampled_from([None, "none", "layer3", "layer4"]),
    ),
)


@pytest.mark.parametrize("name", ["bottleneck.safetensors", "bottleneck.pth", "random"])
@given(operations=st.lists(OPERATIONS, max_size=4))
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_a_chain_and_files_in_between_come_to_the_same_bytes(
    name: str, operations: list[Operation], checkpoints: Path, tmp_path: Path
) -> None:
    def start() -> rs.Network:
        return rs.open("resnet18", weights="random") if name == "random" else rs.open(checkpoints / name)

    chain = by_files = start()
    for operation in operations:
        try:
            chain = chain.apply(operation)
        except SurgeonError:
            continue
        by_files = rs.open(by_files.apply(operation).save(tmp_path / "step.safetensors", force=True))
    chain.save(tmp_path / "chain.safetensors", force=True)
    by_files.save(tmp_path / "files.safetensors", force=True)
    for extension in ("safetensors", "json"):
        assert (tmp_path / f"chain.{extension}").read_bytes() == (tmp_path / f"files.{extension}").read_bytes()


def test_without_an_operation_what_this_tool_wrote_is_written_again(checkpoints: Path, tmp_path: Path) -> None:
    first = rs.open(checkpoints / "basic.pth").adapt(1).save(tmp_path / "first.safetensors")
    again = rs.open(first).save(tmp_path / "again.safetensors")
    assert first.read_bytes() == again.read_bytes()


def test_both_containers_of_one_network_give_the_same_tensors(checkpoints: Path, tmp_path: Path) -> None:
    for name in ("basic.pth", "basic.safetensors"):
        rs.open(checkpoints / name).adapt(1).save(tmp_path / f"{name}.safetensors")
    with (
        safe_open(tmp_path / "basic.pth.safetensors", "pt") as left,
        safe_open(tmp_path / "basic.safetensors.safetensors", "pt") as right,
    ):
        assert list(left.keys()) == list(right.keys())
        assert all(torch.equal(left.get_tensor(name), right.get_tensor(name)) for name in left.keys())  # noqa: SIM118


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_dtype_is_kept(dtype: torch.dtype, tmp_path: Path) -> None:
    model = small_network().to(dtype)
    torch.save(model.state_dict(), tmp_path / "half.pth")
    rs.open(tmp_path / "half.pth").adapt(1).heads([3, 5]).save(tmp_path / "out.safetensors")
    written = load_file(tmp_path / "out.safetensors")
    assert {tensor.dtype for tensor in written.values()} == {dtype, torch.int64}
    assert torch.equal(written["layer3.0.conv1.weight"], model.layer3[0].conv1.weight)


def test_the_source_s_own_metadata_are_kept(tmp_path: Path) -> None:
    save_file(small_network().state_dict(), tmp_path / "in.safetensors", metadata={"author": "é", "format": "pt"})
    rs.open(tmp_path / "in.safetensors").adapt(1).save(tmp_path / "out.safetensors")
    with safe_open(tmp_path / "out.safetensors", "pt") as file:
        metadata = file.metadata()
    assert metadata["author"] == "é"
    assert metadata["format"] == "pt"
    assert metadata["resnet_surgeon.manifest"] == (tmp_path / "out.json").read_text("utf-8")


def test_a_published_file_brings_its_preprocessing_and_categories(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / catalog.entry("resnet18", "DEFAULT").file_name
    torch.save(small_network(depths=(2, 2, 2, 2), classes=1000).state_dict(), path)
    network = rs.open(path)
    outputs = network.adapt(1).manifest().outputs
    assert outputs[0].categories
    assert outputs[0].categories[0] == "tench"
    assert network.heads([1000]).manifest().outputs[0].categories is None
    preprocessing = network.manifest().inputs.preprocessing
    assert preprocessing
    assert preprocessing.mean == (0.485, 0.456, 0.406)


def retouched(tmp_path: Path, checkpoints: Path, **changes: object) -> Path:
    """A file with the manifest of another network."""
    rs.open(checkpoints / "basic.pth").heads([3, 5]).save(tmp_path / "a.safetensors")
    manifest = (tmp_path / "a.json").read_text("utf-8")
    document = json.loads(manifest)
    document.update(changes)
    metadata = {"resnet_surgeon.manifest": json.dumps(document)}
    save_file(small_network().state_dict(), tmp_path / "b.safetensors", metadata=metadata)
    return tmp_path / "b.safetensors"


def test_a_manifest_that_does_not_fit_its_file_is_refused(tmp_path: Path, checkpoints: Path) -> None:
    with pytest.raises(ArchitectureError, match="`layer1.1.conv1.weight` .* is missing"):
        rs.open(retouched(tmp_path, checkpoints))


def test_a_manifest_that_is_damaged_is_refused(tmp_path: Path, checkpoints: Path) -> None:
    with pytest.raises(CheckpointError, match="b.safetensors: its manifest is not valid"):
        rs.open(retouched(tmp_path, checkpoints, inputs=3))


def test_several_heads_without_a_manifest_are_refused(tmp_path: Path, checkpoints: Path) -> None:
    rs.open(checkpoints / "basic.pth").heads([3, 5]).save(tmp_path / "a.safetensors")
    save_file(load_file(tmp_path / "a.safetensors"), tmp_path / "b.safetensors")
    with pytest.raises(ArchitectureError, match="no manifest, which alone knows their order"):
        rs.open(tmp_path / "b.safetensors")


def test_operations_are_methods_with_their_own_help() -> None:
    assert str(inspect.getdoc(vars(rs.Network)["adapt"])).startswith("Adapt the input channels")
    with pytest.raises(TypeError):
        rs.open("resnet18", weights="random").adapt(channels=1)


def test_names_of_files_tell_what_was_done(checkpoints: Path) -> None:
    network = rs.open(checkpoints / "basic.pth").adapt(1).remove(last=1).heads([3, 5])
    assert network.default_name == "basic-in1-without-fc-heads-3-5.safetensors"
    assert "basic: ResNet with basic blocks 2-1-2-1, 1 input channel, 2 heads" in repr(network)
