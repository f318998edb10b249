"""A network keeps its history: one process, a pipe, and files in between come to the same bytes."""

from __future__ import annotations

import copy
import gc
import inspect
import json
import pickle
import re
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import resnet_surgeon as rs
from resnet_surgeon.errors import ArchitectureError, CheckpointError, SurgeonError, UsageError
from resnet_surgeon.formats.files import OpenFile
from resnet_surgeon.formats.tensors import Stored, Strided, content
from resnet_surgeon.operations import OPERATIONS as REGISTRY
from resnet_surgeon.operations.adapt import Adapt
from resnet_surgeon.operations.average import Average
from resnet_surgeon.operations.cast import Cast
from resnet_surgeon.operations.checkpoint import Operation, others_of, with_others
from resnet_surgeon.operations.depth import Depth
from resnet_surgeon.operations.dilate import Dilate
from resnet_surgeon.operations.features import Features
from resnet_surgeon.operations.fuse import Fuse
from resnet_surgeon.operations.graft import Graft
from resnet_surgeon.operations.heads import Heads
from resnet_surgeon.operations.remove import Remove
from resnet_surgeon.operations.stem import Stem
from resnet_surgeon.sources import catalog
from tests.fixtures import Publish, Run, small_network

OPERATIONS = st.one_of(
    st.builds(
        lambda channels, scale, fold: Adapt(
            in_channels=len(channels),  # a number alone may be how many
            channels=channels,
            scale=scale,
            mean=[0.5] * len(channels),
            std=[0.25] * len(channels),
            fold_normalization=fold,
        ),
        st.lists(
            st.sampled_from(["R", "0", "N=0", "T=mean", "D=zero", "X=random", "Y=0.5*0-0.25*N"]), min_size=1, max_size=3
        ),
        st.sampled_from(["keep", "response"]),
        st.booleans(),
    ),
    st.builds(Adapt, st.integers(1, 4), st.sampled_from(["mean", "scaled", "repeat", "random"]), st.integers(0, 1)),
    st.builds(lambda last: Remove(last=last), st.integers(1, 4)),
    st.builds(
        lambda layers: Remove(layers=layers),
        st.lists(
            st.sampled_from(["maxpool", "layer3.1", "layer2.1", "fc", "heads", "layer3.2"]), min_size=1, max_size=2
        ),
    ),
    st.builds(
        lambda kernel, stride, maxpool, init: Stem(kernel, stride, maxpool, init),
        st.sampled_from([3, 7]),
        st.sampled_from([1, None]),
        st.sampled_from(["none", None]),
        st.sampled_from(["crop", "area", "random"]),
    ),
    st.builds(Dilate, st.sampled_from([8, 16, 32])),
    st.builds(
        Features,
        st.lists(
            st.sampled_from(["relu", "layer2", "layer3", "heads.head1.layer4"]), min_size=1, max_size=2, unique=True
        ),
    ),
    st.builds(
        lambda classes, own: Heads(classes, own=own if len(classes) > 1 else None),  # a single head owns nothing
        st.lists(st.integers(1, 3), min_size=1, max_size=2),
        st.sampled_from([None, "none", "layer3", "layer4"]),
    ),
    st.builds(Fuse),
    st.builds(
        lambda blocks, keep: Depth(blocks, keep=keep),
        st.lists(st.integers(1, 3), min_size=4, max_size=4),
        st.sampled_from(["norm", "last"]),
    ),
    st.builds(
        lambda names, pool, hidden, init, add: Heads(
            head=[
                {"name": name, "classes": 2, "pool": pool, "hidden": hidden, "init": init, "own": "none"}
                for name in names
            ],
            add=add,
        ),
        st.sampled_from(["a", "b", "cd"]),
        st.sampled_from(["avg", "max", "gem"]),
        st.sampled_from([[], [3]]),
        st.sampled_from(["default", "zero", "small"]),
        st.booleans(),
    ),
    st.builds(lambda name: Remove(layers=[f"heads.{name}"]), st.sampled_from("abcd")),
    st.builds(lambda text: Heads(reuse=text), st.sampled_from(["0->a", "0,1->a; 1->b"])),
    st.builds(Cast, st.sampled_from(["float16", "bfloat16", "float32", "float64"]), st.booleans()),
    # The other network is a file of the one that it has become: see `of_itself`.
    st.builds(lambda count, weight: Average([""] * count, [weight] + [1.0] * count), st.integers(1, 2), st.just(3.0)),
    st.builds(lambda name: Graft("", ["layer4", "fc"], name), st.sampled_from(["g", "h", None])),
)


def of_itself(operation: Operation, network: rs.Network, path: Path) -> Operation:
    """The operation with each other network that it takes the file of `network` at `path`."""
    others = others_of(operation)
    return with_others(operation, [network.save(path)] * len(others)) if others else operation


@pytest.mark.parametrize("name", ["basic.safetensors", "narrow.pth", "random"])
@given(operations=st.lists(OPERATIONS, max_size=4))
@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_a_chain_and_files_in_between_come_to_the_same_bytes(
    name: str, operations: list[Operation], checkpoints: Path, tmp_path: Path
) -> None:
    def start() -> rs.Network:
        if name == "random":
            return rs.open("resnet18", weights="random").remove(last=4)  # drawing all of it would take long
        return rs.open(checkpoints / name)

    chain = by_files = start()
    folder = Path(tempfile.mkdtemp(dir=tmp_path))
    for number, operation in enumerate(operations):
        operation = of_itself(operation, chain, folder / f"other{number}.safetensors")
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


def test_a_published_file_brings_its_preprocessing_and_categories(tmp_path: Path, publish: Publish) -> None:
    path = tmp_path / catalog.entry("resnet18", "DEFAULT").file_name
    torch.save(small_network(depths=(2, 2, 2, 2), classes=1000).state_dict(), path)
    network = rs.open(publish(path, "resnet18"))
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
    with pytest.raises(ArchitectureError, match="no manifest, and only a manifest says in which order"):
        rs.open(tmp_path / "b.safetensors")


def test_operations_are_methods_with_their_own_help() -> None:
    assert str(inspect.getdoc(rs.Network.adapt)).startswith("Adapt the input channels")
    network = rs.open("resnet18", weights="random")
    # mypy reports each of these, and would report an ignored error that is none.
    with pytest.raises(TypeError):
        network.adapt(channel=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        network.remove(1, ["fc"], 2)  # type: ignore[call-arg]
    with pytest.raises(AttributeError):
        network.adpat(1)  # type: ignore[attr-defined]
    with pytest.raises(UsageError):
        network.adapt("three")  # type: ignore[arg-type]


def test_every_operation_is_a_method() -> None:
    methods = {name: getattr(rs.Network, name) for name in REGISTRY}
    for name, method in methods.items():
        assert inspect.getdoc(method) == inspect.getdoc(REGISTRY[name])
        assert [*inspect.signature(method).parameters] == ["self", *inspect.signature(REGISTRY[name]).parameters]


def test_names_of_files_tell_what_was_done(checkpoints: Path) -> None:
    network = rs.open(checkpoints / "basic.pth").adapt(1).remove(last=1).heads([3, 5])
    assert network.default_name == "basic-in1-without-fc-heads-3-5.safetensors"
    assert "basic: ResNet with basic blocks 2-1-2-1, 1 input channel, 2 heads" in repr(network)


@pytest.mark.parametrize("name", ["../x", "/elsewhere/x", "a b\x1b[2J", "-rf", ".hidden", "模型", "x" * 400])
def test_a_default_name_is_one_safe_component_whatever_the_file_is_called(name: str, checkpoints: Path) -> None:
    network = rs.open(checkpoints / "basic.pth")
    stranger = (
        replace(network, opened=replace(network.opened, source=replace(network.source, label=name)))
        .adapt(1)
        .heads([1] * 300)
    )
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,119}\.safetensors", stranger.default_name)


@pytest.mark.parametrize(
    "claim",
    [
        lambda document: document["source"].update(architecture="/elsewhere/x", file=None),
        lambda document: document["source"].update(architecture="../x"),
        lambda document: document["source"].update(file="../../x.pth"),
        lambda document: document["source"].update(file="a\x1b[2J.pth"),
        lambda document: document["operations"].append({"remove": {"last": None, "layers": ["/../../x"]}}),
        lambda document: document["operations"].append({"remove": {"last": None, "layers": ["layer3.1/../x"]}}),
    ],
)
def test_a_stream_never_decides_where_its_output_goes(
    claim: Callable[[dict[str, Any]], object], checkpoints: Path, run: Run, tmp_path: Path
) -> None:
    rs.open(checkpoints / "basic.pth").adapt(1).save(tmp_path / "in.safetensors")
    document = json.loads((tmp_path / "in.json").read_text("utf-8"))
    claim(document)
    save_file(
        load_file(tmp_path / "in.safetensors"),
        tmp_path / "in.safetensors",
        metadata={"resnet_surgeon.manifest": json.dumps(document)},
    )
    (tmp_path / "in.json").unlink()
    done = run("remove", "-", "--last", "1", stdin=(tmp_path / "in.safetensors").read_bytes())
    made = {path for path in tmp_path.rglob("*") if path.is_file()} - {tmp_path / "in.safetensors"}
    if done.returncode:
        assert (done.returncode, made) == (1, set()), done.stderr
    else:
        output = tmp_path / done.stdout.decode().removesuffix("\n")
        assert made == {output, output.with_suffix(".json")}
    assert not [*tmp_path.parent.glob("x*")]
    assert b"\x1b" not in done.stdout + done.stderr


def test_opening_and_planning_read_no_tensor(checkpoints: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[tuple[int, int]] = []
    read_into = OpenFile.read_into

    def counted(self: OpenFile, offset: int, buffer: bytearray | memoryview) -> None:
        reads.append((offset, len(buffer)))
        read_into(self, offset, buffer)

    monkeypatch.setattr(OpenFile, "read_into", counted)
    path = checkpoints / "basic.safetensors"
    header = 8 + int.from_bytes(path.read_bytes()[:8], "little")
    network = rs.open(path).adapt(1).heads([3, 5])
    assert network.plan()
    assert network.records
    assert network.default_name
    assert max(offset + size for offset, size in reads) <= max(header, 512)


def test_a_shard_is_not_taken_for_a_whole_network(checkpoints: Path, tmp_path: Path) -> None:
    first = {name: t for name, t in load_file(checkpoints / "basic.safetensors").items() if not name.startswith("fc")}
    save_file(first, tmp_path / "model-00001-of-00004.safetensors")
    with pytest.raises(CheckpointError, match="one of several shards") as caught:
        rs.open(tmp_path / "model-00001-of-00004.safetensors")
    assert "`model.safetensors.index.json`" in str(caught.value.hint)


COPIES: dict[str, Callable[[Any], Any]] = {"copy": copy.copy, "deepcopy": copy.deepcopy}


def reuse_descriptors(folder: Path) -> list[IO[bytes]]:
    """Opens other files until every descriptor that was given back is taken."""
    (folder / "other").write_bytes(b"another file" * 1000)
    return [(folder / "other").open("rb") for _ in range(20)]


@pytest.mark.parametrize("way", [*COPIES])
@pytest.mark.parametrize("name", ["basic.pth", "basic.safetensors"])
def test_a_copy_of_a_network_outlives_it(name: str, way: str, checkpoints: Path, tmp_path: Path) -> None:
    network = rs.open(checkpoints / name).adapt(1).heads([3, 5])
    witness = network.save(tmp_path / "witness.safetensors").read_bytes()
    again = COPIES[way](network)
    del network
    gc.collect()
    others = reuse_descriptors(tmp_path)
    assert again.save(tmp_path / "out.safetensors").read_bytes() == witness
    assert again.remove(layers=["maxpool"]).plan()
    for other in others:
        other.close()


def files_and_tensors(network: rs.Network) -> dict[str, tuple[Any, Callable[[Any], bytes]]]:
    """What is tied to open files, and how to read it."""
    tensor = network.opened.tensors["layer1.0.conv1.weight"]
    assert isinstance(tensor, Stored)
    turned = Strided("F32", (3, 5), tensor.file, tensor.offset, (1, 3), False)
    return {
        "file": (tensor.file, lambda file: file.read(0, 64)),
        "stored": (tensor, content),
        "strided": (turned, content),
        "computed": (network.tensors["conv1.weight"], content),
        "all": (network.tensors, lambda tensors: b"".join(map(content, tensors.values()))),
    }


@pytest.mark.parametrize("way", [*COPIES])
@pytest.mark.parametrize("what", ["file", "stored", "strided", "computed", "all"])
def test_a_copy_of_a_file_or_tensor_outlives_it(what: str, way: str, checkpoints: Path, tmp_path: Path) -> None:
    original, read = files_and_tensors(rs.open(checkpoints / "basic.pth").adapt(1))[what]
    expected = read(original)
    again = COPIES[way](original)
    del original
    gc.collect()
    others = reuse_descriptors(tmp_path)
    assert read(again) == expected
    for other in others:
        other.close()


@pytest.mark.parametrize("what", ["file", "stored", "strided", "computed", "all", "network"])
@pytest.mark.parametrize("protocol", [0, pickle.HIGHEST_PROTOCOL])
def test_what_reads_from_open_files_cannot_be_pickled_and_says_what_to_do(
    protocol: int, what: str, checkpoints: Path
) -> None:
    network = rs.open(checkpoints / "basic.pth").adapt(1)
    tied = network if what == "network" else files_and_tensors(network)[what][0]
    with pytest.raises(TypeError, match=r"cannot pickle \w+, .*: save the network, and open what was saved"):
        pickle.dumps(tied, protocol)
