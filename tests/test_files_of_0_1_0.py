"""What 0.1.0 wrote stays readable: its manifests make its files to the bit, which load, prove and can be edited."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import resnet_surgeon as rs
from resnet_surgeon import manifest as documents
from resnet_surgeon.architecture.parameters import Parameter, parameters
from resnet_surgeon.architecture.variants import VARIANTS
from resnet_surgeon.formats import safetensors
from resnet_surgeon.formats.tensors import Computed, Initialised, LazyTensor, chunks
from resnet_surgeon.manifest import Manifest, Provenance
from resnet_surgeon.sources.progress import silent
from resnet_surgeon.verification import document
from resnet_surgeon.verification.case import open_case

DATA = Path(__file__).parent / "data" / "0.1.0"
LINES = [line.split() for line in (DATA / "digests.txt").read_text("utf-8").splitlines()]
DIGESTS = {name: digest for digest, name in LINES}
NAMES = sorted(name.removesuffix(".safetensors") for name in DIGESTS)


@dataclass(frozen=True)
class Old:
    path: Path
    text: str
    manifest: Manifest


def drawn(
    provenance: Provenance, dtype: str, shape: tuple[int, ...], seed: int, source: Mapping[str, Parameter]
) -> LazyTensor:
    """The tensor that a record of 0.1.0 describes, of a network of random weights."""
    if isinstance(provenance, documents.Kept):
        parameter = source[provenance.tensor]
        return Initialised(parameter.dtype, parameter.shape, parameter.law, seed, parameter.name)
    if isinstance(provenance, documents.Initialised):
        return Initialised(dtype, shape, provenance.law, provenance.seed, provenance.stream)
    assert isinstance(provenance, documents.Computed)
    (inner,) = provenance.inputs
    (before,) = provenance.formula.input_shapes(shape)
    return Computed(dtype, shape, (drawn(inner, dtype, before, seed, source),), provenance.formula)


def write(path: Path, header: bytes, tensors: Iterable[LazyTensor]) -> None:
    with path.open("wb") as file:
        file.write(header)
        for tensor in tensors:
            for chunk in chunks(tensor):
                file.write(chunk)


@pytest.fixture(scope="module", params=NAMES)
def old(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Old:
    """A file of 0.1.0 as it was, made again from its manifest alone."""
    text = (DATA / f"{request.param}.json").read_text("utf-8")
    manifest = documents.from_json(text)
    assert manifest.source.architecture is not None
    source = {p.name: p for p in parameters(VARIANTS[manifest.source.architecture])}
    records = manifest.tensors
    tensors = safetensors.in_file_order(
        {
            p.name: drawn(records[p.name].provenance, records[p.name].dtype, p.shape, manifest.source.seed or 0, source)
            for p in parameters(manifest.architecture)
        }
    )
    path = tmp_path_factory.mktemp("old") / f"{request.param}.safetensors"
    header = safetensors.header(tensors, {"format": "pt", "resnet_surgeon.manifest": text})
    write(path, header, tensors.values())
    path.with_suffix(".json").write_text(text, "utf-8")
    return Old(path, text, manifest)


def test_a_manifest_of_0_1_0_makes_the_very_file_that_0_1_0_wrote(old: Old) -> None:
    assert hashlib.sha256(old.path.read_bytes()).hexdigest() == DIGESTS[old.path.name]


def test_it_is_written_again_with_a_manifest_of_today(old: Old, tmp_path: Path) -> None:
    again = rs.open(old.path).save(tmp_path / "again.safetensors")
    before, after = load_file(old.path), load_file(again)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert documents.from_json(again.with_suffix(".json").read_text("utf-8")) == old.manifest
    checks = document.checks(open_case(again, None, {}, silent))
    assert [check for check in checks if check.outcome == "failed"] == []


def test_it_loads(old: Old) -> None:
    model = rs.load(old.path).eval()
    with torch.no_grad():
        outputs = model(torch.zeros(1, old.manifest.inputs.channels, 64, 64))
    assert len(outputs if isinstance(outputs, list) else [outputs]) == len(old.manifest.outputs)


def test_it_proves(old: Old) -> None:
    assert rs.verify(old.path).failed == ()


def test_it_can_be_edited_and_proves_then(old: Old, tmp_path: Path) -> None:
    network = rs.open(old.path).adapt(2).adapt(3, init="random", seed=1)
    heads = network.architecture.heads
    network = network.remove(layers=["heads" if len(heads) > 1 else "fc"]) if heads else network
    made = network.heads([2, 4], own="none").save(tmp_path / "new.safetensors")
    assert rs.verify(made).failed == ()


def test_a_file_of_0_1_0_proves_against_its_source() -> None:
    proof = rs.verify(DATA / "small.safetensors", against=DATA / "small.pth")
    assert proof.failed == ()
    assert {check.name for check in proof.checks if check.outcome == "proven"} >= {
        "source",
        "history",
        "kept",
        "computed",
    }


def test_a_file_of_0_1_0_can_be_edited(tmp_path: Path) -> None:
    made = rs.open(DATA / "small.safetensors").heads([3]).save(tmp_path / "small.safetensors")
    assert rs.verify(made, against=DATA / "small.pth").failed == ()
