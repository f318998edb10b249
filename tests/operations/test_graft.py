"""graft against torchvision: what comes of it computes what both networks compute by themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision.models import ResNet
from torchvision.models.resnet import BasicBlock, Bottleneck

import resnet_surgeon as rs
from resnet_surgeon.errors import OperationError, UsageError
from tests.fixtures import images, small_network


def saved(folder: Path, name: str, model: ResNet) -> Path:
    torch.save(model.state_dict(), folder / f"{name}.pth")
    return folder / f"{name}.pth"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """organ.pth and grade.pth, two networks of one shape but for their classes; deep.pth with more blocks; and others
    that do not fit.
    """
    folder = tmp_path_factory.mktemp("graft")
    saved(folder, "organ", small_network(classes=4))
    saved(folder, "grade", small_network(classes=5, seed=1))
    saved(folder, "deep", small_network(depths=(1, 1, 1, 2), classes=6, seed=2))
    saved(folder, "wide", small_network(Bottleneck, (1, 1, 1, 1), classes=5))
    saved(folder, "gray", small_network(in_channels=1, classes=5, seed=3))
    saved(folder, "half", small_network(classes=5).half())
    return folder


def loaded(network: rs.Network) -> Any:
    return rs.load(network).eval()


def test_a_classifier_of_other_classes_takes_the_place_of_fc(folder: Path) -> None:
    module = loaded(rs.open(folder / "organ.pth").graft(folder / "grade.pth", layers=["fc"]))
    organ, grade = small_network(classes=4), small_network(classes=5, seed=1)
    organ.fc = grade.fc
    assert torch.equal(module(images()), organ(images()))


def test_the_last_stage_may_have_more_blocks(folder: Path) -> None:
    module = loaded(rs.open(folder / "organ.pth").graft(folder / "deep.pth", layers=["fc", "layer4"]))
    organ, deep = small_network(classes=4), small_network(depths=(1, 1, 1, 2), classes=6, seed=2)
    organ.layer4, organ.fc = deep.layer4, deep.fc
    assert torch.equal(module(images()), organ(images()))


@pytest.mark.parametrize("layers", [["conv1", "bn1"], ["layer2"]])
def test_a_layer_in_the_middle(layers: list[str], folder: Path) -> None:
    module = loaded(rs.open(folder / "organ.pth").graft(folder / "grade.pth", layers=layers))
    organ, grade = small_network(classes=4), small_network(classes=5, seed=1)
    for layer in layers:
        setattr(organ, layer, getattr(grade, layer))
    assert torch.equal(module(images()), organ(images()))


@pytest.mark.parametrize("layers", [["fc"], ["layer4", "fc"], ["layer3", "layer4", "fc"]])
def test_two_networks_become_two_heads_on_one_trunk(layers: list[str], folder: Path) -> None:
    network = rs.open(folder / "organ.pth").graft(folder / "grade.pth", layers, head="grade", own_as="organ")
    organ, grade = small_network(classes=4), small_network(classes=5, seed=1)
    ours, theirs = loaded(network)(images())
    assert torch.equal(ours, organ(images()))
    for layer in layers:
        setattr(organ, layer, getattr(grade, layer))
    assert torch.equal(theirs, organ(images()))
    assert [head.name for head in network.architecture.heads] == ["organ", "grade"]


def test_a_third_head_and_one_in_the_place_of_another(folder: Path, tmp_path: Path) -> None:
    two = rs.open(folder / "organ.pth").graft(folder / "grade.pth", ["layer4", "fc"], head="grade")
    three = two.graft(folder / "deep.pth", ["layer4", "fc"], head="deep")
    again = three.graft(rs.open(folder / "grade.pth"), ["layer4", "fc"], head="deep")
    assert [output.shape[1] for output in loaded(three)(images())] == [4, 5, 6]
    head1, grade, deep = loaded(again)(images())
    assert torch.equal(grade, deep)
    assert torch.equal(head1, small_network(classes=4)(images()))


def test_a_head_of_several_moves_to_another_network(folder: Path, tmp_path: Path) -> None:
    two = rs.open(folder / "organ.pth").graft(folder / "grade.pth", ["layer4", "fc"], head="grade")
    path = two.save(tmp_path / "two.safetensors")
    alone = rs.open(folder / "organ.pth").remove(layers=["fc"]).graft(path, ["heads.grade"])
    beside = rs.open(folder / "organ.pth").graft(path, ["heads.grade"], head="other")
    (_, expected) = loaded(two)(images())
    assert torch.equal(loaded(beside)(images())[1], expected)
    (only,) = loaded(alone)(images())
    assert torch.equal(only, expected)


def test_heads_that_share_all_layers_own_their_stage_when_one_comes_with_its_own(folder: Path) -> None:
    network = rs.open(folder / "organ.pth").heads([2, 3], own="none")
    joined = network.graft(folder / "grade.pth", ["layer4", "fc"], head="grade")
    before, after = loaded(network)(images()), loaded(joined)(images())
    assert [torch.equal(one, other) for one, other in zip(before, after, strict=False)] == [True, True]
    assert [len(head.stages) for head in joined.architecture.heads] == [1, 1, 1]


def test_a_cut_network_gets_its_end_back(folder: Path) -> None:
    cut = rs.open(folder / "organ.pth").remove(last=3)
    whole = cut.graft(folder / "organ.pth", ["layer4", "fc"])
    assert torch.equal(loaded(whole)(images()), small_network(classes=4)(images()))


def test_another_pooling_comes_with_the_classifier(folder: Path, tmp_path: Path) -> None:
    grade = rs.open(folder / "grade.pth").remove(layers=["fc"]).save(tmp_path / "embedding.safetensors")
    assert rs.open(folder / "organ.pth").graft(grade, ["layer4"]).architecture.classifier


@pytest.mark.parametrize(
    ("other", "options", "reason"),
    [
        ("wide", {"layers": ["fc"]}, "fc takes 2048 features, and would get 512"),
        ("wide", {"layers": ["layer4"]}, "`layer4` takes 1024 channels, and would get 256"),
        ("gray", {"layers": ["conv1"]}, "conv1 takes 1 channels in the other network, and 3 here"),
        ("half", {"layers": ["fc"]}, "`fc.weight` is F16 in the other network, and the network is F32"),
        ("grade", {"layers": ["heads.a"]}, "the network has a classifier"),
        ("grade", {"layers": ["heads.a"], "head": "b"}, "the other network has no head `a`"),
        ("grade", {"layers": ["layer3", "fc"], "head": "b"}, "between layer3 and fc the other network has more layers"),
        ("grade", {"layers": ["fc"], "head": "head1"}, "both heads would be called head1"),
        ("grade", {"layers": ["fc"], "own_as": "a"}, "the network has no fc that would become a head"),
    ],
)
def test_what_does_not_fit_is_refused(other: str, options: dict[str, Any], reason: str, folder: Path) -> None:
    with pytest.raises(OperationError) as caught:
        rs.open(folder / "organ.pth").graft(folder / f"{other}.pth", **options)
    assert str(caught.value).startswith(f"graft: {reason}")
    assert caught.value.hint


@pytest.mark.parametrize(
    ("assumed", "layers", "reason"),
    [
        ({"strides": (1, 2, 2, 1)}, ["layer4"], "`layer4` has a stride of 1 in the other network, and 2 here"),
        ({"eps": 0.001}, ["layer4"], "eps is 0.001 in the other network, and 1e-05 here"),
        ({"stem_stride": 1}, ["conv1"], "stem_stride is 1 in the other network, and 2 here"),
    ],
)
def test_facts_that_differ_are_refused(assumed: dict[str, Any], layers: list[str], reason: str, folder: Path) -> None:
    with pytest.raises(OperationError) as caught:
        rs.open(folder / "organ.pth").graft(rs.open(folder / "grade.pth", assume=assumed), layers)
    assert str(caught.value).startswith(f"graft: {reason}")
    assert rs.open(folder / "organ.pth").graft(rs.open(folder / "grade.pth", assume=assumed), ["fc"])


def test_a_stage_that_is_dilated_otherwise_is_refused(folder: Path) -> None:
    with pytest.raises(OperationError) as caught:
        rs.open(folder / "wide.pth").dilate(16).graft(folder / "wide.pth", ["layer4"])
    assert "`dilate` one of the two" in str(caught.value.hint)


def test_of_two_networks_of_which_one_is_fused_the_other_has_to_be(folder: Path, tmp_path: Path) -> None:
    plain, fused = folder / "organ.pth", rs.open(folder / "grade.pth").fuse().save(tmp_path / "fused.pth")
    for here, there, which in ((plain, fused, "SOURCE"), (fused, plain, "the other network")):
        with pytest.raises(OperationError) as caught:
            rs.open(here).graft(there, ["layer4"])
        assert caught.value.hint == f"`fuse` {which} first"


def test_a_classifier_with_norms_of_another_eps_is_refused(folder: Path, tmp_path: Path) -> None:
    other = small_network()
    other.fc = torch.nn.Sequential(torch.nn.Linear(512, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 2))
    path = saved(tmp_path, "norm", other)
    assert rs.open(folder / "organ.pth").graft(path, ["fc"])
    for options in ({}, {"head": "grade"}):
        with pytest.raises(OperationError, match="eps is 0.001 in the other network, and 1e-05 here"):
            rs.open(folder / "organ.pth").graft(rs.open(path, assume="eps=0.001"), ["fc"], **options)


@pytest.mark.parametrize(
    ("images", "reason"),
    [
        ({"channels": "B,G,R"}, "the other network takes the channels B, G, R, SOURCE R, G, B"),
        ({"channels": "R,G,B", "mean": [9.0] * 3, "std": [2.0] * 3}, "the other network takes images with mean"),
    ],
    ids=["order", "normalisation"],
)
def test_conv1_of_a_network_that_takes_other_images_is_refused(
    images: dict[str, Any], reason: str, folder: Path, tmp_path: Path
) -> None:
    rs.open(folder / "grade.pth").adapt(**images).save(tmp_path / "other.pth")
    ours = rs.open(folder / "organ.pth").adapt(channels="R,G,B", mean=[0.5] * 3, std=[0.5] * 3)
    ours.save(tmp_path / "ours.pth")
    with pytest.raises(OperationError, match=reason):
        rs.open(tmp_path / "ours.pth").graft(tmp_path / "other.pth", ["conv1", "bn1"])
    assert rs.open(tmp_path / "ours.pth").graft(tmp_path / "other.pth", ["fc"])


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"layers": ["avgpool"]}, "layers"),
        ({"layers": ["heads.a", "fc"]}, "`heads.a` is taken whole, and alone"),
        ({"layers": ["layer4"], "head": "a"}, "a head ends in fc"),
        ({"layers": ["conv1", "fc"], "head": "a"}, "conv1 cannot be part of a head"),
    ],
)
def test_options_that_are_wrong_for_any_network(options: dict[str, Any], reason: str, folder: Path) -> None:
    with pytest.raises(UsageError, match=reason):
        rs.open(folder / "organ.pth").graft(folder / "grade.pth", **options)


def test_a_network_that_is_in_no_file_is_refused(folder: Path) -> None:
    with pytest.raises(UsageError, match="is in no file") as caught:
        rs.open(folder / "organ.pth").graft(rs.open(folder / "grade.pth").adapt(1), ["fc"])
    assert caught.value.hint == "save it, and give the path of what was saved"


def test_the_manifest_names_both_sources_and_no_path(folder: Path, tmp_path: Path) -> None:
    path = rs.open(folder / "organ.pth").graft(folder / "grade.pth", ["fc"]).save(tmp_path / "out.safetensors")
    manifest = rs.open(path).manifest()
    (other,) = manifest.other_sources
    assert (manifest.source.file, other.origin.file) == ("organ.pth", "grade.pth")
    assert {*map(len, filter(None, (manifest.source.sha256, other.origin.sha256)))} == {64}
    assert manifest.operations == ({"graft": {"other": 1, "layers": ["fc"], "head": None, "own_as": None}},)
    assert str(folder) not in path.with_suffix(".json").read_text("utf-8")
    assert manifest.dropped == ("fc.bias", "fc.weight")


def test_a_block_type_is_no_matter_to_a_classifier_of_fitting_features(folder: Path, tmp_path: Path) -> None:
    narrow = rs.open(folder / "wide.pth").remove(layers=["layer3", "layer4", "avgpool", "fc"]).heads([7])
    path = narrow.save(tmp_path / "narrow.safetensors")
    assert rs.open(folder / "organ.pth").graft(path, ["fc"]).architecture.block == "basic"
    assert small_network(BasicBlock).fc.in_features == 512
