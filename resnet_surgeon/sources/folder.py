"""Which file of a folder is the checkpoint: of transformers, accelerate, OpenMMLab, Lightning,
torch.distributed.checkpoint, or the only one there.

Knows the names that programs give, opens no checkpoint, and never leaves the folder.
"""

from __future__ import annotations

import itertools
import os
from pathlib import Path

from resnet_surgeon.errors import AccessError, CheckpointError, listed, printable

# Of a folder that has several of these, the first.
_KNOWN = (
    "model.safetensors.index.json",
    "model.safetensors",
    "pytorch_model.bin",
    "diffusion_pytorch_model.safetensors",
    "last.ckpt",
)
_POINTER = "last_checkpoint"  # OpenMMLab's, with the path of the newest one
_DISTRIBUTED = ".metadata"  # of torch.distributed.checkpoint
_ENDINGS = (".safetensors", ".pth", ".pt", ".ckpt", ".bin", ".pth.tar", ".pkl", ".npz")
_EXPORTED = ".onnx"  # made of a checkpoint, which comes first where it is there too
_OTHERS = (
    "optimizer",
    "scheduler",
    "scaler",
    "random_states",
    "rng_state",
    "sampler",
    "training_args",
    "trainer_state",
)
_INNER = "checkpoints"  # where Lightning puts them
_MOST_ENTRIES = 10_000
_LONGEST_POINTER = 4096


def checkpoint_in(folder: Path) -> Path:
    """The path of the one checkpoint in a folder. Raises CheckpointError for none, or for several of equal right, and
    AccessError for a folder that cannot be read.
    """
    names = _names(folder)
    for name in (_DISTRIBUTED, *_KNOWN, _pointed(folder, names)):
        if name in names:
            return folder / name
    found = [name for name in names if name.lower().endswith(_ENDINGS) and not name.lower().startswith(_OTHERS)]
    found = found or [name for name in names if name.lower().endswith(_EXPORTED)]
    if not found and _INNER in names and (folder / _INNER).is_dir():
        return checkpoint_in(folder / _INNER)
    if len(found) == 1:
        return folder / found[0]
    if not found:
        raise CheckpointError("it is a folder without a checkpoint", subject=str(folder))
    raise CheckpointError(
        f"it is a folder with {len(found)} checkpoints, {listed([*map(printable, found)])}",
        subject=str(folder),
        hint="give the path of one of them",
    )


def _names(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in itertools.islice(entries, _MOST_ENTRIES))
    except OSError as error:
        raise AccessError(str(error.strerror).lower(), subject=str(folder)) from None


def _pointed(folder: Path, names: list[str]) -> str:
    """The name that a pointer gives; whatever folder it speaks of, only this one is looked in."""
    if _POINTER not in names:
        return ""
    try:
        with (folder / _POINTER).open("rb") as file:
            text = file.read(_LONGEST_POINTER).decode("utf-8", "replace")
    except OSError:
        return ""
    return text.strip().replace("\\", "/").rpartition("/")[2]
