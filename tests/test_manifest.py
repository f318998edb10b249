"""The manifest is valid by its published schema, says how each tensor came about, and is read back exactly or not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import resnet_surgeon as rs
from resnet_surgeon.errors import CheckpointError
from resnet_surgeon.manifest import Manifest, from_json, operation_from_record, published_schema
from resnet_surgeon.network import Network

CHAINS: dict[str, Callable[[Network], Network]] = {
    "nothing": lambda network: network,
    "adapt": lambda network: network.adapt(1),
    "adapt twice": lambda network: network.adapt(4, init="repeat").adapt(2, init="random", seed=3),
    "remove": lambda network: network.remove(last=3),
    "remove a block and maxpool": lambda network: network.remove(layers=["maxpool", "layer3.1"]),
    "all but conv1": lambda network: network.remove(last=9),
    "one head": lambda network: network.heads([4], names=["grade"]),
    "heads": lambda network: network.heads([3, 5]),
    "everything": lambda network: network.adapt(1).remove(last=2).heads([3, 5], names=["a", "b"], own="layer3"),
}


@pytest.fixture(params=[*CHAINS.values()], ids=[*CHAINS])
def manifest(request: pytest.FixtureRequest, checkpoints: Path) -> Manifest:
    result: Manifest = request.param(rs.open(checkpoints / "bottleneck.pth")).manifest()
    return result


def test_every_manifest_is_valid_by_the_published_schema(manifest: Manifest) -> None:
    jsonschema.Draft202012Validator(published_schema()).validate(json.loads(manifest.to_json()))


def test_every_manifest_is_read_back_as_it_was(manifest: Manifest) -> None:
    assert from_json(manifest.to_json()) == manifest


@pytest.mark.parametrize("name", ["a.b", "", "training", "x; import os", "__class__", "a\nb", "é", "x" * 65])
def test_heads_in_a_manifest_have_names_that_modules_can_have(name: str, checkpoints: Path) -> None:
    document = json.loads(rs.open(checkpoints / "basic.pth").heads([3, 5]).manifest().to_json())
    document["architecture"]["heads"][0]["name"] = name
    with pytest.raises(CheckpointError, match="a head's name is one of"):
        from_json(json.dumps(document))


def test_its_operations_can_be_applied_again(manifest: Manifest, checkpoints: Path) -> None:
    network = rs.open(checkpoints / "bottleneck.pth")
    for record in manifest.operations:
        network = network.apply(operation_from_record(record))
    assert network.manifest() == manifest


def test_the_published_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(published_schema())


def test_what_a_person_reads_in_it(checkpoints: Path) -> None:
    network = rs.open(checkpoints / "bottleneck.pth").adapt(1).remove(last=1).heads([3, 5], seed=2)
    document = json.loads(network.manifest().to_json())
    assert document["operations"] == [
        {"adapt": {"in_channels": 1, "init": "mean", "seed": 0}},
        {"remove": {"last": None, "layers": ["fc"]}},
        {"heads": {"classes": [3, 5], "names": ["head1", "head2"], "own": "layer4", "seed": 2}},
    ]
    assert document["outputs"] == [
        {"name": "head1", "kind": "logits", "shape": [3], "classes": 3, "categories": None},
        {"name": "head2", "kind": "logits", "shape": [5], "classes": 5, "categories": None},
    ]
    assert document["inputs"] == {"channels": 1, "preprocessing": None}
    assert document["dropped"] == ["fc.bias", "fc.weight"]
    tensors = document["tensors"]
    assert tensors["bn1.bias"] == {"dtype": "F32", "provenance": {"how": "kept", "tensor": "bn1.bias"}}
    assert tensors["conv1.weight"]["provenance"] == {
        "how": "computed",
        "formula": "mean over the 3 input channels, for each of 1",
        "inputs": [{"how": "kept", "tensor": "conv1.weight"}],
    }
    copied = tensors["heads.head2.layer4.0.conv1.weight"]["provenance"]
    assert copied == {"how": "kept", "tensor": "layer4.0.conv1.weight"}
    fresh = tensors["heads.head2.fc.bias"]["provenance"]
    assert (fresh["how"], fresh["seed"], fresh["law"]["distribution"]) == ("initialised", 2, "uniform")


def test_it_holds_no_path_and_no_time(checkpoints: Path) -> None:
    text = rs.open(checkpoints / "basic.pth").adapt(1).manifest().to_json()
    assert str(checkpoints) not in text
    assert "/" not in text.replace("/ ", "")


DAMAGE: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "a newer format": (lambda d: d.update(format_version=2), "format_version is 2"),
    "no format": (lambda d: d.pop("format_version"), "format_version is unknown"),
    "an unknown field": (lambda d: d.update(extra=1), "has an unknown field extra"),
    "a field missing": (lambda d: d.pop("inputs"), "lacks the field inputs"),
    "a number as text": (lambda d: d["inputs"].update(channels="1"), "not valid"),
    "true for a number": (lambda d: d["inputs"].update(channels=True), "inputs.channels is no int"),
    "a list for an object": (lambda d: d.update(tensors=[]), "tensors is no object"),
    "an object for a list": (lambda d: d.update(dropped={}), "dropped is no list"),
    "an unknown word": (lambda d: d["architecture"].update(block="square"), "architecture.block is unknown"),
    "an unknown provenance": (lambda d: d["tensors"]["bn1.bias"]["provenance"].update(how="guessed"), "not valid"),
    "an infinite seed": (lambda d: d["source"].update(seed=1e999), "source.seed"),
    "an unknown operation": (lambda d: d.update(operations=[{"prune": {}}]), "one of adapt, remove, heads"),
    "an operation with a wrong option": (lambda d: d["operations"][0]["adapt"].update(in_channels=0), "at least 1"),
    "an endless stage": (lambda d: d["architecture"]["stages"][0].update(blocks=10**9), "between 1 and"),
    "stages that do not fit": (lambda d: d["architecture"]["stages"][1].update(in_channels=7), "takes the channels"),
    "a head that cannot be named": (lambda d: d["architecture"]["heads"][0].update(classes=0), "at least one class"),
}


@pytest.mark.parametrize(("damage", "reason"), DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_manifest_is_refused(
    damage: Callable[[dict[str, Any]], object], reason: str, checkpoints: Path
) -> None:
    document = json.loads(rs.open(checkpoints / "basic.pth").adapt(1).manifest().to_json())
    damage(document)
    with pytest.raises(CheckpointError, match=reason):
        from_json(json.dumps(document))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000])
def test_what_is_no_manifest_is_refused(text: str) -> None:
    with pytest.raises(CheckpointError):
        from_json(text)
