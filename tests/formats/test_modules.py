"""The state_dict of a whole module is rebuilt from its pickle as torch gives it; its layers tell their attributes."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from resnet_surgeon.formats.container import Container
from resnet_surgeon.formats.modules import ModuleNode
from resnet_surgeon.formats.tensors import LazyTensor, content
from resnet_surgeon.formats.unread import Unread
from tests.fixtures import small_network
from tests.formats import test_torch_legacy, test_torch_zip
from tests.formats.test_torch_zip import raw


class Odd(nn.Module):
    """Parameters, buffers of both kinds, nothing where something could be, a child in two places, a tensor beside."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3))
        self.register_parameter("bias", None)
        self.register_buffer("kept", torch.randn(2))
        self.register_buffer("passing", torch.randn(2), persistent=False)
        self.register_buffer("nothing", None)
        self.first = nn.Linear(2, 2)
        self.second = self.first
        self.empty = None
        self.register_module("none", None)
        self.beside = torch.randn(1)


MODULES = {
    "a ResNet": small_network(),
    "DataParallel": nn.DataParallel(small_network()),
    "AveragedModel": torch.optim.swa_utils.AveragedModel(small_network()),
    "odds and ends": Odd(),
    "pruned": prune.identity(nn.Conv2d(3, 4, 3), "weight"),  # type: ignore[no-untyped-call]
    "a Sequential": nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.BatchNorm2d(4), nn.ReLU())),
}


def same(found: object, module: nn.Module) -> None:
    state = module.state_dict()
    assert isinstance(found, ModuleNode)
    assert [*found] == [*state]
    for name, tensor in found.items():
        assert isinstance(tensor, LazyTensor)
        assert content(tensor) == raw(state[name])


@pytest.mark.parametrize("module", MODULES.values(), ids=MODULES.keys())
def test_a_whole_module_has_the_tensors_of_its_state_dict_in_order(module: nn.Module) -> None:
    same(test_torch_zip.open_archive(test_torch_zip.saved(module)).root, module)


def test_so_it_has_in_stacked_pickles() -> None:
    """There its class is a reference out of the pickle, with the file and the source that it was defined in."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the source of some class cannot be had
        data = test_torch_legacy.saved(module := small_network())
    assert b"module" in data
    same(test_torch_legacy.read(data).root, module)


@pytest.mark.parametrize("packed", ["under a key", "in a list", "among attributes", "compiled"])
def test_it_is_found_in_what_people_put_round_it(packed: str) -> None:
    module = nn.Linear(2, 3)
    value = {
        "under a key": {"model": module},
        "in a list": [module, 1],
        "among attributes": Holder(module),
        "compiled": torch.compile(module),
    }[packed]
    root = test_torch_zip.open_archive(test_torch_zip.saved(value)).root
    assert isinstance(root, dict)
    same(next(iter(root.values())), module)


class Holder:
    def __init__(self, model: nn.Module) -> None:
        self.model, self.shadow, self.rate = model, {"x": torch.zeros(1)}, 0.1


def opened(value: object) -> Container:
    return test_torch_zip.open_archive(test_torch_zip.saved(value))


def test_layers_tell_their_classes_and_plain_attributes() -> None:
    node = opened(nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4, eps=0.5))).root
    assert isinstance(node, ModuleNode)
    assert {path: layer.kind for path, layer in node.layers.items()} == {
        "": "torch.nn.modules.container.Sequential",
        "0": "torch.nn.modules.conv.Conv2d",
        "1": "torch.nn.modules.batchnorm.BatchNorm2d",
    }
    attributes = node.layers["0"].attributes
    assert (attributes["stride"], attributes["padding"], attributes["padding_mode"]) == ((2, 2), (1, 1), "zeros")
    assert node.layers["1"].attributes["eps"] == 0.5


def test_classes_of_modules_that_were_read_are_not_listed_as_passed_over() -> None:
    assert opened({"model": nn.Linear(2, 2), "beside": slice(1)}).not_loaded == ("__builtin__.slice",)


def hook(*_: object) -> None:
    pass


def test_hooks_and_other_forwards_are_told_but_for_those_of_torch() -> None:
    pruned = prune.identity(nn.Linear(2, 2), "weight")  # type: ignore[no-untyped-call]
    hooked = nn.Sequential(nn.Linear(2, 2), pruned, nn.Linear(2, 2), nn.Linear(2, 2))
    hooked[0].register_forward_hook(hook)
    hooked[2].register_forward_pre_hook(hook)
    hooked[3].forward = hook
    node = opened(hooked).root
    assert isinstance(node, ModuleNode)
    assert [path for path, layer in node.layers.items() if layer.has_hooks] == ["0", "2", "3"]


def woven(depth: int, *, circle: bool) -> nn.Module:
    """Modules each of which has the next one twice: 2^depth paths; or one that is in itself."""
    module: nn.Module = nn.Linear(1, 1)
    for _ in range(depth):
        outer = nn.Module()
        outer._modules |= {"a": module, "b": module}
        module = outer
    if circle:
        module._modules["c"] = module
    return module


@pytest.mark.parametrize(("depth", "circle"), [(40, False), (1, True), (100, False)], ids=["woven", "round", "deep"])
def test_modules_without_end_are_not_read(depth: int, *, circle: bool) -> None:
    root = opened({"model": woven(depth, circle=circle), "x": torch.zeros(1)}).root
    assert isinstance(root, dict)
    assert isinstance(root["model"], Unread)
    assert "more layers than any checkpoint has" in root["model"].what
    assert isinstance(root["x"], LazyTensor)


def test_modules_of_endless_names_are_not_read() -> None:
    module: nn.Module = nn.Linear(1, 1)
    for _ in range(10):
        outer = nn.Module()
        outer._modules |= {"a" * 100_000: module, "b" * 100_000: module}
        module = outer
    root = opened({"model": module}).root
    assert isinstance(root, dict)
    assert isinstance(root["model"], Unread)


def script(module: nn.Module, tmp_path: Path) -> bytes:
    torch.jit.save(torch.jit.script(module), tmp_path / "script.pt")
    return (tmp_path / "script.pt").read_bytes()


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_torchscript_has_the_tensors_of_its_state_dict(tmp_path: Path) -> None:
    module = small_network()
    data = script(module, tmp_path)
    container = test_torch_zip.open_archive(data)
    assert container.kind == "torchscript"
    assert container.not_loaded == ()
    assert isinstance(container.root, ModuleNode)
    assert container.root.keys() == module.state_dict().keys()
    witness = torch.jit.load(io.BytesIO(data)).state_dict()  # type: ignore[no-untyped-call]
    assert {name: content(tensor) for name, tensor in container.root.items()} == {  # type: ignore[arg-type]
        name: raw(tensor) for name, tensor in witness.items()
    }
    assert container.root.layers["layer1.0.conv1"].kind == "torch.nn.modules.conv.Conv2d"
