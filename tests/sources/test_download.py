"""Networks are opened from the web and from the hub, whole and right or not at all."""

from __future__ import annotations

import hashlib
import http.client
import io
import json
import re
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save

import resnet_surgeon as rs
from resnet_surgeon.errors import CheckpointError, DependencyError, SurgeonError, UsageError, WeightsError
from resnet_surgeon.sources import catalog, download
from resnet_surgeon.sources.cache import cache_folder
from tests.fixtures import Run, images
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
    return [path.name for path in cache_folder().rglob("*") if path.is_file()]


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
    assert (len(asked), [file.partition("-")[2] for file in cached()]) == (1, [name])


def test_two_addresses_with_one_file_name_share_nothing(data: bytes, checkpoints: Path) -> None:
    other = (checkpoints / "bottleneck.safetensors").read_bytes()
    with server(answering(data)) as (one, _), server(answering(other)) as (two, _):
        for url, content in ((one, data), (two, other)):
            for _ in range(2):
                found = rs.open(f"{url}/model.safetensors#sha256={hashlib.sha256(content).hexdigest()}")
                assert found.manifest().source.sha256 == hashlib.sha256(content).hexdigest()
        with pytest.raises(WeightsError, match="expected 0000"):
            rs.open(f"{one}/model.safetensors#sha256={'0' * 64}")
    assert len(cached()) == 2


def test_a_file_from_elsewhere_never_takes_the_place_of_published_weights(
    data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = catalog.entry("resnet18", "DEFAULT").file_name
    digest = hashlib.sha256(data).hexdigest()
    with server(answering(data)) as (url, _), pytest.raises(CheckpointError, match="not the published file"):
        rs.open(f"{url}/{name}#sha256={digest}")
    assert not (cache_folder() / name).exists()


def test_published_weights_by_their_own_address_are_those_of_the_cache(
    data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = hashlib.sha256(data).hexdigest()[:8]
    url = f"https://download.pytorch.org/models/resnet18-{digest}.pth"
    entry = replace(catalog.entry("resnet18", "DEFAULT"), url=url, digest=digest)
    monkeypatch.setattr(catalog, "entries", lambda: (entry,))
    cache_folder().mkdir(parents=True)
    (cache_folder() / entry.file_name).write_bytes(data)
    assert rs.open(url).manifest().source.weights == entry.weights


@pytest.mark.parametrize("path", ["..%2F..%2Fx.txt", "%2Fabsolute%2Fx", "%2e%2e%5Cx", "a/..%2F"])
@pytest.mark.parametrize("moved", [False, True])
def test_no_address_or_redirect_is_stored_outside_of_its_folder(
    path: str, moved: bool, data: bytes, tmp_path: Path
) -> None:
    digest = hashlib.sha256(data).hexdigest()
    with server(answering(data, redirect=moved)) as (url, _):
        rs.open(f"{url}/{path}#sha256={digest}")
    (stored,) = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert stored.parent == cache_folder() / "resnet-surgeon"
    assert re.fullmatch(r"[0-9a-f]{16}-(x|x\.txt|resnet)", stored.name)


def asking(log: list[dict[str, str]], redirect: str | None, data: bytes) -> Callable[[BaseHTTPRequestHandler], None]:
    """An answer that notes the request's headers and, for the first path, leads elsewhere."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        log.append({**request.headers, "path": request.path})
        if redirect is not None and request.path.startswith("/first"):
            request.send_response(302)
            request.send_header("Location", redirect)
            request.end_headers()
            return
        answering(data)(request)

    return answer


def test_what_identifies_the_user_goes_to_the_one_host(data: bytes) -> None:
    asked: list[dict[str, str]] = []
    elsewhere: list[dict[str, str]] = []
    with server(asking(elsewhere, None, data)) as (other, _), server(asking(asked, f"{other}/there", data)) as (url, _):
        address = url.replace("//", "//alice:hunter2@")
        origin = rs.open(f"{address}/first/model.safetensors?token=1").manifest().source
        rs.open(f"{address}/second/model.safetensors?token=1")
    assert [request["path"] for request in asked] == [
        "/first/model.safetensors?token=1",
        "/second/model.safetensors?token=1",
    ]
    assert {request["Authorization"] for request in asked} == {"Basic YWxpY2U6aHVudGVyMg=="}
    assert ["Authorization" in request for request in elsewhere] == [False]
    assert origin.url == f"{url}/first/model.safetensors"


def test_what_identifies_the_user_is_kept_on_its_own_host(data: bytes) -> None:
    asked: list[dict[str, str]] = []
    with server(asking(asked, "/there", data)) as (url, _):
        rs.open(f"{url.replace('//', '//alice:hunter2@')}/first/model.safetensors")
    assert [request["path"] for request in asked] == ["/first/model.safetensors", "/there"]
    assert all(request["Authorization"] == "Basic YWxpY2U6aHVudGVyMg==" for request in asked)


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("ftp://127.0.0.1/x", "redirects from http to ftp"),
        ("file:///etc/passwd", "is not allowed"),
        ("http://alice:hunter2@127.0.0.1:9/x", "a URL with a user name"),
    ],
)
def test_redirects_lead_to_the_web_alone(location: str, reason: str, data: bytes) -> None:
    with server(asking([], location, data)) as (url, _), pytest.raises(WeightsError, match=reason) as caught:
        rs.open(f"{url}/first/model.safetensors")
    assert "hunter2" not in str(caught.value)


def test_https_never_becomes_http() -> None:
    request = urllib.request.Request("https://example.org/model.pth")
    with pytest.raises(ValueError, match="redirects from https to http"):
        download._Redirects().redirect_request(
            request, io.BytesIO(), 302, "Found", http.client.HTTPMessage(), "http://example.org/model.pth"
        )


@pytest.mark.parametrize("environment", ["http_proxy", "mirror"])
def test_errors_keep_secrets(environment: str, run: Run, tmp_path: Path) -> None:
    secret = "http://alice:hunter2@127.0.0.1:9/x?signature=f00dcafe"
    if environment == "mirror":
        done = run("adapt", "resnet18", "--in-ch", "1", env={"RESNET_SURGEON_MIRROR": secret})
    else:
        done = run("adapt", secret, "--in-ch", "1", "--debug", env={"http_proxy": secret})
    assert done.returncode in (1, 2)
    assert b"error:" in done.stderr
    assert b"hunter2" not in done.stderr
    assert b"f00dcafe" not in done.stderr


def test_a_server_that_stays_silent_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_PATIENCE", 0.1)
    ended = threading.Event()

    def silent(request: BaseHTTPRequestHandler) -> None:
        ended.wait()

    with server(silent) as (url, _):
        try:
            with pytest.raises(WeightsError, match="nothing within 0.1 seconds|timed out"):
                rs.open(f"{url}/model.safetensors")
        finally:
            ended.set()


def test_a_server_that_sends_a_byte_a_second_is_given_up() -> None:
    seconds = iter(range(1000))
    pace = download.Pace(lambda: next(seconds))

    def watch() -> None:
        for count in range(1000):
            pace.check(count)

    with pytest.raises(ValueError, match="less than 1024 bytes a second"):
        watch()
    assert next(seconds) < 100


def test_a_server_that_sends_steadily_is_read_to_the_end() -> None:
    seconds = iter(range(1000))
    pace = download.Pace(lambda: next(seconds))
    for count in range(0, 500 * 1500, 1500):
        pace.check(count)


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


@contextmanager
def hub_of(files: dict[str, bytes], home: Path) -> Iterator[dict[str, str]]:
    """A hub on 127.0.0.1 whose repository lab/net has these files, and the environment that leads there."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        found = re.fullmatch(r"/lab/net/resolve/(?:main|v2)/(.+)", request.path)
        content = files.get(found[1]) if found else None
        request.send_response(404 if content is None else 200)
        request.send_header("X-Repo-Commit", COMMIT)
        if content is not None:
            request.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        else:
            request.send_header("X-Error-Code", "EntryNotFound")
        request.send_header("Content-Length", str(len(content or b"")))
        request.end_headers()
        if content is not None and request.command == "GET":
            request.wfile.write(content)

    with server(answer) as (url, _):
        yield {
            "HF_ENDPOINT": url,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }


@pytest.fixture
def hub(data: bytes, tmp_path: Path) -> Iterator[dict[str, str]]:
    with hub_of({"model.safetensors": data}, tmp_path / "hub") as environment:
        yield environment


def sharded(checkpoints: Path, folder: str = "") -> dict[str, bytes]:
    """The files of a repository that holds a network in two shards."""
    tensors = load_file(checkpoints / "basic.safetensors")
    names = [*tensors]
    halves = {f"model-0000{number}-of-00002.safetensors": names[number - 1 :: 2] for number in (1, 2)}
    weight_map = {name: shard for shard, half in halves.items() for name in half}
    shards = {folder + shard: save({name: tensors[name] for name in half}) for shard, half in halves.items()}
    return {**shards, f"{folder}model.safetensors.index.json": json.dumps({"weight_map": weight_map}).encode()}


@pytest.mark.parametrize(
    ("folder", "address"),
    [("", "hf://lab/net"), ("", "hf://lab/net@v2"), ("sub/", "hf://lab/net/sub/model.safetensors.index.json")],
)
def test_a_repository_of_shards_is_fetched_whole(
    folder: str, address: str, checkpoints: Path, run: Run, tmp_path: Path
) -> None:
    with hub_of(sharded(checkpoints, folder), tmp_path / "hub") as environment:
        done = run("adapt", address, "--in-ch", "1", "--init", "scaled", "-o", "out.safetensors", env=environment)
    assert done.returncode == 0, done.stderr
    rs.open(checkpoints / "basic.safetensors").adapt(1, init="scaled").save(tmp_path / "same.safetensors")
    one, other = (load_file(tmp_path / name) for name in ("out.safetensors", "same.safetensors"))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("shard", "code", "reason"),
    [("missing.safetensors", 1, "the repository has no missing.safetensors"), ("../x", 1, "is not a file beside it")],
)
def test_a_repository_whose_index_leads_elsewhere_is_refused(
    shard: str, code: int, reason: str, run: Run, tmp_path: Path
) -> None:
    index = json.dumps({"weight_map": {"conv1.weight": shard}}).encode()
    with hub_of({"model.safetensors.index.json": index}, tmp_path / "hub") as environment:
        done = run("adapt", "hf://lab/net", "--in-ch", "1", env=environment)
    assert done.returncode == code
    assert reason in done.stderr.decode().splitlines()[0]


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
