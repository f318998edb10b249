"""What people should know of a network stands in its manifest and its summary, and nothing that is not so."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.nn.functional import conv2d

import resnet_surgeon as rs
from resnet_surgeon.network import Network
from tests.fixtures import Run

NOTE = "on images whose channels are alike, conv1 responds with {} of the size that bn1 expects; "
RESPONSES: dict[str, tuple[Callable[[Network], Network], str | None]] = {
    "mean, one channel": (lambda network: network.adapt(1), "1/3"),
    "mean, thirteen channels": (lambda network: network.adapt(13), "13/3"),
    "mean, six channels": (lambda network: network.adapt(6), "2"),
    "mean, as many channels": (lambda network: network.adapt(3), None),
    "mean, there and back": (lambda network: network.adapt(1).adapt(3), None),
    "mean, then scaled": (lambda network: network.adapt(1).adapt(5, init="scaled"), "1/3"),
    "mean, then resampled": (lambda network: network.adapt(1).stem(kernel=3, init="area"), "1/3"),
    "mean, then cropped": (lambda network: network.adapt(1).stem(kernel=3), None),
    "scaled": (lambda network: network.adapt(1, init="scaled"), None),
    "repeat": (lambda network: network.adapt(9, init="repeat"), None),
    "random": (lambda network: network.adapt(1, init="random"), None),
    "without bn1": (lambda network: network.adapt(1).remove(last=9), None),
    "nothing": (lambda network: network, None),
}


@pytest.mark.parametrize("case", RESPONSES)
def test_the_size_of_conv1s_responses_is_told_where_it_changes(case: str, checkpoints: Path, tmp_path: Path) -> None:
    operate, factor = RESPONSES[case]
    network = operate(rs.open(checkpoints / "basic.pth"))
    expected = () if factor is None else (NOTE.format(factor) + "`--init scaled` keeps the size",)
    assert network.notes == network.manifest().notes == expected
    saved = network.save(tmp_path / "out.safetensors")
    assert rs.open(saved).notes == rs.open(saved).manifest().notes == expected


def test_the_factor_is_that_of_the_responses(checkpoints: Path, tmp_path: Path) -> None:
    for channels, factor in ((1, 1 / 3), (13, 13 / 3)):
        path = tmp_path / f"{channels}.safetensors"
        rs.open(checkpoints / "basic.pth").adapt(channels).save(path)
        gray = torch.randn(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
        before = load_file(checkpoints / "basic.safetensors")["conv1.weight"]
        ours = conv2d(gray.expand(-1, channels, -1, -1), load_file(path)["conv1.weight"])
        torch.testing.assert_close(ours, factor * conv2d(gray.expand(-1, 3, -1, -1), before), rtol=1e-3, atol=1e-4)


def test_it_is_told_no_more_once_bn1_was_trained(checkpoints: Path, tmp_path: Path) -> None:
    model = rs.load(rs.open(checkpoints / "basic.pth").adapt(1))
    model(torch.randn(2, 1, 32, 32))  # in training mode: the statistics follow
    out = rs.save(model, tmp_path / "trained.safetensors")
    assert rs.open(out).manifest().notes == ()


def test_the_summary_and_json_tell_it(run: Run, checkpoints: Path) -> None:
    done = run("adapt", checkpoints / "basic.pth", "--in-ch", "1", "--json", "--dry-run")
    note = NOTE.format("1/3") + "`--init scaled` keeps the size"
    assert f"  note: {note}\n" in done.stderr.decode()
    assert json.loads(done.stdout)["notes"] == [note]


def test_a_false_note_fails(checkpoints: Path, tmp_path: Path) -> None:
    path = rs.open(checkpoints / "basic.pth").adapt(1).remove(last=8).save(tmp_path / "model.safetensors")
    with safe_open(path, "pt") as file:
        manifest = json.loads(file.metadata()["resnet_surgeon.manifest"])
    for notes, holds in ((manifest["notes"], True), ([], True), (["all is well"], False)):
        text = json.dumps({**manifest, "notes": notes})
        save_file(load_file(path), path, metadata={"format": "pt", "resnet_surgeon.manifest": text})
        path.with_suffix(".json").write_text(text, "utf-8")
        assert rs.verify(path, against=checkpoints / "basic.pth").holds == holds


NAMES: dict[str, Callable[[], Network]] = {
    "resnet18-random-in1": lambda: rs.open("resnet18", weights="random").adapt(1),
    "resnet18-random-seed3-in1": lambda: rs.open("resnet18", weights="random", seed=3).adapt(1),
    "resnet18-random-in1-scaled": lambda: rs.open("resnet18", weights="random").adapt(1, init="scaled"),
    "resnet18-random-in1-random": lambda: rs.open("resnet18", weights="random").adapt(1, init="random"),
    "resnet18-random-in1-random-seed2": lambda: rs.open("resnet18", weights="random").adapt(1, init="random", seed=2),
    "resnet18-random-heads-3-5": lambda: rs.open("resnet18", weights="random").heads([3, 5]),
    "resnet18-random-heads-3-5-seed7": lambda: rs.open("resnet18", weights="random").heads([3, 5], seed=7),
}


@pytest.mark.parametrize("name", NAMES)
def test_default_names_say_what_sets_files_apart(name: str) -> None:
    assert NAMES[name]().default_name == f"{name}.safetensors"


def test_a_stream_has_the_name_of_the_chain(tmp_path: Path) -> None:
    first = rs.open("resnet18", weights="random", seed=3).remove(last=8).adapt(1, init="scaled")
    saved = first.save(tmp_path / "x.safetensors")
    assert (
        rs.open(saved.read_bytes())
        .remove(last=1)
        .default_name.startswith(first.default_name.removesuffix(".safetensors") + "-without-")
    )
    assert rs.open(saved).remove(last=1).default_name == "x-without-bn1.safetensors"
