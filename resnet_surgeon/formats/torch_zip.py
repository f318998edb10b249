"""The zip archive that `torch.save` has written since 2020: `<root>/data.pkl` and one member `<root>/data/<key>` a
storage. TorchScript's is one too, whose code is not looked at.

Read in place; what others have compressed is inflated into one unnamed temporary file. Nothing is unpacked by name.
Knows nothing of networks: its tensors have the names that the file gives them.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping

from resnet_surgeon.errors import CheckpointError, printable
from resnet_surgeon.formats import zip_directory
from resnet_surgeon.formats.container import Checksum, Container
from resnet_surgeon.formats.deflate import MOST_RATIO, SMALL, inflated
from resnet_surgeon.formats.files import OpenFile
from resnet_surgeon.formats.modules import ModuleNode
from resnet_surgeon.formats.pickled import Storage
from resnet_surgeon.formats.tensors import Stored
from resnet_surgeon.formats.unpickle import Ledger, unpickle
from resnet_surgeon.formats.views import tree
from resnet_surgeon.formats.zip_directory import Member

_PICKLE_LIMIT = 100_000_000
_EXTRA, _OURS = "extra/", "resnet_surgeon."  # where torch keeps what users add, and the keys of what this tool adds
_TEXT_LIMIT = 1 << 26
_LONGEST_WORD = 16  # bytes of the member that names the byte order


class OtherArchiveError(CheckpointError):
    """A zip archive is none of torch's, but may hold one."""


def read(file: OpenFile) -> Container:
    """What a torch archive holds. Raises CheckpointError for other archives, and for those that mean two things."""
    members = zip_directory.members(file)
    root = _root(members)
    places = zip_directory.places(file, members)

    def small(name: str, limit: int) -> bytes:
        member = members[f"{root}/{name}"]
        if member.size > limit:
            raise CheckpointError(f"its member {name} would be {member.size} bytes long, which no state_dict needs")
        return _content(file, member, places[member.name])

    order = small("byteorder", _LONGEST_WORD) if f"{root}/byteorder" in members else b"little"
    if order not in (b"little", b"big"):
        raise CheckpointError(
            f"its byte order is {printable(order.decode('ascii', 'replace'))}, expected little or big"
        )
    ledger = Ledger()
    root_object = unpickle(small("data.pkl", _PICKLE_LIMIT), ledger=ledger)
    folder = _folder(members, root)
    storages = [member for name, member in members.items() if name.startswith(f"{folder}/")]
    compressed = [member for member in storages if member.method == zip_directory.DEFLATED]
    spool, spooled = _inflated(file, compressed, places)
    records: dict[str, Stored] = {}
    checksums: list[Checksum] = []

    def record(storage: Storage) -> Stored:
        """The bytes of a storage, looked up and checked once."""
        known = records.get(storage.key)
        if known is None:
            member = members.get(f"{folder}/{storage.key}")
            if member is None:
                raise CheckpointError(f"it is incomplete: the storage {printable(storage.key)} is missing")
            if member.name in spooled:
                known = _whole(storage, member, spool, spooled[member.name])
            else:
                known = _whole(storage, member, file, places[member.name])
                checksums.append(Checksum(places[member.name], member.size, member.crc, f"data/{storage.key}", file))
            records[storage.key] = known
        if (known.dtype, known.shape) != (storage.dtype, (storage.count,)):
            raise CheckpointError(f"it reads the storage {printable(storage.key)} in two ways")
        return known

    found = tree(root_object, record, file, ledger, swapped=order == b"big")
    is_script = f"{root}/constants.pkl" in members
    if is_script and isinstance(found.root, ModuleNode) and not found.root:
        raise CheckpointError(
            "it is a frozen TorchScript module, whose tensors have no names", hint="save it before torch.jit.freeze"
        )
    metadata = {key: _text(key, small(f"{_EXTRA}{key}", _TEXT_LIMIT)) for key in _extra(members, root)}
    return Container(
        "torchscript" if is_script else "torch_zip",
        file,
        found.root,
        metadata,
        checksums=tuple(checksums),
        not_loaded=ledger.not_loaded(found.walked),
    )


def _root(members: Mapping[str, Member]) -> str:
    if "model.weights.h5" in members:
        raise CheckpointError("it is a Keras archive")
    roots = {name.split("/", 1)[0] for name in members}
    if len(roots) != 1:
        raise OtherArchiveError(
            "its zip archive does not have the single folder that torch.save writes",
            hint="give a file that torch.save wrote",
        )
    (root,) = roots
    if f"{root}/data.pkl" not in members:
        raise OtherArchiveError("it is a zip archive without `data.pkl`: not a torch checkpoint, or an incomplete one")
    return root


def _extra(members: Mapping[str, Member], root: str) -> list[str]:
    """The keys of the text that this tool put beside the tensors."""
    folder = f"{root}/{_EXTRA}"
    return [name.removeprefix(folder) for name in members if name.startswith(f"{folder}{_OURS}")]


def _text(key: str, data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise CheckpointError(f"its member {printable(_EXTRA + key)} is not UTF-8") from None


def _folder(members: Mapping[str, Member], root: str) -> str:
    """Where the storages are: `data`, or `tensors` in the format that torch 1.4 tried out."""
    names = {name.split("/")[1] for name in members if name.count("/") > 1}
    return f"{root}/tensors" if "tensors" in names and "data" not in names else f"{root}/data"


def _content(file: OpenFile, member: Member, offset: int) -> bytes:
    """The bytes of a small member, whose checksum is tested."""
    if member.method == zip_directory.DEFLATED:
        return b"".join(inflated(file, offset, member.compressed, member.size, member.crc))
    data = file.read(offset, member.size)
    if zlib.crc32(data) != member.crc:
        raise CheckpointError(f"it is damaged: the checksum of {printable(member.name)} does not hold")
    return data


def _inflated(file: OpenFile, compressed: list[Member], places: Mapping[str, int]) -> tuple[OpenFile, dict[str, int]]:
    """Compressed members, one after the other in a temporary file, and where each begins; nothing for none."""
    spooled: dict[str, int] = {}
    if not compressed:
        return file, spooled
    total = sum(member.size for member in compressed)
    if total > SMALL and total > MOST_RATIO * file.size:
        raise CheckpointError(f"its {file.size} bytes would expand to {total}, far more than a checkpoint's do")

    def pieces() -> Iterator[bytes]:
        position = 0
        for member in compressed:
            spooled[member.name] = position
            yield from inflated(file, places[member.name], member.compressed, member.size, member.crc)
            position += member.size

    return OpenFile.spooled(pieces(), file.name), spooled


def _whole(storage: Storage, member: Member, file: OpenFile, offset: int) -> Stored:
    size = storage.count * storage.itemsize
    if storage.count < 0 or size != member.size:
        raise CheckpointError(
            f"its storage {printable(storage.key)} has {member.size} bytes, "
            f"not {storage.count} numbers of dtype {storage.dtype}"
        )
    return Stored(storage.dtype, (storage.count,), file, offset)
