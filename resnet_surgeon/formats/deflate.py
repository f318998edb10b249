"""Members of a zip archive that somebody compressed: inflated piece by piece, within what checkpoints can need.

A bomb is known by its ratio while it is inflated, whatever size it declares.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from resnet_surgeon.errors import CheckpointError
from resnet_surgeon.formats.files import CHUNK, OpenFile

SMALL = 1 << 20  # up to here any ratio is harmless: fresh batch norms are mostly zeros
MOST_RATIO = 20  # pickles reach 10, weights hardly 2


def inflated(file: OpenFile, offset: int, compressed: int, size: int, crc: int) -> Iterator[bytes]:
    """The `size` bytes that `compressed` ones from `offset` hold (raw DEFLATE).

    Raises CheckpointError for a bomb, another size or checksum than declared, and damage.
    """
    if size > SMALL and size > MOST_RATIO * compressed:
        raise CheckpointError(f"{compressed} compressed bytes would expand to {size}, far more than a checkpoint's do")
    decompressor = zlib.decompressobj(-zlib.MAX_WBITS)
    done = checksum = 0
    for chunk in file.chunks(offset, compressed):
        waiting = bytes(chunk)
        while waiting and not decompressor.eof:
            try:
                piece = decompressor.decompress(waiting, CHUNK)
            except zlib.error:
                raise CheckpointError("its compressed data is damaged") from None
            waiting = decompressor.unconsumed_tail
            done += len(piece)
            if done > size:
                raise CheckpointError(f"its compressed data is longer than the {size} bytes that they declare")
            checksum = zlib.crc32(piece, checksum)
            yield piece
    if not decompressor.eof or done != size or decompressor.unused_data:
        raise CheckpointError(f"its compressed data is not the {size} bytes that they declare")
    if checksum != crc:
        raise CheckpointError("it is damaged: the checksum of compressed data does not hold")
