"""The file is what its name says: safetensors, or what torch.save writes, as torch and our own reader take it."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from pathlib import Path

import pytest
import torch
from torch.utils.serialization import config
from torchvision.models import ResNet

import resnet_surgeon as rs
from resnet_surgeon.errors import CheckpointError, UsageError
from resnet_surgeon.formats import zip_frame
from resnet_surgeon.sources.sidecar import ENDINGS, manifest_path
from resnet_surgeon.writing.forms import SAFETENSORS, TORCH, form_of
from tests.fixtures import Run, small_network

TORCH_NAMES = ["m.pth", "m.pt", "m.pth.tar", "m.ckpt", "m.bin", "M.PTH"]


@pytest.mark.parametrize("name", TORCH_NAMES)
def test_these_endings_ask_for_what_torch_saves(name: str) -> None:
    assert form_of(Path(name)) is TORCH
    assert manifest_path(Path(name)).name == f"{name[0]}.json"


def test_a_name_of_a_safetensors_file_asks_for_one() -> None:
    assert form_of(Path("a.b.safetensors")) is SAFETENSORS
    assert manifest_path(Path("a.b.safetensors")).name == "a.b.json"


@pytest.mark.parametrize("name", ["m.onnx", "m", "m.tar", ".pth", "m.pth.gz", "m.json", "m.npz", "m.h5"])
def test_any_other_ending_is_refused_before_anything_is_opened(name: str, run: Run, tmp_path: Path) -> None:
    done = run("adapt", "missing.pth", "--in-ch", "1", "-o", name)
    assert done.returncode == 2
    assert b"end its name in .safetensors, or in .pth, .pt, .pth.tar, .ckpt, .bin" in done.stderr
    assert [*tmp_path.iterdir()] == []


def test_a_link_to_a_file_of_another_form_is_refused(checkpoints: Path, tmp_path: Path) -> None:
    (tmp_path / "m.pth").symlink_to("m.safetensors")
    with pytest.raises(UsageError, match="a link to m.safetensors, whose name says otherwise"):
        rs.open(checkpoints / "basic.pth").save(tmp_path / "m.pth")
    assert [path.name for path in tmp_path.iterdir()] == ["m.pth"]


@pytest.fixture(scope="module", params=["basic.pth", "basic.safetensors"])
def written(request: pytest.FixtureRequest, checkpoints: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    network = rs.open(checkpoints / request.param).adapt(1)
    return network.save(tmp_path_factory.mktemp("written") / "out.pth")


@pytest.mark.parametrize("mmap", [False, True])
@pytest.mark.parametrize("calculated", [False, True])
def test_torch_reads_it_as_it_reads_its_own(written: Path, mmap: bool, calculated: bool, basic: ResNet) -> None:
    with config.patch({"load.calculate_storage_offsets": calculated}):  # type: ignore[attr-defined]
        state = torch.load(written, weights_only=True, mmap=mmap)
    expected = basic.state_dict()
    assert list(state) == list(expected)
    for name in state.keys() - {"conv1.weight"}:
        assert torch.equal(state[name].reshape(-1).view(torch.uint8), expected[name].reshape(-1).view(torch.uint8))
    assert state["conv1.weight"].shape == (64, 1, 7, 7)
    assert all(tensor.data_ptr() % 64 == 0 for tensor in state.values()) or not mmap


def test_the_archive_is_sound_and_holds_the_manifest(written: Path) -> None:
    with zipfile.ZipFile(written) as archive:
        assert archive.testzip() is None
        assert archive.read("archive/version") == b"3\n"
        assert archive.read("archive/byteorder") == b"little"
        assert archive.read("archive/extra/resnet_surgeon.manifest") == written.with_suffix(".json").read_bytes()


def test_our_own_reader_goes_on_from_it(written: Path, tmp_path: Path) -> None:
    again = rs.open(written).heads([3]).save(tmp_path / "again.safetensors")
    document = json.loads(again.with_suffix(".json").read_text("utf-8"))
    assert [[*operation] for operation in document["operations"]] == [["adapt"], ["heads"]]
    assert rs.verify(again).holds
    assert rs.verify(written).holds


def test_the_bytes_are_the_same_whatever_the_name_and_the_way(written: Path, tmp_path: Path) -> None:
    """From a file of ours, by way of safetensors, and back: the same network is the same file."""
    there = rs.open(written).save(tmp_path / "there.safetensors")
    back = rs.open(there).save(tmp_path / "another name.ckpt")
    assert back.read_bytes() == written.read_bytes()


def test_the_bytes_of_today_are_those_of_tomorrow(tmp_path: Path) -> None:
    """As every Python, torch and machine writes them."""
    path = rs.open("resnet18", weights="random").remove(last=6).save(tmp_path / "out.pth")
    with zipfile.ZipFile(path) as archive:
        assert hashlib.sha256(archive.read("archive/data.pkl")).hexdigest() == PICKLE
        headers = [(member.date_time, member.create_system, member.extra) for member in archive.infolist()]
    assert set(headers) == {((1980, 0, 0, 0, 0, 0), 0, b"")}


PICKLE = "dbc6c38ebaf818e9aed616f2fcb4683fff1a4a66c0ae13bad6d34de3be98a53c"


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_every_dtype_of_a_resnet_comes_back(dtype: torch.dtype, tmp_path: Path) -> None:
    model = small_network().to(dtype)
    torch.save(model.state_dict(), tmp_path / "in.pth")
    path = rs.open(tmp_path / "in.pth").heads([2]).save(tmp_path / "out.pt")
    state = torch.load(path, weights_only=True)
    assert state["layer1.0.conv1.weight"].dtype == dtype
    assert state["bn1.num_batches_tracked"].dtype == torch.int64
    model.fc = torch.nn.Linear(512, 2, dtype=dtype)
    model.load_state_dict(state, strict=True)


def test_the_checksums_are_of_what_is_in_the_file(written: Path, tmp_path: Path) -> None:
    data = bytearray(written.read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "damaged.pth").write_bytes(data)
    with pytest.raises(CheckpointError, match="the checksum of"):
        rs.open(tmp_path / "damaged.pth").adapt(2).save(tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


def test_what_a_zip_archive_cannot_hold_is_refused() -> None:
    with pytest.raises(CheckpointError, match="would be too large"):
        zip_frame.size(zip_frame.places([("a", 1 << 31), ("b", 1 << 31)]))
    with pytest.raises(CheckpointError, match="would be too large"):
        zip_frame.size(zip_frame.places((f"{number}", 0) for number in range(40_000)))


def test_members_of_all_lengths_are_aligned_and_readable() -> None:
    contents = {"n" * length: bytes(range(length)) for length in range(1, 130)}
    places = zip_frame.places((name, len(data)) for name, data in contents.items())
    archive = bytearray(zip_frame.size(places))
    by_name = {place.name.decode(): place for place in places}
    for name, data in contents.items():
        archive[by_name[name].begin : by_name[name].end] = data
    from zlib import crc32

    for position, data in zip_frame.frame(places, lambda place: crc32(contents[place.name.decode()])):
        archive[position : position + len(data)] = data
    with zipfile.ZipFile(io.BytesIO(archive)) as found:
        assert {name: found.read(name) for name in found.namelist()} == contents
    assert all(place.begin % 64 == 0 for place in places)


def test_every_ending_that_is_written_is_known_to_have_a_manifest_beside_it() -> None:
    assert {*SAFETENSORS.endings, *TORCH.endings} == {*ENDINGS}
