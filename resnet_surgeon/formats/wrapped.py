"""A checkpoint inside what people download: the only one in a zip or tar archive, gzipped or not.

It is unpacked into an unnamed temporary file, within the growth that checkpoints can need. Reads no checkpoint itself.
"""

from __future__ import annotations

import itertools
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator

from resnet_surgeon.errors import CheckpointError, listed, printable
from resnet_surgeon.formats import tar_members, zip_directory
from resnet_surgeon.formats.deflate import MOST_RATIO, SMALL, inflated
from resnet_surgeon.formats.files import CHUNK, OpenFile

_ENDINGS = (".pth", ".pt", ".ckpt", ".bin", ".safetensors", ".pkl", ".tar", ".pth.tar", ".onnx")
_EXPORTED = ".onnx"  # made of a checkpoint, which comes first where it is there too
_PART = "data.pkl"  # of an archive of torch, which is no checkpoint by itself
_MOST_MEMBERS = 10_000
_FEW_PARTS, _SMALL_PART = 1000, 1 << 12  # of a file of gzip, whatever its size, and one more for each so many bytes
_GZIP = 32 + zlib.MAX_WBITS  # zlib's word for a header of gzip or of its own, as joblib's files have it


def is_npz(file: OpenFile) -> bool:
    """Whether a zip archive holds arrays of numpy, and nothing else."""
    return all(name.endswith(".npy") for name in zip_directory.members(file))


def has_checkpoint(file: OpenFile) -> bool:
    """Whether a zip archive holds anything that is called like a checkpoint."""
    return any(map(_is_checkpoint, zip_directory.members(file)))


def in_zip(file: OpenFile) -> OpenFile:
    """The one checkpoint in a zip archive. Raises CheckpointError for none, and for several."""
    members = zip_directory.members(file)
    name = _only(members)
    return OpenFile.spooled(unpacked(file, members[name], zip_directory.places(file, members)[name]), file.name)


def unpacked(file: OpenFile, member: zip_directory.Member, begin: int) -> Iterator[bytes]:
    """The bytes of a zip's member, which begin there, piece by piece; its checksum is tested."""
    if member.method == zip_directory.DEFLATED:
        return inflated(file, begin, member.compressed, member.size, member.crc)
    return _copied(file, begin, member.size, member.crc)


def in_gzip(file: OpenFile) -> OpenFile:
    """What gzip compressed. Raises CheckpointError for damage, and for more than a checkpoint can grow."""
    return OpenFile.spooled(_gunzipped(file), file.name)


def in_tar(file: OpenFile) -> OpenFile:
    """The one checkpoint in a tar archive. Raises CheckpointError for none, for several, and for damage."""
    places: dict[str, tuple[int, int]] = {}
    for member in itertools.islice(tar_members.members(file), _MOST_MEMBERS):
        if member.type in (tarfile.REGTYPE, tarfile.AREGTYPE):
            places[member.name] = (member.offset_data, member.size)
    begin, size = places[_only(places)]
    if not 0 <= size <= file.size - begin:
        raise CheckpointError("its tar archive is truncated")
    return OpenFile.spooled(map(bytes, file.chunks(begin, size)), file.name)


def _only(names: Iterable[str]) -> str:
    """The one name of a checkpoint."""
    called = [*filter(_is_checkpoint, names)]
    found = [name for name in called if not name.lower().endswith(_EXPORTED)] or called
    if not found:
        raise CheckpointError("it is an archive without a checkpoint in it")
    if len(found) > 1:
        reason = f"it is an archive of {len(found)} checkpoints, {listed([*map(printable, found)])}"
        raise CheckpointError(reason, hint="unpack it, and give one of them")
    return found[0]


def _is_checkpoint(name: str) -> bool:
    """By its name; what macOS puts beside files is none."""
    own = name.rpartition("/")[2]
    return own.lower().endswith(_ENDINGS) and own != _PART and not own.startswith(".")


def _copied(file: OpenFile, begin: int, size: int, crc: int) -> Iterator[bytes]:
    checksum = 0
    for chunk in file.chunks(begin, size):
        checksum = zlib.crc32(chunk, checksum)
        yield bytes(chunk)
    if checksum != crc:
        raise CheckpointError("it is damaged: the checksum of its member does not hold")


def _gunzipped(file: OpenFile) -> Iterator[bytes]:
    most, done = max(SMALL, MOST_RATIO * file.size), 0
    parts = _FEW_PARTS + file.size // _SMALL_PART
    decompressor = zlib.decompressobj(_GZIP)
    for chunk in file.chunks(0, file.size):
        waiting = bytes(chunk)
        while waiting:
            if decompressor.eof:
                parts -= 1
                if not parts:
                    raise CheckpointError("it has more gzip parts than any program makes")
                decompressor = zlib.decompressobj(_GZIP)  # one part after the other makes one file
            piece = _decompressed(decompressor.decompress, waiting)
            waiting = decompressor.unused_data if decompressor.eof else decompressor.unconsumed_tail
            done += len(piece)
            if done > most:
                raise CheckpointError(
                    f"{file.size} bytes would expand to over {most}, far more than a checkpoint's do",
                    hint="if you know where it is from, unpack it first, with `gunzip -k`",
                )
            yield piece
    if not decompressor.eof:
        raise CheckpointError("it is truncated: its gzip data has no end")


def _decompressed(decompress: Callable[[bytes, int], bytes], data: bytes) -> bytes:
    try:
        return decompress(data, CHUNK)
    except zlib.error:
        raise CheckpointError("its compressed data is damaged") from None
