"""An architecture's tensors are those of torchvision's module."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torchvision.models.resnet import BasicBlock, Bottleneck

from resnet_surgeon.architecture.parameters import parameters
from resnet_surgeon.architecture.variants import VARIANTS, resnet
from resnet_surgeon.arithmetic.laws import Constant, Law, Normal, Uniform


@pytest.mark.parametrize("name", VARIANTS)
def test_names_and_shapes_are_torchvisions_in_its_order(name: str) -> None:
    with torch.device("meta"):
        witness = torchvision.models.get_model(name).state_dict()
    ours = [(parameter.name, parameter.shape, parameter.dtype) for parameter in parameters(VARIANTS[name])]
    dtypes = {torch.float32: "F32", torch.int64: "I64"}
    assert ours == [(key, tuple(tensor.shape), dtypes[tensor.dtype]) for key, tensor in witness.items()]


def fits(law: Law, values: torch.Tensor) -> bool:
    """Whether a tensor may have been drawn from `law`."""
    values = values.double()
    if isinstance(law, Constant):
        return bool((values == law.value).all())
    if isinstance(law, Uniform):
        edge = float(values.abs().max())
        return edge <= law.bound and (len(values.flatten()) < 1000 or edge > 0.98 * law.bound)
    assert isinstance(law, Normal)
    return bool(abs(float(values.std()) / law.std - 1) < 6 / (2 * values.numel()) ** 0.5)


@pytest.mark.parametrize(("block", "ours"), [(BasicBlock, "basic"), (Bottleneck, "bottleneck")])
def test_laws_are_those_that_torchvision_draws_from(block: type[BasicBlock | Bottleneck], ours: str) -> None:
    torch.manual_seed(0)
    witness = torchvision.models.ResNet(block, [1, 1, 1, 1]).state_dict()
    for parameter in parameters(resnet(ours, (1, 1, 1, 1))):  # type: ignore[arg-type]
        assert fits(parameter.law, witness[parameter.name]), parameter
