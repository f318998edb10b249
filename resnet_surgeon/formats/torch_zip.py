"""The zip archive that `torch.save` has written since 2020: `<root>/data.pkl` and one member `<root>/data/<key>` a
storage.

Read in place; what others have compressed is inflated into one unnamed temporary file. Nothing is unpacked by name.
Knows nothing of networks: its tensors have the names that the file gives them.
"""

from __future__ import annotations

import stat
import zipfile
from collections.abc import Iterator, Mapping

from resnet_surgeon.errors import CheckpointError, printable
from resnet_surgeon.formats.container import Checksum, Container
from resnet_surgeon.formats.deflate import MOST_RATIO, SMALL, inflated
from resnet_surgeon.formats.files import OpenFile
from resnet_surgeon.formats.tensors import BITS, Stored
from resnet_surgeon.formats.unpickle import Storage, unpickle
from resnet_surgeon.formats.views import tree

_PICKLE_LIMIT = 100_000_000
_END_OF_ARCHIVE = b"PK\5\6"
_LOCAL_HEADER = b"PK\3\4"
_LOCAL_HEADER_SIZE = 30
_FOLDER = 0x10  # among the attributes that MS-DOS gives a file


def read(file: OpenFile) -> Container:
    """What a torch archive holds. Raises CheckpointError for other archives, and for those that mean two things."""
    members = _members(file)
    root = _root(members)
    pickle_member = members[f"{root}/data.pkl"]
    if pickle_member.file_size > _PICKLE_LIMIT:
        raise CheckpointError(f"its pickle would be {pickle_member.file_size} bytes long, which no state_dict needs")
    swapped = _byte_order(file, members.get(f"{root}/byteorder")) == "big"
    root_object = unpickle(_small_member(file, pickle_member))
    storages = [member for name, member in members.items() if name.startswith(f"{root}/data/")]
    spool, places = _inflated(file, [member for member in storages if member.compress_type == zipfile.ZIP_DEFLATED])
    records: dict[str, Stored] = {}
    checksums: list[Checksum] = []

    def record(storage: Storage) -> Stored:
        """The bytes of a storage, looked up and checked once."""
        known = records.get(storage.key)
        if known is None:
            member = members.get(f"{root}/data/{storage.key}")
            if member is None:
                raise CheckpointError(f"it is incomplete: the storage {printable(storage.key)} is missing")
            if member.filename in places:
                known = _whole(storage, member, spool, places[member.filename])
            else:
                offset = _data_offset(file, member)
                known = _whole(storage, member, file, offset)
                checksums.append(Checksum(offset, member.file_size, member.CRC, f"data/{storage.key}"))
            records[storage.key] = known
        if (known.dtype, known.shape) != (storage.dtype, (storage.count,)):
            raise CheckpointError(f"it reads the storage {printable(storage.key)} in two ways")
        return known

    return Container("torch_zip", file, tree(root_object, record, swapped), checksums=tuple(checksums))


def _members(file: OpenFile) -> dict[str, zipfile.ZipInfo]:
    truncated = CheckpointError("it is a truncated or damaged zip archive", hint="copy or download the file again")
    # torch writes neither a comment nor anything behind the directory; what does is another file in disguise.
    end = file.read(max(0, file.size - 22), min(22, file.size))
    if not end.startswith(_END_OF_ARCHIVE):
        raise truncated
    try:
        with open(file.descriptor, "rb", closefd=False) as stream, zipfile.ZipFile(stream) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError):
        raise truncated from None
    result = {member.filename: member for member in members}
    if len(result) != len(members):
        raise CheckpointError("its zip archive holds a member twice")
    for member in members:
        # torch takes what is marked as a folder for an empty file, and then reads memory that was never written.
        if member.external_attr & _FOLDER or stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG):
            raise CheckpointError(f"its member {printable(member.filename)} is not marked as a file")
    if not members or min(member.header_offset for member in members) != 0:
        raise CheckpointError("its zip archive does not begin at the beginning of the file")
    return result


def _root(members: Mapping[str, zipfile.ZipInfo]) -> str:
    if all(name.endswith(".npy") for name in members):
        raise CheckpointError("it is a numpy archive (.npz)")
    if "model.weights.h5" in members:
        raise CheckpointError("it is a Keras archive")
    roots = {name.split("/", 1)[0] for name in members}
    if len(roots) != 1:
        raise CheckpointError(
            "its zip archive has not one folder, as torch writes it", hint="give a file that torch.save wrote"
        )
    (root,) = roots
    if f"{root}/constants.pkl" in members or any(name.startswith(f"{root}/code/") for name in members):
        raise CheckpointError(
            "it is a TorchScript archive",
            hint="save the state_dict: torch.save(torch.jit.load(path).state_dict(), path)",
        )
    if f"{root}/data.pkl" not in members:
        raise CheckpointError("it is a zip archive without `data.pkl`: not a torch checkpoint, or an incomplete one")
    return root


def _byte_order(file: OpenFile, member: zipfile.ZipInfo | None) -> str:
    order = _small_member(file, member).decode("ascii", "replace") if member else "little"
    if order not in ("little", "big"):
        raise CheckpointError(f"its byte order is {printable(order)}, expected little or big")
    return order


def _small_member(file: OpenFile, member: zipfile.ZipInfo) -> bytes:
    import zlib

    offset = _data_offset(file, member)
    if member.compress_type == zipfile.ZIP_DEFLATED:
        return b"".join(inflated(file, offset, member.compress_size, member.file_size, member.CRC))
    data = file.read(offset, member.file_size)
    if zlib.crc32(data) != member.CRC:
        raise CheckpointError(f"it is damaged: the checksum of `{member.filename}` does not hold")
    return data


def _inflated(file: OpenFile, members: list[zipfile.ZipInfo]) -> tuple[OpenFile, dict[str, int]]:
    """Compressed members, one after the other in a temporary file, and where each begins; nothing for none."""
    places: dict[str, int] = {}
    if not members:
        return file, places
    total = sum(member.file_size for member in members)
    if total > SMALL and total > MOST_RATIO * file.size:
        raise CheckpointError(f"{file.size} bytes would become {total}, which is no checkpoint's ratio")

    def pieces() -> Iterator[bytes]:
        position = 0
        for member in members:
            places[member.filename] = position
            offset = _data_offset(file, member)
            yield from inflated(file, offset, member.compress_size, member.file_size, member.CRC)
            position += member.file_size

    return OpenFile.spooled(pieces(), file.name), places


def _data_offset(file: OpenFile, member: zipfile.ZipInfo) -> int:
    """Where a member's bytes begin, by its local header, which must agree with the directory."""
    is_stored = member.compress_type == zipfile.ZIP_STORED and member.file_size == member.compress_size
    # Bits of the flags: 0 encrypted, 5 a patch, 6 and 13 encrypted in other ways.
    if not (is_stored or member.compress_type == zipfile.ZIP_DEFLATED) or member.flag_bits & 0x2061:
        raise CheckpointError(
            f"its member {printable(member.filename)} is encrypted or compressed in a way that is not read",
            hint="save it again with torch.save",
        )
    damaged = CheckpointError(f"it is truncated or damaged at its member {printable(member.filename)}")
    if not 0 <= member.header_offset <= file.size - _LOCAL_HEADER_SIZE:
        raise damaged
    header = file.read(member.header_offset, _LOCAL_HEADER_SIZE)
    name_size, extra_size = int.from_bytes(header[26:28], "little"), int.from_bytes(header[28:30], "little")
    offset = member.header_offset + _LOCAL_HEADER_SIZE + name_size + extra_size
    if not header.startswith(_LOCAL_HEADER) or offset + member.compress_size > file.size:
        raise damaged
    if file.read(member.header_offset + _LOCAL_HEADER_SIZE, name_size) != member.orig_filename.encode(
        "utf-8" if member.flag_bits & 0x800 else "cp437"
    ):
        raise CheckpointError(f"its member {printable(member.filename)} has another name in its own header")
    return offset


def _whole(storage: Storage, member: zipfile.ZipInfo, file: OpenFile, offset: int) -> Stored:
    size = storage.count * BITS[storage.dtype] // 8
    if storage.count < 0 or size != member.file_size:
        raise CheckpointError(
            f"its storage {printable(storage.key)} has {member.file_size} bytes, "
            f"not {storage.count} numbers of dtype {storage.dtype}"
        )
    return Stored(storage.dtype, (storage.count,), file, offset)
