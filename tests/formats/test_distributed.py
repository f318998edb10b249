"""Folders of torch.distributed.checkpoint are read as that library reads them, sharded tensors too."""

from __future__ import annotations

import itertools
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
from tests.fixtures import small_network
from tests.formats.test_torch_zip import raw


class InChunks(DefaultSavePlanner):
    """Saves each tensor as pieces, as several processes do: where each begins, and its shape."""

    def __init__(self, chunks: list[Any]) -> None:
        super().__init__()
        self.chunks = chunks

    def chunks_of(self, size: torch.Size) -> list[Any]:
        return self.chunks

    def create_local_plan(self) -> Any:
        plan = super().create_local_plan()
        return replace(plan, items=[piece for item in plan.items for piece in self._split(item)])

    def _split(self, item: WriteItem) -> list[WriteItem]:
        data = item.tensor_data
        made: list[WriteItem] = []
        for begins, shape in self.chunks_of(data.size) if data else []:
            chunk = ChunkStorageMetadata(torch.Size(begins), torch.Size(shape))
            index = MetadataIndex(item.index.fqn, torch.Size(begins), len(made))
            made.append(WriteItem(index, WriteItemType.SHARD, tensor_data=replace(data, chunk=chunk)))  # type: ignore[type-var]
        return made if len(made) > 1 else [item]

    def resolve_data(self, write_item: WriteItem) -> Any:
        whole = super().resolve_data(replace(write_item, index=MetadataIndex(write_item.index.fqn)))
        if write_item.type != WriteItemType.SHARD or not isinstance(whole, torch.Tensor):
            return whole
        assert write_item.tensor_data
        chunk = write_item.tensor_data.chunk
        return whole[tuple(slice(first, first + size) for first, size in zip(chunk.offsets, chunk.sizes, strict=True))]


class InGrid(InChunks):
    """In so many pieces along each of these axes, where a tensor has them."""

    def __init__(self, axes: Mapping[int, int]) -> None:
        super().__init__([])
        self.axes = axes

    def chunks_of(self, size: torch.Size) -> list[Any]:
        along = [[*torch.arange(n).chunk(self.axes.get(axis, 1))] for axis, n in enumerate(size)]
        return [
            ([int(rows[0]) for rows in part], [len(rows) for rows in part])
            for part in itertools.product(*along)
            if all(len(rows) for rows in part)
        ]


def in_pieces(count: int, axis: int = 0) -> InGrid:
    return InGrid({axis: count})


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


def same(found: object, before: Mapping[str, torch.Tensor]) -> None:
    assert isinstance(found, Mapping)
    assert {*found} == {*before}
    for name, tensor in before.items():
        assert isinstance(found[name], LazyTensor)
        assert found[name].shape == tensor.shape
        assert content(found[name]) == raw(tensor)


@pytest.mark.parametrize("planner", [None, in_pieces(2), in_pieces(3)], ids=["whole", "2 pieces", "3 pieces"])
def test_every_tensor_is_that_which_was_saved(planner: Any, tmp_path: Path) -> None:
    before = state()
    container = opened(save(tmp_path / "a", before, planner))
    assert container.kind == "torch_distributed"
    assert isinstance(container.root, Mapping)
    found = container.root["model"]
    same(found, before["model"])
    assert isinstance(found["fc.weight"], Joined) == (planner is not None)
    assert isinstance(container.root["epoch"], Unread)
    container.check()


def test_a_network_comes_out_of_a_folder(tmp_path: Path) -> None:
    before = state()
    folder = save(tmp_path / "step-100", before, in_pieces(2))
    network = rs.open(folder)
    assert network.opened.source.label == "step-100"
    assert network.opened.source.origin.not_loaded == ()
    made = rs.load(network.save(tmp_path / "out.safetensors"))
    for name, tensor in made.state_dict().items():
        assert torch.equal(tensor, before["model"][name])


@pytest.mark.parametrize("axis", [1, 2, 3])
def test_pieces_along_another_axis_are_joined(axis: int, tmp_path: Path) -> None:
    before = {"w": torch.randn(3, 5, 7, 4), "b": torch.randn(6), "half": torch.randn(2, 9, 3, 3).half()}
    same(opened(save(tmp_path / "a", before, in_pieces(3, axis))).root, before)


@pytest.mark.parametrize("axes", [(0, 1), (1, 3), (0, 1, 2, 3)], ids=str)
def test_pieces_along_several_axes_are_joined(axes: tuple[int, ...], tmp_path: Path) -> None:
    before = {"w": torch.randn(3, 5, 7, 4), "b": torch.randn(6)}
    same(opened(save(tmp_path / "a", before, InGrid(dict.fromkeys(axes, 2)))).root, before)


def test_a_network_in_a_grid_of_pieces_comes_out_as_it_is(tmp_path: Path) -> None:
    before = small_network().state_dict()
    made = rs.load(rs.open(save(tmp_path / "a", before, InGrid({0: 2, 1: 3}))).save(tmp_path / "out.safetensors"))
    for name, tensor in made.state_dict().items():
        assert torch.equal(tensor, before[name])


COLUMNS = [((0, 0), (3, 1)), ((0, 1), (3, 2))]
PINWHEEL = [((0, 0), (1, 2)), ((0, 2), (2, 1)), ((2, 1), (1, 2)), ((1, 0), (2, 1)), ((1, 1), (1, 1))]


@pytest.mark.parametrize(
    ("chunks", "size"),
    [(PINWHEEL, (3, 3)), (COLUMNS, (3, 4)), (COLUMNS, (4, 3)), (COLUMNS, (3, 2))],
    ids=["a pinwheel", "a column is missing", "a row is missing", "a column too many"],
)
def test_pieces_that_are_no_grid_are_not_read(chunks: list[Any], size: tuple[int, ...], tmp_path: Path) -> None:
    folder = save(tmp_path / "a", {"w": torch.arange(9.0).reshape(3, 3)}, InChunks(chunks))
    metadata = pickle.loads((folder / ".metadata").read_bytes())
    metadata.state_dict_metadata["w"].size = torch.Size(size)
    (folder / ".metadata").write_bytes(pickle.dumps(metadata))
    root = opened(folder).root
    assert isinstance(root, Mapping)
    assert isinstance(root["w"], Unread)
    assert "dcp_to_torch" in (root["w"].hint or "")


def test_a_part_of_a_folder_points_to_the_folder(tmp_path: Path) -> None:
    folder = save(tmp_path / "a", {"w": torch.zeros(1)})
    with pytest.raises(CheckpointError, match=r"a part of what torch\.distributed\.checkpoint saved") as caught:
        rs.open(folder / "__0_0.distcp")
    assert f"`resnet-surgeon inspect {folder}`" in (caught.value.hint or "")


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


def other_dtype(metadata: Metadata) -> None:
    bias: Any = metadata.state_dict_metadata["fc.bias"]
    bias.properties.dtype = torch.float16


LIES: dict[str, tuple[Callable[[Path, Metadata], None], str]] = {
    "a file is missing": (without_file, "no such file"),
    "a file is cut": (cut, "truncated"),
    "a file elsewhere": (rewritten(lambda data: setattr(first(data), "relative_path", "../x")), "not a file beside it"),
    "an absolute path": (rewritten(lambda data: setattr(first(data), "relative_path", "/x")), "not a file beside it"),
    "the folder above": (rewritten(lambda data: setattr(first(data), "relative_path", "..")), "not a file beside it"),
    "a file behind a backslash": (
        rewritten(lambda data: setattr(first(data), "relative_path", "..\\x")),
        "not a file beside it",
    ),
    "a negative offset": (rewritten(lambda data: setattr(first(data), "offset", -1)), "damaged"),
    "an endless length": (rewritten(lambda data: setattr(first(data), "length", 1 << 62)), "truncated"),
    "no length": (rewritten(lambda data: setattr(first(data), "length", "x")), "damaged"),
    "no shape": (rewritten(lambda data: setattr(data.state_dict_metadata["fc.bias"], "size", 3)), "damaged"),
    "no pieces": (rewritten(lambda data: setattr(data.state_dict_metadata["fc.bias"], "chunks", [])), "damaged"),
    "pieces that overlap": (rewritten(twice), "overlap"),
    "no place": (rewritten(drop), "a piece of `fc.bias` is missing"),
    "another shape": (rewritten(other_shape), "another shape"),
    "another dtype": (rewritten(other_dtype), "another dtype"),
    "pieces that were compressed": (
        rewritten(lambda data: setattr(first(data), "transform_descriptors", ["zstd"])),
        "were transformed",
    ),
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
