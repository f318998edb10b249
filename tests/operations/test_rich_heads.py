"""Heads with hidden layers and other poolings, added one by one, with labels, and begun as means of old classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torchvision.models import ResNet

import resnet_surgeon as rs
from resnet_surgeon.errors import OperationError, UsageError
from resnet_surgeon.operations.heads import Heads
from tests.fixtures import images
from tests.verification.draws import lies, manifest_of, rewrite


def logits(network: rs.Network) -> Any:
    with torch.no_grad():
        return rs.load(network).eval()(images())


@pytest.fixture
def network(checkpoints: Path) -> rs.Network:
    return rs.open(checkpoints / "basic.pth")


def test_a_rich_head_computes_what_torchs_layers_compute(network: rs.Network, basic: ResNet) -> None:
    head = {"classes": 3, "pool": "max", "hidden": [8, 6], "activation": "gelu", "dropout": 0.2, "bias": False}
    ours: Any = rs.load(network.heads(head=[head])).eval()
    witness = nn.Sequential(
        nn.Linear(512, 8), nn.GELU(), nn.Dropout(0.2),
        nn.Linear(8, 6), nn.GELU(), nn.Dropout(0.2),
        nn.Linear(6, 3, bias=False),
    ).eval()  # fmt: skip
    witness.load_state_dict(ours.fc.state_dict(), strict=True)
    with torch.no_grad():
        features = nn.Sequential(*list(basic.children())[:8])(images())
        assert torch.equal(ours(images()), witness(features.amax((2, 3))))


def test_each_head_says_its_own(network: rs.Network) -> None:
    several = network.heads(
        head=[
            {"name": "grade", "classes": 5, "own": "layer3", "pool": "gem"},
            rs.NewHead("lesion", 2, hidden=(4,)),
        ]
    )
    state = rs.load(several).state_dict()
    assert state["heads.grade.avgpool.p"].tolist() == [3]
    assert state["heads.lesion.fc.2.weight"].shape == (2, 4)
    # `lesion` has layer3 to itself, since the other one owns a copy: it owns it too.
    assert torch.equal(state["heads.lesion.layer3.0.conv1.weight"], state["heads.grade.layer3.0.conv1.weight"])


@pytest.mark.parametrize(
    ("init", "weight", "bias"),
    [("zero", (0.0, 0.0), True), ("small", (0.009, 0.011), True), ("default", (0.02, 0.03), False)],
)
def test_the_last_layer_begins_as_asked(
    init: Any, weight: tuple[float, float], bias: bool, network: rs.Network
) -> None:
    state = rs.load(network.heads(head=[{"classes": 20, "init": init}])).state_dict()
    assert weight[0] <= float(state["fc.weight"].std()) <= weight[1]
    assert (state["fc.bias"].count_nonzero() == 0) == bias


def test_what_the_short_form_says_is_recorded_as_ever(network: rs.Network) -> None:
    short = Heads((3, 5), ("lesion", "grade"), "layer4", 0)
    for same in (
        network.heads(classes={"lesion": 3, "grade": 5}),
        network.heads(head=[{"name": "lesion", "classes": 3}, {"name": "grade", "classes": 5}]),
    ):
        assert same.operations == (short,)


@pytest.mark.parametrize("own", ["layer3", "layer4", "none"])
def test_an_added_head_leaves_the_old_one_as_it_is(own: Any, network: rs.Network, basic: ResNet) -> None:
    more = network.heads([4], own=own, add=True)
    assert [head.name for head in more.architecture.heads] == ["fc", "head2"]
    old, new = logits(more)
    with torch.no_grad():
        assert torch.equal(old, basic(images()))
    assert new.shape == (2, 4)


def test_heads_come_and_go_one_by_one(network: rs.Network) -> None:
    two = network.heads({"a": 2, "b": 3})
    three = two.heads(head=[{"name": "c", "classes": 4, "like": "b"}], add=True)
    before, after = logits(two), logits(three)
    assert all(torch.equal(one, other) for one, other in zip(before, after[:2], strict=True))
    one = three.remove(layers=["heads.a", "heads.c"])
    assert [head.name for head in one.architecture.heads] == ["b"]
    (left,) = logits(one)
    assert torch.equal(left, before[1])
    assert one.heads([2], own="none", add=True).architecture.children[-1] == "heads"


def test_a_head_that_owns_more_of_the_trunk_leaves_the_last_one_as_it_is(network: rs.Network) -> None:
    left = network.heads({"a": 2, "b": 3}).remove(layers=["heads.a"])
    more = left.heads([4], own="layer3", add=True)
    assert [stage.name for stage in more.architecture.stages] == ["layer1", "layer2"]
    assert torch.equal(logits(more)[0], logits(left)[0])


def test_the_first_head_that_is_added_owns_nothing(network: rs.Network) -> None:
    with pytest.raises(OperationError, match="a single head has no layers of its own"):
        network.remove(last=1).heads([4], own="layer4", add=True)


def test_an_added_head_keeps_the_pooling_of_the_old_one(network: rs.Network) -> None:
    gem = network.heads(head=[{"name": "a", "classes": 3, "pool": "gem"}])
    both = gem.heads(head=[{"name": "b", "classes": 2, "pool": "avg"}], add=True)
    assert torch.equal(logits(both)[0], logits(gem))


@pytest.mark.parametrize(
    ("heads", "reason"),
    [
        ([{"name": "fc", "classes": 3}], "has a head `fc` already"),
        ([{"classes": 3, "like": "x"}], "has no head `x`"),
        ([{"name": "a", "classes": 3, "own": "layer3"}, {"name": "b", "classes": 3}], "would no longer share `layer3`"),
    ],
    ids=["name", "like", "own"],
)
def test_what_cannot_be_added_is_refused(heads: list[Any], reason: str, network: rs.Network) -> None:
    with pytest.raises(OperationError, match=reason):
        network.heads(head=heads, add=True)


def test_which_layers_an_added_head_has_is_asked_where_others_own_some(network: rs.Network) -> None:
    with pytest.raises(OperationError, match="`a` owns layer4, where the trunk ends") as caught:
        network.heads({"a": 2, "b": 3}).heads([2], add=True)
    assert "--head name=head3,classes=2,like=a" in str(caught.value.hint)


@pytest.mark.parametrize("layers", [["heads.c"], ["heads.a", "heads.b"], ["heads", "heads.a"]], ids="-".join)
def test_what_heads_cannot_be_removed(layers: list[str], network: rs.Network) -> None:
    with pytest.raises(OperationError, match="no head `c`|no head would be left"):
        network.heads({"a": 2, "b": 3}).remove(layers=layers)


def test_labels_stay_through_training_and_other_operations(network: rs.Network, tmp_path: Path) -> None:
    named = network.heads(labels=["cat", "dog"])
    assert named.manifest().outputs[0].categories == ("cat", "dog")
    model = rs.load(named)
    with torch.no_grad():
        model.fc.get_parameter("weight").add_(1)
    again = rs.open(rs.save(model, tmp_path / "trained.safetensors"))
    assert again.adapt(1).manifest().outputs[0].categories == ("cat", "dog")
    with pytest.raises(UsageError, match="2 labels for 3 classes"):
        network.heads([3], labels=["cat", "dog"])


def test_new_classes_begin_as_means_of_old_ones(network: rs.Network, basic: ResNet) -> None:
    state = rs.load(network.heads([3], reuse="4,1->cat; 7->dog")).state_dict()
    for name in ("weight", "bias"):
        old = basic.fc.get_parameter(name).detach()
        assert torch.equal(state[f"fc.{name}"][0], ((old[1].double() + old[4].double()) / 2).float())
        assert torch.equal(state[f"fc.{name}"][1], old[7])
    assert 0 < float(state["fc.weight"][2].abs().max()) <= 512**-0.5


def test_old_classes_are_found_by_their_names(network: rs.Network) -> None:
    named = network.heads(labels=["tabby", "tiger cat", "husky", "2"])
    cats = named.heads(reuse="tabby, tiger cat->cat; 2->two; 2->other".replace("; 2->other", ""))
    (head,) = cats.operations[-1].head  # type: ignore[attr-defined]
    assert (head.rows, head.labels) == (((0, 1), (3,)), ("cat", "two"))
    ordered = named.heads(reuse="husky->dog", labels=["cat", "dog"])
    (head,) = ordered.operations[-1].head  # type: ignore[attr-defined]
    assert head.rows == ((), (2,))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1,2", "is no group of classes"),
        ("", "no group"),
        ("1->a; 2->a", "made twice"),
        ("10->a", "has no class 10"),
        ("cat->a", "nobody has said what the old classes are called"),
    ],
)
def test_what_cannot_be_used_again(text: str, reason: str, network: rs.Network) -> None:
    with pytest.raises((OperationError, UsageError), match=reason):
        network.heads(reuse=text)


def test_old_classes_that_are_computed_otherwise_are_refused_with_what_fits(network: rs.Network) -> None:
    options: dict[str, Any] = {"classes": 2, "bias": False, "pool": "max"}
    old = network.heads(head=[options])
    for other, hint in (({"pool": "avg"}, "`pool=max`"), ({"bias": True}, "`bias=false`")):
        with pytest.raises(OperationError) as caught:
            old.heads(head=[{**options, **other}], reuse="1->a")
        assert hint in str(caught.value.hint)
    assert old.heads(head=[options], reuse="1->a")
    with pytest.raises(OperationError, match="the old classifier has hidden layers"):
        network.heads(head=[{"classes": 2, "hidden": [4]}]).heads(reuse="1->a")


def test_outputs_come_by_name(network: rs.Network) -> None:
    several = network.heads({"a": 2, "b": 3})
    by_name: Any = rs.load(several, outputs="dict").eval()(images())
    assert [*by_name] == ["a", "b"]
    assert all(torch.equal(one, other) for one, other in zip(by_name.values(), logits(several), strict=True))
    single: Any = rs.load(network, outputs="dict").eval()(images())
    assert [*single] == ["fc"]


RICH: dict[str, dict[str, Any]] = {
    "several": {
        "head": [{"classes": 3, "pool": "gem", "hidden": [8], "dropout": 0.5}, {"classes": 2, "init": "small"}]
    },
    "single": {"head": [{"classes": 2, "pool": "avgmax", "hidden": [8], "init": "zero", "labels": ["x", "y"]}]},
    "added": {"classes": [4], "add": True},
    "reused": {"classes": [3], "reuse": "1,2->cat; 3->dog"},
}


@pytest.mark.parametrize("kind", [*RICH])
def test_rich_heads_are_proven_and_their_lies_are_found(kind: str, network: rs.Network, tmp_path: Path) -> None:
    source = network.source.container
    assert source
    path = network.heads(**RICH[kind]).save(tmp_path / "model.safetensors")
    proof = rs.verify(path, against=source.file.name)
    assert {check.outcome for check in proof.checks} == {"proven"}, str(proof)
    told = [lie for lie in lies(manifest_of(path)) if lie.name in ("pool", "activation", "labels", "categories")]
    whole, document = path.read_bytes(), path.with_suffix(".json").read_bytes()
    for lie in told:
        rewrite(path, lie.tell)
        assert any(lie.word in check.finding for check in rs.verify(path).failed), lie
        path.write_bytes(whole)
        path.with_suffix(".json").write_bytes(document)
