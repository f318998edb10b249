"""The table of names reads what it writes."""

from __future__ import annotations

import pytest

from resnet_surgeon.architecture.naming import NAMINGS, Naming
from resnet_surgeon.architecture.parameters import parameters
from resnet_surgeon.architecture.variants import VARIANTS
from resnet_surgeon.formats.tensors import Initialised
from resnet_surgeon.sources.wrappings import unwrap


@pytest.mark.parametrize("architecture", ["resnet18", "resnet50"])
@pytest.mark.parametrize("naming", NAMINGS.values(), ids=NAMINGS.keys())
def test_what_is_written_is_read(naming: Naming, architecture: str) -> None:
    tensors = {p.name: Initialised(p.dtype, p.shape, p.law, 0, p.name) for p in parameters(VARIANTS[architecture])}
    written = {naming.written(name): tensor for name, tensor in tensors.items()}
    assert len(written) == len(tensors)
    found = unwrap(written)
    assert found.problem is None
    assert found.tensors == tensors


@pytest.mark.parametrize("name", ["heads.head1.fc.weight", "layer1.0.se.weight", "conv2.weight", "layer1.conv1.weight"])
@pytest.mark.parametrize("naming", NAMINGS.values(), ids=NAMINGS.keys())
def test_what_has_no_name_is_refused(naming: Naming, name: str) -> None:
    with pytest.raises(ValueError, match="has no name for"):
        naming.written(name)
