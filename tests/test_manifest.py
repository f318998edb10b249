"""The manifest is valid by its published schema, says how each tensor came about, and is read back exactly or not."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import resnet_surgeon as rs
from resnet_surgeon.errors import CheckpointError, OperationError
from resnet_surgeon.manifest import (
    FORMAT_VERSION,
    Computed,
    Manifest,
    Provenance,
    TensorRecord,
    differing_fields,
    from_json,
    is_manifest,
    operation_from_record,
    published_schema,
)
from resnet_surgeon.network import Network

DEFAULTED = [
    ("architecture", "groups"),
    ("architecture", "stages", "0", "dilation"),
    ("operations", "0", "adapt", "init"),
]
PREPROCESSING = {"mean": [0.5] * 3, "std": [0.5] * 3, "resize_size": 256, "crop_size": 224, "interpolation": "bilinear"}
OLD = Path(__file__).parent / "data" / "0.1.0"
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


@pytest.mark.parametrize("name", ["a.b", "", "x; import os", "a\nb", "é", "x" * 65])
def test_heads_in_a_manifest_have_names_that_modules_can_have(name: str, checkpoints: Path) -> None:
    document = json.loads(rs.open(checkpoints / "basic.pth").heads([3, 5]).manifest().to_json())
    document["architecture"]["heads"][0]["name"] = name
    with pytest.raises(CheckpointError, match="a head's name has letters"):
        from_json(json.dumps(document))


def test_its_text_is_sorted_and_indented_by_one(manifest: Manifest) -> None:
    document = json.loads(manifest.to_json())
    assert manifest.to_json() == json.dumps(document, sort_keys=True, indent=1, ensure_ascii=False) + "\n"


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
        "formula": {"kind": "mean", "old": 3, "new": 1},
        "inputs": [{"how": "kept", "tensor": "conv1.weight"}],
    }
    copied = tensors["heads.head2.layer4.0.conv1.weight"]["provenance"]
    assert copied == {"how": "kept", "tensor": "layer4.0.conv1.weight"}
    fresh = tensors["heads.head2.fc.bias"]["provenance"]
    assert (fresh["how"], fresh["seed"], fresh["law"]["distribution"]) == ("initialised", 2, "uniform")


def test_it_holds_no_path_and_no_time(checkpoints: Path) -> None:
    text = rs.open(checkpoints / "basic.pth").adapt(1).manifest().to_json()
    assert str(checkpoints) not in text
    assert "/" not in text.replace("conv1 responds with 1/3 of", "")


PACKED: dict[str, Any] = {"kind": "nested", "key": None, "prefix": "", "left_out": [], "filled": []}
DAMAGE: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "a newer format": (lambda d: d.update(format_version=3), "format_version is 3, this version reads 1 to 2"),
    "a version that never was": (lambda d: d.update(format_version=0), "format_version is unknown"),
    "no format": (lambda d: d.pop("format_version"), "format_version is unknown"),
    "an unknown field": (lambda d: d.update(extra=1), "has an unknown field `extra`"),
    "a field missing": (lambda d: d.pop("inputs"), "lacks the field inputs"),
    "a number as text": (lambda d: d["inputs"].update(channels="1"), "not valid"),
    "true for a number": (lambda d: d["inputs"].update(channels=True), "inputs.channels is not a whole number"),
    "a list for an object": (lambda d: d.update(tensors=[]), "tensors is not an object"),
    "an object for a list": (lambda d: d.update(dropped={}), "dropped is not a list"),
    "an unknown word": (lambda d: d["architecture"].update(block="square"), "architecture.block is unknown"),
    "an unknown provenance": (lambda d: d["tensors"]["bn1.bias"]["provenance"].update(how="guessed"), "not valid"),
    "an infinite seed": (lambda d: d["source"].update(seed=1e999), "holds Infinity, which is not JSON"),
    "a seed with a point": (lambda d: d["source"].update(seed=1.5), "source.seed is not a whole number"),
    "a seed of 200 bits": (lambda d: d["source"].update(seed=2**200), "source.seed is not a whole number from"),
    "a seed of an operation with a point": (lambda d: d["operations"][0]["adapt"].update(seed=1.5), "seed is not"),
    "a negative size": (lambda d: d["outputs"][0].update(shape=[-10]), r"outputs\[0\].shape\[0\] is not a whole"),
    "a shape of many sizes": (lambda d: d["outputs"][0].update(shape=[1] * 9), r"outputs\[0\].shape is not a list"),
    "no output": (lambda d: d.update(outputs=[]), "outputs is not a list of at least 1"),
    "no channels": (lambda d: d["inputs"].update(channels=0), "inputs.channels is not a whole number of at least 1"),
    "a digest that is none": (lambda d: d["source"].update(sha256="0" * 63), "source.sha256 is not a SHA-256"),
    "an upper case digest": (lambda d: d["source"].update(sha256="A" * 64), "source.sha256 is not a SHA-256"),
    "a path for a file": (lambda d: d["source"].update(file="../basic.pth"), "source.file is not the name of a file"),
    "a folder for a file": (lambda d: d["source"].update(file=".."), "source.file is not the name of a file"),
    "a container of another kind": (lambda d: d["source"].update(container="gguf"), "source.container is unknown"),
    "an address of another kind": (lambda d: d["source"].update(url="file:///etc/passwd"), "source.url is not a URL"),
    "an address with a line more": (lambda d: d["source"].update(url="https://a/b\nc"), "source.url is not a URL"),
    "code for an architecture": (lambda d: d["source"].update(architecture="a; b"), "source.architecture is not a na"),
    "code for an output": (lambda d: d["outputs"][0].update(name="import os"), r"outputs\[0\].name is not the name"),
    "a category of two lines": (
        lambda d: d["outputs"][0].update(categories=["a\nb"]),
        r"categories\[0\] is not one li",
    ),
    "words for a packing": (lambda d: d["source"].update(wrapping=PACKED | {"kind": "\u202e"}), "wrapping.kind is not"),
    "a warning that turns": (
        lambda d: d["source"].update(warnings=["\u202e"]),
        r"source.warnings\[0\] is not one line",
    ),
    "words for a version": (lambda d: d["versions"].update(resnet_surgeon="a b"), "versions.*is not a version"),
    "a dtype of two lines": (
        lambda d: d["tensors"]["bn1.bias"].update(dtype="F\n32"),
        "bn1.bias.*dtype is not a dtype",
    ),
    "words for a formula": (
        lambda d: d["tensors"]["conv1.weight"]["provenance"].update(formula="<b>mean</b>"),
        "conv1.weight.*formula is not an object",
    ),
    "words for a formula in version 1": (
        lambda d: (
            d.update(format_version=1),
            d["tensors"]["conv1.weight"]["provenance"].update(formula="mean over the 3 input channels"),
        ),
        "conv1.weight.*formula is not an object",
    ),
    "a formula of nothing": (
        lambda d: d["tensors"]["conv1.weight"]["provenance"]["formula"].update(old=0),
        "formula.old is not a whole number of at least 1",
    ),
    "a matrix of rows that differ": (
        lambda d: d["tensors"]["conv1.weight"]["provenance"].update(formula={"kind": "mix", "matrix": [[1], [1, 2]]}),
        "a matrix has rows of one length",
    ),
    "a tensor with a path for its name": (
        lambda d: d["tensors"].update({"../x": d["tensors"]["bn1.bias"]}),
        "a tensor",
    ),
    "a name of a million letters": (lambda d: d.update(dropped=["x" * 10**6]), r"dropped\[0\] is not text of at most"),
    "half of a character": (lambda d: d.update(dropped=["\ud800"]), "its manifest holds text that is not Unicode"),
    "an unknown operation": (lambda d: d.update(operations=[{"prune": {}}]), "an operation is one of adapt, "),
    "an operation with a wrong option": (lambda d: d["operations"][0]["adapt"].update(in_channels=0), "at least 1"),
    "another source by its place": (
        lambda d: d.update(operations=[{"average": {"others": ["/etc/passwd"], "weights": None}}]),
        "operation average: it names another source by its number",
    ),
    "a tensor of a source that there is not": (
        lambda d: d["tensors"]["bn1.bias"]["provenance"].update(source=1),
        "it has a tensor of another source than its 1",
    ),
    "a trained tensor of a source that there is not": (
        lambda d: d["tensors"]["bn1.bias"].update(
            provenance={"how": "trained", "began": d["tensors"]["bn1.bias"]["provenance"] | {"source": 1}}
        ),
        "it has a tensor of another source than its 1",
    ),
    "an endless stage": (
        lambda d: d["architecture"]["stages"][0].update(blocks=10**9),
        "blocks is not a whole number of at most 65536",
    ),
    "stages that do not fit": (lambda d: d["architecture"]["stages"][1].update(in_channels=7), "takes the channels"),
    "a head that cannot be named": (
        lambda d: d["architecture"]["heads"][0].update(classes=0),
        "classes is not a whole number of at least 1",
    ),
}


@pytest.mark.parametrize(("damage", "reason"), DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_manifest_is_refused(
    damage: Callable[[dict[str, Any]], object], reason: str, checkpoints: Path
) -> None:
    document = json.loads(rs.open(checkpoints / "basic.pth").adapt(1).manifest().to_json())
    damage(document)
    with pytest.raises(CheckpointError, match=reason):
        from_json(json.dumps(document))


def test_a_manifest_that_could_not_be_read_again_is_not_valid(checkpoints: Path) -> None:
    manifest = rs.open(checkpoints / "basic.pth").manifest()
    manifest.check()
    with pytest.raises(CheckpointError, match=r"its manifest would not be valid: notes\[0\] is not one line"):
        replace(manifest, notes=("one\ntwo",)).check()


@pytest.mark.parametrize("again", ['"groups": 1, "groups": 1', '"groups": 2, "groups": 1', '"groups": NaN'])
def test_a_manifest_that_means_two_things_or_nothing_is_refused(again: str, checkpoints: Path) -> None:
    text = rs.open(checkpoints / "basic.pth").adapt(1).manifest().to_json()
    with pytest.raises(CheckpointError, match="holds the key `groups` twice|holds NaN"):
        from_json(text.replace('"groups": 1', again))


def test_a_manifest_has_a_longest(monkeypatch: pytest.MonkeyPatch, checkpoints: Path) -> None:
    manifest = rs.open(checkpoints / "basic.pth").adapt(1).manifest()
    text = manifest.to_json()
    monkeypatch.setattr("resnet_surgeon.manifest.MANIFEST_LIMIT", len(text) - 1)
    with pytest.raises(CheckpointError, match="its manifest is longer than"):
        from_json(text)
    with pytest.raises(CheckpointError, match="its manifest would be longer than"):
        manifest.to_json()


@pytest.mark.parametrize("name", sorted(path.name for path in OLD.glob("*.json")))
def test_what_0_1_0_wrote_is_read_as_today_it_would_be_written(name: str) -> None:
    """All that it says stays, in the same words but for formulas, whose words are those of the data."""
    text = (OLD / name).read_text("utf-8")
    manifest = from_json(text)
    assert from_json(manifest.to_json()) == manifest
    written = in_words(json.loads(manifest.to_json()), manifest.tensors)
    assert subset(json.loads(text) | {"format_version": FORMAT_VERSION}, written)


def in_words(document: dict[str, Any], records: Mapping[str, TensorRecord]) -> dict[str, Any]:
    """The document with its formulas as 0.1.0 wrote them."""

    def put(written: dict[str, Any], provenance: Provenance) -> None:
        if isinstance(provenance, Computed):
            written["formula"] = str(provenance.formula)
            for inner, one in zip(written["inputs"], provenance.inputs, strict=True):
                put(inner, one)

    for name, record in records.items():
        put(document["tensors"][name]["provenance"], record.provenance)
    return document


def subset(old: Any, new: Any) -> bool:
    """Whether nothing of the old document has gone or changed."""
    if isinstance(old, dict):
        return old.keys() <= new.keys() and all(subset(old[name], new[name]) for name in old)
    if isinstance(old, list):
        return len(old) == len(new) and all(map(subset, old, new))
    return bool(old == new)


@pytest.mark.parametrize("path", DEFAULTED, ids="-".join)
def test_a_field_that_is_missing_has_its_default(path: tuple[str, ...], checkpoints: Path) -> None:
    manifest = rs.open(checkpoints / "basic.pth").adapt(1).manifest()
    document = json.loads(manifest.to_json())
    place = document
    for part in path[:-1]:
        place = place[int(part) if isinstance(place, list) else part]
    del place[path[-1]]
    assert from_json(json.dumps(document)) == manifest


# What 0.1.0 took from names of files and tensors, and from its command line.
LEGAL: dict[str, Callable[[dict[str, Any]], object]] = {
    "a file of any name": lambda d: d["source"].update(file="a\x1b[2J\u202eb\n\ufffd.pth"),
    "a packing of any name": lambda d: d["source"].update(
        wrapping=PACKED | {"key": "net\u202e", "prefix": "\n.", "left_out": ["\x1b]0;x\x07", "", "🙂"]}
    ),
    "tensors of any name": lambda d: d["tensors"]["bn1.bias"]["provenance"].update(tensor="module\n.\u202e"),
    "what was dropped, of any name": lambda d: d.update(dropped=["\0", "\u2066"]),
    "a negative seed": lambda d: d["operations"][0]["adapt"].update(seed=-5),
    "a seed of 128 bits": lambda d: d["operations"][0]["adapt"].update(seed=2**128 - 1),
    "a stream without a name": lambda d: d["source"].update(file=""),
}


@pytest.mark.parametrize("change", LEGAL.values(), ids=LEGAL.keys())
def test_what_0_1_0_could_write_is_read(change: Callable[[dict[str, Any]], object], checkpoints: Path) -> None:
    document = json.loads(rs.open(checkpoints / "basic.pth").adapt(1).manifest().to_json())
    change(document)
    assert subset(document, json.loads(from_json(json.dumps(document)).to_json()))


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("https://user:word@host.example/a/b.pth?token=1#x", "https://host.example/a/b.pth"),
        ("https://host.example/b.pth?download=true", "https://host.example/b.pth"),
        ("hf://owner/name/file@main", "hf://owner/name/file@main"),
        ("https://host.example/a@b.pth", "https://host.example/a@b.pth"),
    ],
)
def test_an_address_is_told_without_what_may_be_secret(written: str, read: str, checkpoints: Path) -> None:
    document = json.loads(rs.open(checkpoints / "basic.pth").adapt(1).manifest().to_json())
    document["source"]["url"] = written
    assert from_json(json.dumps(document)).source.url == read


def test_operations_on_top_of_each_other_have_an_end(checkpoints: Path) -> None:
    network = rs.open(checkpoints / "basic.pth")
    for number in range(100):
        network = network.adapt(1 + number % 2)
    assert from_json(network.manifest().to_json()) == network.manifest()
    with pytest.raises(OperationError, match="adapt: 100 operations were applied already"):
        network.adapt(1)


def test_formulas_of_formulas_have_an_end(checkpoints: Path) -> None:
    document = json.loads(rs.open(checkpoints / "basic.pth").adapt(1).manifest().to_json())
    formula = document["tensors"]["conv1.weight"]["provenance"]
    for _ in range(100):
        formula = {**formula, "inputs": [formula]}
    document["tensors"]["conv1.weight"]["provenance"] = formula
    with pytest.raises(CheckpointError, match="formulas of formulas|nested too deeply"):
        from_json(json.dumps(document))


@pytest.mark.parametrize(("last", "is_read"), [(10, True), (11, False)])
def test_a_tensor_is_made_from_a_thousand_others_at_most(last: int, is_read: bool, checkpoints: Path) -> None:
    """Ten, of which each is made from nine, and each of these from ten."""

    def sum_of(inputs: list[Any]) -> dict[str, Any]:
        formula = {"kind": "combination", "factors": [1.0] * len(inputs)}
        return {"how": "computed", "formula": formula, "inputs": inputs}

    kept = {"how": "kept", "tensor": "conv1.weight"}
    document = json.loads(rs.open(checkpoints / "basic.pth").manifest().to_json())
    nine, odd = sum_of([sum_of([kept] * 10)] * 9), sum_of([sum_of([kept] * count) for count in [10] * 8 + [last]])
    made = sum_of([nine] * 9 + [odd])
    document["tensors"]["conv1.weight"]["provenance"] = made
    if is_read:
        assert from_json(json.dumps(document)).tensors["conv1.weight"]
    else:
        with pytest.raises(CheckpointError, match="or of more than 1000 tensors"):
            from_json(json.dumps(document))


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (lambda document: document["architecture"]["stages"][1].update(width=3), "architecture.stages[1].width"),
        (lambda document: document["inputs"].update(preprocessing=PREPROCESSING), "inputs.preprocessing"),
        (lambda document: document["dropped"].append("x"), "dropped"),
        (lambda document: document["tensors"].pop("fc.bias"), "tensors.fc.bias"),
    ],
    ids=["a number", "an object for nothing", "a longer list", "a key less"],
)
def test_where_two_manifests_differ_is_told_by_path(
    change: Callable[[dict[str, Any]], object], where: str, checkpoints: Path
) -> None:
    manifest = rs.open(checkpoints / "basic.pth").manifest()
    document = json.loads(manifest.to_json())
    change(document)
    other = from_json(json.dumps(document))
    assert differing_fields(manifest, other) == differing_fields(other, manifest) == (where,)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000])
def test_what_is_no_manifest_is_refused(text: str) -> None:
    with pytest.raises(CheckpointError):
        from_json(text)


def test_a_document_of_endless_structure_is_no_manifest_and_takes_no_memory() -> None:
    versions = b'{"format_version": 2, "versions": {"resnet_surgeon": "1"}, "x": '
    assert is_manifest(versions + b"[]}")
    assert not is_manifest(versions + b"[" + b"{}," * 3_000_000 + b"{}]}")
