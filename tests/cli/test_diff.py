"""`diff` prints what sets two networks apart, and exits as diff does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.fixtures import Run, small_network


def test_the_same_network_exits_with_0(run: Run, checkpoints: Path) -> None:
    done = run("diff", checkpoints / "basic.pth", checkpoints / "basic.safetensors")
    assert (done.returncode, done.stdout) == (0, b"tensors: 98 the same\n")


def test_what_a_person_reads(run: Run, checkpoints: Path) -> None:
    run("adapt", checkpoints / "basic.pth", "--in-ch", "1", "-q", "-o", "gray.safetensors")
    run("heads", "gray.safetensors", "--classes", "3,5", "-q", "-o", "heads.safetensors")
    done = run("diff", checkpoints / "basic.pth", "heads.safetensors")
    assert done.returncode == 1
    assert done.stdout.decode() == (
        "architecture\n"
        "  input channels: 3 -> 1\n"
        "  own layers of the heads: none -> layer4\n"
        "  output: 10 classes -> 2 heads (head1: 3, head2: 5)\n"
        "tensors: 77 the same, others differ\n"
        "  reshaped  conv1.weight          [64, 3, 7, 7] -> [64, 1, 7, 7]\n"
        "  copied    heads.head1.layer4.0  18 tensors, the content of layer4.0\n"
        "  added     heads.head1.fc        2 tensors\n"
        "  copied    heads.head2.layer4.0  18 tensors, the content of layer4.0\n"
        "  added     heads.head2.fc        2 tensors\n"
        "  removed   fc                    2 tensors\n"
    )


def test_a_change_shows_its_numbers(run: Run, checkpoints: Path, tmp_path: Path) -> None:
    state = small_network(depths=(2, 1, 2, 1)).state_dict()
    state["fc.bias"] = torch.full_like(state["fc.bias"], 2.0)
    state["fc.bias"][0] = torch.nan
    torch.save(state, tmp_path / "other.pth")
    assert (
        "changed  fc.bias  at most nan, relative nan, cosine nan"
        in run("diff", checkpoints / "basic.pth", "other.pth").stdout.decode()
    )
    document = json.loads(run("diff", checkpoints / "basic.pth", "other.pth", "--json").stdout)
    assert document["tensors"][0]["change"] == {"max_abs": None, "relative": None, "cosine": None}


def test_quiet_leaves_the_exit_code(run: Run, checkpoints: Path) -> None:
    done = run("diff", checkpoints / "basic.pth", checkpoints / "bottleneck.pth", "-q")
    assert (done.returncode, done.stdout) == (1, b"")


@pytest.mark.parametrize("arguments", [("diff", "-", "-"), ("verify", "-", "--against", "-")])
def test_standard_input_can_be_read_once(arguments: tuple[str, ...], run: Run, checkpoints: Path) -> None:
    done = run(*arguments, stdin=(checkpoints / "basic.safetensors").read_bytes())
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(b"error: sources: both are standard input")


def test_an_error_is_not_a_difference_to_be_read_on_standard_output(run: Run, checkpoints: Path) -> None:
    done = run("diff", checkpoints / "basic.pth", "missing.pth")
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.startswith(b"error: missing.pth: no such file")
