"""`verify` prints a line for each check, and its exit code tells whether all hold."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.fixtures import Run


@pytest.fixture
def output(run: Run, checkpoints: Path) -> str:
    run("heads", checkpoints / "basic.pth", "--classes", "3,5", "-o", "model.safetensors")
    return "model.safetensors"


def test_every_check_is_a_numbered_line(run: Run, output: str, checkpoints: Path) -> None:
    done = run("verify", output, "--against", checkpoints / "basic.pth")
    *lines, summary = done.stdout.decode().splitlines()
    assert done.returncode == 0
    assert [line.split()[:2] for line in lines] == [[str(number), "proven"] for number in range(1, len(lines) + 1)]
    assert summary == f"model.safetensors: {len(lines)} proven, 0 failed, 0 unproven"


def test_a_check_that_fails_ends_in_exit_code_1(run: Run, output: str, checkpoints: Path) -> None:
    done = run("verify", output, "--against", checkpoints / "bottleneck.pth")
    assert done.returncode == 1
    assert "failed  kept" in done.stdout.decode()
    assert done.stderr == b""


def test_quiet_leaves_the_exit_code(run: Run, output: str, checkpoints: Path) -> None:
    good, bad = (
        run("verify", output, "-q", "--against", checkpoints / name) for name in ("basic.pth", "bottleneck.pth")
    )
    assert (good.returncode, good.stdout, bad.returncode, bad.stdout) == (0, b"", 1, b"")


def test_the_document_for_programs(run: Run, output: str) -> None:
    document = json.loads(run("verify", output, "--json").stdout)
    assert (document["holds"], document["against"]) == (True, None)
    assert {check["outcome"] for check in document["checks"]} == {"proven", "unproven"}


def test_a_stream_is_proven(run: Run, output: str, tmp_path: Path) -> None:
    done = run("verify", "-", stdin=(tmp_path / output).read_bytes())
    assert done.returncode == 0
    assert done.stdout.decode().endswith("standard input: 9 proven, 0 failed, 5 unproven\n")


def test_without_torch_it_says_which_extra_to_install(run: Run, output: str, tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError('no', name='torch')")
    done = run("verify", output, env={"PYTHONPATH": str(tmp_path)})
    assert done.returncode == 1
    assert "pip install 'resnet-surgeon[torch]'" in done.stderr.decode()
