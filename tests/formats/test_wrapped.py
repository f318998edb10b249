"""The one checkpoint in a zip, a tar or gzip is read as by itself; bombs, several and damage are refused."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile

import pytest

from resnet_surgeon.errors import CheckpointError
from resnet_surgeon.formats import sniff
from resnet_surgeon.formats.container import Container
from resnet_surgeon.formats.files import OpenFile
from resnet_surgeon.formats.tensors import content
from tests.formats import test_torch_legacy
from tests.formats.test_torch_zip import BASE, SAVED, raw


def read(data: bytes) -> Container:
    return sniff.read(OpenFile.spooled(data, "test"))


def zipped(*members: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return buffer.getvalue()


def tarred(*members: tuple[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:") as archive:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


MODEL = ("weights/model.pth", SAVED)
BESIDE = (("README.md", b"words"), ("__MACOSX/weights/._model.pth", b"junk"), ("weights/", b""))
WRAPPED = {
    "zip": zipped(MODEL, *BESIDE),
    "zip, not compressed": zipped(*BESIDE, MODEL, method=zipfile.ZIP_STORED),
    "tar": tarred(MODEL, *BESIDE[:1]),
    "gzip": gzip.compress(SAVED),
    "gzip in two parts": gzip.compress(SAVED[:100]) + gzip.compress(SAVED[100:]),
    "tar in gzip": gzip.compress(tarred(*BESIDE[:1], MODEL)),
    "gzip of an older file": gzip.compress(test_torch_legacy.SAVED),
    "zip with an export beside it": zipped(MODEL, ("model.onnx", b"\x08\x07")),
    "zip of an older file": zipped(("old.pth.tar", test_torch_legacy.SAVED)),
}


@pytest.mark.parametrize("data", WRAPPED.values(), ids=WRAPPED.keys())
def test_the_checkpoint_inside_is_read(data: bytes) -> None:
    root = read(data).root
    assert isinstance(root, dict)
    assert content(root["x"]) == raw(BASE)


def headed(size: int, kind: bytes = tarfile.REGTYPE, attributes: dict[str, str] | None = None) -> bytes:
    """A tar archive of one member, which says that it has this size; `attributes` overrule that."""
    member = tarfile.TarInfo("model.pth")
    member.size, member.type, member.pax_headers = size, kind, attributes or {}
    return member.tobuf(tarfile.PAX_FORMAT if attributes else tarfile.GNU_FORMAT) + bytes(2048)


def often(count: int) -> bytes:
    data = SAVED
    for _ in range(count):
        data = gzip.compress(data)
    return data


REFUSED = {
    "a bomb in gzip": (gzip.compress(bytes(1 << 24)), "far more than a checkpoint's do"),
    "a bomb in a zip": (zipped(("a.pth", bytes(1 << 24))), "far more than a checkpoint's do"),
    "gzip that is cut": (gzip.compress(SAVED)[:-20], "gzip data has no end|damaged"),
    "gzip that is damaged": (gzip.compress(SAVED)[:30] + b"\xff" * 50, "damaged"),
    "a damaged member": (
        zipped(("old.pth", test_torch_legacy.SAVED), method=zipfile.ZIP_STORED).replace(raw(BASE), raw(BASE + 1)),
        "the checksum of its member does not hold",
    ),
    "a tar that is cut": (tarred(MODEL)[:1500], "tar archive is damaged"),
    "a tar of a negative size": (headed(-1024), "tar archive is damaged"),
    "a tar of a size without end": (headed(1 << 62), "tar archive is damaged"),
    "a tar of a name without end": (headed(1 << 40, tarfile.GNUTYPE_LONGNAME), "tar archive is damaged"),
    "a tar of attributes without end": (headed(1 << 40, tarfile.XHDTYPE), "tar archive is damaged"),
    "a tar of two sizes, one negative": (headed(0, attributes={"size": "-1024"}), "tar archive is truncated"),
    "several": (zipped(MODEL, ("b.pth", SAVED)), "2 checkpoints, `weights/model.pth`, `b.pth`"),
    "none in a zip": (zipped(("notes.txt", b"x"), ("more/notes.txt", b"y")), "does not have the single folder"),
    "none in a tar": (tarred(("notes.txt", b"x")), "without a checkpoint"),
    "archives without end": (often(5), "compressed with gzip too often"),
    "a part of torch's archive": (zipped(("a/data.pkl", b"x"), ("b/c.txt", b"y")), "does not have the single folder"),
}


@pytest.mark.parametrize(("data", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_others_are_refused(data: bytes, reason: str) -> None:
    with pytest.raises(CheckpointError, match=reason):
        read(data)


def test_gzip_of_very_many_parts_is_refused() -> None:
    with pytest.raises(CheckpointError, match="more gzip parts than any program makes"):
        read(gzip.compress(b"a") * 1100)
