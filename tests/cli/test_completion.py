"""A shell offers what can be typed next, by typer's own machinery."""

from __future__ import annotations

import pytest

from tests.fixtures import Run

OFFERED = {
    "adapt resnet1": ["resnet18", "resnet101", "resnet152"],
    "adapt --init re": ["repeat"],
    "adapt resnet50 --weights I": ["IMAGENET1K_V1", "IMAGENET1K_V2"],
    "remove --layers layer4,av": ["layer4,avgpool"],
    "convert --names ti": ["timm"],
    "inspect --assume de": ["detectron2", "deeplab", "deeplab8"],
    "app": ["apply"],
    "adapt my-file": [],
    "adapt -o my-file": [],
}


@pytest.mark.parametrize("typed", OFFERED)
def test_a_shell_offers_what_begins_so(typed: str, run: Run) -> None:
    words = f"resnet-surgeon {typed}"
    env = {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    done = run(env={"_RESNET_SURGEON_COMPLETE": "complete_bash", **env})
    assert done.stdout.decode().split() == OFFERED[typed]
