"""What `torch.save` wrote from 2017 to 2020: pickles one after the other, and the storages' bytes behind them; and what
`pickle.dump` writes, which is one pickle with all bytes in it.

Read in place. Knows nothing of networks.
"""

from __future__ import annotations

from resnet_surgeon.errors import CheckpointError, printable
from resnet_surgeon.formats.container import Container
from resnet_surgeon.formats.files import OpenFile
from resnet_surgeon.formats.pickled import Global, Storage
from resnet_surgeon.formats.tensors import Stored
from resnet_surgeon.formats.unpickle import Ledger, Pickles, storage_reference
from resnet_surgeon.formats.views import tree

_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001


def read(file: OpenFile) -> Container:
    """What the file holds, which is: magic number, protocol, system, object, keys of the storages, storages.

    Raises CheckpointError for other pickles, and for files that are cut, go on, or do not fit themselves.
    """
    ledger = Ledger()
    pickles = Pickles(file.read, 0, file.size, ledger)
    first = pickles.next()
    if type(first) is not int or first != _MAGIC_NUMBER:
        return _plain(first, file, pickles)
    protocol = pickles.next()
    if protocol != _PROTOCOL:
        found = f"`{protocol}`" if type(protocol) is int else "no number"
        raise CheckpointError(f"its protocol is {found}, expected {_PROTOCOL}")
    check_system(pickles.next())
    storages: dict[str, Storage] = {}

    def resolve(identity: object) -> object:
        storage = storage_reference(identity)
        if type(storage) is Global:
            assert isinstance(identity, tuple)
            return ledger.take_source(storage, identity[3])
        if type(storage) is not Storage:
            return storage
        known = storages.setdefault(storage.key, storage)
        if (known.dtype, known.count) != (storage.dtype, storage.count):
            raise CheckpointError(f"it reads the storage {printable(storage.key)} in two ways")
        return storage

    root = pickles.next(resolve)
    places = _places(pickles, storages)
    missing = storages.keys() - places.keys()
    if missing:
        raise CheckpointError(f"it is incomplete: the storage {printable(min(missing))} is missing")

    def record(storage: Storage) -> Stored:
        return Stored(storage.dtype, (storage.count,), file, places[storage.key])

    made = tree(root, record, file, ledger)
    return Container("torch_legacy", file, made.root, not_loaded=ledger.not_loaded(made.walked))


def _plain(root: object, file: OpenFile, pickles: Pickles) -> Container:
    """What `pickle.dump` wrote: the arrays of numpy and tensors of torch in it, whose bytes it holds itself."""
    from resnet_surgeon.formats import distributed

    if distributed.is_metadata(root):
        return distributed.read(root, file, pickles.ledger)
    if pickles.position != pickles.end:
        raise CheckpointError("it is a pickle that goes on after its end, and not one that torch.save wrote")

    def record(storage: Storage) -> Stored:
        raise CheckpointError(f"it is incomplete: the storage {printable(storage.key)} is missing")

    made = tree(root, record, file, pickles.ledger)
    return Container("pickle", file, made.root, not_loaded=pickles.ledger.not_loaded(made.walked))


def check_system(system: object) -> None:
    """Raises CheckpointError unless the system that wrote the file was little-endian."""
    if type(system) is not dict or system.get("little_endian") is not True:
        raise CheckpointError("it was written on a big-endian machine, or does not say on what machine")


def _places(pickles: Pickles, storages: dict[str, Storage]) -> dict[str, int]:
    """Where the bytes of each storage begin. Each is preceded by its number of elements."""
    keys = pickles.next()
    if type(keys) is not list or not all(type(key) is str for key in keys):
        raise CheckpointError("it does not list its storages")
    if len({*keys}) < len(keys):
        raise CheckpointError("it lists a storage twice")
    places = {}
    for key in keys:
        if key not in storages:
            raise CheckpointError(f"it lists a storage {printable(key)} that nothing refers to")
        storage = storages[key]
        count = int.from_bytes(pickles.take(8), "little", signed=True)
        if count != storage.count:
            raise CheckpointError(f"its storage {printable(key)} has {count} numbers, expected {storage.count}")
        places[key] = pickles.position
        pickles.skip(count * storage.itemsize)
    if pickles.position < pickles.end:
        raise CheckpointError(f"{pickles.end - pickles.position} bytes follow its last storage")
    return places
