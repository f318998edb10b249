"""However a library spells its modules' names, the network is found by what they have in common."""

from __future__ import annotations

import io
import re
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torchvision.models import ResNet

import resnet_surgeon as rs
from resnet_surgeon.errors import ArchitectureError, CheckpointError
from tests.fixtures import images, small_network

State = dict[str, torch.Tensor]


def saved(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def renamed(model: ResNet, *rules: tuple[str, str]) -> State:
    """The state_dict with each name rewritten by every rule, (pattern, replacement), in turn."""
    state = {}
    for name, tensor in model.state_dict().items():
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        state[name] = tensor
    return state


STEM_IN_SEQUENTIAL = ((r"^conv1\.", "conv1.0."), (r"^bn1\.", "conv1.1."))
FROM_ZERO = (r"^layer(\d)", r"layers.\1"), (r"^layers\.1", "layers.0"), (r"^layers\.2", "layers.1")
SPELLINGS = {
    "stem in a Sequential": STEM_IN_SEQUENTIAL,
    "layer0": ((r"^conv1\.", "layer0.0."), (r"^bn1\.", "layer0.1.")),
    "layer0 with names": ((r"^conv1\.", "layer0.conv1."), (r"^bn1\.", "layer0.bn1.")),
    "firstconv and encoders": ((r"^conv1\.", "firstconv."), (r"^bn1\.", "firstbn."), (r"^layer", "encoder")),
    "stages in a list": (*FROM_ZERO, (r"^layers\.3", "layers.2"), (r"^layers\.4", "layers.3")),
    "stages by number": ((r"^layer(\d)", r"stage\1"),),
    "stages as in the paper": (
        (r"^layer1", "conv2_x"),
        (r"^layer2", "conv3_x"),
        (r"^layer3", "conv4_x"),
        (r"^layer4", "conv5_x"),
    ),
    "shortcuts": ((r"downsample", "shortcut"),),
    "a prefix that ends in _": ((r"^(?!fc)", "encoder_rgb_"),),
    "a prefix with numbers": ((r"^(?!fc)", "models.0.branch2."),),
    "checkpointed blocks": ((r"^(layer\d\.\d)", r"\1._checkpoint_wrapped_module"),),
    "sharded stages": (
        (r"^(layer\d)", r"_fsdp_wrapped_module.\1._fsdp_wrapped_module"),
        (r"^(?!_)", "_fsdp_wrapped_module."),
    ),
    "compiled blocks": ((r"^(layer\d\.\d)", r"\1._orig_mod"),),
    "a wrapper before its modules": ((r"^", "model.module."),),
}


@pytest.mark.parametrize("rules", SPELLINGS.values(), ids=SPELLINGS.keys())
def test_it_is_the_same_network(rules: tuple[tuple[str, str], ...], basic: ResNet) -> None:
    with torch.no_grad():
        assert torch.equal(rs.load(saved(renamed(basic, *rules))).eval()(images()), basic(images()))


@pytest.mark.parametrize("rules", SPELLINGS.values(), ids=SPELLINGS.keys())
def test_the_order_of_the_names_does_not_matter(rules: tuple[tuple[str, str], ...], bottleneck: ResNet) -> None:
    state = dict(sorted(renamed(bottleneck, *rules).items(), reverse=True))
    with torch.no_grad():
        assert torch.equal(rs.load(saved(state)).eval()(images()), bottleneck(images()))


def children(model: ResNet, *without: str) -> nn.Sequential:
    return nn.Sequential(*(child for name, child in model.named_children() if name not in without))


@pytest.mark.parametrize("left", [("fc",), ("avgpool", "fc"), ("maxpool", "fc"), ("maxpool", "avgpool", "fc")], ids=str)
@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_a_sequential_of_its_children_computes_the_same(prefix: str, left: tuple[str, ...], basic: ResNet) -> None:
    model = children(basic, *left)
    network = rs.open(saved({prefix + name: tensor for name, tensor in model.state_dict().items()}))
    if "avgpool" in left:
        network = network.remove(layers=["avgpool"])
    with torch.no_grad():
        result = rs.load(network.save("sequential.safetensors", force=True)).eval()(images())
        assert torch.equal(result, model(images()) if "avgpool" in left else model(images()).flatten(1))


def test_a_sequential_that_leaves_the_maxpool_open_is_refused(basic: ResNet) -> None:
    data = saved(children(basic, "relu", "maxpool", "fc").state_dict())
    with pytest.raises(ArchitectureError, match="leaves open whether it has a maxpool"):
        rs.open(data)


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(str(tmp_path))


def test_a_decoder_of_blocks_is_not_the_network(basic: ResNet) -> None:
    decoder = {
        f"decoder{name.removeprefix('layer')}": t for name, t in basic.state_dict().items() if name[:5] == "layer"
    }
    wrapping = rs.open(saved({**basic.state_dict(), **decoder})).source.origin.wrapping
    assert wrapping
    assert set(wrapping.left_out) == set(decoder)


def test_two_prefixes_of_the_very_same_tensors_are_one_network(basic: ResNet) -> None:
    state = basic.state_dict()
    alias = {**{f"model.{name}": tensor for name, tensor in state.items()}, **{f"net.{n}": t for n, t in state.items()}}
    with torch.no_grad():
        assert torch.equal(rs.load(saved(alias)).eval()(images()), basic(images()))
    assert rs.open(saved({"a": state, "b": state})).architecture.heads
    one_differs = {**alias, "net.conv1.weight": state["conv1.weight"] + 1}
    with pytest.raises(CheckpointError, match="holds 2 ResNets, under `model`, `net`"):
        rs.open(saved(one_differs))


def prefixed(prefix: str) -> State:
    return {prefix + name: tensor for name, tensor in small_network(seed=len(prefix)).state_dict().items()}


SEVERAL: dict[str, tuple[Callable[[], object], list[str]]] = {
    "keys": (lambda: {"model": prefixed(""), "ema": prefixed("")}, ["model", "ema"]),
    "prefixes": (lambda: {**prefixed("student."), **prefixed("teacher.")}, ["student", "teacher"]),
    "a bare one": (lambda: {**prefixed(""), **prefixed("teacher.")}, [".", "teacher"]),
    "both": (
        lambda: {key: {**prefixed("student."), **prefixed("teacher.")} for key in ("state_dict", "ema")},
        ["state_dict.student", "state_dict.teacher", "ema.student", "ema.teacher"],
    ),
    "one within the other": (
        lambda: {"a": {**prefixed("x."), **prefixed("x.y.")}, "b": prefixed("x.")},
        ["a.x", "a.x.y", "b.x"],
    ),
}


@pytest.mark.parametrize(("make", "keys"), SEVERAL.values(), ids=SEVERAL.keys())
def test_every_network_of_several_can_be_chosen_as_it_is_listed(make: Callable[[], object], keys: list[str]) -> None:
    data = saved(make())
    with pytest.raises(CheckpointError, match=f"holds {len(keys)} ResNets") as caught:
        rs.open(data)
    assert [(answer.option, answer.value) for answer in caught.value.answers] == [("key", key) for key in keys]
    chosen = [rs.open(data, key=key).source.origin.wrapping for key in keys]
    assert len({(found.key, found.prefix) if found else None for found in chosen}) == len(keys)


def test_a_key_that_several_share_is_not_enough() -> None:
    make, keys = SEVERAL["both"]
    with pytest.raises(CheckpointError, match="holds 2 ResNets, under `ema.student`, `ema.teacher`") as caught:
        rs.open(saved(make()), key="ema")
    with pytest.raises(CheckpointError, match="no ResNet under the key `momentum`, but under `state_dict.student`"):
        rs.open(saved(make()), key="momentum")
    assert [answer.value for answer in caught.value.answers] == keys[2:]


@pytest.mark.parametrize(("depth", "is_found"), [(4, True), (5, False)])
def test_a_state_dict_is_looked_for_under_four_keys(depth: int, is_found: bool) -> None:
    nested: object = small_network().state_dict()
    for number in range(depth):
        nested = {f"key{number}": nested}
    if is_found:
        assert rs.open(saved(nested)).architecture.in_channels == 3
    else:
        with pytest.raises(CheckpointError, match="without named tensors"):
            rs.open(saved(nested))
