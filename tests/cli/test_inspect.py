"""`inspect` says what any file is; `list` shows the catalogue."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
import torchvision

import resnet_surgeon as rs
from resnet_surgeon.operations import OPERATIONS
from tests.fixtures import Run


def test_what_a_person_reads(run: Run, checkpoints: Path) -> None:
    done = run("inspect", checkpoints / "bottleneck.pth")
    digest = hashlib.sha256((checkpoints / "bottleneck.pth").read_bytes()).hexdigest()
    fixed = (
        "source       bottleneck.pth (torch zip)\n"
        f"sha256       {digest}\n"
        "network      ResNet with bottleneck blocks 1-2-3-1, 3 input channels, 10 classes\n"
        "torchvision  none of its ten has these stages\n"
        "output       logits [10] for an image of 224x224\n"
        "assumed      bottleneck_stride=conv2, strides=1-2-2-2, stem_stride=2, maxpool=torchvision, dilated=none, "
        "eps=1e-05 (default)\n"
        "parameters   10,550,858\n"
        "tensors      158 (132 x F32, 26 x I64), 40.4 MiB\n"
    )
    text = done.stdout.decode()
    assert text.startswith(fixed)
    advice = text.removeprefix(fixed).splitlines()
    assert [line.split()[0] for line in advice] == [*OPERATIONS]
    assert "adapt        from 3 channels to any number: --in-ch N; by name: --channels R,G,B,N=R" in advice
    assert "remove       --last 1 to 9; --layers maxpool, layer2.1, layer3.1, ..." in advice


def test_the_history_of_what_this_tool_wrote(run: Run, checkpoints: Path) -> None:
    run("heads", checkpoints / "basic.pth", "--classes", "3,5", "-o", "heads.safetensors")
    shown = run("inspect", "heads.safetensors").stdout.decode()
    assert "began as     basic.pth (torch zip)\n" in shown
    assert "then         heads: classes=[3, 5], names=['head1', 'head2'], own=layer4, seed=0\n" in shown
    assert "output       head2: logits [5] for an image of 224x224\n" in shown
    assert "heads        --add --classes A,B: more of them; other ones after `remove --layers heads`\n" in shown


def test_packing_and_what_is_left_out(run: Run, tmp_path: Path) -> None:
    model = torchvision.models.segmentation.fcn_resnet50(weights=None, weights_backbone=None)
    torch.save({"model": model.state_dict(), "epoch": 1}, tmp_path / "fcn.pth")
    shown = run("inspect", "fcn.pth").stdout.decode()
    assert "packed as torchvision segmentation: under `model`, behind `backbone.`\n" in shown
    assert "left out: 8 tensors (classifier)\n" in shown


def test_tensors_are_listed(run: Run, checkpoints: Path) -> None:
    lines = run("inspect", checkpoints / "basic.safetensors", "--tensors").stdout.decode().splitlines()
    assert "  fc.bias                                    F32        40 B  [10]" in lines
    assert len([line for line in lines if line.startswith("  ")]) == 98


def test_a_program_reads_one_document(run: Run, checkpoints: Path) -> None:
    document = json.loads(run("inspect", checkpoints / "basic.pth", "--json").stdout)
    assert document["source"]["container"] == "torch_zip"
    assert document["architecture"]["in_channels"] == 3
    assert document["tensors"]["fc.bias"] == {"bytes": 40, "dtype": "F32", "shape": [10]}
    assert document["dtypes"] == {"F32": 82, "I64": 16}
    assert document["problem"] is None


def test_a_checkpoint_of_another_network_is_described_too(run: Run, tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "linear.pth")
    done = run("inspect", "linear.pth")
    assert done.returncode == 0
    assert b"network  none: this is not a ResNet's state_dict: no tensor `conv1.weight`" in done.stdout


@pytest.mark.parametrize(
    ("content", "what", "hint"),
    [
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer", "git lfs pull"),
        (b"<!DOCTYPE html>", "a web page", "download the file itself"),
        (b"GGUF\3\0\0\0", "a GGUF file", ""),
        (b"\x08\x07\x12\x07pytorch", "it is not ONNX, nor any other checkpoint", ""),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file", ""),
        (b"BZh", "compressed with bzip2", "bunzip2"),
        (b"hello", "not a checkpoint", ""),
    ],
)
def test_what_is_no_checkpoint_is_explained(run: Run, tmp_path: Path, content: bytes, what: str, hint: str) -> None:
    (tmp_path / "model.pth").write_bytes(content)
    done = run("inspect", "model.pth")
    assert done.returncode == 1
    assert what in done.stderr.decode()
    assert hint in done.stderr.decode()


def test_other_archives_are_named(run: Run, tmp_path: Path) -> None:
    import numpy

    numpy.savez(tmp_path / "arrays.npz", a=numpy.zeros(3))
    assert b"no tensor `conv1.weight`" in run("inspect", "arrays.npz").stdout


def test_how_much_of_a_published_file_is_missing_is_said(run: Run, tmp_path: Path, checkpoints: Path) -> None:
    data = (checkpoints / "basic.pth").read_bytes()
    (tmp_path / "resnet50-0676ba61.pth").write_bytes(data[: len(data) // 2])
    done = run("inspect", "resnet50-0676ba61.pth")
    assert b"truncated or damaged zip archive (11.8 MiB of 97.8 MiB)" in done.stderr


def test_the_catalogue_is_listed_with_what_is_here(run: Run, tmp_path: Path) -> None:
    (tmp_path / "torch/hub/checkpoints").mkdir(parents=True)
    (tmp_path / "torch/hub/checkpoints/resnet18-f37072fd.pth").touch()
    lines = run("list").stdout.decode().splitlines()
    assert lines[1] == "resnet18          IMAGENET1K_V1 * 69.76  89.08  11,689,512  44.7 MiB  yes"
    assert lines[2].endswith(" -")
    document = json.loads(run("list", "--json").stdout)
    assert [entry["cached"] for entry in document] == [True] + [False] * 16


def test_of_a_long_list_the_first_few_are_shown(run: Run, checkpoints: Path, tmp_path: Path) -> None:
    model = rs.load(checkpoints / "basic.pth")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    rs.save(model, tmp_path / "trained.safetensors")
    (line,) = (
        line for line in run("inspect", "trained.safetensors").stdout.decode().splitlines() if "trained:" in line
    )
    assert len(line) < 400
    assert line.endswith(" more]")
