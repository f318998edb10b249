"""Of an address people and manifests see scheme, host and path; secrets go to its own host alone."""

from __future__ import annotations

import base64

import pytest

import resnet_surgeon as rs
from resnet_surgeon.errors import UsageError
from resnet_surgeon.sources.url import parse, without_secrets

SECRETS = ("hunter2", "alice", "signature", "sha256")
FULL = "https://alice:hunter2@Example.org:8443/a%20b/model.pth?X-signature=1#sha256=0123456789ab"


def test_secrets_are_neither_shown_nor_in_a_name() -> None:
    url = parse(FULL)
    assert url.shown == "https://example.org:8443/a%20b/model.pth"
    assert url.name == "model.pth"
    assert not any(secret in url.cache_name for secret in SECRETS)


def test_the_server_is_asked_with_query_and_authorization() -> None:
    url = parse(FULL)
    assert url.request == "https://example.org:8443/a%20b/model.pth?X-signature=1"
    assert url.authorization == f"Basic {base64.b64encode(b'alice:hunter2').decode()}"
    assert parse("https://example.org/model.pth").authorization is None


@pytest.mark.parametrize(
    "address",
    [
        "https://alice:hunter2@/x",
        "https://alice:hun/ter2@host/x",
        "https://alice:hunter2@host:port/x",
        "https://alice:hunter2@host/x y",
        "https://alice:hunter2@host/x\r\ny",
        "https://alice:hunter2@[::1/x",
        "https://alice:hunter2@host/x#md5=1",
        "https://alice:hunter2@host/x#sha256=12",
        "ftp://alice:hunter2@host/x",
        "s3://alice:hunter2@host/x",
        "hf://alice:hunter2@host/x/y/z@",
    ],
)
def test_an_address_that_is_refused_keeps_its_secrets(address: str) -> None:
    with pytest.raises(UsageError) as caught:
        rs.open(address)
    text = f"{caught.value} {caught.value.hint}"
    assert not any(word in text for word in ("hunter2", "hun", "ter2", "alice:"))


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("..%2F..%2Fx.txt", "x.txt"),
        ("%2Fabsolute%2Fx", "x"),
        ("a%5C..%5Cx", "x"),
        ("..", "resnet"),
        ("", "resnet"),
        ("%00x", "x"),
        ("m%C3%A9.pth", "m_.pth"),
    ],
)
def test_the_name_in_an_address_is_one_safe_component(path: str, name: str) -> None:
    assert parse(f"https://host/files/{path}").name == name


def test_every_address_and_every_digest_has_a_place_of_its_own_in_the_cache() -> None:
    addresses = [
        "https://one.org/model.pth#sha256=00000000",
        "https://two.org/model.pth#sha256=00000000",
        "https://one.org/other/model.pth#sha256=00000000",
        "https://one.org/model.pth#sha256=11111111",
        "http://one.org/model.pth#sha256=00000000",
    ]
    assert len({parse(address).cache_name for address in addresses}) == len(addresses)
    assert parse(addresses[0]).cache_name == parse(addresses[0].replace("#", "?token=1#")).cache_name


@pytest.mark.parametrize(
    ("address", "digest"),
    [
        ("https://host/resnet50-0676ba61.pth", "0676ba61"),
        ("https://host/x.pth#sha256=0123456789ABCDEF", "0123456789abcdef"),
        ("https://host/x-0676ba61.pth#sha256=12345678", "12345678"),
        ("https://host/resnet50.pth", None),
    ],
)
def test_a_digest_is_promised_by_fragment_or_name(address: str, digest: str | None) -> None:
    assert parse(address).digest == digest


def test_secrets_are_taken_out_of_a_library_s_words() -> None:
    text = "403 for url: https://cdn.org/x?Policy=abc&Signature=def (at http://u:p@proxy:3128/)"
    assert without_secrets(text) == "403 for url: https://cdn.org/x (at http://proxy:3128/)"
