"""diff says what sets two networks apart, in any containers, by content."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import ResNet

import resnet_surgeon as rs
from resnet_surgeon.comparison import Kind
from resnet_surgeon.formats.tensors import BITS
from resnet_surgeon.network import Network
from tests.fixtures import small_network
from tests.work import calls


@pytest.fixture
def surgery(checkpoints: Path, tmp_path: Path) -> Callable[[Callable[[Network], Network]], Path]:
    """Writes what an operation makes of basic.pth."""

    def surgery(operation: Callable[[Network], Network]) -> Path:
        path = tmp_path / f"{len([*tmp_path.iterdir()])}.safetensors"
        return operation(rs.open(checkpoints / "basic.pth")).save(path)

    return surgery


def kinds(difference: rs.Difference) -> dict[Kind, int]:
    found: dict[Kind, int] = {}
    for tensor in difference.tensors:
        found[tensor.kind] = found.get(tensor.kind, 0) + 1
    return found


def test_one_network_in_two_containers_is_the_same(checkpoints: Path) -> None:
    difference = rs.diff(checkpoints / "basic.pth", checkpoints / "basic.safetensors")
    assert difference.is_same
    assert (difference.same, difference.basis) == (98, "content")


def test_removed_layers(checkpoints: Path, surgery: Callable[..., Path]) -> None:
    difference = rs.diff(checkpoints / "basic.pth", surgery(lambda network: network.remove(last=3)))
    assert kinds(difference) == {"removed": 20}
    assert difference.architecture == (
        "layer4: 1 block -> none",
        "pooling: avg -> none",
        "output: 10 classes -> feature map of 256 channels",
    )


def test_other_input_channels(checkpoints: Path, surgery: Callable[..., Path]) -> None:
    difference = rs.diff(checkpoints / "basic.pth", surgery(lambda network: network.adapt(1)))
    assert [(tensor.kind, tensor.name) for tensor in difference.tensors] == [("reshaped", "conv1.weight")]
    assert difference.architecture == ("input channels: 3 -> 1",)


def test_a_block_that_moved_up_is_renamed(checkpoints: Path, surgery: Callable[..., Path]) -> None:
    difference = rs.diff(checkpoints / "basic.pth", surgery(lambda network: network.remove(layers=["layer1.0"])))
    renamed = {tensor.name: tensor.was for tensor in difference.tensors if tensor.kind == "renamed"}
    assert renamed["layer1.0.conv1.weight"] == "layer1.1.conv1.weight"
    assert all(was == name.replace("layer1.0", "layer1.1") for name, was in renamed.items())
    assert difference.architecture == ("layer1: 2 blocks -> 1 block",)


def test_layers_that_heads_own_are_copied(checkpoints: Path, surgery: Callable[..., Path]) -> None:
    difference = rs.diff(checkpoints / "basic.pth", surgery(lambda network: network.heads([3, 5])))
    assert kinds(difference) == {"copied": 36, "added": 4, "removed": 2}
    assert all(tensor.name.endswith(f".{tensor.was}") for tensor in difference.tensors if tensor.kind == "copied")


def test_fresh_batch_norms_are_not_taken_for_each_other(tmp_path: Path) -> None:
    """Their content is the same in all layers, and says nothing about where a tensor is from."""
    networks = [rs.open("resnet18", weights="random"), rs.open("resnet34", weights="random", seed=1)]
    paths = [network.save(tmp_path / f"{index}.safetensors") for index, network in enumerate(networks)]
    assert kinds(rs.diff(*paths)).keys() == {"added", "changed"}


def test_changes_are_measured_as_torch_measures_them(basic: ResNet, checkpoints: Path, tmp_path: Path) -> None:
    state = dict(basic.state_dict())
    before = state["layer2.0.conv1.weight"]
    after = before + 0.01 * torch.randn(before.shape, generator=torch.Generator().manual_seed(0))
    save_file({**state, "layer2.0.conv1.weight": after}, tmp_path / "after.safetensors")
    (found,) = rs.diff(checkpoints / "basic.pth", tmp_path / "after.safetensors").tensors
    assert found.change
    a, b = before.double().flatten(), after.double().flatten()
    assert found.change.max_abs == float((b - a).abs().max())
    assert found.change.relative == pytest.approx(float((b - a).norm() / a.norm()), rel=1e-12)
    assert found.change.cosine == pytest.approx(float(torch.cosine_similarity(a, b, dim=0)), rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_another_dtype_is_a_change_of_its_rounding(dtype: torch.dtype, checkpoints: Path, tmp_path: Path) -> None:
    state = small_network(depths=(2, 1, 2, 1)).to(dtype).state_dict()
    save_file(state, tmp_path / "other.safetensors")
    difference = rs.diff(checkpoints / "basic.pth", tmp_path / "other.safetensors")
    changes = [tensor.change for tensor in difference.tensors if tensor.change]
    assert len(changes) == len([tensor for tensor in state.values() if tensor.is_floating_point()])
    assert max(change.relative for change in changes) <= torch.finfo(dtype).eps


def test_not_a_number_is_not_hidden(basic: ResNet, checkpoints: Path, tmp_path: Path) -> None:
    weight = basic.state_dict()["conv1.weight"].clone()
    weight[0, 0, 0, 0] = torch.nan
    save_file({**basic.state_dict(), "conv1.weight": weight}, tmp_path / "nan.safetensors")
    (found,) = rs.diff(checkpoints / "basic.pth", tmp_path / "nan.safetensors").tensors
    assert found.change
    assert found.change.max_abs != found.change.max_abs


def test_any_checkpoint_can_be_compared(tmp_path: Path) -> None:
    for name, state in (("one", {"a": torch.ones(2), "b": torch.ones(3)}), ("other", {"a": torch.ones(2)})):
        torch.save(state, tmp_path / f"{name}.pth")
    difference = rs.diff(tmp_path / "one.pth", tmp_path / "other.pth")
    assert ([tensor.name for tensor in difference.tensors], difference.architecture) == (["b"], ())


def saved_as(path: Path, names: Iterable[str], data: bytes = bytes(range(12)), dtype: str = "F32") -> Path:
    """A safetensors file in which every tensor has these bytes; shaped [3] for F32."""
    shape = [len(data) * 8 // BITS[dtype]]
    entries = {
        name: {"dtype": dtype, "shape": shape, "data_offsets": [number * len(data), (number + 1) * len(data)]}
        for number, name in enumerate(names)
    }
    header = json.dumps(entries).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + data * len(entries))
    return path


@pytest.mark.parametrize("data", [bytes(range(12)), bytes(12)], ids=["content", "plain content"])
def test_tensors_of_one_content_take_work_in_proportion(data: bytes, tmp_path: Path) -> None:
    def work(count: int) -> int:
        one = saved_as(tmp_path / "one", (f"a.{number}.weight" for number in range(count)), data)
        other = saved_as(tmp_path / "other", (f"b.{number}.weight" for number in range(count)), data)
        return calls(lambda: rs.diff(one, other))

    assert work(800) < 2.5 * work(400)


def test_of_several_of_one_content_the_name_that_ends_most_alike_is_where_it_is_from(tmp_path: Path) -> None:
    one = saved_as(tmp_path / "one", ["x.c", "a.b.c", "y.b.c"])
    other = saved_as(tmp_path / "other", ["new.y.b.c", "b.c", "xb.c", "d"])
    found = {
        tensor.name: tensor.was for tensor in rs.diff(one, other).tensors if tensor.was in ("x.c", "a.b.c", "y.b.c")
    }
    assert {name: found[name] for name in ("new.y.b.c", "b.c", "xb.c", "d")} == {
        "new.y.b.c": "y.b.c", "b.c": "a.b.c", "xb.c": "x.c", "d": "x.c",
    }  # fmt: skip


@pytest.mark.parametrize("dtype", ["F4", "F6_E2M3", "F6_E3M2", "F8_E4M3", "C64"])
def test_types_without_numbers_are_compared_by_content(dtype: str, tmp_path: Path) -> None:
    data = bytes(range(24)) * (1 << 16)  # longer than what is read at once
    one = saved_as(tmp_path / "one", ["a", "b", "c"], data, dtype)
    assert rs.diff(one, saved_as(tmp_path / "same", ["a", "b", "c"], data, dtype)).is_same
    other = saved_as(tmp_path / "other", ["a", "b", "c"], data[:-1] + b"x", dtype)
    assert [(tensor.kind, tensor.change) for tensor in rs.diff(one, other).tensors] == [("changed", None)] * 3


@pytest.mark.parametrize("dtype", ["F4", "F6_E2M3", "F8_E4M3", "F32"])
def test_a_number_throughout_says_nothing_about_where_a_tensor_is_from(dtype: str, tmp_path: Path) -> None:
    one = saved_as(tmp_path / "one", ["a"], bytes(3 << 20), dtype)
    assert kinds(rs.diff(one, saved_as(tmp_path / "other", ["b"], bytes(3 << 20), dtype))) == {"added": 1, "removed": 1}


def test_a_damaged_archive_is_not_the_same_as_itself(checkpoints: Path, basic: ResNet, tmp_path: Path) -> None:
    data = bytearray((checkpoints / "basic.pth").read_bytes())
    data[data.index(basic.layer1[0].conv1.weight.detach().numpy().tobytes()) + 9] ^= 1
    (tmp_path / "damaged.pth").write_bytes(data)
    for sides in (("damaged.pth",) * 2, ("damaged.pth", "basic.pth"), ("basic.pth", "damaged.pth")):
        paths = [(tmp_path if name.startswith("damaged") else checkpoints) / name for name in sides]
        with pytest.raises(rs.CheckpointError, match=r"damaged.pth: it is damaged: the checksum of `data/\d+`"):
            rs.diff(*paths)


def test_a_file_that_changes_meanwhile_is_noticed(checkpoints: Path, tmp_path: Path) -> None:
    path = tmp_path / "basic.safetensors"
    path.write_bytes((checkpoints / "basic.safetensors").read_bytes())

    class Other:
        """Another source, while which is read the first one is written to."""

        content = io.BytesIO(path.read_bytes())

        def read(self, size: int) -> bytes:
            os.utime(path, ns=(1, 1))
            return self.content.read(size)

    with pytest.raises(rs.CheckpointError, match="was changed while it was read"):
        rs.diff(path, Other())  # type: ignore[arg-type]


def test_manifests_are_compared_by_what_they_say(surgery: Callable[..., Path]) -> None:
    one, other = surgery(lambda network: network.heads([3])), surgery(lambda network: network.heads([3], seed=1))
    difference = rs.diff(one.with_suffix(".json"), other.with_suffix(".json"))
    assert (difference.basis, difference.document) == ("provenance", ("operations[0].heads.seed",))
    assert [tensor.name for tensor in difference.tensors] == ["fc.weight", "fc.bias"]


def test_a_manifest_and_its_own_file_are_the_same(surgery: Callable[..., Path]) -> None:
    path = surgery(lambda network: network.adapt(1).heads([3, 5]))
    assert rs.diff(path.with_suffix(".json"), path).is_same


def test_a_manifest_and_a_plain_checkpoint_are_compared_by_their_layout(
    checkpoints: Path, surgery: Callable[..., Path]
) -> None:
    path = surgery(lambda network: network.adapt(1)).with_suffix(".json")
    difference = rs.diff(checkpoints / "basic.pth", path)
    assert (difference.basis, kinds(difference)) == ("layout", {"reshaped": 1})


def test_how_the_network_is_used_counts_as_a_difference(tmp_path: Path, surgery: Callable[..., Path]) -> None:
    one = surgery(lambda network: network.heads([3]))
    manifest = json.loads(one.with_suffix(".json").read_text("utf-8"))
    manifest["outputs"][0]["categories"] = ["a", "b", "c"]
    from safetensors.torch import load_file

    metadata = {"resnet_surgeon.manifest": json.dumps(manifest)}
    save_file(load_file(one), tmp_path / "other.safetensors", metadata=metadata)
    assert rs.diff(one, tmp_path / "other.safetensors").document == ("outputs[0].categories",)


def test_models_are_compared_by_name() -> None:
    assert rs.diff("resnet18", "resnet34", weights="random").architecture[0] == "layer1: 2 blocks -> 3 blocks"


@pytest.mark.parametrize("blocks", [2, 65536])
def test_a_manifest_whose_records_are_not_its_architectures_is_an_error(
    blocks: int, surgery: Callable[..., Path]
) -> None:
    path = surgery(lambda network: network.adapt(1)).with_suffix(".json")
    manifest = json.loads(path.read_text("utf-8"))
    manifest["architecture"]["stages"][1]["blocks"] = blocks
    path.write_text(json.dumps(manifest), "utf-8")
    with pytest.raises(rs.CheckpointError, match="its records are not those of its architecture"):
        rs.diff(path, path)


def test_a_broken_manifest_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text('{"format_version": 1}')
    with pytest.raises(rs.CheckpointError, match="model.json"):
        rs.diff(tmp_path / "model.json", tmp_path / "model.json")
