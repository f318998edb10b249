"""Writes a network's file and manifest so that at any moment the old file or the whole new one stands; or streams it.

Bytes that no operation touched go from file to file inside the kernel. Knows documents, and no operation.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from resnet_surgeon.errors import AccessError, UsageError
from resnet_surgeon.formats.tensors import prepare
from resnet_surgeon.platform import disk, names
from resnet_surgeon.platform.background import Background
from resnet_surgeon.platform.signals import check_signals, signals_wait
from resnet_surgeon.platform.transfer import checksum, widen_pipe, write_all, write_at
from resnet_surgeon.sources.progress import Progress
from resnet_surgeon.writing.arrivals import into_file, into_stream
from resnet_surgeon.writing.document import Document
from resnet_surgeon.writing.forms import SAFETENSORS, form_of
from resnet_surgeon.writing.publish import Temporaries, publish, turn
from resnet_surgeon.writing.runs import share_blocks, write_runs
from resnet_surgeon.writing.targets import cannot_write, checked_companion, checked_page, checked_pair


def write(content: Document, path: Path, *, force: bool, progress: Progress) -> Path:
    """Writes the file, then its manifest, each to a temporary file beside it that is synced and renamed. Returns it.

    Raises AccessError (target exists and not `force`, no room, no permission), CheckpointError (the source is damaged
    or changed).
    """
    if content.file_names and path.name not in content.file_names:
        raise _misnamed(content, path.name, str(path.with_name(content.file_names[0])))
    sources = [source.container.files for source in content.sources if source.container is not None]
    places = checked_pair(path, force, sources)
    beside = {places.manifest: None} | {
        checked_companion(path.with_name(name), force): data for name, data in content.companions.items()
    }
    layout = form_of(path).layout(content)
    if content.is_arriving:
        content = content.read_through()  # before what it reads has gone by
    with Temporaries() as temporaries, temporaries:
        try:
            reading = Background(content.read_through)
            temporary, descriptor = temporaries.make(places.output)
            with progress(f"writing {path.name}", content.size()) as advance:
                runs = share_blocks(descriptor, into_file(layout.tensors), advance)
                disk.reserve(descriptor, layout.size)  # but for what is there already
                write_runs(descriptor, runs, advance, meanwhile=content.check_manifest)
                content = reading.result()  # within, so that the bars go whatever comes meanwhile
            for position, data in layout.frame(content, partial(checksum, descriptor)):
                write_at(descriptor, data, position)
            disk.sync(descriptor)
            files = [(temporary, places.output)]
            for target, text in beside.items():
                temporary, descriptor = temporaries.make(target)
                write_at(descriptor, content.manifest.encode() if text is None else text, 0)
                disk.sync(descriptor)
                files.append((temporary, target))
            temporaries.complete()
            with turn(places.output.parent) as folder:
                content.check_unchanged()
                check_signals()
                with signals_wait():
                    publish(files, force)
                    disk.sync_folder(folder)
        except OSError as error:
            raise cannot_write(path, error) from None
    return path


def write_page(text: str, path: Path, *, force: bool) -> Path:
    """Writes a page as `write` writes its manifest. Raises the errors of `checked_page`."""
    _write_alone(text, path, checked_page(path, force), replacing=force)
    return path


def write_text(text: str, path: Path) -> None:
    """Writes a small file of ours, in place of the last one, as `write` writes its manifest. Raises AccessError."""
    _write_alone(text, path, path.resolve(), replacing=True)


def _write_alone(text: str, path: Path, target: Path, *, replacing: bool) -> None:
    with Temporaries() as temporaries, temporaries:
        try:
            temporary, descriptor = temporaries.make(target)
            write_at(descriptor, text.encode(), 0)
            disk.sync(descriptor)
            temporaries.complete()
            with turn(target.parent) as folder, signals_wait():
                names.give_name(temporary, target, replacing=replacing)
                disk.sync_folder(folder)
        except OSError as error:
            raise cannot_write(path, error) from None


def stream(content: Document, descriptor: int, progress: Progress) -> None:
    """Sends the file to a descriptor, such as a pipe's. Raises BrokenPipeError if the reader has gone, AccessError for
    other failures, CheckpointError if the source changed; then what was sent is not whole, and its reader notices.
    """
    if content.file_names:
        raise _misnamed(content, "standard output", content.file_names[0])
    content = content.read_through()
    layout = SAFETENSORS.layout(content)
    widen_pipe(descriptor)
    try:
        for _, data in layout.frame(content, partial(checksum, descriptor)):
            write_all(descriptor, data)
        # While the reader takes in the header.
        content.check_manifest()
        prepare(content.tensors.values())
        with progress("streaming", content.size()) as advance:
            *first, last = into_stream(layout.tensors)
            for run in first:
                run.send(descriptor, advance)
            end = last.send_but_for_the_end(descriptor, advance)
            content.check_unchanged()
            write_all(descriptor, end)
            advance(len(end))
    except BrokenPipeError:
        raise
    except OSError as error:
        raise AccessError(f"writing failed: {error.strerror}", subject="standard output") from None


def _misnamed(content: Document, name: str, hint: str) -> UsageError:
    reason = f"beside {', '.join(content.companions)} the file is called {' or '.join(content.file_names)}, not {name}"
    return UsageError(reason, subject="--output", hint=f"use `-o {hint}`")
