"""What tensors do not show is told as it is now, with who made it so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import resnet_surgeon as rs
from resnet_surgeon.architecture.facts import in_words
from resnet_surgeon.history.facts import facts_now

Made = Callable[[Path], rs.Network]
PLAIN = "bottleneck_stride=conv2, strides=1-2-2-2, stem_stride=2, maxpool=torchvision"
MADE: dict[str, tuple[Made, list[str]]] = {
    "nothing": (lambda path: rs.open(path).adapt(1), [f"{PLAIN}, dilated=none, eps=1e-05 (default)"]),
    "dilated": (
        lambda path: rs.open(path).dilate(16),
        [f"{PLAIN}, eps=1e-05 (default)", "dilated=layer4 (dilate)"],
    ),
    "and back": (lambda path: rs.open(path).dilate(16).dilate(32), [f"{PLAIN}, dilated=none, eps=1e-05 (default)"]),
    "stem": (
        lambda path: rs.open(path, assume="eps=0").stem(stride=1, maxpool="none"),
        [
            "bottleneck_stride=conv2, strides=1-2-2-2, dilated=none (default)",
            "stem_stride=1, maxpool=none (stem)",
            "eps=0 (user)",
        ],
    ),
    "cut": (
        lambda path: rs.open(path).remove(layers=["maxpool"]).remove(last=3),
        [
            "bottleneck_stride=conv2, strides=1-2-2, stem_stride=2, dilated=none, eps=1e-05 (default)",
            "maxpool=none (remove)",
        ],
    ),
}


@pytest.mark.parametrize("made", MADE)
def test_facts_are_those_of_the_network_as_it_is(made: str, checkpoints: Path) -> None:
    network, expected = MADE[made]
    assert [*in_words(facts_now(network(checkpoints / "bottleneck.pth").recorded))] == expected


def test_what_an_operation_made_can_be_stated_and_nothing_else(checkpoints: Path, tmp_path: Path) -> None:
    path = rs.open(checkpoints / "bottleneck.pth").dilate(16).save(tmp_path / "dilated.safetensors")
    assert rs.open(path, assume="dilated=layer4").architecture.stages[3].dilation == 2
    with pytest.raises(rs.ArchitectureError, match="dilated cannot be layer3: its manifest says layer4"):
        rs.open(path, assume="dilated=layer3")
    facts = {fact.name: (fact.value, fact.place) for fact in rs.inspect(path).facts}
    assert facts["dilated"] == ("layer4", "dilate")
