"""From what a person types to an open file, or to what to type instead."""

from __future__ import annotations

from pathlib import Path

import pytest

import resnet_surgeon as rs
from resnet_surgeon.errors import SurgeonError


@pytest.mark.parametrize("host", ["", "localhost"])
def test_a_file_url_is_the_path_of_a_file(host: str, checkpoints: Path) -> None:
    path = checkpoints / "basic.safetensors"
    assert rs.open(f"file://{host}{path}").manifest() == rs.open(path).manifest()


def test_a_file_url_may_escape_what_a_path_does_not(checkpoints: Path, tmp_path: Path) -> None:
    (tmp_path / "my file.safetensors").symlink_to(checkpoints / "basic.safetensors")
    assert rs.open(f"file://{tmp_path}/my%20file.safetensors").label == "my file"


INSTEAD = [
    ("ResNet18", "did you mean the model `resnet18`?"),
    ("resnet20", "torchvision's models are resnet18, resnet34, "),
    ("wideresnet50_2", "did you mean the model `wide_resnet50_2`?"),
    ("s3://bucket/my model.pth", "aws s3 cp 's3://bucket/my model.pth' ."),
    ("gs://bucket/model.pth", "gcloud storage cp gs://bucket/model.pth ."),
    ("ftp://example.org/model.pth", "download the file, and give its path"),
    ("file://elsewhere/model.pth", "write file:///path/of/the/file"),
    ("file://", "write file:///path/of/the/file"),
]


@pytest.mark.parametrize(("location", "hint"), INSTEAD)
def test_what_cannot_be_opened_leads_to_what_can(location: str, hint: str) -> None:
    with pytest.raises(SurgeonError) as caught:
        rs.open(location)
    assert (caught.value.hint or "").startswith(hint)
