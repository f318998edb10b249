"""What lies beside the stages: the classifier is fc, other parts are left out, and nothing in the data's way is."""

from __future__ import annotations

import io
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torchvision.models import ResNet

import resnet_surgeon as rs
from resnet_surgeon.arithmetic.laws import Constant
from resnet_surgeon.errors import CheckpointError
from resnet_surgeon.formats.tensors import Initialised
from resnet_surgeon.sources.wrappings import unwrap
from tests.fixtures import Run, images
from tests.work import calls

State = dict[str, torch.Tensor]


def saved(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def packed(model: ResNet, prefix: str, **modules: nn.Module) -> State:
    """The network without its fc, behind a prefix, and modules beside it."""
    state = {prefix + name: tensor for name, tensor in model.state_dict().items() if not name.startswith("fc.")}
    for path, module in modules.items():
        path = path.replace("__", ".")
        state |= {f"{path}.{name}" if path else name: tensor for name, tensor in module.state_dict().items()}
    return state


def mlp(*features: int) -> nn.Sequential:
    """Linear layers with an activation after each."""
    layers = [layer for pair in pairwise(features) for layer in (nn.Linear(*pair), nn.ReLU())]
    return nn.Sequential(*layers)


def wrapping(data: bytes, **opening: Any) -> Any:
    return rs.open(data, **opening).source.origin.wrapping


def refusal(data: bytes, **opening: Any) -> rs.SurgeonError:
    with pytest.raises(CheckpointError) as caught:
        rs.open(data, **opening)
    return caught.value


@pytest.mark.parametrize(
    ("prefix", "path"),
    [
        ("", "last_linear"),
        ("", "fc.1"),
        ("", "classifier"),
        ("", "head"),
        ("module.", "module.last_linear"),
        ("backbone.", "head.fc"),
        ("backbone.", "fc"),
        ("backbone.", "classifier"),
        ("model.backbone.", "model.classifier"),
        ("encoder_rgb_", "classifier"),
        ("backbone.", "diagnosis"),
    ],
)
def test_the_classifier_under_another_name_is_fc(prefix: str, path: str, basic: ResNet) -> None:
    data = saved(packed(basic, prefix, **{path.replace(".", "__"): basic.fc}))
    found = wrapping(data)
    assert (found.classifier, found.left_out) == (path, ())
    with torch.no_grad():
        assert torch.equal(rs.load(data).eval()(images()), basic(images()))
    assert rs.open(data).adapt(1).manifest().tensors["fc.bias"].provenance.tensor == f"{path}.bias"  # type: ignore[union-attr]


def test_fc_itself_has_no_other_name(basic: ResNet) -> None:
    assert wrapping(saved({f"module.{name}": tensor for name, tensor in basic.state_dict().items()})).classifier is None


@pytest.mark.parametrize(
    ("prefix", "paths"),
    [("backbone.", ["age", "gender"]), ("backbone.", ["backbone.fc", "classifier"]), ("", ["fc", "fc2"])],
    ids=str,
)
def test_of_several_classifiers_one_must_be_named(prefix: str, paths: list[str], basic: ResNet) -> None:
    heads: dict[str, nn.Module] = {
        path.replace(".", "__"): nn.Linear(512, 3 + number) for number, path in enumerate(paths)
    }
    data = saved(packed(basic, prefix, **heads))
    error = refusal(data)
    assert all(f"`{path}`" in error.reason for path in paths)
    assert [(answer.option, answer.value) for answer in error.answers] == [("fc", path) for path in [*paths, "none"]]
    for number, path in enumerate(paths):
        assert rs.open(data, fc=path).architecture.heads[0].classes == 3 + number
        assert set(wrapping(data, fc=path).left_out) == {
            f"{other}.{leaf}" for other in paths if other != path for leaf in ("weight", "bias")
        }
    none = rs.open(data, fc="none")
    assert none.architecture.output_kind == "embedding"
    assert none.source.origin.wrapping
    assert none.source.origin.wrapping.classifier == "none"


def computed(network: rs.Network, basic: ResNet, classifier: nn.Module) -> bool:
    """Whether it gives what the network gives with this classifier."""
    with torch.no_grad():
        features = nn.Sequential(*list(basic.children())[:-1])(images()).flatten(1)
        return torch.equal(rs.load(network).eval()(images()), classifier.eval()(features))


@pytest.mark.parametrize("path", ["fc", "classifier", "module.fc"])
def test_a_classifier_of_several_layers_is_kept_once_its_activation_is_said(path: str, basic: ResNet) -> None:
    classifier = nn.Sequential(
        nn.Linear(512, 64), nn.BatchNorm1d(64), nn.GELU(), nn.Dropout(), nn.Linear(64, 5, bias=False)
    )
    nn.init.normal_(classifier[1].get_buffer("running_mean"))
    prefix = path.rpartition("fc")[0] if "." in path else ""
    data = saved(packed(basic, prefix, **{path.replace(".", "__"): classifier}))
    answers = refusal(data).answers
    assert ("assume", "activation=gelu") in [(answer.option, answer.value) for answer in answers]
    network = rs.open(data, assume="activation=gelu")
    assert computed(network, basic, classifier)
    assert "fc.3 has no tensors: it is taken for a dropout of 0.5" in network.source.origin.warnings[0]
    assert rs.open(data, fc="none").architecture.output_kind == "embedding"


@pytest.mark.parametrize(
    "classifier",
    [
        nn.Sequential(nn.Linear(512, 64), nn.LayerNorm(64), nn.ReLU(), nn.Linear(64, 5)),
        nn.Sequential(nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 5)),
        nn.Sequential(nn.Linear(512, 64), nn.ReLU(), nn.Dropout(), nn.Identity(), nn.Linear(64, 5)),
        nn.Sequential(nn.Linear(512, 64), nn.ReLU(), nn.Linear(32, 5)),
    ],
    ids=["another norm", "a gap behind a norm", "three gaps", "misfit"],
)
def test_a_classifier_of_layers_that_cannot_be_told_is_refused(classifier: nn.Module, basic: ResNet) -> None:
    error = refusal(saved(packed(basic, "", fc=classifier)))
    assert "its classifier `fc` has several layers, `fc.0`, " in error.reason
    assert [(answer.option, answer.value) for answer in error.answers] == [("fc", "none")]


def test_a_norm_before_the_classifier_that_is_named_is_kept(basic: ResNet) -> None:
    neck, classifier = nn.BatchNorm1d(512), nn.Linear(512, 7, bias=False)
    nn.init.normal_(neck.running_mean)  # type: ignore[arg-type]
    data = saved(packed(basic, "base.", bottleneck=neck, classifier=classifier))
    as_torchvision = "strides=1-2-2-2"
    assert computed(rs.open(data, fc="classifier", assume=as_torchvision), basic, nn.Sequential(neck, classifier))
    assert rs.open(data, assume=as_torchvision).architecture.output_kind == "embedding"


def test_layers_before_the_one_that_is_named_are_in_the_way(basic: ResNet) -> None:
    data = saved(packed(basic, "", fc=mlp(512, 512, 5)))
    assert "the data passes through `fc.0`" in refusal(data, fc="fc.2").reason
    assert rs.open(data, fc="fc.2", ignore=["fc.0.*"]).architecture.heads[0].classes == 5


def test_a_head_beside_the_backbone_is_another_part(basic: ResNet) -> None:
    """It has five parts and linear layers, so it is no segmentation head, and nothing is dilated."""
    head = nn.Sequential(nn.Linear(512, 256), nn.BatchNorm1d(256), nn.ReLU(), nn.Dropout(), nn.Linear(256, 4))
    network = rs.open(saved(packed(basic, "backbone.", classifier=head)))
    assert {stage.dilation for stage in network.architecture.stages} == {1}
    assert network.architecture.output_kind == "embedding"


def test_basic_blocks_are_never_dilated(basic: ResNet) -> None:
    head = nn.Sequential(nn.Conv2d(512, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(), nn.Conv2d(8, 2, 1))
    network = rs.open(saved(packed(basic, "backbone.", classifier=head)))
    assert {stage.dilation for stage in network.architecture.stages} == {1}


class Exponent(nn.Module):
    """GeM pooling, as reports have it."""

    def __init__(self) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.ones(1) * 3)


IN_THE_WAY = [
    ("", "ca", nn.Conv2d(64, 4, 1), "ca.*"),
    ("", "layer5", nn.Conv2d(512, 512, 1), "layer5.*"),
    ("", "avgpool", Exponent(), "avgpool.*"),
    ("backbone.", "pool", Exponent(), "pool.*"),
    ("module.", "module.bn2", nn.BatchNorm2d(64), "module.bn2.*"),
    ("", "layer1.0.ca.fc1", nn.Conv2d(64, 4, 1), "layer*.*.ca.*"),
    ("backbone.0.", "backbone.0.layer2.0.gate", nn.Conv2d(64, 4, 1), "backbone.*.layer*.*.gate.*"),
]


@pytest.mark.parametrize(("prefix", "path", "module", "pattern"), IN_THE_WAY, ids=[case[1] for case in IN_THE_WAY])
def test_a_layer_in_the_datas_way_is_refused_until_it_may_go(
    prefix: str, path: str, module: nn.Module, pattern: str, basic: ResNet
) -> None:
    fc = {f"{prefix}fc".replace(".", "__"): basic.fc}
    data = saved(packed(basic, prefix, **fc, **{path.replace(".", "__"): module}))
    error = refusal(data)
    assert f"the data passes through `{pattern.removesuffix('.*')}`" in error.reason
    assert error.reason.endswith("is GeM pooling, by its exponent `p`)") == isinstance(module, Exponent)
    assert [(answer.option, answer.value) for answer in error.answers] == [("ignore", pattern)]
    network = rs.open(data, ignore=[pattern])
    assert network.architecture.heads[0].classes == 10
    assert network.source.origin.wrapping
    assert set(network.source.origin.wrapping.ignored) == {f"{path}.{name}" for name in module.state_dict()}


def test_a_tensor_of_the_network_itself_is_in_the_way(basic: ResNet) -> None:
    data = saved({**basic.state_dict(), "mean": torch.zeros(1, 3, 1, 1)})
    assert [answer.value for answer in refusal(data).answers] == ["mean"]
    assert rs.open(data, ignore="mean").architecture.heads


class Normalised(nn.Module):
    """As in networks trained to be robust."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("new_mean", torch.zeros(3, 1, 1))
        self.register_buffer("new_std", torch.ones(1, 3, 1, 1))


BEFORE_OR_BEHIND = [
    ("1.", "0", nn.BatchNorm2d(3), "0.*"),
    ("1.", "0", nn.Conv2d(1, 3, 1), "0.*"),
    ("net.", "pre", nn.Sequential(nn.Conv2d(9, 8, 3), nn.ReLU(), nn.Conv2d(8, 3, 1)), "pre.*"),
    ("module.model.", "module.normalizer", Normalised(), "module.normalizer.*"),
    ("resnet.", "out", nn.Linear(10, 4), "out.*"),
    ("0.", "2", nn.Linear(10, 4), "2.*"),
]


@pytest.mark.parametrize(
    ("prefix", "path", "module", "pattern"), BEFORE_OR_BEHIND, ids=[case[3] + case[0] for case in BEFORE_OR_BEHIND]
)
def test_what_makes_the_image_or_takes_the_classes_is_in_the_way(
    prefix: str, path: str, module: nn.Module, pattern: str, basic: ResNet
) -> None:
    """It stands around a whole ResNet with its fc."""
    data = saved(packed(basic, prefix, **{f"{prefix}fc".replace(".", "__"): basic.fc, path.replace(".", "__"): module}))
    error = refusal(data)
    assert f"the data passes through `{pattern.removesuffix('.*')}`" in error.reason
    assert (error.answers[0].option, error.answers[0].value) == ("ignore", pattern)
    assert rs.open(data, ignore=[pattern]).architecture.heads[0].classes == 10


def test_the_mean_of_labels_and_a_decoders_last_layer_are_in_nobodys_way(basic: ResNet) -> None:
    state = {f"net.{name}": tensor for name, tensor in basic.state_dict().items()}
    beside = {"label.mean": torch.zeros(()), "conv_last.weight": torch.zeros(3, 64, 1, 1)}
    assert set(wrapping(saved({**state, **beside})).left_out) == set(beside)


def test_a_batch_norm_neck_is_asked_about_and_left_out(basic: ResNet) -> None:
    """Re-identification networks compare what comes before it."""
    neck, classifier = nn.BatchNorm1d(512), nn.Linear(512, 751, bias=False)
    data = saved(packed(basic, "base.", bottleneck=neck, classifier=classifier))
    error = refusal(data)
    assert "a batch norm neck" in error.reason
    assert [answer.value for answer in error.answers] == ["reid", "strides=1-2-2-2"]
    assert rs.open(data, assume="reid").architecture.output_kind == "embedding"


def test_an_answer_keeps_what_was_stated_before(basic: ResNet) -> None:
    data = saved({**basic.state_dict(), "ca.weight": torch.zeros(1), "sa.weight": torch.zeros(1)})
    assert [answer.value for answer in refusal(data, ignore=["ca.*"]).answers] == ["ca.*,sa.*"]


@pytest.mark.parametrize(
    "path",
    [
        "decoder.0",
        "projector",
        "queue",
        "up1",
        "criterion",
        "neck",
        "segmentation_head.0",
        "rpn.head",
        "aux_classifier.4",
    ],
)
def test_other_parts_of_a_larger_model_are_left_out(path: str, basic: ResNet) -> None:
    data = saved({**basic.state_dict(), f"{path}.weight": torch.zeros(512, 512)})
    assert wrapping(data).left_out == (f"{path}.weight",)


def test_a_pattern_that_fits_nothing_is_refused(basic: ResNet) -> None:
    assert "--ignore `cbam.*` fits no tensor" in refusal(saved(basic.state_dict()), ignore=["cbam.*"]).reason
    assert "no tensor beside the network" in refusal(saved(basic.state_dict()), ignore=["layer4.*"]).reason


@pytest.mark.parametrize(
    ("fc", "reason"),
    [("heads", "no linear layer `heads`"), ("classifier", "takes 7 features, and the network has 512")],
)
def test_what_cannot_be_fc_is_refused(fc: str, reason: str, basic: ResNet) -> None:
    data = saved(packed(basic, "backbone.", classifier=nn.Linear(7, 3), age=nn.Linear(512, 2)))
    assert reason in refusal(data, fc=fc).reason


def test_inspect_says_what_must_be_stated(basic: ResNet) -> None:
    found = rs.inspect(saved({**basic.state_dict(), "ca.weight": torch.zeros(1)}))
    assert found.architecture is None
    assert found.problem
    assert "the data passes through `ca`" in found.problem


def test_the_answer_can_be_typed_and_verify_follows_it(basic: ResNet, run: Run, tmp_path: Path) -> None:
    (tmp_path / "cam.pth").write_bytes(saved({**packed(basic, "", last_linear=basic.fc), "ca.weight": torch.zeros(1)}))
    refused = run("adapt", "cam.pth", "--in-ch", "1")
    command = "resnet-surgeon adapt cam.pth --in-ch 1 --ignore 'ca.*'"
    assert f"hint: {command}  # leave them out: the result computes something else" in refused.stderr.decode()
    done = run("adapt", "cam.pth", "--in-ch", "1", "--ignore", "ca.*")
    assert "fc is its `last_linear`" in done.stderr.decode()
    assert "left out, as you stated: 1 tensor (ca)" in done.stderr.decode()
    assert rs.verify(tmp_path / "cam-in1.safetensors", against=tmp_path / "cam.pth").holds
    difference = rs.diff(tmp_path / "cam.pth", tmp_path / "cam-in1.safetensors", ignore=["ca.*"])
    assert [tensor.name for tensor in difference.tensors] == ["conv1.weight"]


def test_the_work_is_in_proportion_to_the_file() -> None:
    tensor = Initialised("F32", (1,), Constant(0.0), 0, "x")
    network = dict.fromkeys(["conv1.weight", "bn1.weight", "layer1.0.conv1.weight"], tensor)

    def work(count: int) -> int:
        beside = {f"layer1.{number}.ca{number}.weight": tensor for number in range(count)}
        beside |= {f"{'a.' * (number % 9)}m{number}.weight": tensor for number in range(count)}
        return calls(lambda: unwrap({**network, **beside}))

    assert work(4000) < 2.5 * work(2000)
