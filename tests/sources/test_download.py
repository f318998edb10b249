"""Networks are opened from the web and from the hub, whole and right or not at all."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
import torch

import resnet_surgeon as rs
from resnet_surgeon.errors import CheckpointError, DependencyError, SurgeonError, UsageError, WeightsError
from resnet_surgeon.sources.download import cache_folder
from tests.conftest import Run, images
from tests.sources.test_published import server


@pytest.fixture
def data(checkpoints: Path) -> bytes:
    return (checkpoints / "basic.safetensors").read_bytes()


@pytest.fixture(autouse=True)
def _empty_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


def answering(
    content: bytes, length: int | None = None, redirect: bool = False
) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(request: BaseHTTPRequestHandler) -> None:
        if redirect and not request.path.startswith("/moved"):
            request.send_response(302)
            request.send_header("Location", f"/moved{request.path}")
            request.end_headers()
            return
        request.send_response(200)
        request.send_header("Content-Length", str(len(content) if length is None else length))
        request.end_headers()
        request.wfile.write(content)

    return answer


def cached() -> list[str]:
    return [path.name for path in cache_folder().iterdir()] if cache_folder().exists() else []


@pytest.mark.parametrize("redirect", [False, True])
def test_a_url_without_a_digest_is_read_and_not_kept(data: bytes, redirect: bool) -> None:
    with server(answering(data, redirect=redirect)) as (url, _):
        network = rs.open(f"{url}/files/model.safetensors")
        origin = network.manifest().source
    assert (origin.file, origin.url) == ("model.safetensors", f"{url}/files/model.safetensors")
    assert origin.sha256 == hashlib.sha256(data).hexdigest()
    assert network.adapt(1).default_name == "model-in1.safetensors"
    assert cached() == []


@pytest.mark.parametrize("place", ["fragment", "name"])
def test_a_url_with_a_digest_is_checked_and_kept(data: bytes, place: str, basic: torch.nn.Module) -> None:
    digest = hashlib.sha256(data).hexdigest()
    name = f"model-{digest[:8]}.safetensors" if place == "name" else "model.safetensors"
    fragment = f"#sha256={digest}" if place == "fragment" else ""
    with server(answering(data)) as (url, asked):
        for _ in range(2):
            model = rs.load(f"{url}/{name}{fragment}").eval()
    with torch.no_grad():
        assert torch.equal(model(images()), basic(images()))
    assert (len(asked), cached()) == (1, [name])


def test_a_cached_file_of_another_digest_is_refused(data: bytes) -> None:
    wrong = "0" * 64
    with server(answering(data)) as (url, _):
        rs.open(f"{url}/model.safetensors#sha256={hashlib.sha256(data).hexdigest()}")
        network = rs.open(f"{url}/model.safetensors#sha256={wrong}")
        with pytest.raises(CheckpointError, match="expected 0000"):
            network.manifest()


BAD: list[tuple[str, Callable[[bytes], Callable[[BaseHTTPRequestHandler], None]], type[SurgeonError], str]] = [
    ("broken off", lambda data: answering(data[:1000], length=len(data)), WeightsError, "broke after 1000 of"),
    ("too long", lambda data: answering(data + b"more", length=len(data) + 4), CheckpointError, "4 bytes follow"),
    ("shorter than said", lambda data: answering(data, length=1000), CheckpointError, "truncated"),
    ("a web page", lambda data: answering(b"<!DOCTYPE html><html>"), CheckpointError, "a web page"),
    ("nothing", lambda data: answering(b""), CheckpointError, "it is empty"),
    ("missing", lambda data: lambda request: request.send_error(404), WeightsError, "answers 404 Not Found"),
]


@pytest.mark.parametrize(("answer", "error", "reason"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_what_servers_do_wrong_is_told(
    answer: Callable[[bytes], Callable[[BaseHTTPRequestHandler], None]],
    error: type[SurgeonError],
    reason: str,
    data: bytes,
) -> None:
    with server(answer(data)) as (url, _), pytest.raises(error, match=reason):
        rs.open(f"{url}/model.safetensors")
    assert cached() == []


def test_a_download_with_a_wrong_digest_is_not_kept(data: bytes) -> None:
    with server(answering(data)) as (url, _), pytest.raises(WeightsError, match="expected 12345678"):
        rs.open(f"{url}/model-12345678.safetensors")
    assert cached() == []


def test_without_a_server_the_address_is_named() -> None:
    with pytest.raises(WeightsError, match=r"http://127.0.0.1:9/model.pth: cannot download: Connection refused"):
        rs.open("http://127.0.0.1:9/model.pth")


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/model.pth#md5=1", "hf://nobody", "hf://a/b/c@"])
def test_addresses_of_another_form_are_refused(address: str) -> None:
    with pytest.raises(UsageError):
        rs.open(address)


COMMIT = "c0ffee" * 6 + "c0ff"


@pytest.fixture
def hub(data: bytes, tmp_path: Path) -> Iterator[dict[str, str]]:
    """A hub on 127.0.0.1 whose repository lab/net has model.safetensors, and the environment that leads there."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        found = re.fullmatch(r"/lab/net/resolve/(main|v2)/model\.safetensors", request.path)
        request.send_response(200 if found else 404)
        request.send_header("X-Repo-Commit", COMMIT)
        if found:
            request.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        else:
            request.send_header("X-Error-Code", "EntryNotFound")
        request.send_header("Content-Length", str(len(data) if found else 0))
        request.end_headers()
        if found and request.command == "GET":
            request.wfile.write(data)

    with server(answer) as (url, _):
        yield {
            "HF_ENDPOINT": url,
            "HF_HOME": str(tmp_path / "hub"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }


@pytest.mark.parametrize(
    "address", ["hf://lab/net", "hf://lab/net/model.safetensors", "hf://lab/net/model.safetensors@v2"]
)
def test_a_network_comes_from_the_hub_through_its_own_cache(
    address: str, hub: dict[str, str], data: bytes, run: Run, tmp_path: Path
) -> None:
    for environment in (hub, {**hub, "HF_HUB_OFFLINE": "1"}):
        done = run("adapt", address, "--in-ch", "1", "--force", env=environment)
        assert (done.returncode, done.stdout) == (0, b"net-in1.safetensors\n"), done.stderr
    source = json.loads((tmp_path / "net-in1.json").read_text("utf-8"))["source"]
    assert (source["url"], source["file"]) == (address, "model.safetensors")
    assert source["sha256"] == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize(
    ("address", "environment", "reason"),
    [
        ("hf://lab/net/other.safetensors", {}, "the repository has no other.safetensors"),
        ("hf://lab/net", {"HF_HUB_OFFLINE": "1"}, "cannot be reached, and its cache lacks the file"),
    ],
)
def test_what_the_hub_lacks_is_one_line(
    address: str, environment: dict[str, str], reason: str, hub: dict[str, str], run: Run
) -> None:
    done = run("adapt", address, "--in-ch", "1", env={**hub, **environment})
    assert done.returncode == 1
    assert reason in done.stderr.decode().splitlines()[0]
    assert len(done.stderr.splitlines()) <= 2


def test_without_huggingface_hub_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(DependencyError) as caught:
        rs.open("hf://lab/net")
    assert caught.value.hint == "pip install 'resnet-surgeon[hub]'"
