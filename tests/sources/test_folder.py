"""The checkpoint in a folder is the one that whoever wrote the folder would load; of several the user chooses."""

from __future__ import annotations

from pathlib import Path

import pytest

import resnet_surgeon as rs
from resnet_surgeon.errors import AccessError, CheckpointError
from resnet_surgeon.sources.folder import checkpoint_in
from tests.fixtures import small_network
from tests.formats.test_torch_zip import saved


def made(folder: Path, *names: str, **pointers: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    for name, text in pointers.items():
        (folder / name).write_text(text)
    return folder


FOLDERS: dict[str, tuple[tuple[str, ...], dict[str, str], str]] = {
    "transformers": (("config.json", "model.safetensors", "pytorch_model.bin"), {}, "model.safetensors"),
    "transformers, in shards": (
        ("model.safetensors.index.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"),
        {},
        "model.safetensors.index.json",
    ),
    "an older transformers": (("config.json", "pytorch_model.bin", "training_args.bin"), {}, "pytorch_model.bin"),
    "accelerate": (("model.safetensors", "optimizer.bin", "random_states_0.pkl"), {}, "model.safetensors"),
    "OpenMMLab": (
        ("epoch_1.pth", "epoch_2.pth"),
        {"last_checkpoint": "/home/somebody/work_dirs/epoch_2.pth"},
        "epoch_2.pth",
    ),
    "Lightning": (("hparams.yaml", "checkpoints/epoch=3-step=40.ckpt"), {}, "checkpoints/epoch=3-step=40.ckpt"),
    "Lightning with a last one": (("last.ckpt", "epoch=3.ckpt"), {}, "last.ckpt"),
    "an export beside what it was made of": (("model.onnx", "model.onnx.data", "model.pth"), {}, "model.pth"),
    "an export alone": (("model.onnx", "model.onnx.data"), {}, "model.onnx"),
    "only one": (("weights.pth", "log.txt", "optimizer.pt"), {}, "weights.pth"),
}


@pytest.mark.parametrize(("names", "pointers", "expected"), FOLDERS.values(), ids=FOLDERS.keys())
def test_the_checkpoint_that_its_writer_would_load(
    names: tuple[str, ...], pointers: dict[str, str], expected: str, tmp_path: Path
) -> None:
    assert checkpoint_in(made(tmp_path, *names, **pointers)) == tmp_path / expected


REFUSED: dict[str, tuple[tuple[str, ...], dict[str, str], str]] = {
    "none": (("notes.txt",), {}, "a folder without a checkpoint"),
    "several": (("a.pth", "b.pth"), {}, "2 checkpoints, `a.pth`, `b.pth`"),
    "a pointer that leads elsewhere": (
        ("a.pth", "b.pth"),
        {"last_checkpoint": "../../etc/passwd"},
        "2 checkpoints",
    ),
}


@pytest.mark.parametrize(("names", "pointers", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_what_leaves_open_which_is_refused(
    names: tuple[str, ...], pointers: dict[str, str], reason: str, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=reason):
        checkpoint_in(made(tmp_path, *names, **pointers))


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(AccessError, match="no such file"):
        checkpoint_in(tmp_path / "none")


def test_a_folder_is_opened_as_the_file_in_it(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(saved(small_network().state_dict()))
    network = rs.open(tmp_path)
    assert network.manifest().source.file == "pytorch_model.bin"
