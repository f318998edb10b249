"""Folders of torch.distributed.checkpoint are read as that library reads them, sharded tensors too."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, Metadata, MetadataIndex
from torch.distributed.checkpoint.planner import WriteItem, WriteItemType
from torch.distributed.checkpoint.state_dict_saver import save as save_distributed

import resnet_surgeon as rs
from resnet_surgeon.errors import AccessError, CheckpointError
from resnet_surgeon.formats import sniff
from resnet_surgeon.formats.container import Container
from resnet_surgeon.formats.files import OpenFile
from resnet_surgeon.formats.tensors import Joined, LazyTensor, content
from resnet_surgeon.formats.unread import Unread
from tests.conftest import small_network
from tests.formats.test_torch_zip import raw


class InPieces(DefaultSavePlanner):
    """Saves each tensor as so many pieces along an axis, as several processes do."""

    def __init__(self, pieces: int, axis: int = 0) -> None:
        super().__init__()
        self.pieces, self.axis = pieces, axis

    def create_local_plan(self) -> Any:
        plan = super().create_local_plan()
        return replace(plan, items=[piece for item in plan.items for piece in self._split(item)])

    def _split(self, item: WriteItem) -> list[WriteItem]:
        data = item.tensor_data
        if data is None or len(data.size) <= self.axis or data.size[self.axis] < self.pieces:
            return [item]
        made: list[WriteItem] = []
        begin = 0
        for rows in torch.arange(data.size[self.axis]).chunk(self.pieces):
            offsets, sizes = [0] * len(data.size), [*data.size]
            offsets[self.axis], sizes[self.axis] = begin, len(rows)
            begin += len(rows)
            chunk = ChunkStorageMetadata(torch.Size(offsets), torch.Size(sizes))
            index = MetadataIndex(item.index.fqn, torch.Size(offsets), len(made))
            made.append(WriteItem(index, WriteItemType.SHARD, tensor_data=replace(data, chunk=chunk)))
        return made

    def resolve_data(self, write_item: WriteItem) -> Any:
        whole = super().resolve_data(replace(write_item, index=MetadataIndex(write_item.index.fqn)))
        if write_item.type != WriteItemType.SHARD or not isinstance(whole, torch.Tensor):
            return whole
        assert write_item.tensor_data
        chunk = write_item.tensor_data.chunk
        return whole[tuple(slice(first, first + size) for first, size in zip(chunk.offsets, chunk.sizes, strict=True))]


def save(folder: Path, state: dict[str, Any], planner: Any = None) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        save_distributed(state, checkpoint_id=folder, no_dist=True, planner=planner)
    return folder


def opened(folder: Path) -> Container:
    return sniff.read(OpenFile.at(folder / ".metadata"))


def state() -> Any:
    """As Lightning and torchtitan save: a network, its optimizer, and numbers."""
    model = small_network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    return {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3}


@pytest.mark.parametrize("planner", [None, InPieces(2), InPieces(3)], ids=["whole", "2 pieces", "3 pieces"])
def test_every_tensor_is_that_which_was_saved(planner: Any, tmp_path: Path) -> None:
    before = state()
    container = opened(save(tmp_path / "a", before, planner))
    assert container.kind == "torch_distributed"
    assert isinstance(container.root, Mapping)
    found = container.root["model"]
    assert {*found} == {*before["model"]}
    for name, tensor in before["model"].items():
        assert isinstance(found[name], LazyTensor)
        assert found[name].shape == tensor.shape
        assert content(found[name]) == raw(tensor)
    assert isinstance(found["fc.weight"], Joined) == (planner is not None)
    assert isinstance(container.root["epoch"], Unread)
    container.check()


def test_a_network_comes_out_of_a_folder(tmp_path: Path) -> None:
    before = state()
    folder = save(tmp_path / "step-100", before, InPieces(2))
    network = rs.open(folder)
    assert network.opened.source.label == "step-100"
    assert network.opened.source.origin.not_loaded == ()
    made = rs.load(network.save(tmp_path / "out.safetensors"))
    for name, tensor in made.state_dict().items():
        assert torch.equal(tensor, before["model"][name])


def test_pieces_along_another_axis_are_named(tmp_path: Path) -> None:
    state = {name: tensor for name, tensor in small_network().state_dict().items() if not name.startswith("fc.")}
    with pytest.raises(CheckpointError, match="split along another axis") as caught:
        rs.open(save(tmp_path / "a", state, InPieces(2, axis=1)))
    assert "dcp_to_torch" in (caught.value.hint or "")


def without_file(folder: Path, _: Metadata) -> None:
    (folder / "__0_0.distcp").unlink()


def cut(folder: Path, _: Metadata) -> None:
    path = folder / "__0_0.distcp"
    path.write_bytes(path.read_bytes()[:-9])


def rewritten(change: Callable[[Metadata], object]) -> Callable[[Path, Metadata], None]:
    def rewrite(folder: Path, metadata: Metadata) -> None:
        change(metadata)
        (folder / ".metadata").write_bytes(pickle.dumps(metadata))

    return rewrite


def first(metadata: Metadata) -> Any:
    return next(info for index, info in metadata.storage_data.items() if index.fqn == "conv1.weight")


def drop(metadata: Metadata) -> None:
    metadata.storage_data = {index: info for index, info in metadata.storage_data.items() if index.fqn != "fc.bias"}


def twice(metadata: Metadata) -> None:
    infos = [*metadata.storage_data.values()]
    infos[1].offset = infos[0].offset


def other_shape(metadata: Metadata) -> None:
    metadata.state_dict_metadata["fc.bias"] = metadata.state_dict_metadata["bn1.bias"]


LIES: dict[str, tuple[Callable[[Path, Metadata], None], str]] = {
    "a file is missing": (without_file, "no such file"),
    "a file is cut": (cut, "truncated"),
    "a file elsewhere": (rewritten(lambda data: setattr(first(data), "relative_path", "../x")), "not a file beside it"),
    "an absolute path": (rewritten(lambda data: setattr(first(data), "relative_path", "/x")), "not a file beside it"),
    "a negative offset": (rewritten(lambda data: setattr(first(data), "offset", -1)), "damaged"),
    "an endless length": (rewritten(lambda data: setattr(first(data), "length", 1 << 62)), "truncated"),
    "no length": (rewritten(lambda data: setattr(first(data), "length", "x")), "damaged"),
    "no shape": (rewritten(lambda data: setattr(data.state_dict_metadata["fc.bias"], "size", 3)), "damaged"),
    "no pieces": (rewritten(lambda data: setattr(data.state_dict_metadata["fc.bias"], "chunks", [])), "damaged"),
    "pieces that overlap": (rewritten(twice), "overlap"),
    "no place": (rewritten(drop), "a piece of `fc.bias` is missing"),
    "another shape": (rewritten(other_shape), "another shape"),
    "no tensors": (rewritten(lambda data: setattr(data, "state_dict_metadata", None)), "damaged"),
    "no places": (rewritten(lambda data: setattr(data, "storage_data", 3)), "damaged"),
}


@pytest.mark.parametrize(("lie", "reason"), LIES.values(), ids=LIES.keys())
def test_a_folder_that_is_damaged_is_refused(
    lie: Callable[[Path, Metadata], None], reason: str, tmp_path: Path
) -> None:
    folder = save(tmp_path / "a", small_network().state_dict())
    lie(folder, pickle.loads((folder / ".metadata").read_bytes()))
    with pytest.raises((CheckpointError, AccessError), match=reason):
        opened(folder)


def test_a_damaged_piece_shows_by_its_checksum(tmp_path: Path) -> None:
    folder = save(tmp_path / "a", small_network().state_dict())
    tensor = opened(folder).root["fc.weight"]  # type: ignore[index]
    path = folder / "__0_0.distcp"
    data = bytearray(path.read_bytes())
    data[tensor.offset + 5] ^= 1
    path.write_bytes(data)
    for check in (Container.check, Container.sha256):
        with pytest.raises(CheckpointError, match="checksum of `fc.weight`"):
            check(opened(folder))


def test_a_metadata_that_comes_alone_is_refused(tmp_path: Path) -> None:
    folder = save(tmp_path / "a", {"weight": torch.zeros(2)})
    with pytest.raises(CheckpointError, match="came alone"):
        rs.open((folder / ".metadata").read_bytes())
