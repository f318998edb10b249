"""Tells by content, never by name, what a file really is, and reads it if it is a checkpoint."""

from __future__ import annotations

from importlib import import_module

from resnet_surgeon.errors import CheckpointError
from resnet_surgeon.formats.container import Container
from resnet_surgeon.formats.files import OpenFile

# What is often found under a checkpoint's name: (first bytes, what it is, what to do).
_OTHERS = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself", "run `git lfs pull` in its repository"),
    (b"\x1f\x8b", "compressed with gzip too often", "unpack it with `gunzip`"),
    (b"BZh", "compressed with bzip2", "unpack it with `bunzip2`"),
    (b"\xfd7zXZ", "compressed with xz", "unpack it with `unxz`"),
    (b"GGUF", "a GGUF file", None),
    (b"\x89HDF\r\n", "an HDF5 file (Keras)", None),
    (b"\x93NUMPY", "a numpy array", None),
)


def read(file: OpenFile) -> Container:
    """The checkpoint in `file`. Raises CheckpointError, about the file, for whatever is none."""
    try:
        return _read(file)
    except CheckpointError as error:
        raise error.about(file.name) from None


def is_safetensors(file: OpenFile) -> bool:
    """Whether it begins so."""
    return _module(file.beginning(_HEAD)) == "safetensors"


_HEAD = 512  # bytes by which a file is told
_COMPRESSED = (b"\x1f\x8b", b"x\x01", b"x^", b"x\x9c", b"x\xda")  # by gzip, and by zlib at its levels
_DEEPEST = 3  # archives around a checkpoint: a file in a tar in gzip


def _read(file: OpenFile, depth: int = 0) -> Container:
    head = file.beginning(_HEAD)
    if not head:
        raise CheckpointError("it is empty")
    module = _module(head)
    if module is not None:
        container: Container = import_module(f"resnet_surgeon.formats.{module}").read(file)
        return container
    if head.startswith(b"PK"):
        return _zip(file, depth)
    if (head.startswith(_COMPRESSED) or _is_tar(head)) and depth < _DEEPEST:
        from resnet_surgeon.formats import wrapped

        return _read(wrapped.in_tar(file) if _is_tar(head) else wrapped.in_gzip(file), depth + 1)
    if head.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        raise CheckpointError("it is a web page, not a checkpoint", hint="download the file itself")
    for magic, what, hint in _OTHERS:
        # A safetensors file of an odd header length may begin with any of these bytes; its ninth byte told above.
        if head.startswith(magic):
            raise CheckpointError(f"it is {what}", hint=hint)
    raise CheckpointError("it is not a checkpoint: neither of safetensors nor of torch.save")


def _zip(file: OpenFile, depth: int) -> Container:
    """An archive of torch, or the one checkpoint in another."""
    from resnet_surgeon.formats import torch_zip

    try:
        return torch_zip.read(file)
    except torch_zip.OtherArchiveError:
        from resnet_surgeon.formats import wrapped

        if wrapped.is_npz(file):
            from resnet_surgeon.formats import npz

            return npz.read(file)
        if depth == _DEEPEST or not wrapped.has_checkpoint(file):
            raise
    return _read(wrapped.in_zip(file), depth + 1)


def _is_tar(head: bytes) -> bool:
    return head[257:262] == b"ustar" or head.startswith(b"sys_info\0")


def _first_member(head: bytes) -> bytes:
    return head[:100].partition(b"\0")[0].removeprefix(b"./")


_TAR_PARTS = (b"sys_info", b"pickle", b"storages", b"tensors", b"", b".")

# The first bytes of pickles: from protocol 2 on; magic number, dict, list and OrderedDict of protocols 0 and 1.
_PICKLES = (b"\x80", b"L119547037146038801333356L\n", b"(dp", b"(lp", b"}q", b"]q", b"ccollections\nOrderedDict\n")
_ONNX = b"\x08"  # the field of its version, a small number, which every writer puts first


def _module(head: bytes) -> str | None:
    """The module of this room that reads files which begin so; each is imported only where it is needed."""
    if head[8:9] == b"{" or head[8:].lstrip(b" \t\r\n").startswith(b"{"):
        return "safetensors"
    if _is_tar(head) and _first_member(head) in _TAR_PARTS:
        return "torch_tar"
    if head.startswith(_PICKLES):
        return "torch_legacy"
    if head.startswith(_ONNX) and head[1:2] < b"\x80":
        return "onnx"
    if head.lstrip().startswith(b"{"):
        return "safetensors_index"
    return None
