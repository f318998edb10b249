"""The catalogue is what the installed torchvision says."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest
from torchvision.models import get_weight

from resnet_surgeon.errors import UsageError
from resnet_surgeon.sources import catalog


def test_the_packaged_catalogue_is_torchvisions() -> None:
    generator = runpy.run_path(str(Path(__file__).parents[2] / "docs" / "generate_catalog.py"))
    packaged = json.loads(Path(catalog.__file__).with_name("catalog.json").read_text("utf-8"))
    assert generator["CATALOG"].samefile(Path(catalog.__file__).with_name("catalog.json"))
    assert packaged == json.loads(json.dumps(generator["catalog"]()))


def test_it_lists_ten_architectures_and_seventeen_files() -> None:
    entries = catalog.entries()
    assert (len({entry.architecture for entry in entries}), len(entries)) == (10, 17)


@pytest.mark.parametrize(("weights", "expected"), [("DEFAULT", "IMAGENET1K_V2"), ("IMAGENET1K_V1", "IMAGENET1K_V1")])
def test_an_entry_is_found_by_its_name(weights: str, expected: str) -> None:
    entry = catalog.entry("resnet50", weights)
    assert entry.weights == expected
    assert entry.url == get_weight(f"ResNet50_Weights.{expected}").url
    assert entry.file_name.startswith(f"resnet50-{entry.digest}")


def test_weights_that_do_not_exist_are_refused_with_those_that_do() -> None:
    with pytest.raises(UsageError) as caught:
        catalog.entry("resnet18", "IMAGENET1K_V2")
    assert caught.value.hint == "it has DEFAULT, IMAGENET1K_V1, random"


def test_an_entry_is_found_by_its_file() -> None:
    entry = catalog.entry_for_file("resnet50-0676ba61.pth")
    assert entry == catalog.entry("resnet50", "IMAGENET1K_V1")
    assert catalog.entry_for_file("resnet50.pth") is None
