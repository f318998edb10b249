"""Layers without tensors around the network of a whole module: harmless, refused, or left out with a warning."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.transforms import Normalize

import resnet_surgeon as rs
from resnet_surgeon.errors import ArchitectureError
from tests.fixtures import images, small_network
from tests.formats.test_torch_zip import saved


def headless(classifier: nn.Module) -> nn.Module:
    model: nn.Module = small_network()
    model.fc = classifier
    return model


def embedding() -> nn.Module:
    return headless(nn.Identity())


def row(*ends: nn.Module) -> nn.Sequential:
    """The stem and the stages in a row, and what follows them."""
    return nn.Sequential(*list(small_network().children())[:8], *ends)


class Around(nn.Module):
    """A class of a user's, without its text in the file."""

    def __init__(self, **parts: nn.Module) -> None:
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x: Tensor) -> Tensor:
        for name, part in self.named_children():
            x = x if name.startswith("aside") else part(x)
        return x


HARMLESS: dict[str, Callable[[], nn.Module]] = {
    "identities": lambda: nn.Sequential(nn.Dropout(), nn.Sequential(), small_network(), nn.Flatten(), nn.Identity()),
    "pooled outside": lambda: nn.Sequential(row(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 4)),
    "a second ReLU": lambda: nn.Sequential(embedding(), nn.ReLU(), nn.Linear(512, 4)),
    "layers of a classifier": lambda: headless(
        nn.Sequential(nn.Linear(512, 8), nn.GELU(), nn.Dropout(), nn.Linear(8, 4))
    ),
    "a head that pools": lambda: nn.Sequential(
        row(), nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.ReLU(), nn.Linear(512, 4))
    ),
    "a classifier beside it": lambda: nn.DataParallel(Around(net=embedding(), fc=nn.Linear(512, 4))),
    "in a class": lambda: Around(net=small_network(), drop=nn.Dropout()),
    "a loss": lambda: nn.DataParallel(Around(net=small_network(), aside=nn.CrossEntropyLoss(torch.ones(4)))),
    "pooled in a class": lambda: Around(
        body=row(), pool=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten(), fc=nn.Linear(512, 4)
    ),
    "nothing for a classifier": lambda: headless(nn.Sequential()),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_what_changes_nothing_is_passed_over(name: str) -> None:
    model = HARMLESS[name]().eval()
    with torch.no_grad():
        assert torch.equal(rs.load(rs.open(saved(model))).eval()(images()), model(images()))


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "a norm before": (lambda: nn.Sequential(nn.InstanceNorm2d(3), small_network()), "`0` is of the class .*InstanceN"),
    "by a name": (
        lambda: nn.Sequential(OrderedDict(norm=Normalize([0.5], [0.5]), net=small_network())),
        "`norm` is of the class .*Normalize",
    ),
    "a mean before": (lambda: nn.Sequential(nn.AdaptiveAvgPool2d(1), small_network()), "`0` is of the class"),
    "softmax behind": (lambda: nn.Sequential(small_network(), nn.Softmax(1)), "`1` is of the class .*Softmax"),
    "a ReLU of the logits": (lambda: nn.Sequential(small_network(), nn.ReLU()), "`1` is of the class .*ReLU"),
    "deep": (
        lambda: nn.Sequential(nn.Sequential(nn.DataParallel(small_network())), nn.Sequential(nn.Sigmoid())),
        r"`1\.0` is of the class .*Sigmoid",
    ),
    "before a classifier": (
        lambda: nn.Sequential(embedding(), nn.Sigmoid(), nn.Linear(512, 4)),
        "`1` is of the class .*Sigmoid",
    ),
    "behind a classifier": (
        lambda: nn.Sequential(embedding(), nn.Linear(512, 4), nn.Softmax(1)),
        "`2` is of the class .*Softmax",
    ),
    "another pooling in a head": (
        lambda: nn.Sequential(row(), nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(512, 4))),
        r"`1\.0` is of the class .*AdaptiveMaxPool2d",
    ),
    "another pooling": (
        lambda: nn.Sequential(row(), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(512, 4)),
        "`1` is of the class .*AdaptiveMaxPool2d",
    ),
    "pooled to 2x2": (lambda: nn.Sequential(row(), nn.AdaptiveAvgPool2d(2)), "`1` pools to another size"),
    "no pooling": (lambda: row(nn.Flatten()), "`8` flattens a feature map that nothing pools"),
    "a ReLU before the stem": (
        lambda: nn.Sequential(OrderedDict(pre=nn.ReLU(), **dict([*small_network().named_children()][:8]))),
        "`pre` is of the class .*ReLU",
    ),
    "a ReLU of the logits in a row": (
        lambda: row(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 4), nn.ReLU()),
        "`11` is of the class .*ReLU",
    ),
    "in a class": (lambda: Around(net=small_network(), act=nn.Softmax(1)), "`act` is of the class .*Softmax"),
    "between the parts of a class": (
        lambda: nn.DataParallel(Around(net=embedding(), act=nn.Sigmoid(), fc=nn.Linear(512, 4))),
        r"`module\.act` is of the class .*Sigmoid",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_may_change_the_result_is_refused_until_it_is_stated(name: str) -> None:
    make, reason = REFUSED[name]
    file = saved(make())
    with pytest.raises(ArchitectureError, match=reason) as caught:
        rs.open(file)
    (answer,) = caught.value.answers
    assert rs.open(file, assume=answer.value).architecture


def hook(*_: object) -> None:
    pass


def test_hooks_of_what_is_around_are_refused() -> None:
    model = nn.Sequential(small_network())
    model.register_forward_hook(hook)
    with pytest.raises(ArchitectureError, match="the module has hooks"):
        rs.open(saved(model))


WARNED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "an unread class": (
        lambda: Around(net=small_network()),
        r"of the class `.*\.Around`, whose forward is not",
    ),
    "a trunk in an unread class": (lambda: Around(net=row()), "no layer of the module pools its last map"),
    "in a larger model": (
        lambda: Around(norm=nn.InstanceNorm2d(3), net=embedding(), projector=nn.Linear(512, 128)),
        "beside the network are left out: `norm`",
    ),
}


@pytest.mark.parametrize("name", WARNED)
def test_what_is_left_out_unread_is_warned_of(name: str) -> None:
    make, warning = WARNED[name]
    said = rs.open(saved(make())).manifest().source.warnings
    assert re.search(warning, said[0])


def ours(layers: list[str], names: list[str] | None = None) -> nn.Module:
    return rs.load(rs.open(saved(small_network().state_dict())).features(layers=layers, names=names))


MAPS: dict[str, Callable[[], nn.Module]] = {
    "torchvision's": lambda: IntermediateLayerGetter(small_network(), {"relu": "0", "layer2": "b", "layer4": "a"}),
    "in DataParallel": lambda: nn.DataParallel(
        IntermediateLayerGetter(small_network(), {"layer1": "x", "layer3": "y"})
    ),
    "our own": lambda: ours(layers=["layer2", "layer4"], names=["first", "last"]),
    "one of our own": lambda: ours(layers=["layer3"]),
}


@pytest.mark.parametrize("name", MAPS)
def test_maps_that_a_module_returns_by_name_come_out(name: str) -> None:
    model = MAPS[name]().eval()
    with torch.no_grad():
        made, expected = rs.load(rs.open(saved(model))).eval()(images()), model(images())
    assert [*made] == [*expected]
    assert all(map(torch.equal, made.values(), expected.values()))


def test_maps_of_layers_that_have_none_are_refused() -> None:
    with pytest.raises(ArchitectureError, match="returns what its `layer4`, `avgpool` give"):
        rs.open(saved(IntermediateLayerGetter(small_network(), {"layer4": "a", "avgpool": "b"})))
