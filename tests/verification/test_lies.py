"""No lie passes: each is caught by the name of the field it is told in, and every check can fail."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck

import resnet_surgeon as rs
from resnet_surgeon.architecture.facts import KINDS, applied
from resnet_surgeon.architecture.spec import Architecture, Head
from resnet_surgeon.architecture.variants import resnet
from resnet_surgeon.arithmetic import sampling
from resnet_surgeon.arithmetic.laws import Constant, Law, Normal, Uniform
from resnet_surgeon.module import ResNet, without_numbers
from resnet_surgeon.sources.progress import silent
from resnet_surgeon.sources.sidecar import MANIFEST_LIMIT
from resnet_surgeon.verification import case, function, independence, whole
from resnet_surgeon.verification.modules import as_torchvision, torchvision_has
from resnet_surgeon.verification.tensors import deviation_of
from tests.fixtures import small_network
from tests.verification.draws import KEY, Lie, lies, manifest_of, published_as, rewrite


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with resnet50's published file, as far as the catalogue can tell, and the same under no name."""
    folder = tmp_path_factory.mktemp("sources")
    state = small_network(Bottleneck, (1, 1, 1, 1), width_per_group=16, classes=1000).state_dict()
    for name in ("resnet50-11ad3fa6.pth", "source.pth"):
        torch.save(state, folder / name)
    return folder


def made(name: str, sources: Path, tmp_path: Path) -> Path:
    return rs.open(sources / name).adapt(2, init="repeat").save(tmp_path / "model.safetensors")


NAMES = [
    "bottleneck_stride", "maxpool", "stem_stride", "dilation", "first_dilation", "preprocessing", "no preprocessing",
    "categories",
]  # fmt: skip


@pytest.mark.parametrize("name", ["resnet50-11ad3fa6.pth", "source.pth"])
@pytest.mark.parametrize("lie", NAMES)
def test_a_lie_is_caught_by_name_with_the_source_and_without(
    lie: str, name: str, sources: Path, tmp_path: Path
) -> None:
    with published_as(sources / "resnet50-11ad3fa6.pth"):
        path = made(name, sources, tmp_path)
        told: list[Lie] = [told for told in lies(manifest_of(path)) if told.name == lie]
        if lie == "no preprocessing" and name == "source.pth":
            assert not told
            return
        rewrite(path, told[-1].tell)
        for against in (sources / "source.pth", None):
            failed = rs.verify(path, against=against).failed
            assert any(told[-1].word in check.finding for check in failed), failed


@pytest.mark.parametrize("lie", ["maps", "stem_stride", "maxpool", "dilation", "first_dilation"])
def test_a_lie_about_what_an_operation_set_is_caught_by_name(lie: str, sources: Path, tmp_path: Path) -> None:
    network = rs.open(sources / "source.pth").stem(3, 1, "none").dilate(4).features(["layer1", "layer4"])
    path = network.save(tmp_path / "model.safetensors")
    told = [told for told in lies(manifest_of(path)) if told.name == lie]
    rewrite(path, told[-1].tell)
    for against in (sources / "source.pth", None):
        assert any(told[-1].word in check.finding for check in rs.verify(path, against=against).failed)


def test_a_network_that_torchvision_would_not_make_fails(sources: Path) -> None:
    """One convolution of the module is not dilated."""
    network = rs.open(sources / "source.pth").dilate(8)
    module = rs.load(network).eval()
    convolution: Any = module.get_submodule("layer4.0.conv2")
    convolution.dilation = convolution.padding = (1, 1)
    (check,) = whole.checks(module, network.architecture, network.tensors, torch.float32)
    assert (check.name, check.outcome) == ("torchvision", "failed")


@pytest.mark.parametrize("against", ["middle.safetensors", "model.safetensors"])
def test_a_lie_that_the_given_file_tells_too_is_caught(against: str, sources: Path, tmp_path: Path) -> None:
    rs.open(sources / "source.pth").adapt(1).save(tmp_path / "middle.safetensors")
    rewrite(
        tmp_path / "middle.safetensors", lambda manifest: manifest["architecture"].update(bottleneck_stride="conv1")
    )
    rs.open(tmp_path / "middle.safetensors").remove(last=3).save(tmp_path / "model.safetensors")
    (failed,) = rs.verify(tmp_path / "model.safetensors", against=tmp_path / against).failed
    assert (failed.name, "`architecture.bottleneck_stride`" in failed.finding) == ("history", True)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("container", "torch_tar"),
        ("warnings", ["odd"]),
        ("wrapping", {"kind": "MoCo", "key": None, "prefix": "", "left_out": [], "filled": []}),
    ],
)
def test_what_was_seen_of_the_source_is_compared(field: str, value: Any, sources: Path, tmp_path: Path) -> None:
    path = made("source.pth", sources, tmp_path)
    rewrite(path, lambda manifest: manifest["source"].update({field: value}))
    (failed,) = rs.verify(path, against=sources / "source.pth").failed
    assert (failed.name, f"`source.{field}`" in failed.finding) == ("source", True)
    rewrite(path, lambda manifest: manifest["versions"].update(resnet_surgeon="0.0.1"))  # which may have seen it so
    proof = rs.verify(path, against=sources / "source.pth")
    assert proof.holds
    assert any(f"own word, unproven: `source.{field}`" in check.finding for check in proof.checks)


@pytest.mark.parametrize(
    ("source", "word"),
    [
        ({"architecture": "resnet50", "weights": "IMAGENET1K_V2"}, "not that of the published"),
        ({"architecture": "resnet51", "weights": "IMAGENET1K_V2"}, "not that of the published"),
        ({"architecture": "resnet51", "weights": "random", "container": None, "seed": 0}, "no network `resnet51`"),
        ({"architecture": "resnet50", "weights": "random", "container": None, "seed": 0}, "given was"),
        ({"architecture": "resnet50", "weights": "random", "seed": 0}, "a file with random weights"),
        ({"container": None}, "a file with random weights, or neither"),
    ],
)
def test_a_source_that_cannot_be_is_caught(source: dict[str, Any], word: str, sources: Path, tmp_path: Path) -> None:
    path = made("source.pth", sources, tmp_path)
    rewrite(path, lambda manifest: manifest["source"].update(source))
    failed = {check.name: check.finding for check in rs.verify(path, against=sources / "source.pth").failed}
    assert word in failed["source"]


MEAN = {"kind": "mean", "old": 3, "new": 2}
KEPT = {"how": "kept", "tensor": "conv1.weight"}


def drawn(distribution: str, **numbers: float) -> dict[str, Any]:
    return {"how": "initialised", "law": {"distribution": distribution, **numbers}, "seed": 2**80, "stream": "x"}


def computed(formula: dict[str, Any], *inputs: dict[str, Any]) -> dict[str, Any]:
    return {"how": "computed", "formula": formula, "inputs": [*inputs]}


ODD = {
    "a bound of zero": drawn("uniform", bound=0.0),
    "a spread of zero": drawn("normal", std=0.0),
    "a number too large": drawn("constant", value=1e300),
    "a formula of zeros": computed({**MEAN, "old": 0}, KEPT),
    "a formula of no inputs": computed(MEAN),
    "a formula of too many inputs": computed(MEAN, KEPT, KEPT),
    "a formula of a law": computed(MEAN, drawn("uniform", bound=-1.0)),
    "a product of one": computed({"kind": "product"}, KEPT),
}


@pytest.mark.parametrize("tensor", ["conv1.weight", "bn1.bias", "bn1.num_batches_tracked"])
@pytest.mark.parametrize("odd", ODD)
def test_an_odd_provenance_fails_and_is_no_error(odd: str, tensor: str, sources: Path, tmp_path: Path) -> None:
    path = rs.open(sources / "source.pth").adapt(2, init="repeat").remove(last=8).save(tmp_path / "model.safetensors")
    rewrite(path, lambda manifest: manifest["tensors"][tensor].update(provenance=ODD[odd]))
    for against in (None, sources / "source.pth"):
        assert not rs.verify(path, against=against).holds


FALSE = {
    "a product": computed({"kind": "product"}, KEPT, KEPT),
    "an average of a law": computed({"kind": "combination", "factors": [0.5, 0.5]}, KEPT, drawn("constant", value=1e9)),
    "a cast": computed({"kind": "cast", "old": "F64"}, KEPT),
    "a magnitude": computed({"kind": "normalised_weight"}, KEPT, KEPT),
    "a folded weight": computed({"kind": "folded_weight", "eps": 0.0}, KEPT, KEPT, KEPT),
    "a folded bias": computed({"kind": "folded_bias", "eps": 0.0}, KEPT, KEPT, KEPT, KEPT),
}


@pytest.mark.parametrize("false", FALSE)
def test_another_formula_than_the_right_one_fails_against_the_source(false: str, sources: Path, tmp_path: Path) -> None:
    path = rs.open(sources / "source.pth").adapt(2, init="repeat").remove(last=9).save(tmp_path / "model.safetensors")
    rewrite(path, lambda manifest: manifest["tensors"]["conv1.weight"].update(provenance=FALSE[false]))
    assert "computed" in {check.name for check in rs.verify(path, against=sources / "source.pth").failed}


@pytest.mark.parametrize("field", ["dilation", "first_dilation", "stride"])
def test_a_stage_of_endless_strides_fails_and_is_no_error(field: str, sources: Path, tmp_path: Path) -> None:
    path = rs.open(sources / "source.pth").remove(last=4).save(tmp_path / "model.safetensors")
    rewrite(path, lambda manifest: manifest["architecture"]["stages"][1].update({field: 1 << 16}))
    assert not rs.verify(path).holds


def test_endless_channels_on_the_way_are_not_repeated(sources: Path, tmp_path: Path) -> None:
    path = made("source.pth", sources, tmp_path)
    rewrite(path, lambda manifest: manifest["operations"].insert(0, {"adapt": {**ADAPT, "in_channels": 2**31 - 1}}))
    for against in (None, sources / "source.pth"):
        rs.verify(path, against=against)


ADAPT = {"in_channels": 2, "init": "mean", "seed": 0}


# Every check can fail.


def test_a_conv1_of_something_else_fails_the_stem(sources: Path, tmp_path: Path) -> None:
    path = rs.open(sources / "source.pth").adapt(1, init="scaled").save(tmp_path / "model.safetensors")
    state = load_file(path)
    state["conv1.weight"] *= 1.001
    with safe_open(path, "pt") as file:
        save_file(state, path, metadata=file.metadata())
    failed = {check.name: check for check in rs.verify(path, against=sources / "source.pth").failed}
    assert failed.keys() == {"computed", "stem"}
    assert "more than rounding explains" in failed["stem"].finding


@pytest.mark.parametrize("law", [Uniform(0.5), Normal(0.1)], ids=str)
@pytest.mark.parametrize("change", ["shift", "spread", "stray"])
def test_numbers_of_another_law_are_far_off(law: Law, change: str) -> None:
    numbers = b"".join(sampling.sample(law, 10_000, "F32", 0, "x"))
    tensor = torch.frombuffer(bytearray(numbers), dtype=torch.float32)
    assert deviation_of(tensor, law, "F32") < 6
    sigma = float(tensor.std())
    changed = {
        "shift": tensor + 0.1 * sigma,
        "spread": tensor * 0.9,
        "stray": tensor.index_fill(0, torch.tensor(0), 0.8),  # eight times the spread,
    }
    assert deviation_of(changed[change], law, "F32") > 6


def test_a_constant_has_no_spread() -> None:
    assert deviation_of(torch.ones(3), Constant(1.0), "F32") == 0
    assert deviation_of(torch.tensor([1.0, 1.0, 2.0]), Constant(1.0), "F32") > 6


def test_a_sampler_that_draws_from_another_law_is_caught(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It draws what was recorded, again and again: only the moments show it."""

    def biased(law: Law, count: int, dtype: str, seed: int, stream: str) -> Iterator[bytes]:
        yield np.full(count, law.bound / 2 if isinstance(law, Uniform) else 0.0, "<f4").tobytes()

    torch.save(small_network(BasicBlock).state_dict(), tmp_path / "source.pth")
    monkeypatch.setattr(sampling, "sample", biased)
    path = rs.open(tmp_path / "source.pth").heads([3]).save(tmp_path / "model.safetensors")
    (failed,) = rs.verify(path, against=tmp_path / "source.pth").failed
    assert (failed.name, "`fc.weight` is not uniform" in failed.finding) == ("initialised", True)


def two_heads() -> ResNet:
    base = resnet("basic", (1, 1, 1, 1))
    heads = tuple(Head(name, 2, base.stages[3:]) for name in "ab")
    return ResNet(replace(base, stages=base.stages[:3], avgpool=False, heads=heads)).eval()


def test_heads_that_share_a_layer_are_not_independent() -> None:
    module = two_heads()
    heads = module.architecture.heads
    (check,) = independence.checks(module, heads, torch.float32)
    assert check.outcome == "proven"
    module.get_submodule("heads.b").layer4 = module.get_submodule("heads.a.layer4")
    (check,) = independence.checks(module, heads, torch.float32)
    assert (check.outcome, check.tensors) == ("failed", ("a", "b"))


def test_heads_that_share_storage_are_not_independent() -> None:
    module = two_heads()
    module.get_parameter("heads.b.fc.weight").data = module.get_parameter("heads.a.fc.weight").data
    (check,) = independence.checks(module, module.architecture.heads, torch.float32)
    assert (check.outcome, "tensors share another's storage" in check.finding) == ("failed", True)


# What surrounds a file.


def test_a_file_that_changes_while_it_is_verified_is_an_error(
    monkeypatch: pytest.MonkeyPatch, sources: Path, tmp_path: Path
) -> None:
    path = made("source.pth", sources, tmp_path)

    def checks(*_: object) -> Iterator[rs.Check]:
        os.utime(path, (0, 0))
        yield from ()

    monkeypatch.setattr(function, "checks", checks)
    with pytest.raises(rs.CheckpointError, match="was changed while it was read"):
        rs.verify(path)


def test_of_what_stands_beside_it_no_more_is_read_than_a_manifest_has(sources: Path, tmp_path: Path) -> None:
    path = rs.open(sources / "source.pth").remove(last=9).save(tmp_path / "model.safetensors")
    os.truncate(path.with_suffix(".json"), 6_000_000_000)  # a hole: it takes no room
    trial = case.open_case(path, None, {}, silent)
    assert trial.sidecar is not None
    assert len(trial.sidecar) == MANIFEST_LIMIT + 1
    (failed,) = rs.verify(path).failed
    assert (failed.name, "too long for a manifest" in failed.finding) == ("pair", True)


def test_a_manifest_of_half_a_character_is_no_error(sources: Path, tmp_path: Path) -> None:
    path = rs.open(sources / "source.pth").remove(last=9).save(tmp_path / "model.safetensors")
    header = path.read_bytes()
    assert KEY.encode() in header
    path.write_bytes(header.replace(b'\\"torch_zip\\"', b'\\"torch_\\ud800', 1))
    with contextlib.suppress(rs.CheckpointError):
        rs.verify(path)


def test_too_little_memory_is_not_the_files_fault(
    monkeypatch: pytest.MonkeyPatch, sources: Path, tmp_path: Path
) -> None:
    path = rs.open(sources / "source.pth").heads([1, 2]).save(tmp_path / "model.safetensors")

    def checks(*_: object) -> Iterator[rs.Check]:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory")
        yield

    monkeypatch.setattr(independence, "checks", checks)
    proof = rs.verify(path)
    assert proof.holds
    assert "not enough memory" in {check.name: check.finding for check in proof.unproven}["independence"]


def with_numbers_of(theirs: nn.Module, architecture: Architecture) -> ResNet:
    with without_numbers():
        ours = ResNet(architecture).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True, assign=True)
    return ours


@pytest.mark.parametrize("replaced", [(False, False, False), (False, True, True), (True, True, True)])
@pytest.mark.parametrize("groups", [1, 4])
def test_the_witness_is_torchvisions_own_wherever_its_options_make_it(replaced: tuple[bool, ...], groups: int) -> None:
    whole = resnet("bottleneck", (1, 2, 1, 1), groups=groups, width_per_group=16, classes=5)
    dilation, stages = 1, [whole.stages[0]]
    for stage, is_replaced in zip(whole.stages[1:], replaced, strict=True):
        first = dilation
        dilation *= 2 if is_replaced else 1
        stride = 1 if is_replaced else 2
        stages.append(replace(stage, stride=stride, first_dilation=first, dilation=dilation))
    dilated = replace(whole, stages=tuple(stages), in_channels=2)
    for architecture in (dilated, replace(dilated, heads=()), replace(dilated, heads=(), avgpool=False)):
        assert torchvision_has(architecture)
        theirs = as_torchvision(architecture).eval()
        ours = with_numbers_of(theirs, architecture)
        image = torch.randn(1, 2, 64, 64)
        assert torch.equal(theirs(image).flatten(), ours(image).flatten())


@pytest.mark.parametrize("kind", [*KINDS])
@pytest.mark.parametrize("block", ["basic", "bottleneck"])
def test_the_witness_has_the_facts_too(kind: str, block: Literal["basic", "bottleneck"]) -> None:
    facts = KINDS[kind] if block == "bottleneck" else replace(KINDS[kind], bottleneck_stride=None)
    architecture = applied(facts, resnet(block, (1, 2, 1, 2), classes=5))
    assert torchvision_has(architecture)
    theirs = as_torchvision(architecture).eval()
    ours = with_numbers_of(theirs, architecture)
    image = torch.randn(1, 3, 64, 64)
    assert torch.equal(theirs(image), ours(image))


@pytest.mark.parametrize(
    "change",
    [{"heads": (Head("a", 1), Head("b", 1))}, {"stages": (), "heads": ()}],
)
def test_torchvision_has_no_such_network(change: dict[str, Any]) -> None:
    assert not torchvision_has(replace(resnet("bottleneck", (1, 1, 1, 1)), **change))
