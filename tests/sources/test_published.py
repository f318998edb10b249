"""Published weights come from torch's cache, or are downloaded into it whole and right, or not at all."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from resnet_surgeon.errors import AccessError, WeightsError
from resnet_surgeon.sources import catalog, published
from resnet_surgeon.sources.cache import cache_folder
from resnet_surgeon.sources.progress import silent

CONTENT = bytes(range(256)) * 5000
ENTRY = catalog.entry("resnet18", "DEFAULT")
RIGHT = replace(ENTRY, digest=hashlib.sha256(CONTENT).hexdigest()[:8])

Answer = Callable[[BaseHTTPRequestHandler], None]


def whole(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.send_header("Content-Length", str(len(CONTENT)))
    request.end_headers()
    request.wfile.write(CONTENT)


def without_length(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.end_headers()
    request.wfile.write(CONTENT)


def broken_off(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.send_header("Content-Length", str(len(CONTENT)))
    request.end_headers()
    request.wfile.write(CONTENT[:1000])


def web_page(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.end_headers()
    request.wfile.write(b"<!DOCTYPE html>")


def missing(request: BaseHTTPRequestHandler) -> None:
    request.send_error(404)


@contextmanager
def server(answer: Answer) -> Iterator[tuple[str, list[str]]]:
    """A server on 127.0.0.1: its address, and the paths that were asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            asked.append(self.path)
            answer(self)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{httpd.server_port}", asked
        finally:
            httpd.shutdown()
            thread.join()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return cache_folder()


@pytest.mark.parametrize(
    "environment",
    [{"TORCH_HOME": "/a"}, {"TORCH_HOME": "~/a"}, {"XDG_CACHE_HOME": "/b"}, {}],
    ids=str,
)
def test_the_cache_is_torchs(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TORCH_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert str(cache_folder()) == f"{torch.hub.get_dir()}/checkpoints"


@pytest.mark.parametrize("answer", [whole, without_length])
def test_a_file_is_downloaded_once_into_the_cache(answer: Answer, cache: Path) -> None:
    with server(answer) as (url, asked):
        entry = replace(RIGHT, url=f"{url}/models/{RIGHT.file_name}")
        for _ in range(2):
            path = published.fetch(entry, silent)
    assert path == cache / RIGHT.file_name
    assert path.read_bytes() == CONTENT
    assert asked == [f"/models/{RIGHT.file_name}"]
    assert [item.name for item in cache.iterdir()] == [path.name]


def test_a_mirror_takes_the_place_of_the_address(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with server(whole) as (url, asked):
        monkeypatch.setenv("RESNET_SURGEON_MIRROR", f"{url}/mirror/")
        published.fetch(RIGHT, silent)
    assert asked == [f"/mirror/{RIGHT.file_name}"]


def test_a_folder_can_be_the_mirror(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESNET_SURGEON_MIRROR", str(tmp_path))
    with pytest.raises(WeightsError, match="no such file") as caught:
        published.fetch(RIGHT, silent)
    assert str(tmp_path / RIGHT.file_name) in (caught.value.hint or "")
    (tmp_path / RIGHT.file_name).write_bytes(CONTENT)
    assert published.fetch(RIGHT, silent) == tmp_path / RIGHT.file_name
    assert not cache.exists()


def test_without_a_home_folder_none_is_made_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", "~nobody-of-this-name/torch")
    with pytest.raises(AccessError, match="~nobody-of-this-name/torch: there is no home folder") as caught:
        published.fetch(RIGHT, silent)
    assert "TORCH_HOME" in (caught.value.hint or "")
    assert list(tmp_path.iterdir()) == []


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "file"))
    with pytest.raises(WeightsError, match=f"{tmp_path}/file/hub/checkpoints cannot be written") as caught:
        published.fetch(RIGHT, silent)
    assert "TORCH_HOME" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("answer", "entry", "reason"),
    [
        (whole, ENTRY, "not the published file"),
        (broken_off, RIGHT, "the connection broke after 1000 of 1280000 bytes"),
        (web_page, RIGHT, "not the published file"),
        (missing, RIGHT, "the server answers 404 Not Found"),
    ],
)
def test_a_download_that_fails_leaves_nothing(answer: Answer, entry: catalog.Entry, reason: str, cache: Path) -> None:
    with server(answer) as (url, _), pytest.raises(WeightsError, match=reason) as caught:
        published.fetch(replace(entry, url=f"{url}/{entry.file_name}"), silent)
    assert list(cache.iterdir()) == []
    assert str(cache / entry.file_name) in (caught.value.hint or "")
    assert "--weights random" in (caught.value.hint or "")


def test_without_a_network_the_error_names_address_and_cache(cache: Path) -> None:
    entry = replace(RIGHT, url=f"http://127.0.0.1:9/{RIGHT.file_name}")
    with pytest.raises(WeightsError) as caught:
        published.fetch(entry, silent)
    assert caught.value.what == f"resnet18 IMAGENET1K_V1: cannot download {entry.url}: Connection refused"


def test_progress_is_told_byte_for_byte(cache: Path) -> None:
    told: list[object] = []

    @contextmanager
    def progress(what: str, total: int | None) -> Iterator[Callable[[int], None]]:
        told.extend([what, total])
        yield told.append

    with server(whole) as (url, _):
        published.fetch(replace(RIGHT, url=f"{url}/{RIGHT.file_name}"), progress)
    what, total, *counts = told
    assert (what, total) == (f"downloading {RIGHT.file_name}", len(CONTENT))
    assert sum(count for count in counts if isinstance(count, int)) == len(CONTENT)
