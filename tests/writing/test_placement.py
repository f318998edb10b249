"""What a file has in common with its source stands where a file system can share its blocks; nothing else changes."""

from __future__ import annotations

import json
import shutil
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file
from torch.utils.serialization import config
from torchvision.models import ResNet

import resnet_surgeon as rs
from resnet_surgeon.arithmetic.laws import Constant
from resnet_surgeon.formats.files import OpenFile
from resnet_surgeon.formats.tensors import BITS, Initialised, LazyTensor, Stored, byte_size
from resnet_surgeon.network import Network
from resnet_surgeon.platform import transfer
from resnet_surgeon.recipes.repeat import recipe_text
from resnet_surgeon.writing.placement import BLOCK, arranged
from tests.fixtures import Run

CHANGES: dict[str, Callable[[Network], Network]] = {
    "adapt": lambda network: network.adapt(1),
    "a head": lambda network: network.heads([3]),
    "three heads": lambda network: network.heads([3, 5, 7]),
    "remove the end": lambda network: network.remove(last=3),
    "remove a block": lambda network: network.remove(layers=["layer3.1"]),
}


@pytest.fixture(scope="module", params=["basic.safetensors", "bottleneck.pth"])
def source(request: pytest.FixtureRequest, checkpoints: Path) -> Network:
    return rs.open(checkpoints / request.param)


def stored(path: Path) -> dict[str, Stored]:
    """The tensors of a file, by their names."""
    return {name: tensor for name, tensor in rs.open(path).tensors.items() if isinstance(tensor, Stored)}


def part_alike(network: Network, path: Path) -> float:
    """Of the bytes that are kept, the part that has the same places within blocks in the file as in its source."""
    kept = {name: tensor for name, tensor in network.tensors.items() if isinstance(tensor, Stored)}
    places = stored(path)
    alike = [name for name, tensor in kept.items() if (tensor.offset - places[name].offset) % BLOCK == 0]
    return sum(byte_size(kept[name]) for name in alike) / sum(map(byte_size, kept.values()))


@pytest.mark.parametrize("change", [*CHANGES.values()], ids=[*CHANGES])
def test_what_is_kept_can_share_its_blocks_and_every_tensor_is_what_it_was(
    change: Callable[[Network], Network], source: Network, tmp_path: Path
) -> None:
    network = change(source)
    path = network.save(tmp_path / "out.safetensors", share_blocks=True)
    assert part_alike(network, path) > 0.99
    assert all(tensor.offset % (BITS[tensor.dtype] // 8) == 0 for tensor in stored(path).values())
    found, expected = load_file(path), load_file(network.save(tmp_path / "plain.safetensors"))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    with safe_open(path, "pt") as file:
        assert file.metadata()["resnet_surgeon.manifest"] == path.with_suffix(".json").read_text("utf-8")
    assert rs.verify_quickly(path).holds


@pytest.mark.parametrize("name", ["basic.safetensors", "basic.pth"])
@pytest.mark.parametrize("calculated", [False, True])
def test_so_it_is_in_an_archive_which_torch_reads_in_every_way(
    name: str, calculated: bool, checkpoints: Path, basic: ResNet, tmp_path: Path
) -> None:
    network = rs.open(checkpoints / name).adapt(1)
    path = network.save(tmp_path / "out.pth", share_blocks=True)
    assert part_alike(network, path) > 0.99
    with config.patch({"load.calculate_storage_offsets": calculated}):  # type: ignore[attr-defined]
        states = [torch.load(path, weights_only=True, mmap=mapped) for mapped in (False, True)]
    expected = {name: tensor for name, tensor in basic.state_dict().items() if name != "conv1.weight"}
    for state in states:
        assert all(torch.equal(state[name], tensor) for name, tensor in expected.items())
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None


Sizes = st.sampled_from([0, 4, 8, 12, 256, 1000, 2048, 4096, 5000, 16384, 20000])
Tensors = st.lists(st.tuples(Sizes, st.sampled_from(["F32", "I64", "F16", "U8"]), st.integers(0, 3)), max_size=30)


@given(Tensors, st.integers(0, 5000))
def test_however_tensors_lie_they_are_all_there_once_and_aligned(
    drawn: list[tuple[int, str, int]], offset: int
) -> None:
    files = [OpenFile.spooled(b"", name) for name in "ab"]
    tensors: dict[str, LazyTensor] = {}
    for number, (size, dtype, kind) in enumerate(drawn):
        shape = (size * 8 // BITS[dtype],)
        if kind == 0:
            tensors[f"{number}"] = Initialised(dtype, shape, Constant(0.0), 0, "")
        else:
            tensors[f"{number}"] = Stored(dtype, shape, files[kind % 2], offset)
            offset += byte_size(tensors[f"{number}"]) + 64 * (kind == 3)
    arrangement = arranged(tensors)
    modulus, position = arrangement.start
    assert position % 8 == 0
    assert arrangement.tensors == {name: tensors[name] for name in arrangement.tensors}
    assert arrangement.tensors.keys() == tensors.keys()
    for tensor in arrangement.tensors.values():
        assert position % (BITS[tensor.dtype] // 8) == 0
        position += byte_size(tensor)
    assert modulus in (8, BLOCK)


@pytest.mark.parametrize("name", ["out.safetensors", "out.pth"])
def test_a_file_system_that_shares_gets_whole_blocks_and_the_rest_is_copied(
    name: str, checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = rs.open(checkpoints / "basic.safetensors").heads([3, 5])
    shared: list[int] = []

    def share(source: int, offset: int, target: int, position: int, count: int) -> bool:
        assert offset % BLOCK == position % BLOCK == count % BLOCK == 0
        shared.append(count)
        while count:
            done = transfer.copy(source, offset, target, position, count)
            offset, position, count = offset + done, position + done, count - done
        return True

    witness = network.save(tmp_path / f"witness-{name}", share_blocks=True)
    monkeypatch.setattr(transfer, "share", share)
    assert network.save(tmp_path / name, share_blocks=True).read_bytes() == witness.read_bytes()
    assert sum(shared) > 0.98 * witness.stat().st_size


def test_a_file_system_that_does_not_is_asked_once_and_not_at_all_without_the_option(
    checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    monkeypatch.setattr(transfer, "share", lambda *arguments: asked.append(arguments))
    network = rs.open(checkpoints / "basic.safetensors").heads([3, 5])
    network.save(tmp_path / "plain.safetensors")
    assert len(asked) == 0
    network.save(tmp_path / "out.safetensors", share_blocks=True)
    assert len(asked) == 1


def test_the_manifest_says_so_and_the_recipe_gives_it_back(
    run: Run, checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(checkpoints / "basic.safetensors", tmp_path)
    assert run("adapt", "basic.safetensors", "--in-ch", "1", "--share-blocks", "-o", "out.safetensors").returncode == 0
    network = rs.open("basic.safetensors").adapt(1)
    assert network.is_written("out.safetensors", share_blocks=True)
    assert not network.is_written("out.safetensors")
    assert json.loads(Path("out.json").read_text("utf-8"))["share_blocks"] is True
    Path("recipe.yaml").write_text(recipe_text("out.safetensors"))
    assert "share_blocks: true" in Path("recipe.yaml").read_text()
    assert [one.outcome for one in rs.Recipe.read("recipe.yaml").build()] == ["up to date"]
    plain = network.save("plain.safetensors")
    assert b"share_blocks" not in plain.read_bytes()
    rs.open("plain.safetensors").heads([3]).save("further.safetensors", share_blocks=True)
    assert recipe_text("further.safetensors").startswith("# The same tensors, but perhaps at other places")
    assert rs.open("out.safetensors").save("again.safetensors").read_bytes() == plain.read_bytes()


def test_a_stream_is_refused(run: Run, checkpoints: Path) -> None:
    done = run("adapt", checkpoints / "basic.safetensors", "--in-ch", "1", "--share-blocks", "-o", "-")
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"--share-blocks: a stream shares no blocks\nhint: name a file with `-o`" in done.stderr


def _mounted(kind: str, folder: Path) -> Path:
    """An empty file system of this kind. Skips the test, and says why, where none can be made."""
    image, place = folder / f"{kind}.img", folder / kind
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(400 << 20)
    for words in ([f"mkfs.{kind}", "-q", f"{image}"], ["mount", "-o", "loop", f"{image}", f"{place}"]):
        if shutil.which(words[0]) is None:
            pytest.skip(f"there is no {words[0]}")
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"{words[0]} failed: {done.stderr.strip()}")
    return place


@pytest.fixture(params=["xfs", "btrfs"])
def sharing_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    place = _mounted(request.param, tmp_path)
    yield place
    subprocess.run(["umount", place], check=True)


def room(disk: Path) -> int:
    """The bytes that are taken."""
    subprocess.run(["sync", "-f", disk], check=True)
    return shutil.disk_usage(disk).used


def test_sixteen_variants_take_little_more_room_than_one(run: Run, sharing_disk: Path, checkpoints: Path) -> None:
    source = rs.open(checkpoints / "basic.pth").remove(last=4).save(sharing_disk / "source.safetensors")
    before, size = room(sharing_disk), source.stat().st_size
    (sharing_disk / "recipe.yaml").write_text(f"""
source: {source}
share_blocks: true
matrix: {{seed: [{", ".join(map(str, range(16)))}]}}
operations:
  - adapt: {{in-ch: 1, init: random, seed: "${{seed}}"}}
output: {sharing_disk}/${{seed}}.safetensors
""")
    done = run("apply", sharing_disk / "recipe.yaml")
    assert done.returncode == 0, done.stderr
    assert sum(path.stat().st_size for path in sharing_disk.glob("[0-9]*.safetensors")) > 15 * size
    assert room(sharing_disk) - before < size
