"""The source text that torch keeps of a whole module's classes says what their forwards do: it is followed, and what it
shows is torchvision's, or refused by the line that is not.
"""

from __future__ import annotations

import functools
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck

import resnet_surgeon as rs
from resnet_surgeon.architecture.recognise import recognise
from resnet_surgeon.architecture.spec import Architecture
from resnet_surgeon.errors import ArchitectureError
from resnet_surgeon.formats.modules import Layer, ModuleNode
from resnet_surgeon.sources import modules
from resnet_surgeon.sources.found import at
from resnet_surgeon.sources.source import open_source
from tests.fixtures import images, small_network
from tests.formats import test_torch_legacy
from tests.formats.test_torch_zip import saved


@functools.cache
def opened(block: str = "basic") -> tuple[ModuleNode, dict[str, str], Architecture]:
    """A whole module without the text of its classes, the names of its tensors, and its architecture."""
    source = open_source(saved(small_network(Bottleneck if block == "bottleneck" else BasicBlock)))
    assert source.container
    node = at(source.container.root, source.found.path)
    assert isinstance(node, ModuleNode)
    return node, dict(source.found.names), recognise(source.tensors)


def told(
    network: str | None = None,
    block: str | None = None,
    *,
    kind: str = "basic",
    layer: tuple[str, str, str] | None = None,
) -> dict[str, str]:
    """The facts, with who says them, of a module whose classes, called as nobody calls them, have these texts; `layer`
    is a path with its class and text.
    """
    node, names, architecture = opened(kind)
    layers = dict(node.layers)
    texts = {"": network, **{path: block for path in layers if path.count(".") == 1 and path.startswith("layer")}}
    for path, text in texts.items():
        if text is not None:
            layers[path] = replace(layers[path], kind="net.Network" if not path else "net.Block", source=text)
    if layer is not None:
        layers[layer[0]] = replace(layers[layer[0]], kind=layer[1], source=layer[2])
    changed = ModuleNode(layers)
    changed.tensors = node.tensors
    claims = [*modules.says(changed, names, architecture, settled=False)]
    return {name: f"{value}, {claim.place}" for claim in claims for name, value in claim.facts.items().items()}


def text(body: str, name: str = "forward", more: str = "") -> str:
    """A class with a method of this body, and more in it."""
    method = f"def {name}(self, x):\n" + textwrap.indent(textwrap.dedent(body).strip(), "    ")
    return "class Any(nn.Module):\n" + textwrap.indent(textwrap.dedent(more) + method, "    ") + "\n"


STEM = "x = self.maxpool(self.relu(self.bn1(self.conv1(x))))\n"
STAGES = "x = self.layer4(self.layer3(self.layer2(self.layer1(x))))\n"
FLATTENED = "x = self.avgpool(x)\nx = torch.flatten(x, 1)\n"
NETWORKS = {
    "torchvision today": (
        "return self._forward_impl(x)",
        f"def _forward_impl(self, x: Tensor) -> Tensor:\n{textwrap.indent(STEM + STAGES + FLATTENED, '    ')}"
        "    x = self.fc(x)\n    return x\n",
    ),
    "torchvision 0.2": (STEM + STAGES + "x = self.avgpool(x)\nx = x.view(x.size(0), -1)\nreturn self.fc(x)", ""),
    "torchvision 0.2.2": (STEM + STAGES + "x = self.avgpool(x)\nx = x.reshape(x.shape[0], -1)\nreturn self.fc(x)", ""),
    "quantised, dequantised": (
        "x = self.features(x)\nreturn self.logits(x)",
        f"def features(self, x):\n{textwrap.indent(STEM + STAGES, '    ')}    return x\n"
        "def logits(self, features):\n    x = self.avgpool(features)\n    x = x.view(-1, 512)\n    return self.fc(x)\n",
    ),
    "functions": (
        "x = F.max_pool2d(F.relu(self.bn1(self.conv1(x)), inplace=True), kernel_size=3, stride=2, padding=1)\n"
        + STAGES
        + "x = F.adaptive_avg_pool2d(x, (1, 1)).flatten(1)\nreturn self.fc(F.dropout(x, 0.5, self.training))",
        "",
    ),
    "means": (STEM + STAGES + "return self.fc(x.mean(3).mean(2))", ""),
    "means that keep their axis": (STEM + STAGES + "return self.fc(x.mean(2, True).mean(3, True).squeeze())", ""),
    "a mean over two axes": (STEM + STAGES + "return self.fc(torch.mean(x, dim=[2, 3]))", ""),
    "a mean over its size": (
        STEM + STAGES + "x = F.avg_pool2d(x, x.size()[2:]).view(x.size(0), -1)\nreturn self.fc(x)", ""
    ),
    "a mean over height and width": (
        STEM + STAGES + "n, c, h, w = x.shape\nx = F.avg_pool2d(x, (h, w))\nreturn self.fc(x[:, :, 0, 0])", ""
    ),
    "a mean over 7x7": (STEM + STAGES + "x = F.avg_pool2d(x, 7)\nreturn self.fc(x.view(x.size(0), -1))", ""),
    "a loop over names": (
        STEM + "for name in ('layer1', 'layer2', 'layer3', 'layer4'):\n    x = getattr(self, name)(x)\n" + FLATTENED
        + "return self.fc(x)",
        "",
    ),
    "a loop over blocks": (
        STEM + "for stage in [self.layer1, self.layer2, self.layer3, self.layer4]:\n    for block in stage:\n"
        "        x = block(x)\n" + FLATTENED + "return self.fc(x)",
        "",
    ),
    "several outputs": (
        STEM + STAGES + "maps = []\nmaps.append(x)\nx = torch.flatten(self.avgpool(x), 1)\nreturn self.fc(x), maps", ""
    ),
    "a branch that is not taken": (
        STEM + STAGES + FLATTENED + "if self.training and self.auxiliary:\n    return self.other(x)\n"
        "with torch.no_grad():\n    print(x.shape)\nreturn self.fc(x) if not torch.jit.is_scripting() else x",
        "",
    ),
    "a ReLU of what is positive": (STEM + STAGES + "x = F.relu(x)\n" + FLATTENED + "return self.fc(x)", ""),
    "a mean over 7x7 at every place": (STEM + STAGES + "return self.fc(torch.flatten(F.avg_pool2d(x, 7, 1), 1))", ""),
    "a mean over its last two sizes": (
        STEM + STAGES + "x = F.avg_pool2d(x, (x.size(-2), x.size(-1)))\nreturn self.fc(x.view(x.size(0), -1))", ""
    ),
    "methods with options": (
        "return self.fc(self.pooled(self.features(x, pools=True)))",
        f"def features(self, x, pools=False, *, doubles=False):\n    x = 2 * x if doubles else x\n"
        f"{textwrap.indent(STEM.replace('self.maxpool(', '('), '    ')}    x = self.maxpool(x) if pools else x\n"
        f"{textwrap.indent(STAGES, '    ')}    return x\n"
        f"def pooled(self, x, flat=True):\n{textwrap.indent(FLATTENED, '    ')}    return x if flat else 2 * x\n",
    ),
    "a mean over a square": (STEM + STAGES + "return self.fc(F.avg_pool2d(x, x.size(3)).view((x.size(0), -1)))", ""),
    "a mean over its height": (STEM + STAGES + "return self.fc(F.avg_pool2d(x, x.shape[2]).flatten(1))", ""),
    "a mean over its last two axes": (STEM + STAGES + "return self.fc(x.mean((-2, -1)))", ""),
    "means over its last axes": (STEM + STAGES + "return self.fc(x.mean(-2).mean(-1))", ""),
    "squeezed": (STEM + STAGES + "return self.fc(self.avgpool(x.contiguous()).squeeze(3).squeeze(2))", ""),
    "squeezed from behind": (STEM + STAGES + "return self.fc(self.avgpool(x).squeeze(-2).squeeze(-1))", ""),
    "an attribute that holds it": (
        STEM + "self.kept = x\nx = self.kept\n" + STAGES + FLATTENED + "return self.fc(x)", ""
    ),
}  # fmt: skip


@pytest.mark.parametrize(("body", "more"), NETWORKS.values(), ids=NETWORKS.keys())
def test_a_network_with_torchvisions_forward_is_taken_whatever_its_class_is_called(body: str, more: str) -> None:
    facts = told(text(body, more=more))
    assert facts["maxpool"] == "torchvision, the source code in it"
    assert facts["stem_stride"] == "2, its module"


def test_the_text_tells_a_network_without_maxpool_though_there_is_a_layer_for_it() -> None:
    body = "x = self.relu(self.bn1(self.conv1(x)))\n" + STAGES + FLATTENED + "return self.fc(x)"
    assert told(text(body))["maxpool"] == "none, the source code in it"


@pytest.mark.parametrize(("places", "is_told"), [(14, True), (7, False)])
def test_without_a_maxpool_a_mean_is_over_twice_as_many_places(places: int, is_told: bool) -> None:
    body = "x = self.relu(self.bn1(self.conv1(x)))\n" + STAGES + f"return self.fc(F.avg_pool2d(x, {places}).flatten(1))"
    if is_told:
        assert told(text(body))["maxpool"] == "none, the source code in it"
        return
    with pytest.raises(ArchitectureError, match=r"has `return self\.fc\(F\.avg_pool2d"):
        told(text(body))


CONDITIONS = [
    "1 < 2", "not 2 < 2", "2 <= 2", "not 3 <= 2", "2 > 1", "not 2 > 2", "2 >= 2", "not 1 >= 2", "1 == 1", "not 1 == 2",
    "1 != 2", "not 1 != 1", "1 + 2 == 3", "3 - 2 == 1", "2 * 3 == 6", "-1 < 0", "not 0", "1 and 2", "not (1 and 0)",
    "0 or 1", "not (0 or None)", "(5, 6)[1] == 6", "[5, 6][-2] == 5", "len([5, 6, 7][1:]) == 2",
    "len((5, 6)[:-1]) == 1", "{'a': 5}['a'] == 5", "len(range(3)) == 3", "(1 if 0 else 2) == 2",
    "(1 if 5 else 2) == 1", "self.conv1 is not None", "not self.conv1 is None", "self.layer1",
    "len(self.layer1) == 1", "hasattr(self, 'fc')", "not self.training",
]  # fmt: skip


@pytest.mark.parametrize("condition", CONDITIONS)
def test_a_condition_is_what_python_makes_of_it(condition: str) -> None:
    """The branch that is not taken may do anything; the one that is taken is followed."""
    assert told(text(f"if not ({condition}):\n    x = 2 * x\n{STEM}{STAGES}{END}"))
    with pytest.raises(ArchitectureError, match=r"has `x = 2 \* x`"):
        told(text(f"if {condition}:\n    x = 2 * x\n{STEM}{STAGES}{END}"))


def test_the_text_tells_caffes_maxpool() -> None:
    stem = "x = F.max_pool2d(self.relu(self.bn1(self.conv1(x))), 3, 2, ceil_mode=True)\n"
    assert told(text(stem + STAGES + FLATTENED + "return self.fc(x)"))["maxpool"] == "caffe, the source code in it"


BASIC = """
out = self.conv1(x)
out = self.bn1(out)
out = self.relu(out)
out = self.conv2(out)
out = self.bn2(out)
residual = x
if self.downsample is not None:
    residual = self.downsample(x)
out += residual
return self.relu(out)
"""
BLOCKS = {
    "torchvision": BASIC,
    "short": "y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))\n"
    "return F.relu(y + (self.downsample(x) if self.downsample else x))",
    "another order": BASIC.replace("out += residual", "out = residual + out"),
    "a method": BASIC.replace("out += residual", "out = torch.add(out, residual)"),
}


@pytest.mark.parametrize("body", BLOCKS.values(), ids=BLOCKS.keys())
def test_a_block_with_torchvisions_forward_is_taken_whatever_its_class_is_called(body: str) -> None:
    assert told(block=text(body))["maxpool"] == "torchvision, its module"


def test_a_network_and_its_blocks_are_taken_by_their_own_texts() -> None:
    network = text(STEM + STAGES + END)
    assert told(network, text(BASIC))["maxpool"] == "torchvision, the source code in it"
    with pytest.raises(ArchitectureError, match="`net.Block`, with a forward that has `out [+]= 2 [*] residual`"):
        told(network, text(BASIC.replace("+= residual", "+= 2 * residual")))


def test_a_bottleneck_with_torchvisions_forward_is_taken() -> None:
    body = BASIC.replace("residual = x\n", "out = self.relu(out)\nout = self.bn3(self.conv3(out))\nresidual = x\n", 1)
    assert "maxpool" in told(block=text(body), kind="bottleneck")
    with pytest.raises(ArchitectureError, match="with a forward that has `out = self.bn3"):
        told(block=text(body.replace("out = self.relu(out)\nout = self.bn3", "out = self.bn3")), kind="bottleneck")


SEEDS = [*(text(body, more=more) for body, more in NETWORKS.values()), *map(text, BLOCKS.values())]
END = FLATTENED + "return self.fc(x)"
OTHER_NETWORKS = {
    "a function": (STEM + STAGES + "x = torch.sigmoid(x)\n" + END, "x = torch.sigmoid(x)"),
    "its own function": (STEM + STAGES + "x = attend(x)\n" + END, "x = attend(x)"),
    "an activation": (STEM.replace("self.relu", "F.leaky_relu") + STAGES + END, "x = self.maxpool(F.leaky_relu"),
    "a skipped layer": (STEM + "x = self.layer4(self.layer2(self.layer1(x)))\n" + END, "x = self.layer4(self.layer2"),
    "layers in another order": (STEM + "x = self.layer4(self.layer3(self.layer1(self.layer2(x))))\n" + END, "x = self"),
    "another maxpool": (STEM.replace("self.maxpool(", "F.max_pool2d(2, ") + STAGES + END, "x = F.max_pool2d(2"),
    "a maxpool of 2": ("x = F.max_pool2d(self.relu(self.bn1(self.conv1(x))), 2)\n" + STAGES + END, "x = F.max_pool2d"),
    "a factor": (STEM + STAGES + "x = 2 * x\n" + END, "x = 2 * x"),
    "a sum": (STEM + "y = self.layer1(x)\nx = x + y\n" + STAGES + END, "x = x + y"),
    "a mean over 4x4": (STEM + STAGES + "return self.fc(F.avg_pool2d(x, 4).view(x.size(0), -1))", "return self.fc(F"),
    "a maximum": (STEM + STAGES + "return self.fc(x.amax((2, 3)))", "return self.fc(x.amax((2, 3)))"),
    "an end without mean": (STEM + STAGES + "return self.fc(x.flatten(1))", "return self.fc(x.flatten(1))"),
    "an axis of its own": (STEM + STAGES + "return self.fc(x.mean(1))", "return self.fc(x.mean(1))"),
    "the mean of one axis": (STEM + STAGES + "return self.fc(x.mean(3).mean(1))", "return self.fc(x.mean(3).mean(1))"),
    "something after": (STEM + STAGES + FLATTENED + "return F.softmax(self.fc(x), 1)", "return F.softmax"),
    "something before": ("x = x - 0.5\n" + STEM + STAGES + END, "x = x - 0.5"),
    "a dropout that always acts": (STEM + STAGES + FLATTENED + "return self.fc(F.dropout(x, 0.5))", "return self.fc"),
    "a branch": (STEM + STAGES + "if self.unheard:\n    x = x + 1\n" + END, "if self.unheard:"),
    "a branch on numbers": (STEM + "if x.sum() > 0:\n    x = 0 * x\n" + STAGES + END, "if x.sum() > 0:"),
    "a ReLU of a stem in place": (
        "x = self.conv1(x)\nself.bn1(x)\nx = self.maxpool(self.relu(x))\n" + STAGES + END, "self.bn1(x)"
    ),
    "a loop without end": (STEM + "while True:\n    x = self.layer1(x)\n" + STAGES + END, "while True:"),
    "two at once": (STEM + "x = torch.cat([x, x], 1)\n" + STAGES + END, "x = torch.cat([x, x], 1)"),
    "its base's": ("return super().forward(x)", "return super().forward(x)"),
    "a part": (STEM + STAGES + "return self.fc(self.avgpool(x)[:, :, 0, 0])[:, :2]", "return self.fc(self.avgpool"),
    "a part at another place": (STEM + STAGES + "return self.fc(self.avgpool(x)[:, :, 0, 1])", "return self.fc(self."),
    "a dropout of maps that always acts": (STEM + STAGES + "x = F.dropout2d(x, 0.5)\n" + END, "x = F.dropout2d"),
    "a mean over 7x4": (STEM + STAGES + "return self.fc(F.avg_pool2d(x, (7, 4)).flatten(1))", "return self.fc(F.avg"),
    "a mean with a divisor": (
        STEM + STAGES + "return self.fc(F.avg_pool2d(x, 7, divisor_override=3).flatten(1))", "return self.fc(F.avg"
    ),
    "a mean with a divisor by its place": (
        STEM + STAGES + "return self.fc(F.avg_pool2d(x, 7, 7, 0, False, True, 3).flatten(1))", "return self.fc(F.avg_po"
    ),
    "a mean at every second place": (STEM + STAGES + "return self.fc(F.avg_pool2d(x, 7, 2).flatten(1))", "return"),
    "the mean of one axis twice": (
        STEM + STAGES + "return self.fc(x.mean(3, True).mean(3, True).flatten(1))", "return self.fc(x.mean(3, True)"
    ),
    "a squeeze of the images": (STEM + STAGES + "return self.fc(self.avgpool(x).squeeze(0).flatten(1))", "return"),
    "a mean with a border": (STEM + STAGES + "return self.fc(F.avg_pool2d(x, 7, 7, 3).flatten(1))", "return self.fc(F"),
    "a mean over the images": (STEM + STAGES + "return self.fc(x.mean((0, 2, 3)))", "return self.fc(x.mean"),
    "a mean over no axis": (STEM + STAGES + "return self.fc(x.mean(()))", "return self.fc(x.mean(()))"),
    "means over two rows": (
        STEM + STAGES + "return self.fc(F.adaptive_avg_pool2d(x, (2, 1)).flatten(1))", "return self.fc(F.adaptive_avg"
    ),
    "all images in one row": (STEM + STAGES + "return self.fc(self.avgpool(x).flatten())", "return self.fc(self.avg"),
    "all numbers in one row": (STEM + STAGES + "return self.fc(self.avgpool(x).view(-1))", "return self.fc(self.avg"),
    "rows of another shape": (
        STEM + STAGES + "return self.fc(self.avgpool(x).view(x.size(0), -1, 1))", "return self.fc(self.avgpool"
    ),
    "a layer with an argument more": (STEM + "x = self.layer1(x, 2)\n" + STAGES + END, "x = self.layer1(x, 2)"),
    "a layer with an option": (STEM + "x = self.layer1(x, scale=2)\n" + STAGES + END, "x = self.layer1(x, scale=2)"),
    "a loop that ends with something else": (
        STEM + "for a in range(2):\n    pass\nelse:\n    x = 2 * x\n" + STAGES + END, "for a in range(2):"
    ),
    "a factor in place": (STEM + STAGES + "x *= 2\n" + END, "x *= 2"),
    "a sign": (STEM + "x = -x\n" + STAGES + END, "x = -x"),
    "a quotient": (STEM + "x = x / 2\n" + STAGES + END, "x = x / 2"),
    "a comparison": (STEM + "x = x if x > 0 else x\n" + STAGES + END, "x = x if x > 0 else x"),
    "what holds for some numbers": (STEM + "x = x * (x > 0)\n" + STAGES + END, "x = x * (x > 0)"),
    "a comprehension": (STEM + "x = [2 * y for y in [x]][0]\n" + STAGES + END, "x = [2 * y for y in [x]][0]"),
    "a function of its own": (STEM + "x = (lambda y: 2 * y)(x)\n" + STAGES + END, "x = (lambda y: 2 * y)(x)"),
    "a function that is defined": (STEM + "def twice(y):\n    return 2 * y\nx = twice(x)\n" + END, "def twice"),
    "a function that is imported": (STEM + "from net import attend\nx = attend(x)\n" + STAGES + END, "from net import"),
    "arguments in a list": (STEM + "x = self.layer1(*[x])\n" + STAGES + END, "x = self.layer1(*[x])"),
    "options in a dict": (STEM + "x = F.relu(x, **{'inplace': True})\n" + STAGES + END, "x = F.relu(x, **{'inplace'"),
    "what may fail": (STEM + "try:\n    x = 2 * x\nexcept TypeError:\n    pass\n" + STAGES + END, "try:"),
    "a path that is no attribute": (
        "if getattr(self, 'layer1.0', None) is None:\n    x = 2 * x\n" + STEM + STAGES + END, "if getattr(self, 'layer"
    ),
    "two maxpools": (STEM + "x = self.maxpool(x)\n" + STAGES + END, "x = self.maxpool(x)"),
}  # fmt: skip


# What may change what is computed, aside from the data that goes through.
ASIDE = {
    "an attribute of a layer": "self.conv1.stride = (1, 1)",
    "another layer in the place of one": "self.layer1 = self.layer2",
    "a layer in the place of a method": "self.scale = self.layer1",
    "a way of computing": "self.training = True",
    "a layer that trains": "self.bn1.train()",
    "a weight written into": "self.fc.weight.data.mul_(2)",
    "a row of a weight": "self.fc.weight[0].zero_()",
    "a function of a weight": "nn.init.zeros_(self.fc.weight)",
    "a function of the module": "mess(self)",
    "a function of a method": "apply(x.relu_)",
    "a name in an assertion": "assert (x := 2 * x) is not None",
    "an assertion that writes": "assert x.mul_(2) is not None",
    "what is printed": "print(x.mul_(2))",
    "what is formatted": "y = f'{x.mul_(2)}'",
    "a context": "with torch.set_grad_enabled(bool(x.mul_(2).sum())): pass",
    "a list turned round": "[x].reverse()",
    "an activation in place": "y = F.leaky_relu(x, inplace=True)",
    "one in place by its place": "y = F.leaky_relu(x, 0.1, True)",
    "one in place by its only place": "y = F.silu(x, True)",
    "a ReLU of a view": "z = x.transpose(0, 1).relu_()",
    "a ReLU of what is flattened": "z = F.relu_(x.flatten(1))",
    "a function of a view": "y = F.relu_(x.T)",
    "an attribute of a base": "if hasattr(self, 'extra'): x = 2 * x",
    "a property": "if self.scale is None: x = 2 * x",
    "an attribute of the class": "if not self.flag: x = 2 * x",
}
MORE = "flag = True\n@property\ndef scale(self):\n    return None\n"


@pytest.mark.parametrize("line", ASIDE.values(), ids=ASIDE.keys())
def test_what_may_change_the_network_or_its_data_aside_is_refused(line: str) -> None:
    with pytest.raises(ArchitectureError) as caught:
        told(text(f"{line}\n{STEM}{STAGES}{END}", more=MORE))
    assert f"has `{line}`, which is not followed" in caught.value.reason


def test_a_list_that_is_added_to_by_another_name_is_refused() -> None:
    body = f"y = self.layer1(x)\nmaps = [y]\nalias = maps\nalias += [x]\nx = maps[-1]\n{STAGES}{END}"
    with pytest.raises(ArchitectureError, match=r"has `alias \+= \[x\]`"):
        told(text(STEM + body))


def test_a_weight_under_another_name_is_not_added_to() -> None:
    with pytest.raises(ArchitectureError, match=r"has `w \+= 1`"):
        told(text(f"w = self.fc.weight\nw += 1\n{STEM}{STAGES}{END}"))


@pytest.mark.parametrize(("body", "line"), OTHER_NETWORKS.values(), ids=OTHER_NETWORKS.keys())
def test_a_network_that_computes_something_else_is_refused_by_the_line(body: str, line: str) -> None:
    with pytest.raises(ArchitectureError) as caught:
        told(text(body))
    assert f"the module is of the class `net.Network`, with a forward that has `{line}" in caught.value.reason
    assert [answer.value for answer in caught.value.answers] == ["torchvision"]


def test_a_network_that_ends_early_is_refused() -> None:
    with pytest.raises(ArchitectureError, match="with a forward that does without `fc`"):
        told(text(STEM + STAGES + "return self.avgpool(x)"))


OTHER_BLOCKS = {
    "pre-activation": ("x = self.conv1(self.relu(self.bn1(x)))\n" + BASIC, "x = self.conv1(self.relu(self.bn1(x)))"),
    "activated before the sum": (
        BASIC.replace("out += residual\nreturn self.relu(out)", "return self.relu(out) + residual"),
        "return self.relu(out) + residual",
    ),
    "without the last activation": (BASIC.replace("self.relu(out)\n", "out\n", 2), "out = self.conv2(out)"),
    "a shortcut that is left out": (BASIC.replace("    residual = self.downsample(x)", "    pass"), "out += residual"),
    "a shortcut of something else": (
        BASIC.replace("self.downsample(x)", "self.downsample(out)"), "residual = self.downsample(out)"
    ),
    "a factor of the residual": (BASIC.replace("+= residual", "+= 0.1 * residual"), "out += 0.1 * residual"),
    "attention": (BASIC.replace("residual = x", "out = self.attend(out)\nresidual = x"), "out = self.attend(out)"),
    "a factor of the sum": (
        BASIC.replace("out += residual", "out = torch.add(out, residual, alpha=0.5)"),
        "out = torch.add(out, residual, alpha=0.5)",
    ),
    "a shortcut that is activated in place": (
        BASIC.replace("out += residual", "unused = self.relu(residual)\nout += residual"),
        "out += residual",
    ),
    "what was added to, in a list": (
        BASIC.replace("out += residual", "kept = [out]\nout += x\nout = kept[0] + residual"),
        "out = kept[0] + residual",
    ),
    "a shortcut that a function activates in place": (
        BASIC.replace("out += residual", "unused = F.relu(residual, inplace=True)\nout += residual"), "out += residual"
    ),
    "a shortcut that a function activates in place, by its place": (
        BASIC.replace("out += residual", "unused = F.relu(residual, True)\nout += residual"), "out += residual"
    ),
    "a name that is another's": ("import attention as F\n" + BLOCKS["short"], "import attention as F"),
    "what was added to": (BASIC.replace("return self.relu(out)", "return self.relu(other)").replace(
        "out += residual", "other = out\nout += residual"), "return self.relu(other)"),
}  # fmt: skip


@pytest.mark.parametrize(("body", "line"), OTHER_BLOCKS.values(), ids=OTHER_BLOCKS.keys())
def test_a_block_that_computes_something_else_is_refused_by_the_line(body: str, line: str) -> None:
    with pytest.raises(ArchitectureError) as caught:
        told(block=text(body))
    assert f"is of the class `net.Block`, with a forward that has `{line}`" in caught.value.reason


ODD_CLASSES = {
    "decorated": (f"@wrapped\n{text(STEM + STAGES + END)}", "wrapped"),
    "a decorated forward": (text(STEM + STAGES + END).replace("    def", "    @scaled\n    def"), "def forward"),
    "a call of its own": (text(STEM + STAGES + END, more="def __call__(self, x):\n    return 2 * x\n"), "def __call__"),
    "a forward that is replaced": (text(STEM + STAGES + END) + "    forward = scaled(forward)\n", "forward = scaled"),
    "a forward under a condition": ("class A(nn.Module):\n    if True:\n        def forward(self, x):\n"
                                    "            return 2 * x\n", "if True:"),
    "a base whose forward is not there": (
        text(STEM + STAGES + END, name="_forward_impl").replace("nn.Module", "Doubling"), "class Any(Doubling):"
    ),
    "a method that yields": (
        text("x = self.each(x)\n" + STEM + STAGES + END, more="def each(self, x):\n    yield 2 * x\n"),
        "x = self.each(x)",
    ),
    "a method of more arguments than it takes": (
        text("x = self.same(x, 2)\n" + STEM + STAGES + END, more="def same(self, x):\n    return x\n"),
        "def same(self, x):",
    ),
    "a method of other options than it has": (
        text("x = self.same(x, by=2)\n" + STEM + STAGES + END, more="def same(self, x):\n    return x\n"),
        "def same(self, x):",
    ),
    "a method of whatever there is": (
        text("x = self.scaled(x, 2)\n" + STEM + STAGES + END, more="def scaled(self, x, *by):\n    return by[0] * x\n"),
        "def scaled(self, x, *by):",
    ),
    "a class in a layer's place": (
        text(STEM + STAGES + END, more="class relu:\n    pass\n"), "x = self.maxpool(self.relu("
    ),
    "a method in a layer's place": (
        text(STEM + STAGES + END, more="def bn1(self, x):\n    return 2 * x\n"), "return 2 * x"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("network", "line"), ODD_CLASSES.values(), ids=ODD_CLASSES.keys())
def test_a_class_that_is_more_than_its_forward_is_refused(network: str, line: str) -> None:
    with pytest.raises(ArchitectureError) as caught:
        told(network)
    assert line in caught.value.reason


@pytest.mark.parametrize("name", ["forward", "_forward_impl", "_conv_forward", "__call__"])
@pytest.mark.parametrize("path", ["conv1", "layer2.0.downsample.0", "layer4.0.conv2"])
def test_a_convolution_with_a_forward_of_its_own_is_refused(path: str, name: str) -> None:
    own = text("return 2 * x", name=name).replace("nn.Module", "nn.Conv2d")
    with pytest.raises(ArchitectureError, match=rf"`{path}` is .*`net.Conv2d`, with a forward of its own"):
        told(text(STEM + STAGES + END), layer=(path, "net.Conv2d", own))


def test_a_convolution_whose_base_is_not_there_is_refused() -> None:
    own = "class Conv2d(Doubling):\n    pass\n"
    with pytest.raises(ArchitectureError, match=r"with a forward of its own \(`class Conv2d\(Doubling\):`\)"):
        told(text(STEM + STAGES + END), layer=("conv1", "net.Conv2d", own))


def test_a_convolution_with_no_more_than_a_method_aside_is_taken() -> None:
    own = text("pass", name="initialise").replace("nn.Module", "nn.Conv2d")
    assert told(text(STEM + STAGES + END), layer=("conv1", "net.Conv2d", own))["stem_stride"] == "2, its module"


def nested(depth: int) -> str:
    return "class A:\n" + "".join(f"{' ' * level}if 1:\n" for level in range(1, depth)) + " " * depth + "pass\n"


SILENT = {
    "Python 2": text("print 'hello'\n" + STEM + STAGES + END),
    "no class": "x = 1\n",
    "no forward": "class A(nn.Module):\n    pass\n",
    "nothing": "\n",
    "brackets": "class A:\n    x = " + "(" * 5000 + ")" * 5000 + "\n",
    "signs": "class A:\n    x = " + "-" * 60_000 + "1\n",
    "sums": "class A:\n    x = " + "1+" * 30_000 + "1\n",
    "attributes": "class A:\n    x = a" + ".a" * 30_000 + "\n",
    "comparisons by turns": "class A:\n    x = " + "1 if 1 else " * 5000 + "1\n",
    "blocks": nested(200),
    "branches": "class A:\n    if 1:\n        pass\n" + "    elif 1:\n        pass\n" * 3000,
    "a null byte": "class A:\n    x = '\0'\n",
    "half a pair": "class A:\n    x = '\ud800'\n",
    "digits": "class A:\n    x = " + "9" * 60_000 + "\n",
}


@pytest.mark.parametrize("network", SILENT.values(), ids=SILENT.keys())
def test_text_that_is_no_class_with_a_forward_says_nothing(network: str) -> None:
    with pytest.raises(ArchitectureError, match="the module is of the class `net.Network`: whether"):
        told(network)


ENDLESS = {
    "lists of lists": "a = []\n" + "a = [a, a]\n" * 500 + "return a",
    "long lists that are passed on": "a = []\n"
    "for b in range(1000):\n    for c in range(20):\n        a.append(b)\n"
    "for b in range(1000):\n    for c in range(20):\n        observe(a)\nreturn x",
    "lists that double": "a = [x]\n" + "a = a + a\n" * 100 + "return a",
    "sums of sums": "x = x + x\n" * 1000 + "return x",
    "loops in loops": "for a in range(1000):\n    for b in range(1000):\n        pass\nreturn x",
    "calls of itself": "return self.forward(x)",
    "many steps": "for a in range(1000):\n    for b in range(1000):\n        x = torch.sigmoid(x)\nreturn x",
    "a long number": "a = 2\nfor b in range(1000):\n    a = a * a\nreturn x",
}


@pytest.mark.parametrize("body", ENDLESS.values(), ids=ENDLESS.keys())
def test_text_that_would_take_for_ever_is_refused(body: str) -> None:
    with pytest.raises(ArchitectureError, match="with a forward that"):
        told(text(body))


class Net(nn.Module):
    """A network by another name, whose stem is a Sequential and whose maxpool is a function, or none."""

    def __init__(self, pools: bool) -> None:
        super().__init__()
        model = small_network()
        self.pools = pools
        self.layer0 = nn.Sequential(model.conv1, model.bn1, model.relu)
        self.layer1, self.layer2, self.layer3, self.layer4 = model.layer1, model.layer2, model.layer3, model.layer4
        self.fc = model.fc

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layer0(x)
        if self.pools:
            x = F.max_pool2d(x, 3, 2, 1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))  # type: ignore[no-any-return]


class Wrapped(nn.Module):
    """A network whose classifier stands around it."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = small_network()
        self.backbone.fc, self.fc = nn.Identity(), self.backbone.fc

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.backbone(x))  # type: ignore[no-any-return]


class Normalised(Wrapped):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.backbone(x)
        return self.fc(F.normalize(x))  # type: ignore[no-any-return]


@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")
@pytest.mark.parametrize("make", [lambda: Net(True), lambda: Net(False), Wrapped], ids=["maxpool", "none", "wrapped"])
def test_a_module_that_torch_saved_with_its_text_comes_out_as_it_computes(
    make: type[nn.Module], tmp_path: Path
) -> None:
    model = make().eval()
    (tmp_path / "model.pth").write_bytes(test_torch_legacy.saved(model))
    with torch.no_grad():
        assert torch.equal(rs.load(tmp_path / "model.pth").eval()(images()), model(images()))


class Largest(Net):
    """An embedding that is no mean."""

    def __init__(self) -> None:
        super().__init__(True)
        self.fc = nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(self.layer0(x), 3, 2, 1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return F.adaptive_max_pool2d(x, 1).flatten(1)


class Negative(Net):
    """A network with an activation that writes into its input."""

    def __init__(self) -> None:
        super().__init__(True)
        self.act = nn.Hardtanh(-0.1, 0.1, inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        aside = self.act(x)
        x = F.max_pool2d(self.layer0(x), 3, 2, 1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1)), aside  # type: ignore[return-value]


class Held(Net):
    def __init__(self) -> None:
        super().__init__(True)
        self.extra = nn.ModuleDict()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.extra:
            x = 2 * x
        return super().forward(x)


class Doubled(nn.Sequential):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)  # type: ignore[no-any-return, no-untyped-call]


def doubled() -> nn.Module:
    model: nn.Module = small_network()
    model.fc = Doubled(nn.Linear(512, 4))
    return model


@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")
@pytest.mark.parametrize(
    ("make", "line"),
    [
        (Largest, "return F.adaptive_max_pool2d"),
        (Negative, "x = F.max_pool2d(self.layer0(x), 3, 2, 1)"),
        (Held, "if not self.extra:"),
        (doubled, "return 2 * super().forward(x)"),
    ],
    ids=["an embedding by the maximum", "an activation in place", "an empty container", "a classifier"],
)
def test_a_module_that_computes_something_else_is_refused_by_the_line(
    make: Callable[[], nn.Module], line: str, tmp_path: Path
) -> None:
    (tmp_path / "model.pth").write_bytes(test_torch_legacy.saved(make()))
    with pytest.raises(ArchitectureError) as caught:
        rs.open(tmp_path / "model.pth")
    assert f"`{line}" in caught.value.reason


@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")
def test_what_stands_between_a_network_and_its_classifier_is_refused_until_it_is_stated(tmp_path: Path) -> None:
    (tmp_path / "model.pth").write_bytes(test_torch_legacy.saved(Normalised()))
    with pytest.raises(ArchitectureError, match=r"has `return self\.fc\(F\.normalize\(x\)\)"):
        rs.open(tmp_path / "model.pth")
    assert rs.open(tmp_path / "model.pth", assume="torchvision").architecture.heads


@pytest.mark.parametrize(
    ("between", "end", "reason"),
    [
        (nn.Dropout(), "", None),
        (nn.Tanh(), "", r"`fc\.0` is of the class `.*Tanh`"),
        (nn.Dropout(), "x = F.normalize(x)\n", r"with a forward that has `x = F\.normalize\(x\)`"),
    ],
    ids=["nothing", "another layer", "a function"],
)
def test_what_stands_between_a_backbone_with_text_and_its_classifier_is_seen(
    between: nn.Module, end: str, reason: str | None
) -> None:
    model: nn.Module = Wrapped()
    model.fc = nn.Sequential(between, model.fc)  # type: ignore[arg-type]
    source = open_source(saved(model), fc="fc.1")
    assert source.container
    node = at(source.container.root, source.found.path)
    assert isinstance(node, ModuleNode)
    body = STEM + STAGES + FLATTENED + end + "return x"
    node.layers["backbone"] = replace(node.layers["backbone"], source=text(body), kind="net.Net")  # type: ignore[index]
    claims = modules.says(node, source.found.names, recognise(source.tensors), settled=False)
    if reason is None:
        assert len([*claims]) == 2
        return
    with pytest.raises(ArchitectureError, match=reason):
        list(claims)


@pytest.mark.parametrize(
    ("pooling", "is_told"),
    [("self.avgpool(x)", True), ("F.adaptive_max_pool2d(x, 1)", False), ("2 * self.avgpool(x)", False)],
)
def test_a_classifier_that_is_left_out_may_follow_a_mean_alone(pooling: str, is_told: bool) -> None:
    source = open_source(saved(small_network()), fc="none")
    assert source.container
    node = at(source.container.root, source.found.path)
    assert isinstance(node, ModuleNode)
    own = text(f"{STEM}{STAGES}return self.fc(torch.flatten({pooling}, 1))")
    node.layers[""] = replace(node.layers[""], source=own, kind="net.Net")  # type: ignore[index]
    claims = modules.says(node, source.found.names, recognise(source.tensors), settled=False)
    if is_told:
        assert len([*claims]) == 2
        return
    with pytest.raises(ArchitectureError, match="with a forward that has `return self.fc"):
        list(claims)


def test_a_stem_in_a_sequential_does_not_hide_the_network_around_it(tmp_path: Path) -> None:
    """Without the text, its class is all that there is: the maxpool may stand outside of the stem."""
    torch.save(Net(True), tmp_path / "model.pth")
    with pytest.raises(ArchitectureError, match=r"the module is of the class `.*\.Net`"):
        rs.open(tmp_path / "model.pth")


AROUND = {
    "the network alone": ("return self.net(x)", None),
    "its argument by another name": ("y = self.net(x)\nreturn {'logits': y}", None),
    "a function of the logits": ("return F.softmax(self.net(x), 1)", r"`return F\.softmax\(self\.net\(x\), 1\)`"),
    "a function of the images": ("return self.net((x - 0.5) / 0.5)", r"0\.5\)`, which is not followed"),
}


@pytest.mark.parametrize("name", AROUND)
def test_a_forward_around_the_network_does_nothing_else(name: str) -> None:
    body, reason = AROUND[name]
    node, names, architecture = opened()
    around = Layer("net.Around", {}, has_hooks=False, source=text(body))
    changed = ModuleNode({"": around, **{f"net.{path}".rstrip("."): layer for path, layer in node.layers.items()}})
    changed.tensors = {f"net.{name}": tensor for name, tensor in node.tensors.items()}
    within = {ours: f"net.{own}" for ours, own in names.items()}
    if reason is None:
        assert [*modules.says(changed, within, architecture, settled=False)]
        assert not [*modules.warnings(changed, within, architecture)]
    else:
        with pytest.raises(ArchitectureError, match=reason):
            [*modules.says(changed, within, architecture, settled=False)]


@pytest.mark.parametrize(
    ("network", "around", "is_pooled"),
    [
        (f"{STEM}{STAGES}return x", None, False),
        (f"{STEM}{STAGES}return x.mean([2, 3])", None, True),
        (f"{STEM}{STAGES}return x", "return self.net(x)", False),
        (f"{STEM}{STAGES}return x", "return F.adaptive_avg_pool2d(self.net(x), 1).flatten(1)", True),
        (f"{STEM}{STAGES}return x.mean([2, 3])", "return self.net(x)", True),
    ],
    ids=["a map", "pooled", "a map within", "pooled around it", "pooled within"],
)
def test_the_text_tells_whether_a_network_without_a_classifier_pools(
    network: str, around: str | None, is_pooled: bool
) -> None:
    node, names, _ = opened()
    begin = "net." if around else ""
    layers = {f"{begin}{path}".rstrip("."): layer for path, layer in node.layers.items() if path != "fc"}
    layers[begin.rstrip(".")] = Layer("net.Net", {}, has_hooks=False, source=text(network))
    if around:
        layers[""] = Layer("net.Around", {}, has_hooks=False, source=text(around))
    changed = ModuleNode(layers)
    changed.tensors = {f"{begin}{name}": tensor for name, tensor in node.tensors.items() if not name.startswith("fc.")}
    within = {ours: f"{begin}{own}" for ours, own in names.items() if not ours.startswith("fc.")}
    architecture = recognise({ours: node.tensors[ours] for ours in within})  # type: ignore[misc]
    assert modules.pools(changed, within, architecture) is is_pooled
